//! What is on the disk, and how it gets there. Owns the layout; all of it is blocking file work.
//!
//! ```text
//! <folder>/<bucket>/objects/<key's segments>,v/<version>/{object.json, <parts>}
//!                  /uploads/<upload id>/{upload.json, 00001.json, 00001-<random>}
//!                  /incoming/<random>         emptied at start
//! ```
//!
//! # Design notes
//! An object's content stays in the files it came in; completing an upload renames its folder to a version's folder and
//! copies nothing. A version never changes (but for its tags): what replaces an object is a further version, and a link
//! names one. Files of parts have random names and the version's record names them, so that a part that arrives while its
//! upload is completed changes nothing. The file of a part that is replaced goes at once: a URL for a part is good for the
//! room of one part.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use rand::Rng as _;
use s3s::{S3Error, S3ErrorCode};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    names::{ObjectName, key_of},
    records::{ObjectRecord, PartRecord, UploadRecord},
};

const OBJECT_FILE: &str = "object.json";
const UPLOAD_FILE: &str = "upload.json";
const PART_SUFFIX: &str = ".json";
/// Most keys that a listing looks at; keys are held in memory while they are sorted.
const MOST_KEYS: usize = 200_000;

/// The bucket's folder.
#[derive(Debug)]
pub(super) struct Disk {
    bucket: PathBuf,
    /// Held from a look whether an object exists to the rename that makes it, and while tags change.
    commits: Mutex<i64>,
    /// Held while a part is replaced, and from a look at an upload's parts to the rename that makes them an object.
    parts: Mutex<()>,
}

/// A file or folder in `incoming`, removed when it is dropped before it was moved on.
#[derive(Debug)]
pub(super) struct Incoming(PathBuf);

impl Incoming {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // It is gone where it was moved on; what can't be removed now is removed at the next start.
        let _ = fs::remove_file(&self.0).or_else(|_| fs::remove_dir_all(&self.0));
    }
}

impl Disk {
    /// Makes the folders and removes what a crash left in `incoming`.
    pub(super) fn open(folder: &Path, bucket: &str) -> io::Result<Self> {
        let bucket = folder.join(bucket);
        let disk = Self {
            bucket,
            commits: Mutex::new(0),
            parts: Mutex::new(()),
        };
        match fs::remove_dir_all(disk.incoming()) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for folder in [disk.objects(), disk.uploads(), disk.incoming()] {
            fs::create_dir_all(folder)?;
        }
        Ok(disk)
    }

    fn objects(&self) -> PathBuf {
        self.bucket.join("objects")
    }

    fn uploads(&self) -> PathBuf {
        self.bucket.join("uploads")
    }

    fn incoming(&self) -> PathBuf {
        self.bucket.join("incoming")
    }

    /// The folder of an upload. The id comes from a client: anything but our own form finds nothing.
    pub(super) fn upload_folder(&self, id: &str) -> Option<PathBuf> {
        let fits = id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        fits.then(|| self.uploads().join(id))
    }

    /// A fresh path in `incoming`.
    pub(super) fn incoming_path(&self) -> Incoming {
        Incoming(self.incoming().join(random_name()))
    }

    /// Serialises commits; the value is the time of the last version, in microseconds.
    pub(super) fn commit_lock(&self) -> MutexGuard<'_, i64> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that this process may still write.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let found = rustix::fs::statvfs(&self.bucket)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// How many versions an object has.
    pub(super) fn version_count(&self, name: &ObjectName) -> io::Result<usize> {
        Ok(self.versions(name)?.len())
    }

    /// Makes a received file the part of that number, instead of the one that was.
    pub(super) fn add_part(&self, folder: &Path, received: &Path, record: &PartRecord) -> io::Result<()> {
        let _lock = self.parts_lock();
        let place = folder.join(part_file(record.number));
        let former: Option<PartRecord> = read_record(&place)?;
        fs::rename(received, folder.join(&record.file.name))?;
        write_record(&place, record, Lasting::Written)?;
        match former {
            Some(former) => fs::remove_file(folder.join(former.file.name)),
            None => Ok(()),
        }
    }

