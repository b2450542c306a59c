//! Staged artifacts, fetched through exec: where the pod can't reach the store, the bot runs `cat` in our own container.
//!
//! The running agent serves its files over a socket in a folder of its own; `cat` connects to it. So only files that the
//! running agent lists are served, and nothing of them has a name. The folder lies in the container's own root file system,
//! which neighbours can't enter: they have mounts of their own, and `/proc/<agent>/root` is closed because the agent is not
//! dumpable. Each side also checks the credentials of the other.

use std::{
    cell::RefCell,
    fs::{self, DirBuilder, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    sync::Arc,
};

use rustix::{
    fs::sendfile,
    io::Errno,
    pipe::{SpliceFlags, splice},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{UnixListener, UnixStream},
};

use crate::spool;

/// Name of our folder, before the agent's PID: on a developer's machine several agents share a file system.
const FOLDER: &str = ".diagbot-agent";
/// Bytes passed on at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// Fetches at once; the bot makes one.
const CLIENTS: usize = 4;

/// What is staged.
#[derive(Debug, Default, Clone)]
pub(crate) struct Staged(Rc<RefCell<Vec<StagedFile>>>);

/// A captured file that waits to be fetched.
#[derive(Debug, Clone)]
struct StagedFile {
    step: u16,
    file: Arc<File>,
    size_bytes: u64,
}

impl Staged {
    /// Lists a file.
    pub(crate) fn add(&self, step: u16, file: Arc<File>, size_bytes: u64) {
        self.0.borrow_mut().push(StagedFile { step, file, size_bytes });
    }

    /// Takes a file off the list; its bytes go with the last descriptor.
    pub(crate) fn remove(&self, step: u16) {
        self.0.borrow_mut().retain(|staged| staged.step != step);
    }

    fn find(&self, step: u16) -> Option<StagedFile> {
        self.0.borrow().iter().find(|staged| staged.step == step).cloned()
    }
}

/// The socket's folder; removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
    folder: PathBuf,
}

impl Drop for Door {
    fn drop(&mut self) {
        // Ours alone; a crash leaves an empty folder in a container that ends with us.
        let _removed = fs::remove_file(self.folder.join("door"));
        let _removed = fs::remove_dir(&self.folder);
    }
}

