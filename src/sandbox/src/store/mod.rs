//! A way to the store on which things go wrong: a proxy in front of `diagbot store` for the bot, the agents and people.
//!
//! Owns the proxy's listener and its faults. Never signs, and never changes a request that no fault strikes: signatures
//! hold, since the `Host` header stays.
//!
//! ```text
//! GET|POST|DELETE /sandbox/faults      what is armed; arm one (a Fault as JSON); disarm all
//! ```

mod faults;
mod forward;
mod operation;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use faults::Faults;
pub use faults::{Fault, FaultKind};
use forward::{Body, Dropped, full};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Collected};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
pub use operation::Operation;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A running proxy.
#[derive(Debug)]
pub struct StoreProxy {
    way: Arc<Way>,
    address: SocketAddr,
}

/// What every connection needs.
#[derive(Debug)]
struct Way {
    store: SocketAddr,
    client: Client<HttpConnector, Body>,
    faults: Faults,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl StoreProxy {
    /// Starts on a free port of loopback, in front of the store at that address.
    pub async fn start(store: SocketAddr, faults: Vec<Fault>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let way = Arc::new(Way {
            store,
            // A connection a request: a fault of one must not befall another.
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build_http(),
            faults: Faults::new(faults),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        way.tasks.spawn(listen(Arc::clone(&way), listener));
        Ok(Self { way, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Arms a fault.
    pub fn arm(&self, fault: Fault) {
        self.way.faults.arm(fault);
    }

    /// Disarms every fault.
    pub fn disarm(&self) {
        self.way.faults.clear();
    }

    /// What is still armed.
    pub fn armed(&self) -> Vec<Fault> {
        self.way.faults.list()
    }

    /// Ends every connection.
    pub async fn stop(self) {
        self.way.stop.cancel();
        self.way.tasks.close();
        self.way.tasks.wait().await;
    }
}

async fn listen(way: Arc<Way>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            () = way.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                way.tasks.spawn(serve(Arc::clone(&way), stream));
            }
            Err(error) => tracing::warn!(%error, "the store's proxy can't accept a connection"),
        }
    }
}

async fn serve(way: Arc<Way>, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let state = Arc::clone(&way);
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(
        TokioIo::new(stream),
        service_fn(move |request| answer(Arc::clone(&state), request)),
    );
    tokio::select! {
        () = way.stop.cancelled() => {}
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a connection to the store's proxy ended");
        }
    }
}

async fn answer(way: Arc<Way>, request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
    if request.uri().path() == "/sandbox/faults" {
        return Ok(control(&way.faults, request).await);
    }
    tokio::select! {
        () = way.stop.cancelled() => Err(Dropped),
        answer = forward::forward(&way, request) => answer,
    }
}

async fn control(faults: &Faults, request: Request<Incoming>) -> Response<Body> {
    match *request.method() {
        Method::GET => {}
        Method::DELETE => faults.clear(),
        Method::POST => {
            let body = request.into_body().collect().await.map(Collected::to_bytes);
            match serde_json::from_slice(&body.unwrap_or_default()) {
                Ok(fault) => faults.arm(fault),
                Err(error) => return plain(StatusCode::BAD_REQUEST, format!("this is no fault: {error}")),
            }
        }
        _ => return plain(StatusCode::METHOD_NOT_ALLOWED, "GET, POST or DELETE"),
    }
    plain(
        StatusCode::OK,
        serde_json::json!({ "faults": faults.list() }).to_string(),
    )
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
