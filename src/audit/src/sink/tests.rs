use std::{fs, path::Path};

use diagbot_artifacts::StoreConfig;
use diagbot_store_server::{StoreServer, StoreServerConfig};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{Entry, Line, SinkState};

const CANCELS: usize = 5;

/// A sink with entries to store; its Lease can't be reached, which it only warns of.
async fn parts(folder: &Path, url: String, writer: &str, config: RecordConfig) -> SinkParts {
    fs::write(folder.join("access"), "DIAGBOT\n").unwrap();
    fs::write(folder.join("secret"), "diagbot-secret\n").unwrap();
    let mut store: StoreConfig = serde_saphyr::from_str("bucket: evidence\nregion: us-east-1\n").unwrap();
    store.endpoint = Some(url);
    store.access_key_file = Some(folder.join("access"));
    store.secret_key_file = Some(folder.join("secret"));
    let clock = Clock::default();
    let audit_log = AuditLog::new(writer, clock.clone());
    audit_log.attach();
    for run in 1..=CANCELS {
        audit_log.add(Event::Cancel {
            run: format!("d-{run}"),
            person: "slack:T1:U1".to_owned(),
        });
    }
    let nowhere = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
    SinkParts {
        audit_log,
        store: Store::connect(&store, clock.clone()).await.unwrap(),
        leases: Api::namespaced(kube::Client::try_from(nowhere).unwrap(), "diagbot"),
        config,
        clock,
        metrics: Metrics::new(),
    }
}

/// A store server of this process.
async fn server(folder: &Path) -> StoreServer {
    let keys = folder.join("keys.yaml");
    fs::write(&keys, "- {accessKey: DIAGBOT, secretKey: diagbot-secret}\n").unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = StoreServerConfig::new(listen, folder.join("data"), "evidence", keys);
    StoreServer::start(config).await.unwrap()
}

/// Entries of a writer, as the store has them.
async fn stored(store: &Store, writer: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for key in store.keys(&[FOLDER, writer]).await.unwrap() {
        let bytes = store.read_small(&key, MOST_BYTES).await.unwrap().unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let lines = text.lines().filter_map(Line::parse);
        entries.extend(lines.map(|line| serde_json::from_str::<Entry>(&line.entry).unwrap()));
    }
    entries
}

#[tokio::test]
async fn a_squatted_name_loses_no_entry() {
    let folder = TempDir::new().unwrap();
    let server = server(folder.path()).await;
    // Empty; other text; the beginning of a line of ours; a line of ours that somebody else's follows; too large.
    let line = |parts: &SinkParts| parts.audit_log.waiting(1).remove(0).line.render();
    let contents: [fn(String) -> Bytes; 5] = [
        |_| Bytes::new(),
        |_| Bytes::from_static(b"x"),
        |line| Bytes::from(line).slice(..10),
        |line| Bytes::from(line + "x\n"),
        |_| Bytes::from(vec![b'x'; MOST_BYTES + 1]),
    ];
    for (number, content) in contents.into_iter().enumerate() {
        let squatted = format!("bot-{number}");
        let parts = parts(folder.path(), server.url(), &squatted, RecordConfig::default()).await;
        let content = content(line(&parts));
        let key = parts.store.key(&[FOLDER, &squatted, "000000000001.jsonl"]);
        parts.store.put(&key, content.clone(), MEDIA_TYPE).await.unwrap();

        write_all(&parts).await;

        let writer = parts.audit_log.writer();
        assert!(writer.starts_with(&format!("{squatted}{NEXT}")), "{writer}");
        let kept = stored(&parts.store, &writer).await;
        let Event::Displaced {
            chain: former,
            stored: None,
            object,
        } = &kept[0].event
        else {
            panic!("{kept:?}");
        };
        assert_eq!((former, object.as_str()), (&squatted, key.as_str()));
        let runs: Vec<_> = kept.iter().filter_map(|entry| entry.event.run()).collect();
        assert_eq!(runs, ["d-1", "d-2", "d-3", "d-4", "d-5"], "case {number}");
        assert_eq!(parts.audit_log.sink_state(), SinkState::Works(1));
        let metrics = parts.metrics.encode();
        assert!(
            metrics.contains("diagbot_record_writes_total{outcome=\"displaced\"} 1"),
            "{metrics}"
        );
        let theirs = parts.store.read_small(&key, content.len()).await.unwrap();
        assert_eq!(theirs, Some(content), "nothing is overwritten");
    }
}

