//! A private place in the agent's own file system for output on its way to the store.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Where a file can be made, in order. Never `/dev/shm`: all containers of a pod share it, so a neighbour could read and
/// rewrite evidence there.
const PLACES: [&str; 2] = ["/tmp", "/var/tmp"];

/// A new, empty file without a name: whatever ends us, nothing stays behind.
pub(crate) fn nameless_file() -> io::Result<File> {
    let mut last = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
    for place in PLACES {
        match make(Path::new(place)) {
            Ok(file) => return Ok(file),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn make(place: &Path) -> io::Result<File> {
    let path = place.join(format!(".diagbot-agent-{}", random_word()?));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// 128 random bits in hexadecimal: a name that nobody can have taken before.
pub(crate) fn random_word() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    Ok(hex::encode(bytes))
}
