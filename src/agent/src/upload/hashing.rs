//! The digests of a captured file, computed beside its upload: the whole's on one thread, the parts' on another, several parts
//! at once. Owns both threads; they run at most [`AHEAD`] parts before what is sent, so that the pages they read are still
//! cached when those are sent.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use diagbot_wire::digest::{Digests, Hasher, LANES, Md5Lanes, MultipartEtag, PartMd5};
use md5::{Digest as _, Md5};
use tokio::{sync::Notify, task::JoinHandle};

use super::{UploadError, Uploaded, part_range};

/// Parts that may be hashed before they are asked for.
const AHEAD: u32 = 3 * LANES as u32;
/// Bytes hashed at a time over the whole; a multiple of 64.
const CHUNK_BYTES: usize = 128 * 1024;

/// A file whose digests are on their way. Dropping it stops the work.
#[derive(Debug)]
pub(crate) struct Hashing {
    shared: Arc<Shared>,
    whole: JoinHandle<io::Result<Digests>>,
    parts: JoinHandle<io::Result<()>>,
}

#[derive(Debug)]
struct Shared {
    plan: PartPlan,
    state: Mutex<State>,
    /// Wakes the threads.
    wanted: Condvar,
    /// Wakes who waits for a part.
    known: Notify,
}

#[derive(Debug)]
struct State {
    md5s: Vec<PartMd5>,
    /// The last part that may be hashed; none any more when this is zero.
    up_to: u32,
    broken: bool,
}

/// How a file is cut into parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartPlan {
    /// Bytes of the file.
    pub(crate) size_bytes: u64,
    /// Bytes of every part but the last.
    pub(crate) part_size_bytes: u64,
    /// Number of parts.
    pub(crate) parts: u32,
}

impl Hashing {
    /// Begins with the first bytes of the file.
    pub(crate) fn start(file: &Arc<File>, plan: PartPlan) -> Self {
        let shared = Arc::new(Shared {
            plan,
            state: Mutex::new(State {
                md5s: Vec::new(),
                up_to: AHEAD,
                broken: false,
            }),
            wanted: Condvar::new(),
            known: Notify::new(),
        });
        let (for_whole, for_parts) = (Arc::clone(&shared), Arc::clone(&shared));
        let (whole_file, parts_file) = (Arc::clone(file), Arc::clone(file));
        Self {
            shared,
            whole: tokio::task::spawn_blocking(move || for_whole.hash_whole(&whole_file)),
            parts: tokio::task::spawn_blocking(move || {
                let outcome = for_parts.hash_parts(&parts_file);
                for_parts.state().broken = outcome.is_err();
                for_parts.known.notify_waiters();
                outcome
            }),
        }
    }

    /// The plan.
    pub(crate) fn plan(&self) -> PartPlan {
        self.shared.plan
    }

    /// The MD5 of a part; parts are asked for in order.
    pub(super) async fn md5(&self, number: u32) -> Result<PartMd5, UploadError> {
        self.shared.allow(number.saturating_add(AHEAD));
        loop {
            let known = self.shared.known.notified();
            {
                let state = self.shared.state();
                if let Some(md5) = state.md5s.get(number as usize - 1) {
                    return Ok(*md5);
                }
                if state.broken {
                    return Err(UploadError::Read(io::ErrorKind::UnexpectedEof.into()));
                }
            }
            known.await;
        }
    }

    /// All digests, without further parts being asked for.
    pub(crate) async fn finish(mut self) -> Result<Uploaded, UploadError> {
        self.shared.allow(u32::MAX);
        let digests = joined((&mut self.whole).await)?;
        joined((&mut self.parts).await)?;
        let mut etag = MultipartEtag::default();
        self.shared.state().md5s.iter().for_each(|md5| etag.push(*md5));
        Ok(Uploaded {
            digests,
            parts: self.shared.plan.parts,
            etag: etag.finish(),
        })
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        self.shared.state().up_to = 0;
        self.shared.wanted.notify_all();
    }
}

