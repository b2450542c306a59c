//! Connections: accepted within a limit, with or without TLS, each request through the gate. Owns the sockets.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderValue, header};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::{HttpError, HttpResponse, service::S3Service};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{gate, linger::SharedBody};

/// Longest time for a client to send its headers or to finish the TLS handshake.
const HEADERS_DEADLINE: Duration = Duration::from_secs(15);
/// Longest time for open requests to finish once the server is told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// Read buffer of a connection: large, since bodies are.
const BUFFER_BYTES: usize = 512 * 1024;
/// A pause after the system refused a connection (too many open files), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every connection needs.
pub(super) struct Front {
    pub(super) service: S3Service,
    pub(super) region: String,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) max_connections: usize,
}

/// Serves until the stop signal, then lets open requests finish.
pub(super) async fn serve(front: Front, listener: TcpListener, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(front.max_connections));
    let front = Arc::new(front);
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                let (front, stop) = (Arc::clone(&front), stop.clone());
                connections.spawn(async move {
                    let _permit = permit;
                    front.attend(stream, peer, stop).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                crate::retry::pause(ACCEPT_PAUSE).await;
            }
        }
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        connections.shutdown().await;
    }
}

impl Front {
    async fn attend(&self, stream: TcpStream, peer: SocketAddr, stop: CancellationToken) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let Some(tls) = &self.tls else {
            return self.talk(stream, stop).await;
        };
        match tokio::time::timeout(HEADERS_DEADLINE, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.talk(stream, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, %peer, "the TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
        }
    }

    async fn talk<S>(&self, stream: S, stop: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_DEADLINE)
            .max_buf_size(BUFFER_BYTES);
        let service = service_fn(|request| self.answer(request));
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<HttpResponse, HttpError> {
        let admitted = gate::admit(request.method(), request.uri(), request.headers(), &self.region);
        let (head, body) = request.into_parts();
        let body = SharedBody::new(body);
        let mut answer = match admitted {
            Ok(()) => {
                let handled = s3s::Body::http_body(body.clone());
                self.service.call(Request::from_parts(head, handled)).await?
            }
            Err(refusal) => refusal
                .to_http_response()
                .map_err(|error| HttpError::new(Box::new(error)))?,
        };
        if answer.status().is_client_error() || answer.status().is_server_error() {
            body.read_off().await;
        }
        // A browser takes the type that the link names and guesses none that would run.
        answer
            .headers_mut()
            .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Ok(answer)
    }
}
