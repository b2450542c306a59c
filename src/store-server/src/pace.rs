//! Whether a client keeps up. Only time that the server spends waiting for the client counts, so a slow disk is nobody's
//! fault. Owns the socket's write side; the rest is a value.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

/// A least rate, and the time over which it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) window: Duration,
    pub(super) least_bytes_per_s: u64,
}

/// A client's transfer, in windows of waiting.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Rate,
    waited: Duration,
    moved_bytes: u64,
}

/// The client did not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client is too slow")]
pub(super) struct TooSlow;

impl Pace {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            rate,
            waited: Duration::ZERO,
            moved_bytes: 0,
        }
    }

    /// The waiting that is left of the window.
    pub(super) fn left(&self) -> Duration {
        self.rate.window.saturating_sub(self.waited)
    }

    /// Bytes that moved after waiting that long.
    pub(super) fn moved(&mut self, bytes: u64, waited: Duration) -> Result<(), TooSlow> {
        self.waited += waited;
        // What goes into buffers before the first wait says nothing about the client.
        if !self.waited.is_zero() {
            self.moved_bytes = self.moved_bytes.saturating_add(bytes);
        }
        if self.waited < self.rate.window {
            return Ok(());
        }
        let least = u128::from(self.rate.least_bytes_per_s) * self.rate.window.as_millis() / 1000;
        if u128::from(self.moved_bytes) < least.max(1) {
            return Err(TooSlow);
        }
        *self = Self::new(self.rate);
        Ok(())
    }
}

/// A connection that is cut where the client does not take what is sent.
#[derive(Debug)]
pub(super) struct PacedStream {
    inner: TcpStream,
    pace: Pace,
    /// Since when the client takes nothing, and when that is too long.
    stalled: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl PacedStream {
    pub(super) fn new(inner: TcpStream, rate: Rate) -> Self {
        Self {
            inner,
            pace: Pace::new(rate),
            stalled: None,
        }
    }

    /// What becomes of an attempt to write: it went on, or the client has to be waited for, or no longer.
    fn judge(&mut self, cx: &mut Context<'_>, attempt: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = attempt {
            let waited = self.stalled.take().map_or(Duration::ZERO, |(since, _)| since.elapsed());
            return match self.pace.moved(count as u64, waited) {
                Ok(()) => attempt,
                Err(TooSlow) => Poll::Ready(Err(self.cut())),
            };
        }
        if attempt.is_ready() {
            return attempt;
        }
        loop {
            let left = self.pace.left();
            let (since, over) = self.stalled.get_or_insert_with(|| {
                let now = Instant::now();
                (now, Box::pin(sleep_until(now + left)))
            });
            ready!(over.as_mut().poll(cx));
            let waited = since.elapsed();
            self.stalled = None;
            if self.pace.moved(0, waited).is_err() {
                return Poll::Ready(Err(self.cut()));
            }
        }
    }

    /// The connection is reset: the system would keep what the client does not take, for as long as the client likes.
    fn cut(&self) -> io::Error {
        if let Err(error) = self.inner.set_zero_linger() {
            tracing::debug!(%error, "a slow connection is closed, not reset");
        }
        io::Error::new(ErrorKind::TimedOut, TooSlow)
    }
}

impl AsyncRead for PacedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PacedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.judge(cx, attempt)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.judge(cx, attempt)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        window: Duration::from_secs(10),
        least_bytes_per_s: 100,
    };
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_client_is_cut_off_below_the_least_rate_only() {
        let outcome = |bytes: u64| {
            let mut pace = Pace::new(RATE);
            (0..100).try_for_each(|_| pace.moved(bytes, SECOND))
        };
        assert_eq!((outcome(100), outcome(99)), (Ok(()), Err(TooSlow)));
    }

    #[test]
    fn bytes_in_buffers_buy_no_time() {
        let mut pace = Pace::new(RATE);
        pace.moved(1 << 30, Duration::ZERO).unwrap();
        assert_eq!(pace.moved(0, RATE.window), Err(TooSlow));
        // Nor do those of a window the next.
        let mut pace = Pace::new(RATE);
        pace.moved(1 << 30, RATE.window).unwrap();
        assert_eq!(pace.left(), RATE.window);
        assert_eq!(pace.moved(0, RATE.window), Err(TooSlow));
    }
}
