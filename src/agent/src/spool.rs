//! Private places for output on its way to the store.
//!
//! Neighbours in the pod may run with the agent's uid and watch every folder that containers share. So a spool never has a
//! name that they could open: a little output stays in memory that only a descriptor reaches (`memfd_create`), more goes to a
//! file without a name (`O_TMPFILE`) in the container's own file system. The descriptors themselves are closed to neighbours
//! because the agent is not dumpable ([`crate::seal`]). `/dev/shm` is never used: all containers of a pod share it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use diagbot_wire::digest::{Digests, Hasher};
use rustix::{
    fs::{AtFlags, CWD, MemfdFlags, Mode, OFlags, StatxFlags, memfd_create, open, statx},
    io::Errno,
};

/// Folders for what does not fit into memory, in order. The agent's image has the first one.
const FOLDERS: [&str; 2] = ["/tmp", "/var/tmp"];
/// Bytes of output that stay in memory: most thread dumps do.
const IN_MEMORY_BYTES: u64 = 1 << 20;

/// Why there is no place for output.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    /// No folder of the container's own takes a file.
    #[error("the agent's container has no writable /tmp in its own root file system ({0})")]
    NoPrivatePlace(#[source] io::Error),
    /// The kernel refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a step has put out so far, and its digests, made of the bytes as they came.
pub(crate) struct Spool {
    file: Arc<File>,
    in_memory: bool,
    written: Hasher,
    size_bytes: u64,
}

impl Spool {
    /// An empty spool.
    pub(crate) fn new() -> Result<Self, SpoolError> {
        let (file, in_memory) = match memory() {
            Ok(file) => (file, true),
            // A seccomp profile may forbid it.
            Err(_) => (file_without_name()?, false),
        };
        Ok(Self {
            file: Arc::new(file),
            in_memory,
            written: Hasher::default(),
            size_bytes: 0,
        })
    }

    /// Takes the next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let size_bytes = self.size_bytes + bytes.len() as u64;
        if self.in_memory && size_bytes > IN_MEMORY_BYTES {
            self.move_to_disk()?;
        }
        (&*self.file).write_all(bytes)?;
        self.written.update(bytes);
        self.size_bytes = size_bytes;
        Ok(())
    }

    fn move_to_disk(&mut self) -> Result<(), SpoolError> {
        let mut file = file_without_name()?;
        self.file.rewind()?;
        io::copy(&mut &*self.file, &mut file)?;
        self.file = Arc::new(file);
        self.in_memory = false;
        Ok(())
    }

    /// The file as it grows. It is another one once output has outgrown memory.
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The file, and the digests of what was written into it.
    pub(crate) fn finish(self) -> (Arc<File>, Digests) {
        (self.file, self.written.finish())
    }
}

/// A new, empty file in memory.
pub(crate) fn memory() -> io::Result<File> {
    Ok(File::from(memfd_create("diagbot-output", MemfdFlags::CLOEXEC)?))
}

/// A new, empty file without a name on disk: whatever ends us, nothing stays behind.
pub(crate) fn file_without_name() -> Result<File, SpoolError> {
    let mut last = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
    for folder in FOLDERS {
        match make(Path::new(folder)) {
            Ok(file) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(error.into()),
            Err(error) => last = error,
        }
    }
    Err(SpoolError::NoPrivatePlace(last))
}

fn make(folder: &Path) -> io::Result<File> {
    // Nobody can give it a name later, either: `O_EXCL` means that here.
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    match open(folder, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(File::from(file)),
        // overlayfs makes such files since Linux 6.1. Older ones answer like this.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => make_and_unlink(folder),
        Err(errno) => Err(errno.into()),
    }
}

/// The file has a name for a moment, so the folder must be one that nobody else can see.
fn make_and_unlink(folder: &Path) -> io::Result<File> {
    if !is_private(folder) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let path = folder.join(format!(".diagbot-agent-{}", random_word()?));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// The folders in which a name can be seen by this container only.
pub(crate) fn private_folders() -> impl Iterator<Item = PathBuf> {
    FOLDERS
        .into_iter()
        .map(PathBuf::from)
        .filter(|folder| is_private(folder))
}

/// Whether a folder belongs to the mount of the root file system, which each container has for itself. A volume, which several
/// containers of a pod may mount, is a mount of its own.
fn is_private(folder: &Path) -> bool {
    let mount = |path: &Path| {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let found = statx(CWD, path, flags, StatxFlags::MNT_ID).ok()?;
        let known = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID);
        // Before Linux 5.8 the device has to do: a volume has another one than the root.
        Some(if known {
            (found.stx_mnt_id, 0, 0)
        } else {
            (0, found.stx_dev_major, found.stx_dev_minor)
        })
    };
    match (mount(Path::new("/")), mount(folder)) {
        (Some(root), Some(here)) => root == here,
        _ => false,
    }
}

/// 128 random bits in hexadecimal: a name that nobody can have taken before.
pub(crate) fn random_word() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::fd::AsRawFd as _};

    use super::*;

    fn target_of(file: &File) -> String {
        let link = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("a descriptor of our own");
        link.to_string_lossy().into_owned()
    }

    #[test]
    fn little_output_stays_in_memory_and_much_has_no_name() {
        let mut spool = Spool::new().expect("memory");
        spool.write(b"first ").expect("room");
        assert!(target_of(spool.file()).starts_with("/memfd:"));
        let much = vec![b'x'; usize::try_from(IN_MEMORY_BYTES).expect("small")];
        spool.write(&much).expect("room");
        let place = target_of(spool.file());
        assert!(
            !place.starts_with("/memfd:") && !place.starts_with("/dev/shm"),
            "{place}"
        );
        assert!(place.ends_with("(deleted)"), "it has a name: {place}");

        let (file, digests) = spool.finish();
        let mut found = Vec::new();
        (&*file).rewind().expect("seek");
        (&*file).read_to_end(&mut found).expect("read");
        let expected = [&b"first "[..], &much].concat();
        assert!(found == expected, "the bytes from memory come first");
        let mut hasher = Hasher::default();
        hasher.update(&expected);
        assert_eq!(digests, hasher.finish());
    }

    #[test]
    fn digests_are_of_what_was_written_not_of_what_the_file_holds() {
        let mut spool = Spool::new().expect("memory");
        spool.write(b"evidence").expect("room");
        rustix::io::pwrite(&**spool.file(), b"FORGED", 0).expect("write");
        let mut hasher = Hasher::default();
        hasher.update(b"evidence");
        assert_eq!(spool.finish().1, hasher.finish());
    }

    #[test]
    fn a_mount_of_its_own_is_not_private() {
        assert!(is_private(Path::new("/")));
        for elsewhere in ["/proc", "/dev/shm", "/nonexistent"] {
            assert!(!is_private(Path::new(elsewhere)), "{elsewhere}");
        }
    }
}