    /// Keeps the parts of uploads as they are.
    pub(super) fn parts_lock(&self) -> MutexGuard<'_, ()> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest version, or that one.
    pub(super) fn find(
        &self,
        name: &ObjectName,
        version: Option<&str>,
    ) -> io::Result<Option<(String, PathBuf, ObjectRecord)>> {
        let versions = match version {
            Some(version) if is_version(version) => vec![version.to_owned()],
            Some(_) => Vec::new(),
            None => self.versions(name)?,
        };
        for version in versions {
            let folder = self.objects().join(name.place()).join(&version);
            if let Some(record) = read_record(&folder.join(OBJECT_FILE))? {
                return Ok(Some((version, folder, record)));
            }
        }
        Ok(None)
    }

    /// Versions, newest first.
    fn versions(&self, name: &ObjectName) -> io::Result<Vec<String>> {
        let mut versions = entries(&self.objects().join(name.place()))?;
        versions.retain(|version| is_version(version));
        versions.sort_unstable_by(|a, b| b.cmp(a));
        Ok(versions)
    }

    /// Makes `folder`, which holds the content, the newest version of an object.
    pub(super) fn commit(
        &self,
        last: &mut MutexGuard<'_, i64>,
        name: &ObjectName,
        folder: &Path,
        record: &ObjectRecord,
    ) -> io::Result<String> {
        write_record(&folder.join(OBJECT_FILE), record, Lasting::Synced)?;
        sync_folder(folder)?;
        let place = self.objects().join(name.place());
        fs::create_dir_all(&place)?;
        **last = record.stored_at.as_microsecond().max(**last + 1);
        let version = format!("{:016x}{:08x}", **last, rand::rng().random::<u32>());
        fs::rename(folder, place.join(&version))?;
        sync_folder(&place)?;
        Ok(version)
    }

    /// Removes a version, or all of them.
    pub(super) fn remove(&self, name: &ObjectName, version: Option<&str>) -> io::Result<()> {
        let place = self.objects().join(name.place());
        match version {
            Some(version) if is_version(version) => self.discard(&place.join(version))?,
            Some(_) => return Ok(()),
            None => self.discard(&place)?,
        }
        // Folders that became empty go; one that did not stays, and the look upwards ends.
        let objects = self.objects();
        for folder in place.ancestors().take_while(|folder| *folder != objects) {
            if fs::remove_dir(folder).is_err_and(|error| error.kind() != ErrorKind::NotFound) {
                break;
            }
        }
        Ok(())
    }

