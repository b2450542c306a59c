//! The webhooks' listener: a port of its own, bounded in time, size, rate and number of connections. Owns HTTP only; what a
//! delivery means is [`TriggerFront`]'s.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use super::connections::{self, Bounds};
use crate::triggers::front::{Answer, Report, TriggerFront};

/// Where sources deliver: `/webhooks/<name>`.
const PATH: &str = "/webhooks/";
/// Longest body: a group of 500 alerts with long annotations stays below.
const BODY_BYTES: usize = 1 << 20;
/// Longest wait for a whole body.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// What is waited for, and how long, of a body whose head proves nothing; it is dropped.
const UNPROVEN_BYTES: usize = 64 << 10;
const UNPROVEN_DEADLINE: Duration = Duration::from_secs(1);
/// Longest life of a connection: PagerDuty and Alertmanager give up sooner.
const CONNECTION_DEADLINE: Duration = Duration::from_mins(2);
/// Connections at once.
const MAX_CONNECTIONS: usize = 64;
/// Deliveries a second, also all at once: nobody who proves nothing keeps this process busy with hashing.
const PER_SECOND: u32 = 200;

struct Door {
    front: TriggerFront,
    rate: DefaultDirectRateLimiter,
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, front: TriggerFront, stop: CancellationToken) {
    let bounds = Bounds {
        connections: MAX_CONNECTIONS,
        life: CONNECTION_DEADLINE,
        buffer_bytes: 64 * 1024,
    };
    let quota = Quota::per_second(NonZeroU32::new(PER_SECOND).expect("the rate is not 0"));
    let door = Arc::new(Door {
        front,
        rate: RateLimiter::direct(quota),
    });
    let answer = move |request| {
        let door = Arc::clone(&door);
        async move { response(&door.answer(request).await) }
    };
    connections::serve(listener, bounds, answer, stop).await;
}

impl Door {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let Some(name) = head.uri.path().strip_prefix(PATH).filter(|name| self.front.knows(name)) else {
            return plain(StatusCode::NOT_FOUND, "there is no such source");
        };
        if head.method != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only POST");
        }
        if self.rate.check().is_err() {
            return plain(StatusCode::TOO_MANY_REQUESTS, "too many deliveries; deliver again");
        }
        if let Some(refused) = self.front.refused_by_head(name, &head.headers) {
            // Who closes on bytes that are under way takes the answer back.
            let _dropped = timeout(UNPROVEN_DEADLINE, Limited::new(body, UNPROVEN_BYTES).collect()).await;
            return refused;
        }
        let read = timeout(BODY_DEADLINE, Limited::new(body, BODY_BYTES).collect()).await;
        let body = match read {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return plain(StatusCode::PAYLOAD_TOO_LARGE, "a body has at most 1 MiB");
            }
            Ok(Err(_)) => return plain(StatusCode::BAD_REQUEST, "the body broke off"),
            Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
        };
        self.front.take(name, &head.headers, &body).await
    }
}

fn plain(status: StatusCode, words: &str) -> Answer {
    Answer {
        status,
        body: Report {
            message: words.to_owned(),
            alerts: Vec::new(),
        },
    }
}

fn response(answer: &Answer) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(&answer.body).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = answer.status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    if answer.status == StatusCode::UNAUTHORIZED {
        let scheme = header::HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    if matches!(
        answer.status,
        StatusCode::UNAUTHORIZED
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
    ) {
        // What was not read must not be taken for the next request.
        let close = header::HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}
