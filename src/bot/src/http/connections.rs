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

#[cfg(test)]
mod tests {
    use std::{future::ready, net::SocketAddr};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        time::Instant,
    };

    use super::*;

    /// Longer than anything here takes, where it is not refused.
    const LONG: Duration = Duration::from_mins(10);

    async fn door(connections: usize) -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let bounds = Bounds {
            connections,
            life: LONG,
            buffer_bytes: 16 * 1024,
        };
        let mut serving = JoinSet::new();
        let answer = |_| ready(Response::new(Full::new(Bytes::from_static(b"here"))));
        serving.spawn(serve(listener, bounds, answer, CancellationToken::new()));
        (address, serving)
    }

    /// A connection that was answered once and stays open.
    async fn answered(address: SocketAddr) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let _refused = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).await.ok()?;
        (&begin == b"HTTP/1.1 200").then_some(stream)
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_is_waited_for_5_s() {
        let (address, _serving) = door(1).await;
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(b"GET / HTTP/1.1\r\nhost: ").await.expect("sent");
        let started = Instant::now();
        let closed = timeout(HEAD_DEADLINE * 4, stream.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "the door still waits");
        let waited = started.elapsed();
        assert!(waited > Duration::from_secs(4), "a slow client gets {waited:?}");
    }

    #[tokio::test]
    async fn further_connections_are_closed_until_one_ends() {
        let (address, _serving) = door(2).await;
        let held = (answered(address).await, answered(address).await);
        assert!(held.0.is_some() && held.1.is_some());
        for _ in 0..5 {
            assert!(answered(address).await.is_none(), "a third");
        }
        drop(held);
        let freed = async { while answered(address).await.is_none() {} };
        timeout(Duration::from_secs(20), freed)
            .await
            .expect("places are given back");
    }
}