    /// Removes a folder, in one step for whoever looks.
    pub(super) fn discard(&self, folder: &Path) -> io::Result<()> {
        let rubbish = self.incoming_path();
        match fs::rename(folder, rubbish.path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    /// Keys that begin with `prefix`, in the order of their bytes.
    pub(super) fn keys(&self, prefix: &str) -> io::Result<Vec<String>> {
        let mut keys = Vec::new();
        let objects = self.objects();
        let mut pending = vec![PathBuf::new()];
        while let Some(folder) = pending.pop() {
            for entry in entries(&objects.join(&folder))? {
                let place = folder.join(&entry);
                match key_of(&place) {
                    Some(key) if key.starts_with(prefix) => keys.push(key),
                    Some(_) => {}
                    None => pending.push(place),
                }
            }
            if keys.len() > MOST_KEYS {
                return Err(io::Error::other("too many keys for one listing; give a longer prefix"));
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }

    /// Opens an upload.
    pub(super) fn open_upload(&self, record: &UploadRecord) -> io::Result<String> {
        let folder = self.incoming_path();
        fs::create_dir(folder.path())?;
        write_record(&folder.path().join(UPLOAD_FILE), record, Lasting::Written)?;
        let id = random_name();
        fs::rename(folder.path(), self.uploads().join(&id))?;
        Ok(id)
    }

    /// Unfinished uploads.
    pub(super) fn open_uploads(&self) -> io::Result<Vec<(String, UploadRecord)>> {
        let mut found = Vec::new();
        for id in entries(&self.uploads())? {
            if let Some(record) = read_record(&self.uploads().join(&id).join(UPLOAD_FILE))? {
                found.push((id, record));
            }
        }
        Ok(found)
    }

    /// Removes uploads and objects that are older than allowed; returns how many.
    pub(super) fn sweep(
        &self,
        uploads_before: Timestamp,
        objects_before: Option<Timestamp>,
    ) -> io::Result<(usize, usize)> {
        let mut removed = (0, 0);
        for (id, upload) in self.open_uploads()? {
            if upload.opened_at < uploads_before {
                self.discard(&self.uploads().join(id))?;
                removed.0 += 1;
            }
        }
        let Some(objects_before) = objects_before else {
            return Ok(removed);
        };
        for key in self.keys("")? {
            let Ok(name) = ObjectName::parse(&key) else { continue };
            for version in self.versions(&name)? {
                let found = self.find(&name, Some(&version))?;
                if found.is_some_and(|(_, _, record)| record.stored_at < objects_before) {
                    self.remove(&name, Some(&version))?;
                    removed.1 += 1;
                }
            }
        }
        Ok(removed)
    }
}

/// Replaces the record of the version in `folder` (its tags).
pub(super) fn rewrite(folder: &Path, record: &ObjectRecord) -> io::Result<()> {
    write_record(&folder.join(OBJECT_FILE), record, Lasting::Synced)
}

/// The record of an upload, of which `folder` is the folder.
pub(super) fn upload_record(folder: &Path) -> io::Result<Option<UploadRecord>> {
    read_record(&folder.join(UPLOAD_FILE))
}

/// Whether every file of an object to be is in `folder`.
pub(super) fn holds(folder: &Path, record: &ObjectRecord) -> bool {
    record.files.iter().all(|file| folder.join(&file.name).exists())
}

/// Parts of an upload, in order.
pub(super) fn parts(folder: &Path) -> io::Result<Vec<PartRecord>> {
    let mut parts: Vec<PartRecord> = Vec::new();
    for entry in entries(folder)? {
        let is_part = entry
            .strip_suffix(PART_SUFFIX)
            .is_some_and(|number| number.parse::<i32>().is_ok());
        if is_part && let Some(part) = read_record(&folder.join(entry))? {
            parts.push(part);
        }
    }
    parts.sort_unstable_by_key(|part| part.number);
    Ok(parts)
}

/// Removes what a version's folder holds besides its record and content.
pub(super) fn tidy(folder: &Path, record: &ObjectRecord) -> io::Result<()> {
    for entry in entries(folder)? {
        if entry != OBJECT_FILE && record.files.iter().all(|file| file.name != entry) {
            fs::remove_file(folder.join(entry))?;
        }
    }
    Ok(())
}

/// A file name for the content of a part.
pub(super) fn content_name(number: i32) -> String {
    format!("{number:05}-{}", random_name())
}

fn part_file(number: i32) -> String {
    format!("{number:05}{PART_SUFFIX}")
}

fn random_name() -> String {
    format!("{:032x}", rand::rng().random::<u128>())
}

fn is_version(text: &str) -> bool {
    text.len() == 24 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Names in a folder; none where there is no folder.
fn entries(folder: &Path) -> io::Result<Vec<String>> {
    let listed = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut names = Vec::new();
    for entry in listed {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// A record; `None` where there is none, or where a crash cut it off.
fn read_record<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How long a record must last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasting {
    /// Through a power cut.
    Synced,
    /// Through the end of the process. Enough for uploads: one that a power cut took is noticed and made again.
    Written,
}

/// Writes a record so that it is seen whole or not at all.
fn write_record<T: Serialize>(path: &Path, record: &T, lasting: Lasting) -> io::Result<()> {
    let fresh = path.with_extension(format!("{}.new", random_name()));
    let written = (|| {
        let mut file = File::create_new(&fresh)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        if lasting == Lasting::Synced {
            file.sync_data()?;
        }
        fs::rename(&fresh, path)
    })();
    if written.is_err() {
        // The write's own error is the one to tell.
        let _ = fs::remove_file(&fresh);
    }
    written
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The answer to what the disk has no room for.
pub(super) fn no_room(message: &'static str) -> S3Error {
    let mut answer = S3Error::new(S3ErrorCode::Custom("InsufficientStorage".into()));
    answer.set_message(message);
    answer.set_status_code(http::StatusCode::INSUFFICIENT_STORAGE);
    answer
}

/// A file system's error as the store's answer.
pub(super) fn storage_fault(error: &io::Error) -> S3Error {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            tracing::warn!("the store's folder has no room left");
            no_room("the store has no room left")
        }
        _ => {
            tracing::warn!(%error, "the store's folder can't be used");
            S3Error::with_message(S3ErrorCode::InternalError, "the store's folder can't be used")
        }
    }
}
