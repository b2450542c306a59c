//! Who may hold the server up, and who may fill its disk: one link, one part URL, or nothing but a network.
//!
//! The attackers come from an address of their own, 127.0.0.2; people, pods and the bot from 127.0.0.1.

use std::time::{Duration, Instant};

use bytes::Bytes;
use diagbot_base::retry::pause;
use diagbot_store_server::StoreServerConfig;
use jiff::SignedDuration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};

use super::{
    super::SignedUrl,
    fixture::{Fixture, PART, clock_late_by, head, send},
};

/// Longest wait of somebody honest: far beyond a slow machine, far below what the attacks took.
const BEARABLE: Duration = Duration::from_secs(5);
const SMALL: Bytes = Bytes::from_static(b"small");

/// Limits that end an attack within seconds.
fn quick(config: &mut StoreServerConfig) {
    config.max_connections = 12;
    config.limits.reserved_connections = 4;
    config.limits.peer_connections = 6;
    config.limits.peer_bodies = 2;
    config.limits.upload_bodies = 2;
    config.limits.turn_deadline = Duration::from_millis(300);
    config.limits.rate_window = Duration::from_millis(500);
    config.limits.least_bytes_per_s = 64 * 1024;
    config.limits.free_reserve_bytes = 0;
}

/// A connection of the attacker, with a small buffer.
async fn hostile(fixture: &Fixture) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let connected = timeout(BEARABLE, socket.connect(fixture.server.addr)).await;
    connected.expect("the system takes connections").unwrap()
}

/// How long the bot and a person wait for a small object.
async fn honest_waits(fixture: &Fixture, what: &str) {
    let key = fixture.store.key(&["honest.txt"]);
    let started = Instant::now();
    let put = timeout(BEARABLE, fixture.store.put(&key, SMALL, "text/plain")).await;
    let bot = started.elapsed();
    put.unwrap_or_else(|_| panic!("{what}: the bot waits")).unwrap();
    let link = fixture.store.link(&key, None, "honest.txt", true).await.unwrap();
    let started = Instant::now();
    let answer = timeout(BEARABLE, send("GET", &link, &[], Bytes::new())).await;
    let person = started.elapsed();
    let answer = answer.unwrap_or_else(|_| panic!("{what}: a person waits"));
    assert_eq!((answer.status, answer.body), (200, SMALL), "{what}");
    tell(&format!("{what}: a write of the bot took {bot:?}, a link {person:?}"));
}

