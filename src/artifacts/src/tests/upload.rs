//! Uploads: proven, repeated, damaged, cut off.

use bytes::Bytes;
use diagbot_base::{clock::Clock, retry::Permanence as _};
use diagbot_wire::digest::PartMd5;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    super::{Proof, SignedUrl, StoreError},
    fixture::{Fixture, LossyProxy, PART, open, report, send, two_parts, wait_until},
};

const NONE: Bytes = Bytes::new();

#[tokio::test]
async fn an_upload_by_presigned_urls_is_proven_by_the_store_and_linked_as_one_version() {
    let fixture = Fixture::start().await;
    let store = &fixture.store;
    let key = store.key(&["local", "shop", "pod-x", "threads.txt"]);
    let parts = two_parts(0);
    let upload = fixture.upload_as_pod(&key, &parts).await;

    let stored = store.complete(&key, &upload, &report(&parts), PART).await.unwrap();
    assert_eq!(stored.proof, Proof::StoreChecked);

    let link = store
        .link(&key, stored.version.as_deref(), "threads.txt", false)
        .await
        .unwrap();
    store
        .put(&key, Bytes::from_static(b"put later with a stolen URL"), "text/plain")
        .await
        .unwrap();
    let answer = send("GET", &link, &[], NONE).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        answer.body,
        parts.concat(),
        "the link shows the version it was made for"
    );
    assert_eq!(
        answer.header("content-disposition"),
        "attachment; filename=\"threads.txt\""
    );
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");

    let range = send("GET", &link, &[("range", "bytes=8388600-8388611")], NONE).await;
    assert_eq!(
        (range.status, range.body.as_ref()),
        (206, &parts.concat()[8_388_600..8_388_612])
    );
}

#[tokio::test]
async fn a_store_that_ignores_whole_object_checksums_is_found_out_and_read_back() {
    let fixture = Fixture::with(|server| server.full_object_checksums = false, |_| {}).await;
    let store = &fixture.store;
    let key = store.key(&["a.bin"]);
    let parts = two_parts(1);
    let upload = fixture.upload_as_pod(&key, &parts).await;
    let stored = store.complete(&key, &upload, &report(&parts), PART).await.unwrap();
    assert_eq!(stored.proof, Proof::ReadBack);

    let key = store.key(&["b.bin"]);
    let upload = fixture.upload_as_pod(&key, &parts).await;
    let mut wrong = report(&parts);
    wrong.digests.sha256 = "0".repeat(64);
    let error = store.complete(&key, &upload, &wrong, PART).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Mismatch { .. }) && error.is_permanent(),
        "{error}"
    );
    assert_eq!(store.read_small(&key, 10).await, Ok(None), "nothing is left to link to");
}

#[tokio::test]
async fn an_empty_artifact_is_stored_and_proven() {
    let fixture = Fixture::start().await;
    let key = fixture.store.key(&["empty.txt"]);
    let parts = [NONE];
    let upload = fixture.upload_as_pod(&key, &parts).await;
    let stored = fixture
        .store
        .complete(&key, &upload, &report(&parts), PART)
        .await
        .unwrap();
    assert_eq!(stored.proof, Proof::StoreChecked);
    assert_eq!(fixture.store.read_small(&key, 10).await, Ok(Some(NONE)));
}

#[tokio::test]
async fn completing_and_aborting_are_repeatable_even_when_the_answer_was_lost() {
    let fixture = Fixture::start().await;
    let proxy = LossyProxy::start(&fixture.server, "<CompleteMultipartUpload").await;
    let store = fixture
        .client(Clock::System, |config| config.endpoint = Some(proxy.url.clone()))
        .await;
    let key = store.key(&["lost.bin"]);
    let parts = two_parts(2);
    let upload = fixture.upload_as_pod(&key, &parts).await;
    // The probe completes uploads too; it is over before answers get lost.
    store.capabilities().await.unwrap();
    proxy.lose(1);
    let first = store.complete(&key, &upload, &report(&parts), PART).await.unwrap();
    assert_eq!(proxy.left(), 0, "the answer was lost");
    assert_eq!(
        store.complete(&key, &upload, &report(&parts), PART).await,
        Ok(first),
        "again"
    );

    let other = report(&two_parts(3));
    let error = store.complete(&key, &upload, &other, PART).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Mismatch { .. }),
        "another artifact is not taken for this one: {error}"
    );
    assert!(
        store.head(&key, None).await.is_ok(),
        "what was proven before is not removed"
    );

    assert_eq!(store.abort(&key, &upload).await, Ok(()));
    let upload = store.open_upload(&key, "text/plain", &[]).await.unwrap();
    assert_eq!(store.abort(&key, &upload).await, Ok(()));
    assert_eq!(store.abort(&key, &upload).await, Ok(()));
    let error = store
        .complete(&store.key(&["never"]), &upload, &other, PART)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn a_part_that_was_replaced_after_the_report_is_noticed_and_removed() {
    let fixture = Fixture::start().await;
    let store = &fixture.store;
    let key = store.key(&["replaced.bin"]);
    let parts = two_parts(4);
    let upload = fixture.upload_as_pod(&key, &parts).await;
    let stolen = store.presign_parts(&key, &upload, 2, 1, PART).await.unwrap();
    let same_length = Bytes::from_static(b"the END 4\n");
    assert_eq!(send("PUT", &stolen.urls[0], &[], same_length.clone()).await.status, 200);
    let error = store.complete(&key, &upload, &report(&parts), PART).await.unwrap_err();
    assert!(matches!(error, StoreError::Mismatch { .. }), "{error}");
    assert!(store.open_uploads().await.unwrap().is_empty(), "the upload is gone");
    assert_eq!(send("PUT", &stolen.urls[0], &[], same_length).await.status, 404);
}

#[tokio::test]
async fn damaged_cut_and_oversized_bodies_leave_nothing_behind() {
    let fixture = Fixture::with(|server| server.max_body_bytes = 1_000_000, |_| {}).await;
    let store = &fixture.store;
    let key = store.key(&["damaged.bin"]);
    let upload = store.open_upload(&key, "text/plain", &[]).await.unwrap();
    let url = store
        .presign_parts(&key, &upload, 1, 1, PART)
        .await
        .unwrap()
        .urls
        .remove(0);
    let before = fixture.content_files();

    let other_md5 = PartMd5::of(b"else").content_md5();
    let damaged = send(
        "PUT",
        &url,
        &[("content-md5", &other_md5)],
        Bytes::from_static(b"damaged"),
    )
    .await;
    assert!(
        damaged.status == 400 && damaged.text().contains("BadDigest"),
        "{}",
        damaged.text()
    );
    let long = send("PUT", &url, &[], vec![0; 1_000_001].into()).await;
    assert!(long.text().contains("EntityTooLarge"), "{}", long.text());
    cut_off(&url, 600_000).await;
    let put = store.presign_put(&store.key(&["cut.json"]), PART).await.unwrap().url;
    cut_off(&put, 600_000).await;

    wait_until("the server let go of the cut bodies", || {
        fixture.content_files() == before
    })
    .await;
    assert!(store.list_parts(&key, &upload).await.unwrap().is_empty());
    assert_eq!(store.read_small(&store.key(&["cut.json"]), 10).await, Ok(None));
}

/// Announces a body and closes the connection after `bytes` of it.
async fn cut_off(url: &SignedUrl, bytes: usize) {
    let mut stream = open(url, 900_000).await;
    stream.write_all(&vec![7; bytes]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
}
