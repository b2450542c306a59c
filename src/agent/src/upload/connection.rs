//! Connections to the store: names resolved in pure Rust, TLS against the ticket's certificates or the public roots, an
//! HTTP proxy where the ticket names one. A connection that a request has left whole is used for the next.

use std::{
    fs::File,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use diagbot_wire::digest::PartMd5;
use hickory_resolver::TokioResolver;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::{body::RangeBody, error::UploadError};

/// Longest look-up of a name: time for a second name server.
const LOOK_UP_DEADLINE: Duration = Duration::from_secs(6);
/// Longest connect and handshake, each: time for one repetition of a packet that was lost.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// Longest exchange of a small request; a part gets more by its length.
const EXCHANGE_DEADLINE: Duration = Duration::from_mins(1);
/// Longest time in which no byte of a part goes out, nor an answer comes.
const IDLE_DEADLINE: Duration = Duration::from_secs(45);
/// Slowest rate that a part may have over its time, in bytes a second.
const SLOWEST_BYTES_PER_S: u64 = 64 * 1024;
/// Longest answer that is read, in bytes: an S3 error.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// The way to the store.
pub(crate) struct Store {
    tls: TlsConnector,
    proxy: Option<Url>,
    /// Connections that wait for the next request, each with the origin that it leads to.
    idle: Mutex<Vec<(String, Link)>>,
}

/// A connection to the store.
struct Link {
    sender: SendRequest<RangeBody>,
    /// Does the work of the connection; over when it has closed.
    driver: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Store {
    /// `ca_pem`: certificates to trust instead of the public roots; `proxy`: `http://host:port`.
    pub(crate) fn new(ca_pem: Option<&str>, proxy: Option<&str>) -> Result<Self, UploadError> {
        let internal = |text: String| UploadError::Internal(text);
        let mut roots = RootCertStore::empty();
        match ca_pem {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    let certificate =
                        certificate.map_err(|e| internal(format!("read the store's certificates: {e}")))?;
                    roots
                        .add(certificate)
                        .map_err(|e| internal(format!("use the store's certificates: {e}")))?;
                }
            }
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| internal(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let proxy = proxy
            .map(Url::parse)
            .transpose()
            .map_err(|e| internal(format!("read the proxy's address: {e}")))?;
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            proxy,
            idle: Mutex::default(),
        })
    }

    /// Connects, and keeps the connection for the first request.
    pub(crate) async fn reach(&self, url: &str) -> Result<(), UploadError> {
        let url = parse(url)?;
        let link = Link::new(self.open(&url).await?).await?;
        self.keep(&url, link);
        Ok(())
    }

    /// PUTs a range of the file (offset and length).
    pub(crate) async fn put(
        &self,
        url: &str,
        headers: &[(String, String)],
        file: &Arc<File>,
        range: (u64, u64),
        md5: PartMd5,
    ) -> Result<(), UploadError> {
        let url = parse(url)?;
        let limit = EXCHANGE_DEADLINE + Duration::from_secs(range.1 / SLOWEST_BYTES_PER_S);
        let taken = Arc::new(AtomicU64::new(0));
        let request = || {
            let mut request = Request::put(path_of(&url))
                .header(header::HOST, host_of(&url)?)
                .header(header::CONTENT_LENGTH, range.1)
                // No `x-amz-…` header, so it may be sent unsigned; the store refuses a damaged part.
                .header("content-md5", md5.content_md5());
            for (name, value) in headers {
                request = request.header(name, value);
            }
            request
                .body(RangeBody::new(Arc::clone(file), range, Arc::clone(&taken)))
                .map_err(|e| UploadError::Internal(e.to_string()))
        };
        let exchange = async {
            if let Some(mut link) = self.kept(&url).await {
                match link.exchange(request()?).await {
                    // It may have been closed just now: that is no fault of the store.
                    Err(UploadError::Broken(_)) => {}
                    answer => return self.judge(&url, link, answer?),
                }
            }
            let mut link = Link::new(self.open(&url).await?).await?;
            let answer = link.exchange(request()?).await?;
            self.judge(&url, link, answer)
        };
        let silent = |time: Duration| Err(UploadError::Broken(format!("no answer within {} s", time.as_secs())));
        tokio::select! {
            outcome = exchange => outcome,
            () = tokio::time::sleep(limit) => silent(limit),
            () = standstill(&taken) => silent(IDLE_DEADLINE),
        }
    }

    /// What an answer says; after a good one the connection can be used again.
    fn judge(&self, url: &Url, link: Link, answer: (StatusCode, Bytes)) -> Result<(), UploadError> {
        judge(answer)?;
        self.keep(url, link);
        Ok(())
    }

    fn keep(&self, url: &Url, link: Link) {
        if link.driver.is_some() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((url.origin().ascii_serialization(), link));
        }
    }

    /// A connection that waits and is still open.
    async fn kept(&self, url: &Url) -> Option<Link> {
        let origin = url.origin().ascii_serialization();
        loop {
            let mut link = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                let index = idle.iter().position(|(to, _)| *to == origin)?;
                idle.swap_remove(index).1
            };
            if link.is_ready().await {
                return Some(link);
            }
        }
    }

    async fn open(&self, url: &Url) -> Result<Box<dyn Stream>, UploadError> {
        let stream: Box<dyn Stream> = match &self.proxy {
            Some(proxy) => Box::new(tunnel(dial(proxy).await?, url).await?),
            None => Box::new(dial(url).await?),
        };
        if url.scheme() != "https" {
            return Ok(stream);
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|e| UploadError::Unreachable(e.to_string()))?;
        within(self.tls.connect(name, stream))
            .await
            .map(|tls| Box::new(tls) as Box<dyn Stream>)
    }
}

