//! A request from its head to the last byte of its answer: who signed it, and the place that it keeps busy meanwhile.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Extensions;
use hyper::body::{Body, Frame, SizeHint};
use s3s::{
    S3ErrorCode, S3Result, StdError,
    access::{S3Access, S3AccessContext},
};

use super::{
    connections::{Place, State, busy},
    gate::Signed,
};

/// A request, as the protocol layer hands it from hand to hand.
#[derive(Debug, Clone)]
pub(super) struct Visit(Arc<Stay>);

#[derive(Debug)]
struct Stay {
    place: Arc<Place>,
    peer: IpAddr,
    signed: Signed,
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.place.end();
    }
}

impl Visit {
    pub(super) fn new(place: Arc<Place>, peer: IpAddr, signed: Signed) -> Self {
        Self(Arc::new(Stay { place, peer, signed }))
    }

    /// The visit that a request belongs to.
    pub(super) fn of(extensions: &Extensions) -> S3Result<&Self> {
        extensions
            .get()
            .ok_or_else(|| busy("the request belongs to no connection"))
    }

    pub(super) fn peer(&self) -> IpAddr {
        self.0.peer
    }

    pub(super) fn signed(&self) -> &Signed {
        &self.0.signed
    }

    /// The request was refused; what is left to do can be broken off.
    pub(super) fn refused(&self) {
        self.0.place.end();
    }
}

/// Asked by the protocol layer once it has verified a signature, and before it reads a body.
#[derive(Debug)]
pub(super) struct Admission;

#[async_trait::async_trait]
impl S3Access for Admission {
    async fn check(&self, request: &mut S3AccessContext<'_>) -> S3Result<()> {
        if request.credentials().is_none() {
            return Err(S3ErrorCode::AccessDenied.into());
        }
        let stay = &Visit::of(request.extensions_mut())?.0;
        match stay.signed {
            Signed::ByNobody => Err(S3ErrorCode::AccessDenied.into()),
            Signed::ByAccount => stay.place.begin(State::ByAccount),
            Signed::ByUrl(_) => stay.place.begin(State::ByUrl),
        }
    }
}

/// An answer's body, which keeps the place busy until it was sent.
pub(super) struct AnswerBody {
    body: s3s::Body,
    _visit: Visit,
}

impl AnswerBody {
    pub(super) fn new(body: s3s::Body, visit: Visit) -> Self {
        Self { body, _visit: visit }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
