//! Connections: accepted within a limit, with or without TLS, each request through the gate. Owns the sockets.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderValue, header};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::{HttpError, service::S3Service};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    connections::{Connections, Place},
    drain::SharedBody,
    gate::{self, Signed},
    pace::{PacedStream, Rate},
    visit::{AnswerBody, Visit},
};

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
    pub(super) connections: Arc<Connections>,
    /// Longest time for a client to send its headers or to finish the TLS handshake.
    pub(super) header_deadline: Duration,
    /// Slowest rate of a client that reads.
    pub(super) rate: Rate,
}

/// Serves until the stop signal, then lets open requests finish.
pub(super) async fn serve(front: Front, listener: TcpListener, stop: CancellationToken) {
    let front = Arc::new(front);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = front.connections.room() => {}
        }
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                let (front, stop) = (Arc::clone(&front), stop.clone());
                let place = Arc::new(front.connections.enter(peer.ip()));
                connections.spawn(async move {
                    let evicted = place.evicted.clone();
                    tokio::select! {
                        () = evicted.cancelled() => {}
                        () = front.attend(stream, peer, place, stop) => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                diagbot_base::retry::pause(ACCEPT_PAUSE).await;
            }
        }
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        connections.shutdown().await;
    }
}

impl Front {
    async fn attend(&self, stream: TcpStream, peer: SocketAddr, place: Arc<Place>, stop: CancellationToken) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let stream = PacedStream::new(stream, self.rate);
        let Some(tls) = &self.tls else {
            return self.talk(stream, peer, place, stop).await;
        };
        match tokio::time::timeout(self.header_deadline, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.talk(stream, peer, place, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, %peer, "the TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
        }
    }

    async fn talk<S>(&self, stream: S, peer: SocketAddr, place: Arc<Place>, stop: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_deadline)
            .max_buf_size(BUFFER_BYTES);
        let service = service_fn(|request| self.answer(request, peer, Arc::clone(&place)));
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

    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        place: Arc<Place>,
    ) -> Result<Response<AnswerBody>, HttpError> {
        let admitted = gate::admit(request.method(), request.uri(), request.headers(), &self.region);
        let (mut head, body) = request.into_parts();
        let body = SharedBody::new(body);
        let signed = admitted.as_ref().map_or(Signed::ByNobody, Clone::clone);
        let visit = Visit::new(place, peer.ip(), signed);
        head.extensions.insert(visit.clone());
        let mut answer = match admitted {
            Ok(_) => {
                let handled = s3s::Body::http_body(body.clone());
                self.service.call(Request::from_parts(head, handled)).await?
            }
            Err(refusal) => refusal
                .to_http_response()
                .map_err(|error| HttpError::new(Box::new(error)))?,
        };
        if answer.status().is_client_error() || answer.status().is_server_error() {
            visit.refused();
            body.read_off().await;
        }
        // A browser takes the type that the link names and guesses none that would run.
        answer
            .headers_mut()
            .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Ok(answer.map(|body| AnswerBody::new(body, visit)))
    }
}