/// Opens the door in the first private folder that takes it.
pub(crate) fn open() -> io::Result<Door> {
    let mut last = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
    for place in spool::private_folders() {
        let folder = place.join(format!("{FOLDER}-{}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => {
                let listener = UnixListener::bind(folder.join("door"))?;
                return Ok(Door { listener, folder });
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Serves what is staged, for ever; runs beside the session.
pub(crate) async fn serve(door: &Door, staged: &Staged) {
    let mut clients = Vec::new();
    loop {
        if clients.len() < CLIENTS
            && let Ok((stream, _)) = tokio::select! {
                accepted = door.listener.accept() => accepted,
                () = any_ended(&mut clients), if !clients.is_empty() => continue,
            }
        {
            if is_one_of_us(&stream) {
                clients.push(Box::pin(answer(stream, staged.clone())));
            }
        } else {
            any_ended(&mut clients).await;
        }
    }
}

/// Drives the clients until one has ended, and forgets that one.
async fn any_ended<F: Future<Output = io::Result<()>> + Unpin>(clients: &mut Vec<F>) {
    std::future::poll_fn(|context| {
        let ended = clients
            .iter_mut()
            .position(|client| std::pin::Pin::new(client).poll(context).is_ready());
        match ended {
            Some(index) => {
                drop(clients.swap_remove(index));
                std::task::Poll::Ready(())
            }
            None => std::task::Poll::Pending,
        }
    })
    .await;
}

/// Whether the peer runs as our user and in our PID namespace: the kernel gives a process of another namespace no PID here.
fn is_one_of_us(stream: &UnixStream) -> bool {
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw() && peer.pid().is_some_and(|pid| pid > 0))
}

async fn answer(mut stream: UnixStream, staged: Staged) -> io::Result<()> {
    let step = stream.read_u16().await?;
    let mut offset = stream.read_u64().await?;
    let Some(StagedFile { file, size_bytes, .. }) = staged.find(step) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    stream.write_u64(size_bytes).await?;
    while offset < size_bytes {
        let left = usize::try_from(size_bytes - offset).unwrap_or(usize::MAX);
        let passed = stream
            .async_io(Interest::WRITABLE, || {
                // Within the kernel; the position moves with what was taken.
                Ok(sendfile(&stream, &file, Some(&mut offset), left.min(CHUNK_BYTES))?)
            })
            .await?;
        if passed == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    stream.shutdown().await
}

/// `cat --step=N --from=M`: writes the staged bytes from an offset on to standard output. Fails when they came short.
pub(crate) async fn cat(args: &[String]) -> ExitCode {
    let number = |index: usize, prefix: &str| args.get(index)?.strip_prefix(prefix)?.parse::<u64>().ok();
    let (Some(step), Some(from)) = (number(0, "--step="), number(1, "--from=")) else {
        return crate::complain("usage: cat --step=N --from=M");
    };
    let Ok(step) = u16::try_from(step) else {
        return crate::complain("there is no such step");
    };
    match fetch(step, from).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::complain(&format!("fetch step {step} from {from}: {error}")),
    }
}

async fn fetch(step: u16, from: u64) -> io::Result<()> {
    let (stream, size_bytes) = connect(step, from).await?;
    // This process does nothing else, so it may block.
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    let mut stdout = io::stdout().lock();
    let mut left = size_bytes.saturating_sub(from);
    let mut chunk = Vec::new();
    while left > 0 {
        let passed = match splice(&stream, None, &stdout, None, CHUNK_BYTES, SpliceFlags::MOVE) {
            // Standard output is no pipe: then by hand.
            Err(Errno::INVAL) => {
                chunk.resize(CHUNK_BYTES, 0);
                let read = (&stream).read(&mut chunk)?;
                stdout.write_all(&chunk[..read])?;
                read
            }
            passed => passed?,
        };
        if passed == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left = left.saturating_sub(passed as u64);
    }
    stdout.flush()
}

/// The door of a running agent of our own uid that has the step staged, and the file's length. In a container there is one
/// agent; a file system that several share may hold more doors.
async fn connect(step: u16, from: u64) -> io::Result<(UnixStream, u64)> {
    for place in spool::private_folders() {
        let Ok(entries) = fs::read_dir(place) else { continue };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(FOLDER)
                && let Ok(found) = ask(&entry.path().join("door"), step, from).await
            {
                return Ok(found);
            }
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

async fn ask(door: &Path, step: u16, from: u64) -> io::Result<(UnixStream, u64)> {
    let mut stream = UnixStream::connect(door).await?;
    if !is_one_of_us(&stream) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    stream.write_u16(step).await?;
    stream.write_u64(from).await?;
    let size_bytes = stream.read_u64().await?;
    Ok((stream, size_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_listed_files_are_served_and_from_the_offset_on() {
        let staged = Staged::default();
        let mut file = spool::memory().expect("a file");
        file.write_all(b"0123456789").expect("write");
        staged.add(3, Arc::new(file), 10);
        let door = open().expect("a door");
        let client = async {
            let mut bytes = Vec::new();
            let mut stream = UnixStream::connect(door.folder.join("door")).await.expect("connect");
            stream.write_u16(3).await.expect("write");
            stream.write_u64(4).await.expect("write");
            assert_eq!(stream.read_u64().await.expect("size"), 10);
            stream.read_to_end(&mut bytes).await.expect("read");
            assert_eq!(bytes, b"456789");

            let mut stream = UnixStream::connect(door.folder.join("door")).await.expect("connect");
            stream.write_u16(4).await.expect("write");
            stream.write_u64(0).await.expect("write");
            assert!(stream.read_u64().await.is_err(), "an unlisted step is not served");
        };
        assert!(
            door.folder.starts_with("/tmp") || door.folder.starts_with("/var/tmp"),
            "{door:?}"
        );
        tokio::select! {
            () = serve(&door, &staged) => panic!("it serves for ever"),
            () = client => {}
        }
    }
}
