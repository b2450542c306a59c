//! A range of a file as the body of a request, read in small pieces.

use std::{
    fs::File,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use rustix::{buffer::spare_capacity, io::pread};

/// Bytes of one piece.
const PIECE_BYTES: u64 = 64 * 1024;

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
        let wanted = usize::try_from(self.left.min(PIECE_BYTES)).unwrap_or(0);
        // Not zeroed first: a body is long.
        let mut piece = Vec::with_capacity(wanted);
        while piece.len() < wanted {
            let at = self.offset + piece.len() as u64;
            let read = pread(&self.file, spare_capacity(&mut piece), at)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        piece.truncate(wanted);
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
