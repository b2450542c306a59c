//! An object's bytes as a stream. Owns nothing but open files; memory is one chunk.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Seek as _, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::Stream;
use s3s::{
    StdError,
    stream::{ByteStream, RemainingLength},
};
use tokio::io::{AsyncReadExt as _, Take};
use tokio_util::io::ReaderStream;

use super::records::ContentFile;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Reads a range of an object.
#[derive(Debug)]
pub(super) struct ObjectReader {
    pending: VecDeque<Piece>,
    current: Option<ReaderStream<Take<tokio::fs::File>>>,
    left_bytes: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Piece {
    path: PathBuf,
    start: u64,
    length: u64,
}

impl ObjectReader {
    /// A reader of `range` of the object whose files are in `folder`.
    pub(super) fn new(folder: &Path, files: &[ContentFile], range: Range<u64>) -> Self {
        Self {
            left_bytes: range.end - range.start,
            pending: pieces(folder, files, range),
            current: None,
        }
    }

    fn open_next(&mut self) -> io::Result<bool> {
        let Some(piece) = self.pending.pop_front() else {
            return Ok(false);
        };
        // Opening a local file takes microseconds; only reading goes to the pool of blocking threads.
        let mut file = File::open(&piece.path)?;
        file.seek(SeekFrom::Start(piece.start))?;
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(CHUNK_BYTES);
        self.current = Some(ReaderStream::with_capacity(file.take(piece.length), CHUNK_BYTES));
        Ok(true)
    }
}

/// The pieces of files that make up `range`.
fn pieces(folder: &Path, files: &[ContentFile], range: Range<u64>) -> VecDeque<Piece> {
    let mut offset = 0;
    let mut pieces = VecDeque::new();
    for file in files {
        let start = range.start.max(offset);
        let end = range.end.min(offset + file.size_bytes);
        if start < end {
            pieces.push_back(Piece {
                path: folder.join(&file.name),
                start: start - offset,
                length: end - start,
            });
        }
        offset += file.size_bytes;
    }
    pieces
}

impl Stream for ObjectReader {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(current) = &mut self.current {
                match ready!(Pin::new(current).poll_next(cx)) {
                    Some(Ok(bytes)) => {
                        self.left_bytes = self.left_bytes.saturating_sub(bytes.len() as u64);
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                    None => self.current = None,
                }
            }
            match self.open_next() {
                Ok(true) => {}
                Ok(false) if self.left_bytes == 0 => return Poll::Ready(None),
                // A file that became shorter must not look like the end of the object.
                Ok(false) => {
                    self.left_bytes = 0;
                    let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(Some(Err(error.into())));
                }
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }
}

impl ByteStream for ObjectReader {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(usize::try_from(self.left_bytes).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cross_files() {
        let file = |name: &str, size_bytes| ContentFile {
            name: name.to_owned(),
            size_bytes,
        };
        let files = [file("a", 10), file("b", 0), file("c", 5)];
        let of = |range| -> Vec<(String, u64, u64)> {
            pieces(Path::new(""), &files, range)
                .into_iter()
                .map(|p| (p.path.display().to_string(), p.start, p.length))
                .collect()
        };
        assert_eq!(of(0..15), [("a".to_owned(), 0, 10), ("c".to_owned(), 0, 5)]);
        assert_eq!(of(9..12), [("a".to_owned(), 9, 1), ("c".to_owned(), 0, 2)]);
        assert_eq!(of(12..12), []);
    }
}
