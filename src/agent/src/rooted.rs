//! Paths in the target's file system, opened so that the target can't lead us elsewhere.
//!
//! The target owns that file system and runs with our uid: a symbolic link or a swapped folder must not make us read or
//! remove anything outside it. So a root is held open, every path is resolved beneath it by the kernel (`openat2`), the last
//! component may be no link, and a file is only taken if it is regular, has one name and the expected owner.

use std::{
    fs::File,
    io::Read as _,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2},
    io::Errno,
};

/// A held folder of the target: its root, or a folder below.
#[derive(Debug)]
pub(crate) struct Rooted(OwnedFd);

/// Why a path in the target was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootedError {
    /// The kernel refused.
    #[error("open {path} in the target: {errno}")]
    Open {
        /// Path below the target's root.
        path: String,
        /// Its answer.
        errno: Errno,
    },
    /// Not the kind of file that we would have made.
    #[error("{path} in the target is {found}")]
    Unexpected {
        /// Path below the target's root.
        path: String,
        /// What is wrong with it.
        found: &'static str,
    },
}

impl RootedError {
    /// The kernel's answer, where there was one.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Open { errno, .. } => Some(*errno),
            Self::Unexpected { .. } => None,
        }
    }
}

impl Rooted {
    /// Holds the root of the process whose `/proc` folder is `folder`.
    pub(crate) fn root_of(folder: &Path) -> Result<Self, RootedError> {
        // The one magic link that we follow: the kernel's own, to the root of the pinned process.
        Self::at(&folder.join("root"))
    }

    /// Holds a folder that is not the target's to choose.
    pub(crate) fn at(path: &Path) -> Result<Self, RootedError> {
        open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map(Self)
            .map_err(|errno| RootedError::Open {
                path: "/".to_owned(),
                errno,
            })
    }

    /// Holds a folder below; links within the target's own root are followed.
    pub(crate) fn folder(&self, path: &str) -> Result<Self, RootedError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.open(
            path,
            flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
        .map(Self)
    }

    /// Makes a new, empty file in this folder, mode 0600.
    pub(crate) fn make(&self, name: &str) -> Result<OwnedFd, RootedError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.open(name, flags, Mode::RUSR | Mode::WUSR, LEAF)
    }

    /// Opens a regular file in this folder for reading, if it has one name and belongs to `owner`.
    pub(crate) fn read(&self, name: &str, owner: u32) -> Result<File, RootedError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = self.open(name, flags, Mode::empty(), LEAF)?;
        check(&file, name, FileType::RegularFile, owner)?;
        Ok(File::from(file))
    }

    /// The text of a regular file below, whoever owns it; links within the target's own root are followed. Cut at `max_bytes`.
    pub(crate) fn text(&self, path: &str, max_bytes: u64) -> Option<String> {
        // Not blocked by a pipe that the target put there.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = self.open(path, flags, Mode::empty(), resolve).ok()?;
        let stat = fstat(&file).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return None;
        }
        let mut bytes = Vec::new();
        File::from(file).take(max_bytes).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Opens the socket `name` in this folder as a path only, if it is one and belongs to `owner`.
    pub(crate) fn socket(&self, name: &str, owner: u32) -> Result<OwnedFd, RootedError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.open(name, flags, Mode::empty(), LEAF)?;
        check(&file, name, FileType::Socket, owner)?;
        Ok(file)
    }

    /// Another handle of this folder.
    pub(crate) fn handle(&self) -> Result<OwnedFd, RootedError> {
        self.0.try_clone().map_err(|error| RootedError::Open {
            path: ".".to_owned(),
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        })
    }

    fn open(&self, path: &str, flags: OFlags, mode: Mode, resolve: ResolveFlags) -> Result<OwnedFd, RootedError> {
        let relative = path.trim_start_matches('/');
        openat2(self.0.as_fd(), relative, flags, mode, resolve).map_err(|errno| RootedError::Open {
            path: path.to_owned(),
            errno,
        })
    }
}

/// For a name in a held folder: nothing but that folder, no link of any kind.
const LEAF: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_SYMLINKS);

