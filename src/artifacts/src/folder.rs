//! A folder of this machine as the place of artifacts: for who runs a capture themselves.
//!
//! Owns the files that it makes there, and nothing else in the folder. An artifact appears under its name only once it is
//! whole and proven; nothing that was there is ever written over, and what was not completed is removed, at the latest when
//! the last handle of the folder goes.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use diagbot_wire::{digest::Hasher, result::ArtifactReport};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use md5::{Digest as _, Md5};
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use super::{
    ArtifactKey, Proof, StoreError, Stored, UploadId,
    verify::{ListedPart, compare, compare_parts},
};

/// Only who ran it may read it: what is captured may be sensitive.
const MODE: u32 = 0o600;
/// Names that are tried for one artifact before its folder counts as full of them.
const MOST_NAMES: u32 = 1_000;
/// What is read at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Why a folder can't take artifacts.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It is not there, or is no folder.
    #[error("{} is not a folder", .0.display())]
    Missing(PathBuf),
    /// Nothing can be written there.
    #[error("nothing can be written to the folder {}", path.display())]
    Unwritable {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Folder(Arc<FolderState>);

#[derive(Debug)]
struct FolderState {
    path: PathBuf,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    /// By upload.
    partial: BTreeMap<String, Partial>,
    /// By key.
    kept: BTreeMap<String, PathBuf>,
}

#[derive(Debug)]
struct Partial {
    path: PathBuf,
    parts: BTreeMap<u32, ListedPart>,
}

impl Drop for FolderState {
    fn drop(&mut self) {
        let files = self.files.get_mut().unwrap_or_else(PoisonError::into_inner);
        for partial in files.partial.values() {
            // Nobody is left to hear that it could not be removed.
            fs::remove_file(&partial.path).ok();
        }
    }
}

impl Folder {
    /// Tries whether files can be made in the folder: before anything is begun that would need them.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        if !path.is_dir() {
            return Err(FolderError::Missing(path.to_owned()));
        }
        let trial = path.join(format!(".diagbot-{:016x}.trial", rand::random::<u64>()));
        let written = create(&trial).and_then(|_| fs::remove_file(&trial));
        written.map_err(|source| FolderError::Unwritable {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self(Arc::new(FolderState {
            path: path.to_owned(),
            files: Mutex::default(),
        })))
    }

    /// The file of a completed artifact.
    pub fn file(&self, key: &str) -> Option<PathBuf> {
        self.files().kept.get(key).cloned()
    }

    /// Makes the file that an artifact grows in.
    pub(super) fn open_upload(&self) -> Result<UploadId, StoreError> {
        let id = format!("{:016x}", rand::random::<u64>());
        let path = self.0.path.join(format!(".diagbot-{id}.partial"));
        create(&path).map_err(|error| StoreError::file("make a file", &error))?;
        let parts = BTreeMap::new();
        self.files().partial.insert(id.clone(), Partial { path, parts });
        Ok(UploadId(id))
    }

    /// Writes a part as its bytes come. One that was written before is replaced.
    pub(super) async fn write_part<B, E>(
        &self,
        upload: &UploadId,
        number: u32,
        offset: u64,
        body: B,
    ) -> Result<(), StoreError>
    where
        B: Body<Data = Bytes, Error = E> + Send,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let what = "write the artifact";
        let fault = |error: io::Error| StoreError::file(what, &error);
        let path = self.partial(upload)?;
        let mut file = tokio::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .await
            .map_err(fault)?;
        file.seek(io::SeekFrom::Start(offset)).await.map_err(fault)?;
        let mut md5 = Md5::new();
        let mut size_bytes = 0;
        let mut body = std::pin::pin!(body);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| StoreError::unreachable(what, &*error.into()))?;
            if let Ok(bytes) = frame.into_data() {
                md5.update(&bytes);
                size_bytes += bytes.len() as u64;
                file.write_all(&bytes).await.map_err(fault)?;
            }
        }
        file.flush().await.map_err(fault)?;
        let part = ListedPart {
            number,
            size_bytes,
            etag: hex::encode(md5.finalize()),
        };
        if let Some(partial) = self.files().partial.get_mut(upload.as_str()) {
            partial.parts.insert(number, part);
        }
        Ok(())
    }

    /// Whether the parts are those of the report.
    pub(super) fn compare(
        &self,
        upload: &UploadId,
        report: &ArtifactReport,
        part_size_bytes: u64,
    ) -> Result<(), StoreError> {
        let files = self.files();
        let partial = files.partial.get(upload.as_str()).ok_or_else(gone)?;
        let parts: Vec<ListedPart> = partial.parts.values().cloned().collect();
        compare_parts(&parts, report, part_size_bytes, true)
            .map_err(|detail| StoreError::mismatch("compare the parts", detail))
    }

    /// Reads the file back, and gives it its name if it is what was captured. Repeatable.
    pub(super) async fn complete(
        &self,
        key: &ArtifactKey,
        upload: &UploadId,
        report: &ArtifactReport,
        part_size_bytes: u64,
    ) -> Result<Stored, StoreError> {
        let stored = Stored {
            version: None,
            proof: Proof::ReadBack,
        };
        if self.file(key.as_str()).is_some() {
            return Ok(stored);
        }
        let proven = match self.compare(upload, report, part_size_bytes) {
            Ok(()) => self.prove(upload, report).await,
            error => error,
        };
        if let Err(error) = proven {
            self.abort(upload)?;
            return Err(error);
        }
        let wanted = key.as_str().rsplit('/').next().unwrap_or_default();
        let wanted = format!("{wanted}{}", report.suffix);
        let kept = publish(&self.partial(upload)?, &self.0.path, &wanted)
            .map_err(|error| StoreError::file("name the artifact", &error))?;
        let mut files = self.files();
        files.partial.remove(upload.as_str());
        files.kept.insert(key.as_str().to_owned(), kept);
        Ok(stored)
    }

    async fn prove(&self, upload: &UploadId, report: &ArtifactReport) -> Result<(), StoreError> {
        let what = "read the artifact back";
        let path = self.partial(upload)?;
        let read = tokio::task::spawn_blocking(move || read_back(&path)).await;
        let found = read
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|error| StoreError::file(what, &error))?
            .finish();
        compare(what, &found, &report.digests)
    }

    /// Removes what was written. That it is gone is no error.
    pub(super) fn abort(&self, upload: &UploadId) -> Result<(), StoreError> {
        let Some(partial) = self.files().partial.remove(upload.as_str()) else {
            return Ok(());
        };
        match fs::remove_file(&partial.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::file("remove the unfinished file", &error))
            }
            _ => Ok(()),
        }
    }

    fn partial(&self, upload: &UploadId) -> Result<PathBuf, StoreError> {
        let files = self.files();
        let partial = files.partial.get(upload.as_str()).ok_or_else(gone)?;
        Ok(partial.path.clone())
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)
}

