//! Connections of a door: accepted while there is room, bounded in number and time, ended with the stop signal. Never looks at
//! what is asked.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// Longest wait for a request's head.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);

/// What a door gives those who come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at once; further ones are closed.
    pub(super) connections: usize,
    /// Longest life of a connection.
    pub(super) life: Duration,
    /// Bytes of a connection's buffer, which bounds the head of a request.
    pub(super) buffer_bytes: usize,
}

/// Answers every request with `answer` until `stop`.
pub(super) async fn serve<A, F>(listener: TcpListener, bounds: Bounds, answer: A, stop: CancellationToken)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send,
{
    let places = Arc::new(Semaphore::new(bounds.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let answer = answer.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_DEADLINE)
                .max_buf_size(bounds.buffer_bytes)
                .serve_connection(TokioIo::new(stream), service);
            // Who hangs up early, a probe or a sender that delivers again, is no fault of ours.
            let _closed = timeout(bounds.life, connection).await;
            drop(place);
        });
    }
    connections.shutdown().await;
}
