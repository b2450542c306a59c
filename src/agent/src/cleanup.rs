//! What we wrote into the target, and whether it is gone again. Only files that we made are removed.
//!
//! # Design notes
//! A JVM that was asked for a heap dump goes on writing when we stop listening, and may make the file only after we looked
//! for it. So a file that somebody else writes for us is removed at once, and once more when its writer has answered.

use std::{
    cell::RefCell,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
    rc::Rc,
    time::Duration,
};

use rustix::{
    fs::{AtFlags, Dir, unlinkat},
    io::Errno,
};
use tokio::{io::AsyncReadExt as _, net::UnixStream};

/// The record of files that were made in the target.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cleanup(Rc<RefCell<Record>>);

#[derive(Debug, Default)]
struct Record {
    removed: u32,
    left: Vec<String>,
    unfinished: Vec<Unfinished>,
}

/// A file whose writer had not ended when we stopped to wait for it.
#[derive(Debug)]
struct Unfinished {
    folder: OwnedFd,
    name: String,
    writer: OwnedFd,
    seen: bool,
}

/// A file that we make in the target; it is removed when this is dropped, on every way out.
#[derive(Debug)]
pub(crate) struct MadeFile {
    cleanup: Cleanup,
    folder: Option<OwnedFd>,
    name: String,
    writer: Option<OwnedFd>,
}

impl Cleanup {
    /// Takes charge of a file that is about to be made in `folder`. A file that never came to be counts as nothing.
    pub(crate) fn will_make(&self, folder: OwnedFd, name: &str) -> MadeFile {
        MadeFile {
            cleanup: self.clone(),
            folder: Some(folder),
            name: name.to_owned(),
            writer: None,
        }
    }

    /// Waits at most `grace` for those who still write for us, and removes what they wrote; then nothing of ours comes to
    /// be any more. Tells how many files were removed, and the names of those that could not be, or may still come.
    pub(crate) async fn settle(&self, grace: Duration) -> (u32, Vec<String>) {
        let unfinished = std::mem::take(&mut self.0.borrow_mut().unfinished);
        let end = tokio::time::Instant::now() + grace;
        for file in unfinished {
            let ended = tokio::time::timeout_at(end, ended(file.writer)).await.is_ok();
            let mut record = self.0.borrow_mut();
            let seen = record.remove(&file.folder, &file.name) || file.seen;
            if !ended && !seen {
                record.left.push(file.name);
            }
        }
        let record = self.0.borrow();
        (record.removed, record.left.clone())
    }
}

/// Waits until the other side has closed the stream.
async fn ended(writer: OwnedFd) {
    let stream = StdStream::from(writer);
    // Without a runtime's help there is nothing to wait for; the file counts as one that may still come.
    let Ok(mut stream) = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream)) else {
        return std::future::pending().await;
    };
    let mut answer = [0; 512];
    while stream.read(&mut answer).await.is_ok_and(|read| read > 0) {}
}

impl Record {
    /// Removes a file and the pieces (`<name>.p0`, …) that newer JVMs merge into it. Whether there was the file itself.
    fn remove(&mut self, folder: &OwnedFd, name: &str) -> bool {
        let prefix = format!("{name}.p");
        let entries = Dir::read_from(folder).into_iter().flatten().flatten();
        let pieces: Vec<_> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|piece| piece.starts_with(&prefix))
            .collect();
        for piece in pieces {
            self.unlink(folder, &piece);
        }
        self.unlink(folder, name)
    }

    fn unlink(&mut self, folder: &OwnedFd, name: &str) -> bool {
        match unlinkat(folder.as_fd(), name, AtFlags::empty()) {
            Ok(()) => {
                self.removed += 1;
                true
            }
            Err(Errno::NOENT) => false,
            Err(_) => {
                self.left.push(name.to_owned());
                true
            }
        }
    }
}

impl MadeFile {
    /// The file's name in its folder.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The file turned out to be somebody else's: it stays.
    pub(crate) fn forget(mut self) {
        self.folder = None;
    }

    /// Somebody else writes the file, and closes this stream when it is done.
    pub(crate) fn written_by(&mut self, writer: OwnedFd) {
        self.writer = Some(writer);
    }

    /// Whoever wrote the file is done with it.
    pub(crate) fn is_written(&mut self) {
        self.writer = None;
    }
}

impl Drop for MadeFile {
    fn drop(&mut self) {
        let Some(folder) = self.folder.take() else { return };
        let mut record = self.cleanup.0.borrow_mut();
        let seen = record.remove(&folder, &self.name);
        if let Some(writer) = self.writer.take() {
            record.unfinished.push(Unfinished {
                folder,
                name: std::mem::take(&mut self.name),
                writer,
                seen,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, os::fd::OwnedFd};

    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn folder() -> (tempfile::TempDir, OwnedFd) {
        let folder = tempfile::tempdir().expect("a folder");
        let held = OwnedFd::from(fs::File::open(folder.path()).expect("it opens"));
        (folder, held)
    }

    #[tokio::test]
    async fn a_file_that_its_writer_makes_after_we_left_is_removed_too() {
        let (folder, held) = folder();
        let cleanup = Cleanup::default();
        let (ours, mut jvm) = StdStream::pair().expect("a pair");
        let mut made = cleanup.will_make(held, "dump");
        made.written_by(ours.into());
        drop(made);
        fs::write(folder.path().join("dump"), "late").expect("write");
        fs::write(folder.path().join("dump.p0"), "late").expect("write");
        fs::write(folder.path().join("dumpling"), "not ours").expect("write");
        jvm.write_all(b"0\nHeap dump file created").expect("an answer");
        drop(jvm);
        assert_eq!(cleanup.settle(GRACE).await, (2, Vec::new()));
        let left: Vec<_> = fs::read_dir(folder.path()).expect("a folder").flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[tokio::test]
    async fn a_writer_that_never_ends_is_not_told_as_cleaned_up() {
        let (_folder, held) = folder();
        let cleanup = Cleanup::default();
        let (ours, _jvm) = StdStream::pair().expect("a pair");
        let mut made = cleanup.will_make(held, "dump");
        made.written_by(ours.into());
        drop(made);
        let grace = Duration::from_millis(20);
        assert_eq!(cleanup.settle(grace).await, (0, vec!["dump".to_owned()]));
    }

    #[tokio::test]
    async fn what_can_not_be_removed_is_named() {
        let (folder, held) = folder();
        let cleanup = Cleanup::default();
        let made = cleanup.will_make(held, "dump");
        // The target has put a folder in its place.
        fs::create_dir(folder.path().join("dump")).expect("a folder");
        drop(made);
        assert_eq!(cleanup.settle(GRACE).await, (0, vec!["dump".to_owned()]));
    }

    #[tokio::test]
    async fn what_is_not_ours_stays() {
        let (folder, held) = folder();
        let cleanup = Cleanup::default();
        fs::write(folder.path().join("theirs"), "x").expect("write");
        cleanup.will_make(held, "theirs").forget();
        assert_eq!(cleanup.settle(GRACE).await, (0, Vec::new()));
        assert!(folder.path().join("theirs").exists());
    }
}