/// Whether a file that was opened is what we would take: of this kind, of one name if it is a regular file, of this owner.
fn check(file: &OwnedFd, name: &str, kind: FileType, owner: u32) -> Result<(), RootedError> {
    let stat = fstat(file).map_err(|errno| RootedError::Open {
        path: name.to_owned(),
        errno,
    })?;
    let regular = kind == FileType::RegularFile;
    let found = if FileType::from_raw_mode(stat.st_mode) != kind {
        if regular { "not a regular file" } else { "not a socket" }
    } else if regular && stat.st_nlink != 1 {
        "a file with several names"
    } else if stat.st_uid != owner {
        "owned by somebody else"
    } else {
        return Ok(());
    };
    Err(RootedError::Unexpected {
        path: name.to_owned(),
        found,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder that looks like `/proc/<pid>`: its `root` leads to a file system of its own.
    fn target() -> (tempfile::TempDir, Rooted, u32) {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("files/tmp")).expect("folders");
        symlink(folder.path().join("files"), folder.path().join("root")).expect("a link");
        let root = Rooted::root_of(folder.path()).expect("a root");
        (folder, root, rustix::process::geteuid().as_raw())
    }

    #[test]
    fn a_link_or_a_second_name_or_a_foreign_owner_is_not_read() {
        let (folder, root, uid) = target();
        let tmp = folder.path().join("files/tmp");
        std::fs::write(tmp.join("good"), "x").expect("write");
        symlink("/etc/passwd", tmp.join("link")).expect("link");
        std::fs::write(tmp.join("twice"), "x").expect("write");
        std::fs::hard_link(tmp.join("twice"), tmp.join("again")).expect("second name");
        let held = root.folder("/tmp").expect("the folder");
        assert!(held.read("good", uid).is_ok());
        for name in ["link", "twice", "../tmp/good", "missing", "."] {
            assert!(held.read(name, uid).is_err(), "{name}");
        }
        assert!(held.read("good", uid + 1).is_err(), "foreign owner");
    }

    #[test]
    fn an_absolute_link_stays_within_the_targets_own_root() {
        let (folder, root, uid) = target();
        std::fs::create_dir(folder.path().join("files/real")).expect("folder");
        std::fs::write(folder.path().join("files/real/file"), "inside").expect("write");
        symlink("/real", folder.path().join("files/link")).expect("link");
        assert!(root.folder("/link").expect("inside").read("file", uid).is_ok());
        assert!(root.folder("/../../etc").is_err());
    }

    #[test]
    fn a_text_is_read_from_files_of_the_targets_own_root_only() {
        let (folder, root, _) = target();
        let tmp = folder.path().join("files/tmp");
        std::fs::write(tmp.join("text"), "12345").expect("write");
        symlink("/etc/passwd", tmp.join("out")).expect("link");
        symlink("/tmp/text", tmp.join("in")).expect("link");
        let made = std::process::Command::new("mkfifo").arg(tmp.join("pipe")).status();
        assert!(made.expect("mkfifo runs").success());
        assert_eq!(root.text("tmp/text", 3).as_deref(), Some("123"));
        assert_eq!(root.text("tmp/in", 9).as_deref(), Some("12345"));
        for path in ["tmp/out", "tmp/pipe", "tmp"] {
            assert_eq!(root.text(path, 9), None, "{path}");
        }
    }

    #[test]
    fn a_link_within_the_folder_is_not_followed() {
        let (folder, root, uid) = target();
        let tmp = folder.path().join("files/tmp");
        std::fs::write(tmp.join("good"), "x").expect("write");
        symlink("good", tmp.join("link")).expect("link");
        let _listener = std::os::unix::net::UnixListener::bind(tmp.join("socket")).expect("a socket");
        symlink("socket", tmp.join("link-to-socket")).expect("link");
        let held = root.folder("/tmp").expect("the folder");
        assert!(held.read("link", uid).is_err());
        assert!(held.socket("link-to-socket", uid).is_err());
    }

    #[test]
    fn a_socket_is_one_of_the_jvms_own_user() {
        let (folder, root, uid) = target();
        let tmp = folder.path().join("files/tmp");
        std::fs::write(tmp.join("file"), "x").expect("write");
        let _listener = std::os::unix::net::UnixListener::bind(tmp.join("socket")).expect("a socket");
        let held = root.folder("/tmp").expect("the folder");
        assert!(held.socket("socket", uid).is_ok());
        let why = |name: &str, owner: u32| held.socket(name, owner).expect_err("refused").to_string();
        assert!(why("file", uid).ends_with("is not a socket"));
        assert!(why("socket", uid + 1).ends_with("is owned by somebody else"));
    }

    #[test]
    fn a_pipe_in_the_place_of_a_dump_does_not_hold_us() {
        let (folder, root, uid) = target();
        let pipe = folder.path().join("files/tmp/dump");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo runs").success());
        let held = root.folder("/tmp").expect("the folder");
        let (sender, receiver) = std::sync::mpsc::channel();
        let reading = std::thread::spawn(move || sender.send(held.read("dump", uid).map(|_| ())));
        let answer = receiver.recv_timeout(std::time::Duration::from_secs(10));
        assert!(answer.expect("it does not wait for a writer").is_err());
        reading.join().expect("it ends").expect("somebody listens");
    }

    #[test]
    fn a_made_file_is_ours_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_folder, root, _) = target();
        let held = root.folder("/tmp").expect("the folder");
        let made = File::from(held.make("new").expect("it is new"));
        assert_eq!(made.metadata().expect("a file").permissions().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_file_is_made_once() {
        let (_folder, root, _) = target();
        let held = root.folder("/tmp").expect("the folder");
        assert!(held.make("new").is_ok());
        assert!(matches!(
            held.make("new"),
            Err(RootedError::Open {
                errno: Errno::EXIST,
                ..
            })
        ));
    }
}
