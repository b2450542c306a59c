//! A store server in this process, a client of it, plain HTTP for presigned URLs, and a proxy that loses answers.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use diagbot_base::clock::Clock;
use diagbot_store_server::{StoreServer, StoreServerConfig};
use diagbot_wire::{
    digest::{Hasher, MultipartEtag, PartMd5},
    result::{ArtifactReport, Via},
    upload::MIN_PART_BYTES,
};
use http::HeaderMap;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{ArtifactKey, SignedUrl, Store, StoreConfig, UploadId};

pub(super) const PART: u64 = MIN_PART_BYTES;

/// A server on a folder of its own, and its client.
pub(super) struct Fixture {
    pub(super) folder: TempDir,
    pub(super) server: StoreServer,
    pub(super) store: Store,
}

impl Fixture {
    pub(super) async fn start() -> Self {
        Self::with(|_| {}, |_| {}).await
    }

    pub(super) async fn with(
        server: impl FnOnce(&mut StoreServerConfig),
        client: impl FnOnce(&mut StoreConfig),
    ) -> Self {
        let folder = TempDir::new().unwrap();
        write_keys(&folder, "diagbot-secret");
        let mut config = server_config(&folder);
        server(&mut config);
        let server = StoreServer::start(config).await.unwrap();
        let mut config = client_config(&folder, server.url());
        client(&mut config);
        let store = Store::connect(&config, Clock::System).await.unwrap();
        Self { folder, server, store }
    }

    /// A further client, with its own clock and settings.
    pub(super) async fn client(&self, clock: Clock, change: impl FnOnce(&mut StoreConfig)) -> Store {
        let mut config = client_config(&self.folder, self.server.url());
        change(&mut config);
        Store::connect(&config, clock).await.unwrap()
    }

    /// Uploads `parts` as a pod would: by presigned URLs.
    pub(super) async fn upload_as_pod(&self, key: &ArtifactKey, parts: &[Bytes]) -> UploadId {
        let upload = self.store.open_upload(key, "text/plain", &[]).await.unwrap();
        let signed = self
            .store
            .presign_parts(key, &upload, 1, parts.len() as u32, PART)
            .await
            .unwrap();
        for (url, bytes) in signed.urls.iter().zip(parts) {
            let md5 = PartMd5::of(bytes).content_md5();
            let answer = send("PUT", url, &[("content-md5", &md5)], bytes.clone()).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        upload
    }

    /// Names of all files beneath the server's folder that hold content.
    pub(super) fn content_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut pending = vec![self.folder.path().join("data")];
        while let Some(folder) = pending.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path);
                } else if path.extension().is_none() {
                    found.push(path);
                }
            }
        }
        found
    }
}

pub(super) fn write_keys(folder: &TempDir, secret: &str) {
    let list =
        format!("- {{accessKey: DIAGBOT, secretKey: {secret}}}\n- {{accessKey: OTHER, secretKey: other-secret}}\n");
    fs::write(folder.path().join("keys.yaml"), list).unwrap();
    fs::write(folder.path().join("access"), "DIAGBOT\n").unwrap();
    fs::write(folder.path().join("secret"), format!("{secret}\n")).unwrap();
}

pub(super) fn server_config(folder: &TempDir) -> StoreServerConfig {
    let listen = "127.0.0.1:0".parse().unwrap();
    StoreServerConfig::new(
        listen,
        folder.path().join("data"),
        "evidence",
        folder.path().join("keys.yaml"),
    )
}

fn client_config(folder: &TempDir, url: String) -> StoreConfig {
    let mut config: StoreConfig = serde_saphyr::from_str("bucket: evidence\nregion: us-east-1\n").unwrap();
    config.endpoint = Some(url);
    config.access_key_file = Some(folder.path().join("access"));
    config.secret_key_file = Some(folder.path().join("secret"));
    config
}

/// What the agent would report about these parts.
pub(super) fn report(parts: &[Bytes]) -> ArtifactReport {
    let mut hasher = Hasher::default();
    let mut etag = MultipartEtag::default();
    for part in parts {
        hasher.update(part);
        etag.push(PartMd5::of(part));
    }
    ArtifactReport {
        digests: hasher.finish(),
        parts: parts.len() as u32,
        etag: etag.finish(),
        via: Via::Direct,
        suffix: String::new(),
        preview: String::new(),
        findings: Vec::new(),
        note: String::new(),
        redaction: None,
    }
}

/// A whole part and a short one.
pub(super) fn two_parts(seed: u8) -> Vec<Bytes> {
    let whole: Vec<u8> = (0..PART).map(|n| (n % 251) as u8 ^ seed).collect();
    vec![whole.into(), Bytes::from(format!("the end {seed}\n"))]
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A plain request to a presigned URL.
pub(super) async fn send(method: &str, url: &SignedUrl, headers: &[(&str, &str)], body: Bytes) -> Answer {
    send_to(method, url.expose(), headers, body).await
}

pub(super) async fn send_to(method: &str, url: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    // S3 wants the length of an empty body too; hyper leaves it out by itself.
    let mut request = http::Request::builder().method(method).uri(url);
    if method == "PUT" {
        request = request.header("content-length", body.len());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client.request(request.body(Full::new(body)).unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

/// A clock that is late by `age`.
pub(super) fn clock_late_by(age: SignedDuration) -> Clock {
    Clock::Test(Arc::new(std::sync::Mutex::new(Timestamp::now() - age)))
}

/// Passes everything to the server, but swallows the answers to requests that hold a text, as many as are armed.
pub(super) struct LossyProxy {
    pub(super) url: String,
    armed: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl LossyProxy {
    pub(super) async fn start(server: &StoreServer, text: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let armed = Arc::new(AtomicUsize::new(0));
        let (counter, target) = (Arc::clone(&armed), server.addr);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                connections.spawn(async move {
                    let server = TcpStream::connect(target).await.unwrap();
                    pass(client, server, text, &counter).await;
                });
            }
        });
        Self {
            url,
            armed,
            _tasks: tasks,
        }
    }

    pub(super) fn lose(&self, answers: usize) {
        self.armed.store(answers, Ordering::SeqCst);
    }

    pub(super) fn left(&self) -> usize {
        self.armed.load(Ordering::SeqCst)
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, text: &str, armed: &AtomicUsize) {
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    let mut swallow = false;
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(count @ 1..) = read else { return };
                if String::from_utf8_lossy(&up[..count]).contains(text) {
                    let less = |n: usize| n.checked_sub(1);
                    swallow = armed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok();
                }
                if server.write_all(&up[..count]).await.is_err() { return }
            }
            read = server.read(&mut down) => {
                let Ok(count @ 1..) = read else { return };
                // The server has done it; nobody hears of it.
                if swallow || client.write_all(&down[..count]).await.is_err() { return }
            }
        }
    }
}

/// A connection on which a PUT of that length was announced.
pub(super) async fn open(signed: &SignedUrl, length: usize) -> TcpStream {
    let url = url::Url::parse(signed.expose()).unwrap();
    let address = (url.host_str().unwrap(), url.port().unwrap());
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head("PUT", signed, length).as_bytes()).await.unwrap();
    stream
}

/// The head of a request to a presigned URL, as it goes over the wire.
pub(super) fn head(method: &str, url: &SignedUrl, length: usize) -> String {
    let url = url::Url::parse(url.expose()).unwrap();
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n")
}

/// Until it is so, within 20 s.
pub(super) async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        diagbot_base::retry::pause(std::time::Duration::from_millis(10)).await;
    }
}
