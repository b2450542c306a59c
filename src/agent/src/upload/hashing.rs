//! The digests of a captured file: the whole's on one thread, the parts' on another, several parts at once. Owns both threads.
//!
//! They follow a file that still grows, part by part, so that little is left to do when the tool ends. From then on they run at
//! most [`AHEAD`] parts before what is sent, so that the pages they read are still cached when those are sent.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use diagbot_wire::{
    digest::{Digests, Hasher, LANES, Md5Lanes, MultipartEtag, PartMd5},
    upload::part_count,
};
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
    part_size_bytes: u64,
    state: Mutex<HashState>,
    /// Wakes the threads.
    wanted: Condvar,
    /// Wakes who waits for a part.
    known: Notify,
}

#[derive(Debug)]
struct HashState {
    md5s: Vec<PartMd5>,
    /// Bytes that the file has.
    size_bytes: u64,
    /// No more will come.
    is_whole: bool,
    /// The last part of a whole file that may be hashed; none any more, of any file, when this is zero.
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
    /// Follows a file that has nothing yet.
    pub(crate) fn follow(file: &Arc<File>, part_size_bytes: u64) -> Self {
        let shared = Arc::new(Shared {
            part_size_bytes,
            state: Mutex::new(HashState {
                md5s: Vec::new(),
                size_bytes: 0,
                is_whole: false,
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

    /// The file has grown to that many bytes.
    pub(crate) fn grown(&self, size_bytes: u64) {
        let mut state = self.shared.state();
        let full = size_bytes / self.shared.part_size_bytes;
        let was_full = std::mem::replace(&mut state.size_bytes, size_bytes) / self.shared.part_size_bytes;
        drop(state);
        if full > was_full {
            self.shared.wanted.notify_all();
        }
    }

    /// The file is whole, with that many bytes.
    pub(crate) fn whole(&self, size_bytes: u64) {
        let mut state = self.shared.state();
        state.size_bytes = size_bytes;
        state.is_whole = true;
        drop(state);
        self.shared.wanted.notify_all();
    }

    /// How the file is cut, once it is whole.
    pub(crate) fn plan(&self) -> PartPlan {
        self.shared.plan(self.shared.state().size_bytes)
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
            parts: self.plan().parts,
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
    fn state(&self) -> MutexGuard<'_, HashState> {
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

    fn plan(&self, size_bytes: u64) -> PartPlan {
        PartPlan {
            size_bytes,
            part_size_bytes: self.part_size_bytes,
            parts: part_count(size_bytes, self.part_size_bytes),
        }
    }

    /// Waits until parts from `number` on are there and may be hashed: `at_once` full ones or, at the end, a single one; returns
    /// how many, and the plan by what is there. Zero: there are no more.
    fn wait_for(&self, number: u32, at_once: u32) -> io::Result<(u32, PartPlan)> {
        let state = self.state();
        let state = self
            .wanted
            .wait_while(state, |state| {
                state.up_to != 0 && self.ready(state, number, at_once).is_none()
            })
            .unwrap_or_else(PoisonError::into_inner);
        if state.up_to == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = self.ready(&state, number, at_once).unwrap_or(0);
        Ok((count, self.plan(state.size_bytes)))
    }

    /// How many parts from `number` on can be hashed now; `None` where that has to wait.
    fn ready(&self, state: &HashState, number: u32, at_once: u32) -> Option<u32> {
        let last = number + at_once - 1;
        if u64::from(last) <= state.size_bytes / self.part_size_bytes {
            return (!state.is_whole || last <= state.up_to).then_some(at_once);
        }
        if !state.is_whole {
            return None;
        }
        if number > self.plan(state.size_bytes).parts {
            return Some(0);
        }
        (number <= state.up_to).then_some(1)
    }

    fn hash_whole(&self, file: &File) -> io::Result<Digests> {
        let mut hasher = Hasher::default();
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut number = 1;
        loop {
            let (count, plan) = self.wait_for(number, 1)?;
            if count == 0 {
                return Ok(hasher.finish());
            }
            let mut read = Range::of(plan, number);
            while let Some(bytes) = read.next(file, &mut chunk)? {
                hasher.update(bytes);
            }
            number += 1;
        }
    }

    fn hash_parts(&self, file: &File) -> io::Result<()> {
        let mut number = 1;
        let mut buffers = vec![0; CHUNK_BYTES];
        loop {
            let (count, plan) = self.wait_for(number, LANES as u32)?;
            let md5s = match count {
                0 => return Ok(()),
                1 => vec![one(file, Range::of(plan, number), &mut buffers)?],
                _ => four(file, plan, number, &mut buffers)?.to_vec(),
            };
            number += count;
            self.state().md5s.extend(md5s);
            self.known.notify_waiters();
        }
    }
}

/// The MD5s of parts of full length.
fn four(file: &File, plan: PartPlan, first: u32, buffers: &mut [u8]) -> io::Result<[PartMd5; LANES]> {
    let mut hasher = Md5Lanes::default();
    let mut ranges: [Range; LANES] = std::array::from_fn(|lane| Range::of(plan, first + lane as u32));
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

fn one(file: &File, mut range: Range, buffer: &mut [u8]) -> io::Result<PartMd5> {
    let mut hasher = Md5::new();
    while let Some(bytes) = range.next(file, buffer)? {
        hasher.update(bytes);
    }
    Ok(PartMd5::from_hasher(hasher))
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
        let mut file = crate::spool::memory().expect("a file");
        file.write_all(&bytes).expect("write");
        let file = Arc::new(file);
        for part_size in [100_000_usize, 99_968, 1_000_003, 2_000_000, 40_000] {
            let hashing = Hashing::follow(&file, part_size as u64);
            hashing.whole(bytes.len() as u64);
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
    async fn a_file_that_grows_is_hashed_while_it_does() {
        let file = Arc::new(crate::spool::memory().expect("a file"));
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(1_000).collect();
        let hashing = Hashing::follow(&file, 64);
        for (index, piece) in bytes.chunks(7).enumerate() {
            (&*file).write_all(piece).expect("write");
            hashing.grown((index * 7 + piece.len()) as u64);
        }
        // 1,000 bytes are 15 full parts and a rest: of the full ones all fours can be known before the end is.
        while hashing.shared.state().md5s.len() < 12 {
            tokio::task::yield_now().await;
        }
        hashing.whole(bytes.len() as u64);
        let mut hasher = Hasher::default();
        hasher.update(&bytes);
        let mut etag = MultipartEtag::default();
        bytes.chunks(64).for_each(|part| etag.push(PartMd5::of(part)));
        let found = hashing.finish().await.expect("readable");
        assert_eq!(
            (found.parts, found.digests, found.etag),
            (16, hasher.finish(), etag.finish())
        );
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_is_told_and_nobody_waits_for_ever() {
        let file = Arc::new(crate::spool::memory().expect("a file"));
        let hashing = Hashing::follow(&file, 50);
        hashing.whole(100);
        assert!(matches!(hashing.md5(1).await, Err(UploadError::Read(_))));
        assert!(matches!(hashing.finish().await, Err(UploadError::Read(_))));
    }
}
