//! The one listener of the local Slack: takes connections, reads requests, hands them to the part they belong to.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::{net::TcpListener, time::timeout};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{api, config::SlackConfig, faults::FaultKind, link, people, response_url, workspace::Workspace};

/// Largest body taken. Slack's own limit for a view is 250 kB; files are small here.
const BODY_LIMIT: usize = 16 << 20;
/// How long a call that is never answered stays open.
pub(super) const NEVER: Duration = Duration::from_mins(1);
/// The page that shows the workspace.
const PAGE: &str = include_str!("page.html");

/// An answer to a request.
pub(super) type Answer = Response<Full<Bytes>>;

/// The connection is to break without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is broken on purpose")]
pub(super) struct Broken;

/// A request with its body read.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Call {
    /// A header as text.
    pub(super) fn header(&self, name: header::HeaderName) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// A parameter of the query.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }
}

/// An answer with a JSON body.
pub(super) fn json_answer(status: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(Full::from(body.to_string()));
    *answer.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

/// An answer with a plain-text body.
pub(super) fn text_answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::from(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    answer
}

/// A running local Slack. It stops when told to; a dropped one stops soon after.
pub struct SlackServer {
    address: SocketAddr,
    workspace: Arc<Workspace>,
}

impl SlackServer {
    /// Starts listening. Fails if the address is not loopback or is taken.
    pub async fn start(config: SlackConfig) -> io::Result<SlackServer> {
        if !config.listen.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the local Slack listens on loopback only",
            ));
        }
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let base = config
            .public_base
            .clone()
            .unwrap_or_else(|| format!("http://{address}"));
        let workspace = Workspace::new(config, base);
        workspace.tasks.spawn(accept(listener, Arc::clone(&workspace)));
        Ok(SlackServer { address, workspace })
    }

    /// Base URL of the Web API, without a trailing slash.
    pub fn api_url(&self) -> String {
        format!("http://{}/api", self.address)
    }

    /// Base URL of the people API and address of the page.
    pub fn people_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The app-level token that Socket Mode takes.
    pub fn app_token(&self) -> &str {
        &self.workspace.config.app_token
    }

    /// The bot token that the Web API takes.
    pub fn bot_token(&self) -> &str {
        &self.workspace.config.bot_token
    }

    /// Ends all connections and waits for their tasks.
    pub async fn stop(self) {
        self.workspace.stop.cancel();
        self.workspace.tasks.close();
        self.workspace.tasks.wait().await;
    }
}

impl Drop for SlackServer {
    fn drop(&mut self) {
        self.workspace.stop.cancel();
    }
}

async fn accept(listener: TcpListener, workspace: Arc<Workspace>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = workspace.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                // Small answers must not wait for more; a failure only costs time.
                let _ = stream.set_nodelay(true);
                workspace.tasks.spawn(serve(stream, Arc::clone(&workspace)));
            }
            Err(error) => {
                tracing::warn!(error = %error, "the local Slack could not take a connection");
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn serve(stream: tokio::net::TcpStream, workspace: Arc<Workspace>) {
    let stop = workspace.stop.clone();
    let service = service_fn(move |request| route(request, Arc::clone(&workspace)));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        // How a client's connection ends is the client's business, or ours on purpose.
        _ended = connection => {}
        () = stop.cancelled() => {}
    }
}

async fn route(request: Request<Incoming>, workspace: Arc<Workspace>) -> Result<Answer, Broken> {
    if let Some(refusal) = refuse_foreign_page(request.headers(), &workspace.base) {
        return Ok(refusal);
    }
    if request.uri().path().trim_end_matches('/') == "/link" {
        return open_link(request, &workspace).await;
    }
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_LIMIT).collect().await else {
        return Ok(text_answer(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is too large or broke off",
        ));
    };
    let call = Call {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: body.to_bytes(),
    };
    if let Some(method) = call.path.strip_prefix("/api/") {
        return api::answer(&workspace, method, &call).await;
    }
    if call.path.starts_with("/response/") {
        return response_url::answer(&workspace, &call).await;
    }
    if call.path.starts_with("/upload/") {
        return api::upload(&workspace, &call).await;
    }
    if call.path == "/people" || call.path.starts_with("/people/") {
        return Ok(people::answer(&workspace, &call).await);
    }
    if call.method == Method::GET && (call.path == "/" || call.path.starts_with("/archives/")) {
        return Ok(page());
    }
    Ok(text_answer(StatusCode::NOT_FOUND, "the local Slack has nothing here"))
}

fn page() -> Answer {
    let mut answer = text_answer(StatusCode::OK, PAGE);
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/html; charset=utf-8"),
    );
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        header::HeaderValue::from_static(policy),
    );
    answer
}

/// A page of another origin must not act as people here.
fn refuse_foreign_page(headers: &HeaderMap, base: &str) -> Option<Answer> {
    let origin = headers.get(header::ORIGIN)?;
    let port = base.rsplit(':').next().unwrap_or_default();
    let own = [base.to_owned(), format!("http://localhost:{port}")];
    let known = origin.to_str().is_ok_and(|origin| own.iter().any(|own| own == origin));
    (!known).then(|| text_answer(StatusCode::FORBIDDEN, "only the sandbox's own page may call this"))
}

/// Opens a Socket Mode connection for a ticket.
async fn open_link(mut request: Request<Incoming>, workspace: &Arc<Workspace>) -> Result<Answer, Broken> {
    match workspace
        .change(|state| state.faults.strike_call("link"))
        .map(|fault| fault.kind)
    {
        Some(FaultKind::Timeout) => {
            tokio::select! {
                () = tokio::time::sleep(NEVER) => {}
                () = workspace.stop.cancelled() => {}
            }
            return Err(Broken);
        }
        Some(FaultKind::LostAnswer) => return Err(Broken),
        Some(FaultKind::Slow(delay)) => {
            // A client that leaves meanwhile ends this call.
            let _ = timeout(delay, workspace.stop.cancelled()).await;
        }
        Some(_) => return Ok(text_answer(StatusCode::INTERNAL_SERVER_ERROR, "internal error")),
        None => {}
    }
    let query = request.uri().query().unwrap_or_default();
    let ticket = url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "ticket")
        .map(|(_, ticket)| ticket);
    let redeemed = ticket.is_some_and(|ticket| workspace.change(|state| state.links.redeem(&ticket)));
    if !redeemed {
        return Ok(text_answer(
            StatusCode::FORBIDDEN,
            "the ticket is unknown or was used before",
        ));
    }
    let Some(key) = request
        .headers()
        .get(header::SEC_WEBSOCKET_KEY)
        .map(|key| derive_accept_key(key.as_bytes()))
    else {
        return Ok(text_answer(StatusCode::BAD_REQUEST, "this is a WebSocket address"));
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let workspace = Arc::clone(workspace);
    workspace.tasks.clone().spawn(async move {
        let stopped = workspace.stop.clone();
        tokio::select! {
            upgraded = upgrade => {
                if let Ok(upgraded) = upgraded {
                    link::serve(workspace, upgraded).await;
                }
            }
            () = stopped.cancelled() => {}
        }
    });
    let answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, key)
        .body(Full::default());
    Ok(answer.unwrap_or_else(|_| text_answer(StatusCode::BAD_REQUEST, "the WebSocket key is malformed")))
}
