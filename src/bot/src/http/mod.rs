//! HTTP doors: liveness, readiness, metrics. No action, no secret; bounded in time, size, rate and number of connections.

mod connections;
pub mod webhooks;

use std::{future::ready, net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use bytes::Bytes;
pub use diagbot_base::telemetry::health::Check;
use diagbot_base::telemetry::metrics::Metrics;
use governor::{Quota, RateLimiter};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::connections::Bounds;

/// Connections served at once; probes and one scraper need a handful.
const MAX_CONNECTIONS: usize = 64;
/// Longest life of a connection.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(30);

/// Requests a second, from everybody together.
const RATE: NonZeroU32 = NonZeroU32::new(50).expect("not zero");

/// Where the doors are.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpConfig {
    /// Address; default `0.0.0.0:8080`.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: default_listen(),
        }
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8080))
}

/// Asked for at every readiness probe.
pub type Readiness = Arc<dyn Fn() -> Vec<Check> + Send + Sync>;

/// Serves until the stop signal.
pub async fn serve(listener: TcpListener, metrics: Metrics, readiness: Readiness, stop: CancellationToken) {
    let bounds = Bounds {
        connections: MAX_CONNECTIONS,
        life: CONNECTION_DEADLINE,
        buffer_bytes: 16 * 1024,
    };
    let rate = Arc::new(RateLimiter::direct(Quota::per_second(RATE)));
    let answer = move |request| {
        let answer = match rate.check() {
            Ok(()) => answer(&request, &metrics, &readiness),
            Err(_) => reply(
                StatusCode::TOO_MANY_REQUESTS,
                "text/plain",
                "too many requests\n".to_owned(),
            ),
        };
        ready(answer)
    };
    connections::serve(listener, bounds, answer, stop).await;
}

fn answer(request: &Request<Incoming>, metrics: &Metrics, readiness: &Readiness) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/healthz" => reply(StatusCode::OK, "text/plain", "ok\n".to_owned()),
        "/readyz" => {
            let checks = readiness();
            let status = if checks.iter().all(|c| c.ok) {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            let body = serde_json::to_string(&checks).unwrap_or_default();
            reply(status, "application/json", body)
        }
        "/metrics" => reply(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            metrics.encode(),
        ),
        _ => reply(
            StatusCode::NOT_FOUND,
            "text/plain",
            "not found: /healthz, /readyz, /metrics\n".to_owned(),
        ),
    }
}

fn reply(status: StatusCode, media_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media_type));
    response
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        task::JoinSet,
    };

    use super::*;

    /// Sends bytes and gives what comes until the other side closes.
    async fn send(address: SocketAddr, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        // The door may close before it has read everything.
        let _written = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _closed = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn the_door_takes_gets_only_and_not_too_long_ones_and_not_too_many() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Metrics::new(), Arc::new(Vec::new), stop.clone()));

        let close = "connection: close\r\n\r\n";
        let head = send(
            address,
            format!("GET /metrics HTTP/1.1\r\nhost: x\r\n{close}").as_bytes(),
        )
        .await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let post = format!("POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n{close}x");
        assert!(send(address, post.as_bytes()).await.starts_with("HTTP/1.1 405"));
        let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n{close}", "y".repeat(20_000));
        let answer = send(address, long.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        let many = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(200);
        let answers = send(
            address,
            (many + &format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{close}")).as_bytes(),
        )
        .await;
        assert!(answers.contains("HTTP/1.1 429"), "nothing was refused");

        stop.cancel();
        while serving.join_next().await.is_some() {}
    }
}