/// Returns when nothing was taken for too long.
async fn standstill(taken: &AtomicU64) {
    loop {
        let before = taken.load(Ordering::Relaxed);
        tokio::time::sleep(IDLE_DEADLINE).await;
        if taken.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> Result<T, UploadError> {
    match timeout(CONNECT_DEADLINE, work).await {
        Ok(outcome) => outcome.map_err(|error| match error.kind() {
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                UploadError::NoRoute(error.to_string())
            }
            _ => UploadError::Unreachable(error.to_string()),
        }),
        Err(_) => Err(UploadError::Unreachable(format!(
            "no answer within {} s",
            CONNECT_DEADLINE.as_secs()
        ))),
    }
}

async fn dial(url: &Url) -> Result<TcpStream, UploadError> {
    let port = url.port_or_known_default().unwrap_or(443);
    let mut last = UploadError::Unreachable("the host has no address".to_owned());
    for address in resolve(url).await? {
        match within(TcpStream::connect(SocketAddr::new(address, port))).await {
            Ok(stream) => {
                // Small requests must not wait for more; a failure only costs time.
                let _prompt = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn resolve(url: &Url) -> Result<Vec<IpAddr>, UploadError> {
    let unreachable = |text: String| UploadError::Unreachable(text);
    let name = match url.host() {
        Some(Host::Ipv4(address)) => return Ok(vec![address.into()]),
        Some(Host::Ipv6(address)) => return Ok(vec![address.into()]),
        Some(Host::Domain(name)) => name,
        None => return Err(unreachable("the URL has no host".to_owned())),
    };
    let resolver = TokioResolver::builder_tokio()
        .map_err(|e| unreachable(format!("read resolv.conf: {e}")))?
        .build();
    match timeout(LOOK_UP_DEADLINE, resolver.lookup_ip(name)).await {
        Ok(Ok(found)) => Ok(found.iter().collect()),
        Ok(Err(error)) => Err(unreachable(format!("resolve {name}: {error}"))),
        Err(_) => Err(unreachable(format!("resolve {name}: no answer"))),
    }
}

/// Asks an HTTP proxy for a tunnel.
async fn tunnel(stream: TcpStream, url: &Url) -> Result<impl Stream + use<>, UploadError> {
    let port = url.port_or_known_default().unwrap_or(443);
    let authority = format!("{}:{port}", url.host_str().unwrap_or_default());
    let request = Request::connect(authority.clone())
        .header(header::HOST, authority)
        .body(Empty::<Bytes>::new())
        .map_err(|e| UploadError::Internal(e.to_string()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| UploadError::Unreachable(format!("the proxy: {e}")))?;
    let mut connection = std::pin::pin!(connection.with_upgrades());
    let answer = async {
        let mut answer = sender
            .send_request(request)
            .await
            .map_err(|e| UploadError::Unreachable(format!("the proxy: {e}")))?;
        if answer.status() != StatusCode::OK {
            return Err(UploadError::Unreachable(format!(
                "the proxy answered {}",
                answer.status()
            )));
        }
        let upgraded = hyper::upgrade::on(&mut answer).await;
        upgraded.map_err(|e| UploadError::Unreachable(format!("the proxy: {e}")))
    };
    let mut answer = std::pin::pin!(answer);
    let mut closed = false;
    let upgraded = loop {
        tokio::select! {
            upgraded = &mut answer => break upgraded?,
            _ = &mut connection, if !closed => closed = true,
        }
    };
    Ok(TokioIo::new(upgraded))
}

impl Link {
    async fn new(stream: Box<dyn Stream>) -> Result<Self, UploadError> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
        Ok(Self {
            sender,
            // A store that closes after its answer is no error: the answer tells.
            driver: Some(Box::pin(async {
                let _closed = connection.await;
            })),
        })
    }

    /// Whether it can take a request.
    async fn is_ready(&mut self) -> bool {
        drive(&mut self.driver, self.sender.ready()).await.is_ok() && self.driver.is_some()
    }

    /// Sends the request and reads the whole short answer.
    async fn exchange(&mut self, request: Request<RangeBody>) -> Result<(StatusCode, Bytes), UploadError> {
        let answer = async {
            let answer = self.sender.send_request(request).await.map_err(|e| broken(&e))?;
            let (head, body): (_, Incoming) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            Ok((
                head.status,
                body.map(http_body_util::Collected::to_bytes).unwrap_or_default(),
            ))
        };
        drive(&mut self.driver, answer).await
    }
}

/// Waits for `work` while the connection does its own.
async fn drive<T>(driver: &mut Option<Pin<Box<dyn Future<Output = ()> + Send>>>, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        let Some(running) = driver else { return work.await };
        tokio::select! {
            biased;
            outcome = &mut work => return outcome,
            () = running => *driver = None,
        }
    }
}

fn parse(url: &str) -> Result<Url, UploadError> {
    Url::parse(url).map_err(|e| UploadError::Internal(format!("read the upload URL: {e}")))
}

fn broken(error: &dyn std::error::Error) -> UploadError {
    UploadError::Broken(error.to_string())
}

fn judge((status, body): (StatusCode, Bytes)) -> Result<(), UploadError> {
    if status.is_success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&body);
    let between = |open: &str, close: &str| {
        let rest = text.split_once(open)?.1;
        Some(rest.split_once(close)?.0.chars().take(80).collect::<String>())
    };
    let code = between("<Code>", "</Code>").unwrap_or_default();
    let message = between("<Message>", "</Message>").unwrap_or_default();
    let expired = matches!(
        code.as_str(),
        "ExpiredToken" | "TokenRefreshRequired" | "RequestExpired" | "InvalidAccessKeyId"
    ) || message.to_ascii_lowercase().contains("expired");
    // S3 answers 403 where the URL's time is over or the key that signed it was removed, as a rotation does, and 400 where the
    // time of the credentials behind it is over.
    if matches!(status, StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST) && expired {
        return Err(UploadError::Expired);
    }
    Err(UploadError::Refused {
        status: status.as_u16(),
        code,
    })
}

/// Path and query of a URL: what a request to the origin names.
fn path_of(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

fn host_of(url: &Url) -> Result<HeaderValue, UploadError> {
    let host = url.host_str().unwrap_or_default();
    let text = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    HeaderValue::from_str(&text).map_err(|e| UploadError::Internal(e.to_string()))
}
