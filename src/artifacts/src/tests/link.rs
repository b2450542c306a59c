//! Presigned URLs: what one is good for, and nothing else.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    super::{SignedUrl, StoreError},
    fixture::{Fixture, PART, clock_late_by, open, send, send_to},
};

const NONE: Bytes = Bytes::new();

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
    let expired = late
        .presign_parts(&key, &upload, 1, 1, PART)
        .await
        .unwrap()
        .urls
        .remove(0);
    let good = store
        .presign_parts(&key, &upload, 1, 1, PART)
        .await
        .unwrap()
        .urls
        .remove(0);
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
async fn send_whole_then_read(url: &SignedUrl) -> String {
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
    let url = store.presign_put(&mine, PART).await.unwrap().url;
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