fn gone() -> StoreError {
    StoreError::NotFound {
        call: "find the unfinished file",
        code: "gone".to_owned(),
    }
}

/// Hashes a file that must be on the disk before it counts.
fn read_back(path: &Path) -> io::Result<Hasher> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.sync_all()?;
    let mut hasher = Hasher::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher),
            read => hasher.update(&chunk[..read]),
        }
    }
}

/// Gives a file its name: `threads.txt`, or `threads-2.txt` where that is taken. A hard link fails where the name is taken,
/// so that two who finish at once never write over each other.
fn publish(partial: &Path, folder: &Path, wanted: &str) -> io::Result<PathBuf> {
    for number in 1..=MOST_NAMES {
        let path = folder.join(numbered(wanted, number));
        match fs::hard_link(partial, &path) {
            Ok(()) => {
                fs::remove_file(partial)?;
                return Ok(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // A file system without hard links: the name is taken by an empty file, which is then replaced.
            Err(_) => match create(&path) {
                Ok(_) => {
                    let renamed = fs::rename(partial, &path);
                    if renamed.is_err() {
                        fs::remove_file(&path).ok();
                    }
                    return renamed.map(|()| path);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            },
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// The number goes before the first dot, so that every ending stays.
fn numbered(name: &str, number: u32) -> String {
    match (number, name.split_once('.')) {
        (1, _) => name.to_owned(),
        (_, Some((stem, endings))) if !stem.is_empty() => format!("{stem}-{number}.{endings}"),
        _ => format!("{name}-{number}"),
    }
}

#[cfg(test)]
mod tests {
    use diagbot_wire::{
        digest::{MultipartEtag, PartMd5},
        result::Via,
    };
    use http_body_util::Full;

    use super::*;

    const PART: u64 = 8;

    fn report(parts: &[&'static [u8]]) -> ArtifactReport {
        let (mut hasher, mut etag) = (Hasher::default(), MultipartEtag::default());
        for part in parts {
            hasher.update(part);
            etag.push(PartMd5::of(part));
        }
        ArtifactReport {
            digests: hasher.finish(),
            parts: u32::try_from(parts.len()).expect("few parts"),
            etag: etag.finish(),
            via: Via::Relay,
            suffix: String::new(),
            preview: String::new(),
            findings: Vec::new(),
            note: String::new(),
            redaction: None,
        }
    }

    async fn keep(
        folder: &Folder,
        key: &str,
        parts: &[&'static [u8]],
        told: &ArtifactReport,
    ) -> Result<(), StoreError> {
        let key = ArtifactKey::build("terminal", &[key, "threads.txt"]);
        let upload = folder.open_upload()?;
        for (number, part) in (1_u32..).zip(parts) {
            let offset = u64::from(number - 1) * PART;
            folder
                .write_part(&upload, number, offset, Full::new(Bytes::from_static(part)))
                .await?;
        }
        folder.complete(&key, &upload, told, PART).await.map(|_| ())
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn whole_artifacts_get_names_of_their_own_and_nothing_is_written_over() {
        let place = tempfile::tempdir().expect("a folder");
        fs::write(place.path().join("threads.txt"), "mine").expect("write");
        let folder = Folder::open(place.path()).expect("writable");
        let parts: [&'static [u8]; 2] = [b"01234567", b"89"];
        for key in ["a", "b"] {
            keep(&folder, key, &parts, &report(&parts)).await.expect("kept");
        }
        assert_eq!(names(place.path()), ["threads-2.txt", "threads-3.txt", "threads.txt"]);
        let read = |name| fs::read_to_string(place.path().join(name)).expect("read");
        assert_eq!(
            (read("threads.txt"), read("threads-2.txt")),
            ("mine".into(), "0123456789".into())
        );
    }

    #[tokio::test]
    async fn what_is_not_what_was_captured_or_was_not_completed_leaves_no_file() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(place.path()).expect("writable");
        let damaged = keep(&folder, "a", &[b"01234567", b"8X"], &report(&[b"01234567", b"89"])).await;
        assert!(matches!(damaged, Err(StoreError::Mismatch { .. })), "{damaged:?}");
        folder.open_upload().expect("begun");
        assert_eq!(names(place.path()).len(), 1);
        drop(folder);
        assert!(names(place.path()).is_empty());
    }

    #[tokio::test]
    async fn a_write_that_fails_is_told_in_the_systems_words_and_leaves_no_file() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(place.path()).expect("writable");
        let upload = folder.open_upload().expect("begun");
        // No file system has room there.
        let beyond = u64::from(u32::MAX) << 30;
        let written = folder
            .write_part(&upload, 1, beyond, Full::new(Bytes::from_static(b"x")))
            .await;
        let error = written.expect_err("no room");
        assert!(matches!(&error, StoreError::File { .. }), "{error}");
        assert!(error.to_string().starts_with("write the artifact: "), "{error}");
        folder.abort(&upload).expect("removed");
        assert!(names(place.path()).is_empty());
        let missing = Folder::open(&place.path().join("none"));
        assert!(matches!(missing, Err(FolderError::Missing(_))));
        assert!(matches!(
            Folder::open(Path::new("/proc")),
            Err(FolderError::Unwritable { .. })
        ));
    }

    #[test]
    fn numbers_stand_before_the_endings() {
        assert_eq!(numbered("heap.hprof.gz", 2), "heap-2.hprof.gz");
        assert_eq!(numbered("core", 3), "core-3");
    }
}
