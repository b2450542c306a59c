//! Byte streams to Slack: TCP, an HTTP CONNECT proxy where one is configured, TLS. Every stage has a deadline; a peer that
//! accepts and never answers is an error within seconds.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use base64::Engine as _;
use futures::future::BoxFuture;
use http::Uri;
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use url::Url;

/// Longest wait for each stage: name and TCP, the proxy's answer, TLS.
const STAGE: Duration = Duration::from_secs(5);
/// Longest answer of a proxy to CONNECT.
const PROXY_ANSWER_BYTES: usize = 8 * 1024;

/// Why there is no stream. Nothing was sent to Slack when this is the answer.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No TLS can be had.
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
    /// The address has no host.
    #[error("the address has no host")]
    Host,
    /// A stage took too long.
    #[error("{0} took longer than {STAGE:?}")]
    TooLong(&'static str),
    /// A stage failed.
    #[error("{stage}")]
    Failed {
        /// Which.
        stage: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The proxy refused.
    #[error("the proxy answered `{0}`")]
    Proxy(String),
}

/// Makes streams. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    tls: TlsConnector,
    proxy: Option<Arc<Proxy>>,
}

struct Proxy {
    host: String,
    port: u16,
    authorization: Option<String>,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

impl Dialer {
    /// A dialer that trusts the machine's roots (`SSL_CERT_FILE` is honoured).
    pub fn new(proxy: Option<&Url>) -> Result<Self, DialError> {
        let mut roots = rustls::RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        let (trusted, _) = roots.add_parsable_certificates(native.certs);
        if trusted == 0 {
            tracing::warn!("this machine has no root certificates: no TLS connection can succeed");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(DialError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let proxy = proxy.map(Proxy::of).transpose()?.map(Arc::new);
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            proxy,
        })
    }

    /// A stream to `host:port`, through the proxy where there is one.
    pub async fn dial(&self, host: &str, port: u16, tls: bool) -> Result<Stream, DialError> {
        let tcp = match &self.proxy {
            Some(proxy) => proxy.tunnel(host, port).await?,
            None => connect(host, port).await?,
        };
        if !tls {
            return Ok(Stream::Plain(tcp));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| DialError::Host)?;
        let stream = stage("shake hands over TLS", self.tls.connect(name, tcp)).await?;
        Ok(Stream::Tls(Box::new(stream)))
    }
}

impl Proxy {
    fn of(url: &Url) -> Result<Self, DialError> {
        let authorization = (!url.username().is_empty()).then(|| {
            let pair = format!("{}:{}", url.username(), url.password().unwrap_or_default());
            base64::engine::general_purpose::STANDARD.encode(pair)
        });
        Ok(Self {
            host: url.host_str().ok_or(DialError::Host)?.to_owned(),
            port: url.port_or_known_default().unwrap_or(3128),
            authorization,
        })
    }

    async fn tunnel(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        let mut stream = connect(&self.host, self.port).await?;
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
        if let Some(credentials) = &self.authorization {
            request.push_str("Proxy-Authorization: Basic ");
            request.push_str(credentials);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        let status = stage("ask the proxy for a tunnel", async {
            stream.write_all(request.as_bytes()).await?;
            answer_of_proxy(&mut stream).await
        })
        .await?;
        // `HTTP/1.1 200 Connection established`
        match status.split_whitespace().nth(1) {
            Some("200") => Ok(stream),
            _ => Err(DialError::Proxy(
                status.chars().filter(char::is_ascii).take(100).collect(),
            )),
        }
    }
}

/// Reads to the end of the head, byte by byte so that nothing behind it is taken, and returns the status line.
async fn answer_of_proxy(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= PROXY_ANSWER_BYTES {
            return Err(io::Error::other("the proxy's answer is too long"));
        }
        head.push(stream.read_u8().await?);
    }
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = stage("connect", TcpStream::connect((host, port))).await?;
    stream.set_nodelay(true).map_err(|source| DialError::Failed {
        stage: "connect",
        source,
    })?;
    Ok(stream)
}

async fn stage<T>(stage: &'static str, work: impl Future<Output = io::Result<T>>) -> Result<T, DialError> {
    timeout(STAGE, work)
        .await
        .map_err(|_| DialError::TooLong(stage))?
        .map_err(|source| DialError::Failed { stage, source })
}

/// A stream to Slack.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS: tests and the sandbox.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// The dialer as hyper's client wants it.
impl tower::Service<Uri> for Dialer {
    type Response = TokioIo<Stream>;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Self::Response, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            let tls = uri.scheme_str() == Some("https");
            let host = uri.host().ok_or(DialError::Host)?;
            let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
            dialer.dial(host, port, tls).await.map(TokioIo::new)
        })
    }
}
