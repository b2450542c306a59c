//! exec and attach over WebSocket: subprotocols `v5.channel.k8s.io` and `v4.channel.k8s.io`.
//!
//! Owns one session: its channels, its status and the faults that can befall it. Never keeps output: attach has no replay.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    process::Stdio,
    sync::Arc,
};

use bytes::Bytes;
use futures::{
    FutureExt, SinkExt, Stream, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream, SplitSink, SplitStream},
};
use http::{HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream, process::ChildStdin};
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};
use tokio_util::io::ReaderStream;

use super::{
    answer::ApiError,
    cluster::Cluster,
    faults::{FaultKind, Occasion},
    http::{Body, Call, full, plain, resource_words},
    node::{Output, Run, exit_code},
    pod,
    store::{Key, text},
};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
/// v5 only: the next byte names the channel that its sender closes.
const CLOSE: u8 = 255;
/// Bytes of output in one message.
const CHUNK: usize = 32 * 1024;

/// Whom the client's input goes to.
enum Input {
    /// Nowhere: the client gave no input, or what ran has closed it.
    Closed,
    /// An exec's own pipe.
    Pipe(ChildStdin),
    /// The container's standard input.
    Container(Arc<Run>),
}

/// Both ends of what a session carries.
struct Session {
    input: Input,
    output: BoxStream<'static, (u8, Bytes)>,
    /// The `Status` that ends the session, once all output has come.
    status: BoxFuture<'static, Value>,
    fault: Option<FaultKind>,
}

/// Checks a request for a stream, and carries it on after the upgrade.
pub(super) fn answer(cluster: &Arc<Cluster>, call: &Call, upgrade: OnUpgrade) -> Result<Response<Body>, ApiError> {
    let target = &call.target;
    let found = cluster
        .store
        .get(&Key::new(target.kind, &target.namespace, &target.name))?;
    let container = pod::choose_container(&found, call.query.get("container"))?;
    if text(&found["spec"]["nodeName"]).is_empty() {
        return Err(ApiError::bad_request(format!(
            "pod {} does not have a host assigned",
            target.name
        )));
    }
    let command = call.query.all("command");
    let attach = target.subresource == "attach";
    if !attach && command.is_empty() {
        return Err(ApiError::bad_request(
            "you must specify at least 1 command for the container",
        ));
    }
    let Some(run) = cluster.node.running(text(&found["metadata"]["uid"]), &container) else {
        // The kubelet's own answer, which the API server hands through.
        let text = if attach {
            format!(
                "container {container} not found in pod {}_{}",
                target.name, target.namespace
            )
        } else {
            format!("container not found ({container:?})")
        };
        let mut refused = plain(text);
        *refused.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return Ok(refused);
    };
    let header = |name: &str| call.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !header("upgrade").eq_ignore_ascii_case("websocket") {
        return Err(if header("upgrade").is_empty() {
            ApiError::bad_request("Upgrade request required")
        } else {
            ApiError::not_in_sandbox("SPDY streams; use a client with WebSockets")
        });
    }
    let offered = header("sec-websocket-protocol");
    let protocol = ["v5.channel.k8s.io", "v4.channel.k8s.io"]
        .into_iter()
        .find(|p| offered.split(',').any(|o| o.trim() == *p))
        .ok_or_else(|| ApiError::bad_request(format!("unable to upgrade: unknown protocols [{offered}]")))?;
    let occasion = Occasion {
        verb: call.verb.as_str(),
        resource: &resource_words(target),
        name: &target.name,
    };
    let fault = cluster.faults.take(occasion, |kind| {
        use FaultKind::{StreamEndsEarly, StreamReset, StreamSilent};
        matches!(kind, StreamReset { .. } | StreamEndsEarly { .. } | StreamSilent { .. })
    });
    let wants = Wants {
        stdin: call.query.flag("stdin"),
        stdout: call.query.flag("stdout"),
        // A terminal has one output.
        stderr: call.query.flag("stderr") && !call.query.flag("tty"),
    };
    let accept = derive_accept_key(header("sec-websocket-key").as_bytes());
    let carried = carry(
        Arc::clone(cluster),
        upgrade,
        run,
        (!attach).then_some(command),
        wants,
        fault,
    );
    cluster.tasks.spawn(carried);
    switching(protocol, &accept)
}

