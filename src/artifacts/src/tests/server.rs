//! The server by itself: restarts, sweeps, keys, certificates, settings.

use bytes::Bytes;
use diagbot_base::clock::Clock;
use diagbot_store_server::{StoreServer, TlsFiles};
use http_body_util::StreamBody;
use hyper::body::Frame;

use super::{
    super::{Encryption, Finding, Outcome, Proof, StoreError},
    fixture::{Fixture, PART, report, send, server_config, two_parts, wait_until, write_keys},
};

const NONE: Bytes = Bytes::new();

fn works(finding: &Finding) -> bool {
    finding.outcome != Outcome::Fails
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
    let tls = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/tls");
    let files = TlsFiles {
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
    assert!(odd.is_empty() && probe.findings.iter().all(works), "{odd:?}");
    assert_eq!(probe.proof, Some(Proof::StoreChecked));
    assert!(fixture.content_files().is_empty(), "{:?}", fixture.content_files());

    fixture.server.stop().await;
    let away = Fixture::start().await;
    let store = away
        .client(Clock::System, |config| {
            config.endpoint = Some("http://127.0.0.1:9".to_owned());
        })
        .await;
    assert!(!store.probe().await.findings.iter().all(works));
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
    let put = sealed.presign_put(&key, PART).await.unwrap();
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
    let plain = fixture.store.presign_put(&key, PART).await.unwrap();
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
