//! A PagerDuty of one kind of call: notes on incidents, as its published API describes them
//! (<https://developer.pagerduty.com/api-reference/>, operations `listIncidentNotes` and `createIncidentNote`).
//!
//! Owns the check of what is sent: version, content type, author, token and body; a call that breaks a rule is answered with
//! 400 or 401 and remembered as a fault. The other way round, it signs events as PagerDuty does.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The REST API key that it takes at first: letters and digits, as the published pattern of the header has it.
pub const TOKEN: &str = "y8Nf3gQw7zKs2LmVb5Xd";

/// A running PagerDuty.
#[derive(Debug)]
pub struct PagerDuty {
    account: Arc<Account>,
    address: SocketAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Account {
    book: Mutex<Book>,
}

/// One call with its answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Method.
    pub method: Method,
    /// Path.
    pub path: String,
    /// Headers as sent.
    pub headers: HeaderMap,
    /// Body as sent.
    pub body: Bytes,
    /// Status of the answer.
    pub status: StatusCode,
    /// The answer.
    pub answer: Value,
}

#[derive(Debug)]
struct Book {
    /// The REST API keys that it takes.
    keys: Vec<String>,
    notes: Vec<(String, String)>,
    faults: Vec<String>,
    exchanges: Vec<Exchange>,
    /// Notes that are taken, and answered with 500.
    lose: u32,
}

impl PagerDuty {
    /// Starts on a free port of loopback.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (account, tasks, stop) = (Arc::new(Account::new()), TaskTracker::new(), CancellationToken::new());
        let served = listen(Arc::clone(&account), listener, tasks.clone(), stop.clone());
        tasks.spawn(served);
        Ok(Self {
            account,
            address,
            tasks,
            stop,
        })
    }

    /// Base of its API.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every note so far: incident and content.
    pub fn notes(&self) -> Vec<(String, String)> {
        self.account.book().notes.clone()
    }

    /// Calls that broke a rule, in words.
    pub fn faults(&self) -> Vec<String> {
        self.account.book().faults.clone()
    }

    /// Every call so far.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.account.book().exchanges.clone()
    }

    /// Takes these REST API keys from now on, and no others.
    pub fn take_keys(&self, keys: &[&str]) {
        self.account.book().keys = keys.iter().map(|key| (*key).to_owned()).collect();
    }

    /// The next `count` notes are taken, and the answer is lost.
    pub fn lose_answers(&self, count: u32) {
        self.account.book().lose = count;
    }

    /// Ends every connection.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// The value of `X-PagerDuty-Signature` for a body under these secrets.
pub fn signature(secrets: &[&str], body: &[u8]) -> String {
    let one = |secret: &&str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of every length");
        mac.update(body);
        format!("v1={}", hex::encode(mac.finalize().into_bytes()))
    };
    secrets.iter().map(one).collect::<Vec<_>>().join(",")
}

async fn listen(account: Arc<Account>, listener: TcpListener, tasks: TaskTracker, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let (account, stop) = (Arc::clone(&account), stop.clone());
        tasks.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&account), request));
            tokio::select! {
                () = stop.cancelled() => {}
                // A caller that hangs up is no fault of ours.
                _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service) => {}
            }
        });
    }
}

async fn answer(account: Arc<Account>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let (status, answer) = account.take(&head.method, head.uri.path(), &head.headers, &body);
    let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
    *response.status_mut() = status;
    account.book().exchanges.push(Exchange {
        method: head.method,
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body,
        status,
        answer,
    });
    Ok(response)
}

impl Account {
    fn new() -> Self {
        Self {
            book: Mutex::new(Book {
                keys: vec![TOKEN.to_owned()],
                notes: Vec::new(),
                faults: Vec::new(),
                exchanges: Vec::new(),
                lose: 0,
            }),
        }
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> (StatusCode, Value) {
        let mut book = self.book();
        if let Err((status, fault)) = check(&book.keys, method, path, headers, body) {
            book.faults.push(fault.clone());
            return (status, json!({ "error": { "message": fault, "code": 2001 } }));
        }
        let incident = path.split('/').nth(2).unwrap_or_default().to_owned();
        if *method == Method::GET {
            let notes: Vec<Value> = book
                .notes
                .iter()
                .enumerate()
                .filter(|(_, (of, _))| *of == incident)
                .map(|(number, (_, content))| note(number, content))
                .collect();
            return (StatusCode::OK, json!({ "notes": notes }));
        }
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let content = sent["note"]["content"].as_str().unwrap_or_default().to_owned();
        let answer = json!({ "note": note(book.notes.len(), &content) });
        book.notes.push((incident, content));
        if book.lose > 0 {
            book.lose -= 1;
            return (StatusCode::INTERNAL_SERVER_ERROR, json!({}));
        }
        (StatusCode::OK, answer)
    }
}

fn note(number: usize, content: &str) -> Value {
    json!({
        "id": format!("PNOTE{number}"),
        "user": { "id": "PUSER01", "type": "user_reference", "summary": "diagbot" },
        "channel": { "summary": "The PagerDuty website or APIs" },
        "content": content,
        "created_at": "2026-11-23T00:00:00Z",
    })
}

/// The published rules of the two operations.
fn check(
    keys: &[String],
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), (StatusCode, String)> {
    let bad = |fault: String| Err((StatusCode::BAD_REQUEST, fault));
    let text = |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let given = text(header::AUTHORIZATION)
        .strip_prefix("Token token=")
        .unwrap_or_default();
    if !keys.iter().any(|key| key == given) {
        return Err((StatusCode::UNAUTHORIZED, "the token is wrong".to_owned()));
    }
    if text(header::ACCEPT) != "application/vnd.pagerduty+json;version=2" {
        return bad(format!("Accept is `{}`", text(header::ACCEPT)));
    }
    if text(header::CONTENT_TYPE) != "application/json" {
        return bad(format!("Content-Type is `{}`", text(header::CONTENT_TYPE)));
    }
    let parts: Vec<&str> = path.split('/').collect();
    if !matches!(parts.as_slice(), ["", "incidents", id, "notes"] if !id.is_empty()) {
        return bad(format!("there is no `{path}`"));
    }
    if *method == Method::GET {
        return Ok(());
    }
    if *method != Method::POST {
        return bad(format!("{method} is not published"));
    }
    let from = text(header::FROM);
    if !from
        .split_once('@')
        .is_some_and(|(name, host)| !name.is_empty() && host.contains('.'))
    {
        return bad(format!("From is `{from}`"));
    }
    let Ok(Value::Object(sent)) = serde_json::from_slice(body) else {
        return bad("the body is no object".to_owned());
    };
    match sent.get("note").and_then(|note| note.get("content")) {
        Some(Value::String(content)) if !content.is_empty() => Ok(()),
        _ => bad("note.content is required and a string".to_owned()),
    }
}