fn tell(words: &str) {
    eprintln!("{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_never_read_keep_nobody_out() {
    let fixture = Fixture::with(quick, |_| {}).await;
    let store = &fixture.store;
    let key = store.key(&["large.bin"]);
    let large = Bytes::from(vec![7; 24 << 20]);
    store.put(&key, large, "text/plain").await.unwrap();
    let link = store.link(&key, None, "large.bin", true).await.unwrap();
    let mut readers = Vec::new();
    for _ in 0..12 {
        let mut reader = hostile(&fixture).await;
        reader.write_all(head("GET", &link, 0).as_bytes()).await.unwrap();
        readers.push(reader);
    }
    let served = async {
        // The first byte only: the answer has begun.
        readers[11].readable().await.unwrap();
    };
    let _refused_or_served = timeout(BEARABLE, served).await;
    honest_waits(&fixture, "12 readers that never read, 12 connections").await;
    let started = Instant::now();
    while !readers.is_empty() {
        readers.retain(|reader| {
            let mut beginning = [0; 16];
            let refused = reader
                .try_read(&mut beginning)
                .is_ok_and(|n| !beginning[..n].ends_with(b"200 OK\r"));
            !refused && reader.take_error().unwrap().is_none()
        });
        assert!(started.elapsed() < Duration::from_secs(20), "{} stay", readers.len());
        pause(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let fixture = Fixture::with(quick, |_| {}).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(hostile(&fixture).await);
    }
    honest_waits(&fixture, "40 silent connections, room for 12").await;
    // The same from the honest address.
    for _ in 0..40 {
        silent.push(TcpStream::connect(fixture.server.addr).await.unwrap());
    }
    honest_waits(&fixture, "and 40 of the same address").await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn trickled_bodies_end_and_keep_nobody_out() {
    let quick = |config: &mut StoreServerConfig| {
        quick(config);
        config.max_connections = 100;
        config.limits.peer_connections = 60;
    };
    let fixture = Fixture::with(quick, |_| {}).await;
    let store = &fixture.store;
    let key = store.key(&["trickled.bin"]);
    let upload = store.open_upload(&key, "text/plain", &[]).await.unwrap();
    let url = part_url(&fixture, &key, &upload).await;
    let mut senders = JoinSet::new();
    for _ in 0..40 {
        let mut stream = hostile(&fixture).await;
        stream.write_all(head("PUT", &url, 900_000).as_bytes()).await.unwrap();
        senders.spawn(trickle(stream));
    }
    honest_waits(&fixture, "40 trickled bodies of one part URL").await;
    let other = store.key(&["honest.bin"]);
    let started = Instant::now();
    let sent = timeout(BEARABLE, fixture.upload_as_pod(&other, &[SMALL])).await;
    sent.expect("another pod waits");
    tell(&format!("an upload of another pod took {:?}", started.elapsed()));
    let ended = timeout(Duration::from_secs(30), async {
        while let Some(answer) = senders.join_next().await {
            let answer = answer.unwrap();
            assert!(!answer.contains(" 200 "), "{answer}");
        }
    });
    ended.await.expect("every trickled body ends");
}

/// Sends a byte now and then until the other side has enough of it; returns the answer.
async fn trickle(mut stream: TcpStream) -> String {
    while stream.write_all(b"x").await.is_ok() {
        let mut answer = [0; 1024];
        match timeout(Duration::from_millis(20), stream.read(&mut answer)).await {
            Err(_) => {}
            Ok(read) => return String::from_utf8_lossy(&answer[..read.unwrap_or(0)]).into_owned(),
        }
    }
    String::new()
}

#[tokio::test]
async fn a_replaced_part_leaves_nothing_on_the_disk() {
    let fixture = Fixture::with(quick, |_| {}).await;
    let store = &fixture.store;
    let key = store.key(&["again.bin"]);
    let upload = store.open_upload(&key, "text/plain", &[]).await.unwrap();
    let url = part_url(&fixture, &key, &upload).await;
    for round in 0..6_u8 {
        let answer = send("PUT", &url, &[], vec![round; 1 << 20].into()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let files = fixture.content_files();
    let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    tell(&format!(
        "part 1 six times, 1 MiB each: {bytes} bytes in {} files",
        files.len()
    ));
    assert_eq!((files.len(), bytes), (1, 1 << 20));
}

#[tokio::test]
async fn a_url_takes_no_more_than_was_planned() {
    let few = |config: &mut StoreServerConfig| {
        quick(config);
        config.limits.url_versions = 2;
    };
    let fixture = Fixture::with(few, |_| {}).await;
    let store = &fixture.store;
    let key = store.key(&["planned.bin"]);
    let upload = store.open_upload(&key, "text/plain", &[]).await.unwrap();
    let url = part_url(&fixture, &key, &upload).await;
    let before = fixture.content_files();
    let long = send("PUT", &url, &[], vec![7; PART as usize + 1].into()).await;
    assert!(
        long.status == 400 && long.text().contains("EntityTooLarge"),
        "{}",
        long.text()
    );
    assert_eq!(fixture.content_files(), before);
    assert_eq!(send("PUT", &url, &[], vec![7; PART as usize].into()).await.status, 200);

    let put = store.presign_put(&key, SMALL.len() as u64).await.unwrap().url;
    let long = send("PUT", &put, &[], Bytes::from_static(b"smaller")).await;
    assert!(long.text().contains("EntityTooLarge"), "{}", long.text());
    assert_eq!(send("PUT", &put, &[], SMALL).await.status, 200);
    assert_eq!(send("PUT", &put, &[], SMALL).await.status, 200, "an answer may be lost");
    let often = send("PUT", &put, &[], SMALL).await;
    assert!(often.text().contains("SlowDown"), "{}", often.text());
    store.put(&key, SMALL, "text/plain").await.unwrap();
}

#[tokio::test]
async fn a_body_ends_soon_after_its_url() {
    let patient = |config: &mut StoreServerConfig| {
        quick(config);
        config.limits.rate_window = Duration::from_mins(1);
        config.limits.least_bytes_per_s = 1;
        config.limits.after_expiry = Duration::from_millis(200);
    };
    let fixture = Fixture::with(patient, |_| {}).await;
    // A URL of a part lives for an hour.
    let late = fixture
        .client(clock_late_by(SignedDuration::from_secs(3600 - 3)), |_| {})
        .await;
    let key = late.key(&["outlasts.bin"]);
    let upload = late.open_upload(&key, "text/plain", &[]).await.unwrap();
    let url = late
        .presign_parts(&key, &upload, 1, 1, PART)
        .await
        .unwrap()
        .urls
        .remove(0);
    let mut stream = hostile(&fixture).await;
    stream.write_all(head("PUT", &url, 900_000).as_bytes()).await.unwrap();
    let answer = timeout(Duration::from_secs(20), trickle(stream)).await;
    let answer = answer.expect("the body ends");
    assert!(answer.contains("the URL has ended"), "{answer}");
}

#[tokio::test]
async fn the_last_room_is_kept_for_small_objects_of_the_bot() {
    let full = |config: &mut StoreServerConfig| {
        quick(config);
        config.limits.free_reserve_bytes = 1 << 60;
    };
    let fixture = Fixture::with(full, |_| {}).await;
    let store = &fixture.store;
    let key = store.key(&["record.jsonl"]);
    store.put(&key, SMALL, "text/plain").await.unwrap();
    let refused = store.put(&key, vec![0; 2 << 20].into(), "text/plain").await;
    assert!(refused.is_err(), "a large object of the bot");
    let upload = store.open_upload(&key, "text/plain", &[]).await.unwrap();
    let url = part_url(&fixture, &key, &upload).await;
    let answer = send("PUT", &url, &[], SMALL).await;
    assert_eq!(answer.status, 507, "{}", answer.text());
    assert!(answer.text().contains("the store keeps its last"), "{}", answer.text());
}

#[tokio::test]
async fn a_link_of_the_future_is_refused_beyond_a_small_skew() {
    let fixture = Fixture::with(quick, |_| {}).await;
    let key = fixture.store.key(&["a.txt"]);
    fixture.store.put(&key, SMALL, "text/plain").await.unwrap();
    let status = async |minutes: i64| {
        let early = clock_late_by(SignedDuration::from_mins(-minutes));
        let early = fixture.client(early, |_| {}).await;
        let link = early.link(&key, None, "a.txt", true).await.unwrap();
        send("GET", &link, &[], Bytes::new()).await.status
    };
    assert_eq!((status(10).await, status(20).await), (200, 403));
}

async fn part_url(fixture: &Fixture, key: &super::super::ArtifactKey, upload: &super::super::UploadId) -> SignedUrl {
    let signed = fixture.store.presign_parts(key, upload, 1, 1, PART).await;
    signed.unwrap().urls.remove(0)
}
