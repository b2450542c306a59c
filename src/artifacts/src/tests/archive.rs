//! Archives of what is in the store.

use std::process::Command;

use bytes::Bytes;
use diagbot_wire::digest::sha256_hex;
use jiff::Timestamp;
use tempfile::TempDir;

use super::fixture::{Fixture, PART, report, send, two_parts};
use crate::{ArchiveFile, ArtifactKey, Content, Proof, Store, StoreError};

async fn stored(fixture: &Fixture, name: &str, parts: &[Bytes]) -> ArchiveFile {
    let key = fixture.store.key(&[name]);
    let upload = fixture.upload_as_pod(&key, parts).await;
    let report = report(parts);
    let stored = fixture.store.complete(&key, &upload, &report, PART).await.unwrap();
    ArchiveFile {
        folder: "d-1/000-checkout".to_owned(),
        name: name.to_owned(),
        content: Content::Object {
            key,
            version: stored.version,
            size_bytes: report.digests.size_bytes,
            sha256: report.digests.sha256,
        },
    }
}

fn text(name: &str) -> ArchiveFile {
    ArchiveFile {
        folder: "d-1".to_owned(),
        name: name.to_owned(),
        content: Content::Bytes(Bytes::from_static(b"{}")),
    }
}

async fn archive(store: &Store, key: &ArtifactKey, files: &[ArchiveFile]) -> Result<super::super::Archive, StoreError> {
    let at = Timestamp::from_second(1_800_000_000).unwrap();
    store.archive(key, files, at, &[]).await
}

#[tokio::test]
async fn an_archive_is_unpacked_by_tar_proven_by_the_store_and_written_once() {
    let fixture = Fixture::start().await;
    let parts = two_parts(3);
    let files = [
        text("manifest.json"),
        stored(&fixture, "threads.txt", &parts).await,
        stored(&fixture, "heap.hprof", &parts).await,
    ];
    let key = fixture.store.key(&["_bundles", "1", "d-1.tar"]);
    let made = archive(&fixture.store, &key, &files).await.unwrap();
    assert_eq!(made.proof, Proof::StoreChecked);

    let link = fixture
        .store
        .link(&key, made.version.as_deref(), "d-1.tar", true)
        .await
        .unwrap();
    let body = send("GET", &link, &[], Bytes::new()).await.body;
    assert_eq!(
        (body.len() as u64, sha256_hex(&body)),
        (made.size_bytes, made.sha256.clone())
    );
    assert_eq!(made.size_bytes, Store::archive_length(&files));
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("d-1.tar"), &body).unwrap();
    let unpacked = Command::new("tar")
        .args(["-xf", "d-1.tar"])
        .current_dir(&folder)
        .status()
        .unwrap();
    assert!(unpacked.success());
    let read = |path: &str| std::fs::read(folder.path().join(path)).unwrap();
    assert_eq!(read("d-1/manifest.json"), b"{}");
    assert_eq!(read("d-1/000-checkout/threads.txt"), parts.concat());
    assert_eq!(read("d-1/000-checkout/heap.hprof"), parts.concat());

    let objects = fixture.content_files().len();
    assert_eq!(archive(&fixture.store, &key, &files).await.unwrap(), made);
    assert_eq!(fixture.content_files().len(), objects, "it was found");
}

#[tokio::test]
async fn what_is_not_as_it_was_captured_makes_no_archive_and_leaves_no_upload() {
    let fixture = Fixture::start().await;
    let mut file = stored(&fixture, "threads.txt", &two_parts(4)).await;
    if let Content::Object { sha256, .. } = &mut file.content {
        *sha256 = "0".repeat(64);
    }
    let key = fixture.store.key(&["_bundles", "1", "d-1.tar"]);
    let error = archive(&fixture.store, &key, &[file]).await.unwrap_err();
    assert!(matches!(error, StoreError::Mismatch { .. }), "{error}");
    assert!(fixture.store.open_uploads().await.unwrap().is_empty());
}