fn joined<T>(outcome: Result<io::Result<T>, tokio::task::JoinError>) -> Result<T, UploadError> {
    outcome
        .map_err(|error| UploadError::Internal(error.to_string()))?
        .map_err(UploadError::Read)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allow(&self, up_to: u32) {
        let mut state = self.state();
        if state.up_to != 0 {
            state.up_to = state.up_to.max(up_to);
        }
        drop(state);
        self.wanted.notify_all();
    }

    /// Waits until a part may be hashed.
    fn wait_for(&self, number: u32) -> io::Result<()> {
        let state = self.state();
        let state = self
            .wanted
            .wait_while(state, |state| state.up_to != 0 && state.up_to < number)
            .unwrap_or_else(PoisonError::into_inner);
        if state.up_to == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }

    fn hash_whole(&self, file: &File) -> io::Result<Digests> {
        let mut hasher = Hasher::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        for number in 1..=self.plan.parts {
            self.wait_for(number)?;
            let mut read = Range::of(self.plan, number);
            while let Some(bytes) = read.next(file, &mut chunk)? {
                hasher.update(bytes);
            }
        }
        Ok(hasher.finish())
    }

    fn hash_parts(&self, file: &File) -> io::Result<()> {
        let mut number = 1;
        let whole = self.plan.size_bytes / self.plan.part_size_bytes;
        let mut buffers = vec![0; CHUNK_BYTES];
        while number <= self.plan.parts {
            let lanes = LANES as u32;
            let md5s = if u64::from(number + lanes - 1) <= whole {
                self.wait_for(number + lanes - 1)?;
                self.four(file, number, &mut buffers)?.to_vec()
            } else {
                self.wait_for(number)?;
                vec![self.one(file, number, &mut buffers)?]
            };
            number += md5s.len() as u32;
            self.state().md5s.extend(md5s);
            self.known.notify_waiters();
        }
        Ok(())
    }

    /// The MD5s of parts of full length.
    fn four(&self, file: &File, first: u32, buffers: &mut [u8]) -> io::Result<[PartMd5; LANES]> {
        let mut hasher = Md5Lanes::default();
        let mut ranges: [Range; LANES] = std::array::from_fn(|lane| Range::of(self.plan, first + lane as u32));
        loop {
            let mut pieces = buffers.chunks_exact_mut(buffers.len() / LANES);
            let mut read = [&[][..]; LANES];
            for (bytes, range) in read.iter_mut().zip(&mut ranges) {
                if let Some(piece) = pieces.next() {
                    *bytes = range.next(file, piece)?.unwrap_or_default();
                }
            }
            let blocks = read[0].len() / 64 * 64;
            hasher.update(read.map(|bytes| &bytes[..blocks]));
            if ranges[0].left == 0 {
                return Ok(hasher.finish(read.map(|bytes| &bytes[blocks..])));
            }
        }
    }

    fn one(&self, file: &File, number: u32, buffer: &mut [u8]) -> io::Result<PartMd5> {
        let mut hasher = Md5::new();
        let mut range = Range::of(self.plan, number);
        while let Some(bytes) = range.next(file, buffer)? {
            hasher.update(bytes);
        }
        Ok(PartMd5::from_hasher(hasher))
    }
}

/// What is left of a part.
struct Range {
    offset: u64,
    left: u64,
}

impl Range {
    fn of(plan: PartPlan, number: u32) -> Self {
        let (offset, left) = part_range(plan, number);
        Self { offset, left }
    }

    /// The next bytes: as many as the buffer takes, unless these are the last.
    fn next<'a>(&mut self, file: &File, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        if self.left == 0 {
            return Ok(None);
        }
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let bytes = &mut buffer[..wanted];
        file.read_exact_at(bytes, self.offset)?;
        self.offset += wanted as u64;
        self.left -= wanted as u64;
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn digests_are_those_of_the_file_however_it_is_cut() {
        let bytes: Vec<u8> = (0..1_000_003_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let mut file = crate::spool::nameless_file().expect("a file");
        file.write_all(&bytes).expect("write");
        let file = Arc::new(file);
        for part_size in [100_000_usize, 99_968, 1_000_003, 2_000_000, 40_000] {
            let parts = bytes.len().div_ceil(part_size);
            let plan = PartPlan {
                size_bytes: bytes.len() as u64,
                part_size_bytes: part_size as u64,
                parts: parts as u32,
            };
            let hashing = Hashing::start(&file, plan);
            let mut etag = MultipartEtag::default();
            for (number, part) in (1..).zip(bytes.chunks(part_size)) {
                let expected = PartMd5::of(part);
                etag.push(expected);
                if number % 3 == 1 {
                    assert_eq!(hashing.md5(number).await.expect("readable"), expected, "part {number}");
                }
            }
            let found = hashing.finish().await.expect("readable");
            let mut hasher = Hasher::default();
            hasher.update(&bytes);
            assert_eq!((found.digests, found.etag), (hasher.finish(), etag.finish()));
        }
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_is_told_and_nobody_waits_for_ever() {
        let file = Arc::new(crate::spool::nameless_file().expect("a file"));
        let plan = PartPlan {
            size_bytes: 100,
            part_size_bytes: 50,
            parts: 2,
        };
        let hashing = Hashing::start(&file, plan);
        assert!(matches!(hashing.md5(1).await, Err(UploadError::Read(_))));
        assert!(matches!(hashing.finish().await, Err(UploadError::Read(_))));
    }
}
