//! Waiting for a condition, with a deadline and the last thing that was seen.

use std::{future::Future, time::Duration};

use anyhow::{Context as _, bail};
use tokio::time::Instant;

/// Time between two looks.
const STEP: Duration = Duration::from_millis(20);
/// How long after the limit a look that gives no answer is given up: it may have been a slow one.
const UNANSWERED: Duration = Duration::from_secs(30);

/// Looks again and again until `look` gives something, at most for `limit`; an error of `look` ends it at once.
pub async fn until<T, F, Fut>(limit: Duration, what: &str, mut look: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = anyhow::Result<Option<T>>>,
{
    let end = Instant::now() + limit;
    loop {
        let Ok(looked) = tokio::time::timeout_at(end + UNANSWERED, look()).await else {
            bail!(
                "waited {} s in vain until {what}, and the last look has no answer",
                limit.as_secs()
            );
        };
        if let Some(found) = looked.with_context(|| format!("wait until {what}"))? {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("waited {} s in vain until {what}", limit.as_secs());
        }
        tokio::time::sleep(STEP).await;
    }
}