#[tokio::test]
async fn until_the_new_chain_is_stored_nothing_sensitive_begins() {
    let folder = TempDir::new().unwrap();
    let server = server(folder.path()).await;
    let parts = parts(folder.path(), server.url(), "bot-1", RecordConfig::default()).await;
    let key = parts.store.key(&[FOLDER, "bot-1", "000000000001.jsonl"]);
    parts
        .store
        .put(&key, Bytes::from_static(b"x"), MEDIA_TYPE)
        .await
        .unwrap();
    let batch = parts.audit_log.waiting(MOST_ENTRIES);
    let written = write(&parts, &batch).await.unwrap();
    assert_eq!(written, Written::Displaced(key.as_str().to_owned()));
    parts.audit_log.displaced(new_name("bot-1"), key.as_str().to_owned());
    assert!(parts.audit_log.room_for(true).is_err() && parts.audit_log.room_for(false).is_ok());
    assert_eq!(parts.audit_log.sink_state(), SinkState::Displaced);
    write_all(&parts).await;
    assert!(parts.audit_log.room_for(true).is_ok());
}

#[tokio::test]
async fn an_object_whose_answer_was_lost_is_ours() {
    let folder = TempDir::new().unwrap();
    let server = server(folder.path()).await;
    let parts = parts(folder.path(), server.url(), "bot-1", RecordConfig::default()).await;
    let batch = parts.audit_log.waiting(MOST_ENTRIES);
    assert_eq!(write(&parts, &batch[..3]).await, Ok(Written::Stored(3)));
    assert_eq!(write(&parts, &batch).await, Ok(Written::Stored(3)));
    write_all(&parts).await;
    assert_eq!(parts.audit_log.writer(), "bot-1");
    assert_eq!(stored(&parts.store, "bot-1").await.len(), CANCELS + 1);
}

/// Answers one request with 200, and gives its head.
async fn one_request(listener: TcpListener) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut bytes = Vec::new();
    loop {
        stream.read_buf(&mut bytes).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.unwrap().parse().unwrap() {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            return head.to_owned();
        }
    }
}

#[tokio::test]
async fn objects_are_locked_for_the_configured_days() {
    for lock_days in [None, Some(400)] {
        let folder = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let parts = parts(folder.path(), url, "bot-1", RecordConfig { lock_days }).await;
        let now = parts.clock.now();
        let batch = parts.audit_log.waiting(MOST_ENTRIES);
        let (written, head) = tokio::join!(write(&parts, &batch), one_request(listener));
        assert_eq!(written, Ok(Written::Stored(batch.len())));
        let header = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        assert!(
            head.starts_with("put ") && header("if-none-match") == Some("*"),
            "{head}"
        );
        let until = header("x-amz-object-lock-retain-until-date");
        let Some(days) = lock_days else {
            assert_eq!((header("x-amz-object-lock-mode"), until), (None, None));
            continue;
        };
        assert_eq!(header("x-amz-object-lock-mode"), Some("compliance"));
        // The SDK signs what it sends: a lock that is stripped on the way is refused.
        assert!(
            header("authorization").is_some_and(|a| a.contains("x-amz-object-lock-mode")),
            "{head}"
        );
        let until: jiff::Timestamp = until.unwrap().to_uppercase().parse().unwrap();
        let locked = until.duration_since(now).as_hours();
        assert!(
            (i64::from(days) * 24 - 1..=i64::from(days) * 24).contains(&locked),
            "{head}"
        );
    }
}
