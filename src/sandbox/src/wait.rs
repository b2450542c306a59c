//! Waiting for a condition, with a deadline and the last thing that was seen.

use std::{future::Future, time::Duration};

use anyhow::{Context as _, bail};
use tokio::time::Instant;

/// Time between two looks.
const STEP: Duration = Duration::from_millis(20);

/// Looks again and again until `look` gives something, at most for `limit`; an error of `look` ends it at once.
pub async fn until<T, F, Fut>(limit: Duration, what: &str, mut look: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<Option<T>>>,
{
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look().await.with_context(|| format!("wait until {what}"))? {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("waited {} s in vain until {what}", limit.as_secs());
        }
        tokio::time::sleep(STEP).await;
    }
}
