//! One exec of the agent's `cat`, read frame by frame so that no byte is copied between the network and the store.
//!
//! # Design notes
//! The subprotocol is `v4.channel.k8s.io`, not kube's `v5`: the API server translates v5 into SPDY on its way to the kubelet,
//! which took a third more of the cluster's processors for a byte (measured on Kubernetes 1.35), and what v5 adds, closing
//! standard input, is not needed. An idle limit stands around reading, since no pong is awaited.

use std::time::Duration;

use bytes::Bytes;
use diagbot_cluster::{CallError, deadline};
use futures::StreamExt as _;
use http::{HeaderValue, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::{StatusCode, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{Api, api::AttachParams, client::Body};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::client::generate_key, protocol::Role},
};

use crate::explain;

/// Where the agent's image has its program; the admission policy allows exec of nothing else.
const AGENT: &str = "/diagbot-agent";
/// Longest wait for exec.
const CONNECT: Duration = Duration::from_secs(10);
/// A stream that brings nothing for this long is broken: the agent reads a file, and always has the next bytes at hand.
const IDLE: Duration = Duration::from_secs(10);
/// Longest refusal that is read, in bytes.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;
/// How much of what `cat` complains of is kept, in bytes.
const MAX_WORDS_BYTES: usize = 1024;
/// The subprotocol, and its channels (k8s.io/apimachinery/pkg/util/remotecommand/constants.go).
const PROTOCOL: HeaderValue = HeaderValue::from_static("v4.channel.k8s.io");
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;

/// An exec of `cat` in our own container; dropping it ends it.
pub(super) struct CatStream {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    words: Vec<u8>,
}

impl CatStream {
    /// Starts `cat` of a step's staged artifact from a byte on.
    pub(super) async fn open(
        pods: &Api<Pod>,
        pod: &str,
        container: &str,
        step: u16,
        from: u64,
    ) -> Result<Self, CallError> {
        let command = [
            AGENT.to_owned(),
            "cat".to_owned(),
            format!("--step={step}"),
            format!("--from={from}"),
        ];
        let params = AttachParams::default()
            .container(container)
            .stdin(false)
            .stdout(true)
            .stderr(true);
        let request = kube::core::Request::new(pods.resource_url())
            .exec(pod, command, &params)
            .map_err(|error| CallError::Kube(Box::new(kube::Error::BuildRequest(error))))?;
        let socket = deadline(CONNECT, upgrade(pods, request)).await?;
        Ok(Self {
            socket,
            words: Vec::new(),
        })
    }

    /// The next bytes; `None` when no more will come from this stream, for whatever reason.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        tokio::time::timeout(IDLE, self.output()).await.ok().flatten()
    }

    async fn output(&mut self) -> Option<Bytes> {
        while let Some(Ok(message)) = self.socket.next().await {
            let Message::Binary(frame) = message else { continue };
            match frame.first() {
                // Empty frames open the channels.
                Some(&STDOUT) if frame.len() > 1 => return Some(frame.slice(1..)),
                Some(&STDERR) => self.keep_words(&frame[1..]),
                Some(&STATUS) => {
                    let status = serde_json::from_slice::<Status>(&frame[1..]);
                    if let Some(message) = status.ok().and_then(|s| s.message) {
                        self.keep_words(message.as_bytes());
                    }
                }
                _ => {}
            }
        }
        None
    }

    fn keep_words(&mut self, words: &[u8]) {
        let room = MAX_WORDS_BYTES.saturating_sub(self.words.len());
        self.words.extend_from_slice(&words[..words.len().min(room)]);
    }

    /// What it said on standard error or as its status.
    pub(super) fn last_words(&self) -> String {
        explain::clean(&String::from_utf8_lossy(&self.words))
    }
}

/// Asks for the WebSocket. That the answer belongs to this request is certain: the connection is the cluster client's own,
/// authenticated one.
async fn upgrade(pods: &Api<Pod>, request: http::Request<Vec<u8>>) -> kube::Result<WebSocketStream<TokioIo<Upgraded>>> {
    let mut request = request.map(Body::from);
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL);
    if let Ok(key) = HeaderValue::from_str(&generate_key()) {
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
    }
    let answer = pods.clone().into_client().send(request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS
        || answer.headers().get(header::SEC_WEBSOCKET_PROTOCOL) != Some(&PROTOCOL)
    {
        return Err(refusal(answer).await);
    }
    let upgraded = hyper::upgrade::on(answer).await.map_err(kube::Error::HyperError)?;
    Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await)
}

/// The API server's reason, as kube tells it for other calls.
async fn refusal(answer: http::Response<Body>) -> kube::Error {
    let code = answer.status().as_u16();
    let text = match Limited::new(answer.into_body(), MAX_REFUSAL_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let status = serde_json::from_slice::<kube::core::Status>(&text)
        .unwrap_or_else(|_| kube::core::Status::failure("exec was not granted", "NoWebSocket").with_code(code));
    kube::Error::Api(Box::new(status))
}
