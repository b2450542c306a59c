//! A part's bytes on their way from exec to the store, as the body of a request.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// The body: what is sent into the channel, which must be `length` bytes.
pub(super) struct PartBody {
    frames: mpsc::Receiver<Bytes>,
    left: u64,
}

impl PartBody {
    pub(super) fn new(frames: mpsc::Receiver<Bytes>, length: u64) -> Self {
        Self { frames, left: length }
    }
}

impl Body for PartBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        match ready!(self.frames.poll_recv(context)) {
            Some(bytes) => {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            // The relay was given up: the store must not take the part for whole.
            None => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
