//! Work that goes on after an acknowledgement: joined, bounded, and given some time at the end. What it tells is never the
//! only copy of anything: requests are recorded before, or the person was told when to send them again.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// One piece of work.
pub(super) type Later = BoxFuture<'static, ()>;

/// Pieces that wait; twice the largest burst of commands.
const WAITING: usize = 512;
/// Pieces at a time: each is a call or two to Slack.
const AT_ONCE: usize = 64;
/// What they may take after the stop signal: longer than a request that is not confirmed is tried, shorter than tasks have.
const FINISH: Duration = Duration::from_secs(17);

pub(super) fn queue() -> (mpsc::Sender<Later>, mpsc::Receiver<Later>) {
    mpsc::channel(WAITING)
}

pub(super) async fn run(mut work: mpsc::Receiver<Later>, stop: CancellationToken) {
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            piece = work.recv(), if under_way.len() < AT_ONCE => match piece {
                Some(piece) => {
                    under_way.spawn(piece);
                }
                None => break,
            },
            Some(done) = under_way.join_next() => note(done),
        }
    }
    work.close();
    let finish = async {
        while let Some(piece) = work.recv().await {
            under_way.spawn(piece);
        }
        while let Some(done) = under_way.join_next().await {
            note(done);
        }
    };
    if timeout(FINISH, finish).await.is_err() {
        tracing::warn!("answers to people were cut off by the end of the process");
    }
}

fn note(done: Result<(), JoinError>) {
    if let Err(error) = done {
        tracing::error!(error = %diagbot_base::telemetry::Chain(&error), "an answer to a person failed");
    }
}
