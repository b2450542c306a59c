//! What we wrote into the target, and whether it is gone again. Only files that we made are removed.

use std::{
    cell::RefCell,
    os::fd::{AsFd as _, OwnedFd},
    rc::Rc,
};

use rustix::fs::{AtFlags, unlinkat};

/// The record of files that were made in the target.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cleanup(Rc<RefCell<Record>>);

#[derive(Debug, Default)]
struct Record {
    removed: u32,
    left: Vec<String>,
}

/// A file that we make in the target; it is removed when this is dropped, on every way out.
#[derive(Debug)]
pub(crate) struct MadeFile {
    cleanup: Cleanup,
    folder: OwnedFd,
    name: String,
    ours: bool,
}

impl Cleanup {
    /// Takes charge of a file that is about to be made in `folder`. A file that never came to be counts as nothing.
    pub(crate) fn will_make(&self, folder: OwnedFd, name: &str) -> MadeFile {
        MadeFile {
            cleanup: self.clone(),
            folder,
            name: name.to_owned(),
            ours: true,
        }
    }

    /// How many files were removed, and the names of those that could not be.
    pub(crate) fn outcome(&self) -> (u32, Vec<String>) {
        let record = self.0.borrow();
        (record.removed, record.left.clone())
    }
}

impl MadeFile {
    /// The file's name in its folder.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The file turned out to be somebody else's: it stays.
    pub(crate) fn forget(mut self) {
        self.ours = false;
    }
}

impl Drop for MadeFile {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        let mut record = self.cleanup.0.borrow_mut();
        match unlinkat(self.folder.as_fd(), self.name.as_str(), AtFlags::empty()) {
            Ok(()) => record.removed += 1,
            Err(rustix::io::Errno::NOENT) => {}
            Err(_) => record.left.push(self.name.clone()),
        }
    }
}