fn switching(protocol: &'static str, accept: &str) -> Result<Response<Body>, ApiError> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    let accept = HeaderValue::from_str(accept).map_err(|e| ApiError::internal(&e.to_string()))?;
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

#[derive(Debug, Clone, Copy)]
struct Wants {
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

async fn carry(
    cluster: Arc<Cluster>,
    upgrade: OnUpgrade,
    run: Arc<Run>,
    command: Option<Vec<String>>,
    wants: Wants,
    fault: Option<FaultKind>,
) {
    // Attached before the client knows that it is: from here on it misses nothing.
    let session = match command {
        None => Ok(attach(run, wants, fault)),
        Some(command) => exec(&cluster, &run, &command, wants, fault).await,
    };
    let session = session.unwrap_or_else(|error| Session {
        input: Input::Closed,
        output: stream::empty().boxed(),
        status: std::future::ready(
            // Twice "Internal error occurred", as the API server wraps what the kubelet has wrapped.
            ApiError::internal(&ApiError::internal(&format!("error executing command in container: {error}")).message)
                .to_status(),
        )
        .boxed(),
        fault,
    });
    let carried = async {
        let upgraded = upgrade.await.map_err(io::Error::other)?;
        let parts = upgraded
            .downcast::<TokioIo<TcpStream>>()
            .map_err(|_| io::Error::other("the upgraded connection is no TCP stream"))?;
        let tcp = parts.io.into_inner();
        let socket = tcp.as_fd().try_clone_to_owned()?;
        let websocket = WebSocketStream::from_partially_read(tcp, parts.read_buf.to_vec(), Role::Server, None).await;
        let (sink, source) = websocket.split();
        session.carry(sink, source, &socket).await
    };
    tokio::select! {
        () = cluster.stop.cancelled() => {}
        () = cluster.outage.strikes() => {}
        carried = carried => if let Err(error) = carried {
            tracing::debug!(%error, "a stream of the sandbox's API ended");
        }
    }
}

fn attach(run: Arc<Run>, wants: Wants, fault: Option<FaultKind>) -> Session {
    let mut outputs: Vec<BoxStream<'static, (u8, Bytes)>> = Vec::new();
    for (wanted, output, channel) in [
        (wants.stdout, Output::Stdout, STDOUT),
        (wants.stderr, Output::Stderr, STDERR),
    ] {
        if wanted && let Some(chunks) = run.view(output) {
            outputs.push(ReceiverStream::new(chunks).map(move |chunk| (channel, chunk)).boxed());
        }
    }
    let over = Arc::clone(&run);
    let status = async move {
        over.ended().await;
        success()
    };
    Session {
        input: if wants.stdin {
            Input::Container(run)
        } else {
            Input::Closed
        },
        output: stream::select_all(outputs).boxed(),
        status: status.boxed(),
        fault,
    }
}

async fn exec(
    cluster: &Cluster,
    run: &Run,
    command: &[String],
    wants: Wants,
    fault: Option<FaultKind>,
) -> io::Result<Session> {
    let mut prepared = cluster.node.exec(run, command).map_err(io::Error::other)?;
    let piped = |wanted| if wanted { Stdio::piped() } else { Stdio::null() };
    prepared
        .stdin(piped(wants.stdin))
        .stdout(piped(wants.stdout))
        .stderr(piped(wants.stderr));
    let mut child = cluster.node.spawn(prepared).await?;
    let stdout = child.stdout.take().map(|pipe| chunks(pipe, STDOUT));
    let stderr = child.stderr.take().map(|pipe| chunks(pipe, STDERR));
    let input = child.stdin.take().map_or(Input::Closed, Input::Pipe);
    let status = async move {
        match child.wait().await.map(exit_code) {
            Ok(0) => success(),
            Ok(code) => non_zero(code),
            Err(error) => ApiError::internal(&error.to_string()).to_status(),
        }
    };
    let output = stream::select_all(stdout.into_iter().chain(stderr)).boxed();
    Ok(Session {
        input,
        output,
        status: status.boxed(),
        fault,
    })
}

fn chunks(pipe: impl tokio::io::AsyncRead + Send + Unpin + 'static, channel: u8) -> BoxStream<'static, (u8, Bytes)> {
    ReaderStream::with_capacity(pipe, CHUNK)
        .take_while(|read| std::future::ready(read.is_ok()))
        .filter_map(move |read| std::future::ready(read.ok().map(|chunk| (channel, chunk))))
        .boxed()
}

fn success() -> Value {
    json!({ "metadata": {}, "status": "Success" })
}

fn non_zero(code: i32) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: command terminated with exit code {code}"),
        "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}

type Sink = SplitSink<WebSocketStream<TcpStream>, Message>;
type Source = SplitStream<WebSocketStream<TcpStream>>;

impl Session {
    async fn carry(self, mut sink: Sink, source: Source, socket: &OwnedFd) -> io::Result<()> {
        let Self {
            input,
            output,
            status,
            fault,
        } = self;
        // As the real server: an empty message tells the client that the session stands.
        send(&mut sink, STDOUT, &[]).await?;
        let outgoing = async {
            match forward(&mut sink, output, fault).await? {
                StreamEnd::Complete => {
                    let status = status.await.to_string();
                    send(&mut sink, STATUS, status.as_bytes()).await?;
                    close(&mut sink).await
                }
                StreamEnd::Closed => close(&mut sink).await,
                StreamEnd::Silent => std::future::pending().await,
                StreamEnd::Reset => Ok(rustix::net::sockopt::set_socket_linger(
                    socket,
                    Some(std::time::Duration::ZERO),
                )?),
            }
        };
        // The session ends with its output, or when the client is gone.
        tokio::select! {
            ended = outgoing => ended,
            () = take_input(source, input) => Ok(()),
        }
    }
}

/// How the output of a session ended.
enum StreamEnd {
    Complete,
    Closed,
    Silent,
    Reset,
}

async fn forward(
    sink: &mut Sink,
    mut output: impl Stream<Item = (u8, Bytes)> + Unpin,
    fault: Option<FaultKind>,
) -> io::Result<StreamEnd> {
    let limit = match fault {
        Some(
            FaultKind::StreamReset { after_bytes }
            | FaultKind::StreamEndsEarly { after_bytes }
            | FaultKind::StreamSilent { after_bytes },
        ) => Some(after_bytes),
        _ => None,
    };
    let mut left = limit;
    loop {
        if left == Some(0) {
            return Ok(match fault {
                Some(FaultKind::StreamReset { .. }) => StreamEnd::Reset,
                Some(FaultKind::StreamSilent { .. }) => StreamEnd::Silent,
                _ => StreamEnd::Closed,
            });
        }
        let Some((channel, mut chunk)) = output.next().await else {
            return Ok(StreamEnd::Complete);
        };
        if let Some(left) = left.as_mut() {
            chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= chunk.len() as u64;
        }
        send(sink, channel, &chunk).await?;
    }
}

async fn send(sink: &mut Sink, channel: u8, bytes: &[u8]) -> io::Result<()> {
    let mut message = Vec::with_capacity(bytes.len() + 1);
    message.push(channel);
    message.extend_from_slice(bytes);
    sink.send(Message::binary(message)).await.map_err(io::Error::other)
}

/// Closes as the real server does: clients take a close without a code for a failure.
async fn close(sink: &mut Sink) -> io::Result<()> {
    let frame = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    sink.send(Message::Close(Some(frame))).await.map_err(io::Error::other)?;
    sink.close().await.map_err(io::Error::other)
}

/// Takes what the client sends until it is gone. A container's input outlives the client unless it was made to be used once.
async fn take_input(mut source: Source, mut input: Input) {
    while let Some(Ok(message)) = source.next().await {
        let Message::Binary(bytes) = message else { continue };
        match bytes.split_first() {
            Some((&STDIN, data)) => input.write(data).await,
            Some((&CLOSE, [STDIN])) => input.end().await,
            _ => {}
        }
    }
    input.end().await;
}

impl Input {
    async fn write(&mut self, data: &[u8]) {
        match self {
            Self::Closed => {}
            Self::Pipe(pipe) => {
                if let Err(error) = pipe.write_all(data).await {
                    tracing::debug!(%error, "a command closed its standard input");
                    *self = Self::Closed;
                }
            }
            Self::Container(run) => run.write_stdin(data).await,
        }
    }

    async fn end(&mut self) {
        if let Self::Container(run) = self
            && run.stdin_once
        {
            run.close_stdin().await;
        }
        *self = Self::Closed;
    }
}
