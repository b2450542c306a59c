//! A request's body that can still be read after it was refused.
//!
//! # Design notes
//! A client that is told no while it sends must get to read why. A server that answers and closes with bytes unread makes
//! the system reset the connection, and the client sees a broken pipe instead of `ExpiredToken` or a full disk. So the rest
//! of a refused body is read and thrown away first, within limits.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// Most bytes of a refused body that are read: several parts of an upload.
const MOST_BYTES: u64 = 64 * 1024 * 1024;
/// Longest time for it.
const DEADLINE: Duration = Duration::from_secs(10);

/// A body with two holders: the one who handles the request, and the one who answers it.
#[derive(Debug, Clone)]
pub(super) struct SharedBody(Arc<Mutex<Incoming>>);

impl SharedBody {
    pub(super) fn new(body: Incoming) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }

    /// Reads the rest, within limits.
    pub(super) async fn read_off(mut self) {
        let reading = async {
            let mut left = MOST_BYTES;
            while let Some(Ok(frame)) = self.frame().await {
                let count = frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
                left = match left.checked_sub(count) {
                    Some(left) => left,
                    None => return,
                };
            }
        };
        // Too slow: the connection is closed as it is.
        let _in_time = tokio::time::timeout(DEADLINE, reading).await;
    }
}

impl Body for SharedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}
