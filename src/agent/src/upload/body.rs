//! A range of a file as the body of a request, read in small pieces.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Bytes of one piece.
const PIECE_BYTES: u64 = 128 * 1024;

/// The body.
pub(super) struct RangeBody {
    file: Arc<File>,
    offset: u64,
    left: u64,
    taken: Arc<AtomicU64>,
}

impl RangeBody {
    /// `range`: offset and length. `taken` is told how many bytes were taken.
    pub(super) fn new(file: Arc<File>, range: (u64, u64), taken: Arc<AtomicU64>) -> Self {
        Self {
            file,
            offset: range.0,
            left: range.1,
            taken,
        }
    }

    fn piece(&mut self) -> io::Result<Bytes> {
        let mut piece = vec![0; usize::try_from(self.left.min(PIECE_BYTES)).unwrap_or(0)];
        self.file.read_exact_at(&mut piece, self.offset)?;
        self.offset += piece.len() as u64;
        self.left -= piece.len() as u64;
        self.taken.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok(Bytes::from(piece))
    }
}

impl Body for RangeBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        // A blocking read, of pages that were just hashed and are still cached.
        Poll::Ready(Some(self.piece().map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
