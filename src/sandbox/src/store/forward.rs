//! One request on its way to the store and back, with the fault that strikes it.

use std::{io, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body as _, Frame, Incoming};

use super::{FaultKind, Operation, Way};

/// A body on its way; an error in it breaks the connection.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection breaks, as a fault asks or as the store's did")]
pub(super) struct Dropped;

/// How a body is changed on its way.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Cut(u64),
    Corrupt,
}

/// Hands a request on, unless a fault strikes it.
pub(super) async fn forward(way: &Way, request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
    let operation = Operation::of(request.method(), request.uri().query().unwrap_or_default());
    let struck = way.faults.take(operation, request.uri().path());
    if let Some(fault) = struck {
        tracing::debug!(?operation, ?fault, "a fault of the store");
    }
    let harm = match struck {
        Some(FaultKind::Timeout) => return std::future::pending().await,
        Some(FaultKind::Broken) => return Err(Dropped),
        Some(FaultKind::Slow { millis }) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            None
        }
        Some(FaultKind::Cut { after_bytes }) => Some(Harm::Cut(after_bytes)),
        Some(FaultKind::Corrupt | FaultKind::Forged) => Some(Harm::Corrupt),
        Some(kind) => {
            if let Some((status, code, message)) = refusal(kind) {
                return Ok(refuse(request, status, code, message).await);
            }
            None
        }
        None => None,
    };
    // A request without a body is harmed on its way back.
    let (there, back) = if request.body().is_end_stream() {
        (None, harm)
    } else {
        (harm, None)
    };
    let (mut parts, body) = request.into_parts();
    if struck == Some(FaultKind::Forged) {
        parts.headers.remove("content-md5");
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = Uri::builder()
        .scheme("http")
        .authority(way.store.to_string())
        .path_and_query(path)
        .build()
        .map_err(|_| Dropped)?;
    let answer = way.client.request(Request::from_parts(parts, harmed(body, there)));
    let answer = answer.await.map_err(|_| Dropped)?;
    if struck == Some(FaultKind::LostAnswer) {
        return Err(Dropped);
    }
    let (parts, body) = answer.into_parts();
    Ok(Response::from_parts(parts, harmed(body, back)))
}

fn harmed(body: Incoming, harm: Option<Harm>) -> Body {
    let Some(harm) = harm else {
        return body.map_err(io::Error::other).boxed_unsync();
    };
    let mut left = match harm {
        Harm::Cut(after_bytes) => after_bytes,
        Harm::Corrupt => 0,
    };
    let mut untouched = true;
    let frames = body.into_data_stream().flat_map(move |chunk| {
        let mut frames = Vec::new();
        match (chunk, harm) {
            (Err(error), _) => frames.push(Err(io::Error::other(error))),
            (Ok(chunk), Harm::Cut(_)) => {
                let kept = chunk.slice(..usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len()));
                left -= kept.len() as u64;
                let cut = kept.len() < chunk.len();
                frames.push(Ok(Frame::data(kept)));
                if cut {
                    frames.push(Err(io::Error::other("cut, as a fault asks")));
                }
            }
            (Ok(chunk), Harm::Corrupt) => {
                let mut bytes = chunk.to_vec();
                if let Some(byte) = bytes.first_mut().filter(|_| untouched) {
                    *byte ^= 1;
                    untouched = false;
                }
                frames.push(Ok(Frame::data(bytes.into())));
            }
        }
        futures::stream::iter(frames)
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Status, code and message of a store that refuses.
fn refusal(kind: FaultKind) -> Option<(StatusCode, &'static str, &'static str)> {
    Some(match kind {
        FaultKind::SlowDown => (
            StatusCode::SERVICE_UNAVAILABLE,
            "SlowDown",
            "Please reduce your request rate.",
        ),
        FaultKind::InternalError => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            "We encountered an internal error. Please try again.",
        ),
        FaultKind::AccessDenied => (StatusCode::FORBIDDEN, "AccessDenied", "Access Denied"),
        FaultKind::ExpiredUrl => (StatusCode::FORBIDDEN, "AccessDenied", "Request has expired"),
        FaultKind::ExpiredCredentials => (
            StatusCode::BAD_REQUEST,
            "ExpiredToken",
            "The provided token has expired.",
        ),
        FaultKind::WrongRegion => (
            StatusCode::MOVED_PERMANENTLY,
            "PermanentRedirect",
            "The bucket you are attempting to access must be addressed using the specified endpoint.",
        ),
        FaultKind::DiskFull => (
            StatusCode::INSUFFICIENT_STORAGE,
            "InsufficientStorage",
            "There is no room left.",
        ),
        _ => return None,
    })
}

/// Answers once the request's body has come, as a client that writes without reading would otherwise miss the answer.
async fn refuse(request: Request<Incoming>, status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    let xml = HeaderValue::from_static("application/xml");
    response.headers_mut().insert(header::CONTENT_TYPE, xml);
    response
}

/// A body that is there as a whole.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}
