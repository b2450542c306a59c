//! The client against the real server, over sockets, in one process.

mod archive;
mod fixture;

use bytes::Bytes;
use diagbot_wire::digest::PartMd5;
use http_body_util::StreamBody;
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use self::fixture::{
    Fixture, LossyProxy, PART, clock_late_by, report, send, send_to, server_config, two_parts, write_keys,
};
use super::{Encryption, Outcome, Proof, StoreError, store::StoreServer};
use crate::{clock::Clock, retry::Permanence as _};

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
    let stolen = store.presign_parts(&key, &upload, 2, 1).await.unwrap();
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
    let url = store.presign_parts(&key, &upload, 1, 1).await.unwrap().urls.remove(0);
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
    let put = store.presign_put(&store.key(&["cut.json"])).await.unwrap().url;
    cut_off(&put, 600_000).await;

    wait_until("the server let go of the cut bodies", || {
        fixture.content_files() == before
    })
    .await;
    assert!(store.list_parts(&key, &upload).await.unwrap().is_empty());
    assert_eq!(store.read_small(&store.key(&["cut.json"]), 10).await, Ok(None));
}

/// Announces a body and closes the connection after `bytes` of it.
async fn cut_off(url: &super::SignedUrl, bytes: usize) {
    let mut stream = open(url, 900_000).await;
    stream.write_all(&vec![7; bytes]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A connection on which a PUT of that length was announced.
async fn open(url: &super::SignedUrl, length: usize) -> TcpStream {
    let url = url::Url::parse(url.expose()).unwrap();
    let address = (url.host_str().unwrap(), url.port().unwrap());
    let mut stream = TcpStream::connect(address).await.unwrap();
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let head = format!("PUT {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        crate::retry::pause(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_link_is_good_for_what_it_was_signed_for_and_nothing_else() {
    let fixture = Fixture::start().await;
    let store = &fixture.store;
    let (key, other) = (store.key(&["mine.txt"]), store.key(&["other.txt"]));
    store
        .put(&key, Bytes::from_static(b"mine"), "text/plain")
        .await
        .unwrap();
    store
        .put(&other, Bytes::from_static(b"other"), "text/plain")
        .await
        .unwrap();
    let link = store.link(&key, None, "mine.txt", true).await.unwrap();
    let url = link.expose().to_owned();
    assert_eq!(send_to("GET", &url, &[], NONE).await.body.as_ref(), b"mine");

    let last = url.chars().last().unwrap();
    let tampered = format!("{}{}", &url[..url.len() - 1], if last == '0' { '1' } else { '0' });
    let refused = [
        ("GET", tampered.clone(), None),
        ("GET", url.replace("mine.txt?", "other.txt?"), None),
        // (3,600 s or one less: the clock may tick while it is signed.)
        ("GET", url.replace("X-Amz-Expires=", "X-Amz-Expires=1"), None),
        ("GET", url.replace("attachment", "inline"), None),
        ("PUT", url.clone(), None),
        ("DELETE", url.clone(), None),
        (
            "GET",
            url.clone(),
            Some(("x-amz-copy-source", "/evidence/diagbot/other.txt")),
        ),
        ("GET", url[..url.find('?').unwrap()].to_owned(), None),
    ];
    for (method, url, header) in refused {
        let answer = send_to(method, &url, header.as_slice(), NONE).await;
        assert_eq!(answer.status, 403, "{method}: {}", answer.text());
    }

    let late = fixture
        .client(clock_late_by(SignedDuration::from_hours(2)), |_| {})
        .await;
    let expired = late.link(&key, None, "mine.txt", true).await.unwrap();
    assert!(expired.expires_at < Timestamp::now());
    assert_eq!(
        send("GET", &expired, &[], NONE).await.status,
        403,
        "an hour was given, two have passed"
    );
    let lasting = late.link(&key, None, "mine.txt", false).await.unwrap();
    assert_eq!(send("GET", &lasting, &[], NONE).await.status, 200, "a day was given");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_refused_while_it_sends_reads_why() {
    let fixture = Fixture::start().await;
    let store = &fixture.store;
    let key = store.key(&["refused.bin"]);
    let upload = store.open_upload(&key, "text/plain", &[]).await.unwrap();
    let late = fixture
        .client(clock_late_by(SignedDuration::from_hours(2)), |_| {})
        .await;
    let expired = late.presign_parts(&key, &upload, 1, 1).await.unwrap().urls.remove(0);
    let good = store.presign_parts(&key, &upload, 1, 1).await.unwrap().urls.remove(0);
    store.abort(&key, &upload).await.unwrap();
    for _ in 0..3 {
        let answer = send_whole_then_read(&expired).await;
        assert!(
            answer.contains("403 Forbidden") && answer.contains("expired"),
            "{answer}"
        );
        let answer = send_whole_then_read(&good).await;
        assert!(answer.contains("NoSuchUpload"), "{answer}");
    }
}

/// A client that looks for the answer only after it has sent everything: 8 MiB.
async fn send_whole_then_read(url: &super::SignedUrl) -> String {
    let mut stream = open(url, 8_388_608).await;
    stream.write_all(&vec![7; 8_388_608]).await.expect("nobody hangs up");
    let mut answer = vec![0; 4096];
    let count = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

#[tokio::test]
async fn an_upload_url_can_not_be_turned_into_a_copy_of_another_object() {
    let fixture = Fixture::start().await;
    let store = &fixture.store;
    store
        .put(&store.key(&["secret"]), Bytes::from_static(b"secret"), "text/plain")
        .await
        .unwrap();
    let mine = store.key(&["result.json"]);
    let url = store.presign_put(&mine).await.unwrap().url;
    for header in ["x-amz-copy-source", "x-amz-meta-a", "x-amz-tagging", "x-amz-acl"] {
        let answer = send("PUT", &url, &[(header, "/evidence/diagbot/secret")], NONE).await;
        assert_eq!(answer.status, 403, "{header}: {}", answer.text());
    }
    assert_eq!(store.read_small(&mine, 10).await, Ok(None));
    assert_eq!(send("PUT", &url, &[], Bytes::from_static(b"{}")).await.status, 200);
    assert_eq!(store.read_small(&mine, 10).await, Ok(Some(Bytes::from_static(b"{}"))));
    assert!(matches!(
        store.read_small(&mine, 1).await,
        Err(StoreError::TooLong { .. })
    ));
}

#[tokio::test]
async fn a_restarted_server_knows_its_uploads_and_objects() {
    let fixture = Fixture::start().await;
    let key = fixture.store.key(&["restart.bin"]);
    let parts = two_parts(5);
    let upload = fixture.upload_as_pod(&key, &parts).await;
    let (folder, listen) = (fixture.folder, fixture.server.addr);
    fixture.server.stop().await;
    let unreachable = fixture.store.read_small(&key, 10).await.unwrap_err();
    assert!(matches!(unreachable, StoreError::Unreachable { .. }), "{unreachable}");
    assert!(!unreachable.to_string().contains("http"), "{unreachable}");

    let mut config = server_config(&folder);
    config.listen = listen;
    let server = StoreServer::start(config).await.unwrap();
    let found = fixture.store.open_uploads().await.unwrap();
    assert_eq!(
        found.iter().map(|(key, id, _)| (key, id)).collect::<Vec<_>>(),
        [(&key, &upload)]
    );
    let stored = fixture
        .store
        .complete(&key, &upload, &report(&parts), PART)
        .await
        .unwrap();
    assert_eq!(stored.proof, Proof::StoreChecked);
    server.stop().await;
}

#[tokio::test]
async fn unfinished_uploads_and_old_objects_are_swept() {
    let age = std::time::Duration::from_millis(1);
    let fixture = Fixture::start().await;
    let key = fixture.store.key(&["old.txt"]);
    fixture
        .store
        .put(&key, Bytes::from_static(b"old"), "text/plain")
        .await
        .unwrap();
    fixture.store.open_upload(&key, "text/plain", &[]).await.unwrap();
    let (folder, listen) = (fixture.folder, fixture.server.addr);
    fixture.server.stop().await;
    let mut config = server_config(&folder);
    (config.listen, config.unfinished_uploads_after, config.objects_after) = (listen, age, Some(age));
    let _server = StoreServer::start(config).await.unwrap();
    let uploads = folder.path().join("data/evidence/uploads");
    let object = folder.path().join("data/evidence/objects/diagbot/old.txt,v");
    let is_empty =
        |path: &std::path::Path| std::fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
    wait_until("what is old is gone", || is_empty(&uploads) && is_empty(&object)).await;
    assert_eq!(fixture.store.read_small(&key, 10).await, Ok(None));
}

#[tokio::test]
async fn rotated_keys_are_used_at_once_by_server_and_client() {
    let fixture = Fixture::start().await;
    let key = fixture.store.key(&["a"]);
    fixture.store.put(&key, NONE, "text/plain").await.unwrap();
    let link = fixture.store.link(&key, None, "a", false).await.unwrap();
    write_keys(&fixture.folder, "another-much-longer-secret");
    assert_eq!(fixture.store.read_small(&key, 10).await, Ok(Some(NONE)));
    assert_eq!(
        send("GET", &link, &[], NONE).await.status,
        403,
        "signed with the former secret"
    );

    std::fs::write(fixture.folder.path().join("access"), "NOBODY").unwrap();
    let error = fixture.store.read_small(&key, 10).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    std::fs::remove_file(fixture.folder.path().join("access")).unwrap();
    let error = fixture.store.read_small(&key, 10).await.unwrap_err();
    assert!(matches!(error, StoreError::ExpiredCredentials { .. }), "{error}");
    let error = fixture.store.link(&key, None, "a", false).await.unwrap_err();
    assert!(matches!(error, StoreError::ExpiredCredentials { .. }), "{error}");
}

#[tokio::test]
async fn what_the_server_can_not_keep_as_a_promise_it_refuses() {
    let sse = Fixture::with(|_| {}, |client| client.encryption = Encryption::Kms("key".to_owned())).await;
    let key = sse.store.key(&["a"]);
    let error = sse.store.put(&key, NONE, "text/plain").await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Other { code, .. } if code == "NotImplemented"),
        "{error}"
    );
    let error = sse.store.open_upload(&key, "text/plain", &[]).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Other { code, .. } if code == "NotImplemented"),
        "{error}"
    );
}

#[tokio::test]
async fn a_store_with_its_own_authority_is_trusted_by_its_certificate_only() {
    let tls = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/artifacts/tests/tls");
    let files = super::store::TlsFiles {
        cert_file: tls.join("server.pem"),
        key_file: tls.join("server.key"),
    };
    let ca = tls.join("ca.pem");
    let fixture = Fixture::with(|server| server.tls = Some(files), |client| client.ca_file = Some(ca)).await;
    assert!(fixture.server.url().starts_with("https://"));
    let probe = fixture.store.probe().await;
    let odd: Vec<_> = probe.findings.iter().filter(|f| f.outcome != Outcome::Works).collect();
    assert!(odd.is_empty(), "{odd:?}");
    assert!(
        fixture
            .store
            .ca_pem_for_pods()
            .is_some_and(|pem| pem.contains("BEGIN CERTIFICATE"))
    );

    let stranger = fixture.client(Clock::System, |_| {}).await;
    let error = stranger
        .put(&stranger.key(&["a"]), NONE, "text/plain")
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn settings_that_point_elsewhere_are_told_apart() {
    let fixture = Fixture::start().await;
    let key = fixture.store.key(&["a"]);
    let region = fixture
        .client(Clock::System, |config| config.region = Some("eu-west-1".to_owned()))
        .await;
    let error = region.put(&key, NONE, "text/plain").await.unwrap_err();
    assert!(matches!(error, StoreError::WrongRegion { .. }), "{error}");
    let bucket = fixture
        .client(Clock::System, |config| "no-such".clone_into(&mut config.bucket))
        .await;
    let error = bucket.put(&key, NONE, "text/plain").await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn the_probe_finds_everything_in_order_and_leaves_nothing() {
    let fixture = Fixture::start().await;
    let probe = fixture.store.probe().await;
    let odd: Vec<_> = probe.findings.iter().filter(|f| f.outcome != Outcome::Works).collect();
    assert!(odd.is_empty() && probe.is_usable(), "{odd:?}");
    assert_eq!(probe.proof, Some(Proof::StoreChecked));
    assert!(fixture.content_files().is_empty(), "{:?}", fixture.content_files());

    fixture.server.stop().await;
    let away = Fixture::start().await;
    let store = away
        .client(Clock::System, |config| {
            config.endpoint = Some("http://127.0.0.1:9".to_owned());
        })
        .await;
    assert!(!store.probe().await.is_usable());
}

#[tokio::test]
async fn the_url_of_a_small_object_carries_the_settings_for_encryption() {
    let fixture = Fixture::start().await;
    let sealed = fixture
        .client(Clock::System, |config| {
            config.encryption = Encryption::Kms("alias/evidence".to_owned());
        })
        .await;
    let key = sealed.key(&["result.json"]);
    let put = sealed.presign_put(&key).await.unwrap();
    let header = |name: &str| {
        put.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(header("x-amz-server-side-encryption"), Some("aws:kms"));
    assert_eq!(
        header("x-amz-server-side-encryption-aws-kms-key-id"),
        Some("alias/evidence")
    );
    for (name, _) in &put.headers {
        assert!(put.url.expose().contains(name), "{name} is signed");
    }
    let plain = fixture.store.presign_put(&key).await.unwrap();
    assert_eq!(plain.headers, [], "an older agent needs no header where nothing is set");
}

#[tokio::test]
async fn a_part_is_taken_as_it_comes_and_one_that_breaks_off_is_not() {
    let fixture = Fixture::start().await;
    let store = &fixture.store;
    let key = store.key(&["relayed.bin"]);
    let parts = two_parts(5);
    let upload = store.open_upload(&key, "application/octet-stream", &[]).await.unwrap();
    let body = |bytes: &Bytes, most: usize| {
        let pieces: Vec<_> = bytes[..most.min(bytes.len())]
            .chunks(32_000)
            .map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::copy_from_slice(piece))))
            .collect();
        StreamBody::new(futures::stream::iter(pieces))
    };
    let send = async |number: u32, most: usize| {
        let part = &parts[number as usize - 1];
        store
            .stream_part(&key, &upload, number, part.len() as u64, body(part, most))
            .await
    };
    send(2, usize::MAX).await.unwrap();
    send(1, 1_000_000).await.unwrap_err();
    let error = store.complete(&key, &upload, &report(&parts), PART).await;
    assert!(error.is_err(), "half a part is none");

    let upload = store.open_upload(&key, "application/octet-stream", &[]).await.unwrap();
    for (number, part) in (1..).zip(&parts) {
        store
            .stream_part(&key, &upload, number, part.len() as u64, body(part, usize::MAX))
            .await
            .unwrap();
    }
    let stored = store.complete(&key, &upload, &report(&parts), PART).await.unwrap();
    assert_eq!(stored.proof, Proof::StoreChecked);
}
