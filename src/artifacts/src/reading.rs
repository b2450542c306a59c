//! Reading an artifact from its first byte to its last, taken up again where the stream broke. Holds one piece at a time.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use diagbot_base::retry::{Backoff, Permanence as _};

use super::{
    ArtifactKey, Store, StoreError,
    s3::{CALL_DEADLINE, call, next_chunk},
};

/// Attempts in a row that bring no byte.
const FRUITLESS: u32 = 4;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(3));

/// An object being read.
pub(super) struct Reading<'a> {
    store: &'a Store,
    key: &'a ArtifactKey,
    version: Option<&'a str>,
    size_bytes: u64,
    position: u64,
    body: Option<ByteStream>,
    fruitless: u32,
    backoff: Backoff,
}

impl Store {
    /// Begins to read an object that has that length.
    pub(super) fn reading<'a>(
        &'a self,
        key: &'a ArtifactKey,
        version: Option<&'a str>,
        size_bytes: u64,
    ) -> Reading<'a> {
        Reading {
            store: self,
            key,
            version,
            size_bytes,
            position: 0,
            body: None,
            fruitless: 0,
            backoff: BACKOFF,
        }
    }
}

impl Reading<'_> {
    /// The next bytes; none behind the last.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let what = "read the artifact";
        while self.position < self.size_bytes {
            let error = match self.piece(what).await {
                Ok(Some(bytes)) => {
                    self.fruitless = 0;
                    self.backoff.reset();
                    self.position += bytes.len() as u64;
                    if self.position > self.size_bytes {
                        return Err(StoreError::mismatch(what, "it is longer than it was"));
                    }
                    return Ok(Some(bytes));
                }
                Ok(None) => StoreError::mismatch(what, "it is shorter than it was"),
                Err(error) if error.is_permanent() => return Err(error),
                Err(error) => error,
            };
            self.body = None;
            self.fruitless += 1;
            if self.fruitless >= FRUITLESS {
                return Err(error);
            }
            self.backoff.wait(error.retry_after()).await;
        }
        Ok(None)
    }

    async fn piece(&mut self, what: &'static str) -> Result<Option<Bytes>, StoreError> {
        let body = match &mut self.body {
            Some(body) => body,
            None => self
                .body
                .insert(open(self.store, self.key, self.version, self.position, what).await?),
        };
        next_chunk(what, body).await
    }
}

async fn open(
    store: &Store,
    key: &ArtifactKey,
    version: Option<&str>,
    from: u64,
    what: &'static str,
) -> Result<ByteStream, StoreError> {
    let request = store
        .0
        .bot
        .get_object()
        .bucket(&store.0.config.bucket)
        .key(key.as_str())
        .set_version_id(version.map(str::to_owned))
        .set_range((from > 0).then(|| format!("bytes={from}-")));
    Ok(call(what, CALL_DEADLINE, request.send()).await?.body)
}
