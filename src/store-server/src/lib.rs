//! `diagbot store`: the S3 protocol over a folder, for clusters that have no store. One process, one bucket.
//!
//! Owns the folder it is given and everything in it (`disk`). Signatures and their expiry are verified by the protocol
//! layer ([`s3s`]) and the `gate`; an object becomes visible only after its digests were compared and its bytes are on
//! the disk. What is not supported (encryption, object lock, copies, lists of access rights) is refused, never ignored.
//!
//! # Design notes
//! Every write makes a version; reading without a version gives the newest. Removing without a version removes them all:
//! there are no delete markers. The folder is meant for an encrypted volume; the server encrypts nothing.

mod accounts;
mod assemble;
mod bodies;
mod config;
mod connections;
mod disk;
mod drain;
mod gate;
mod limits;
mod listing;
mod names;
mod objects;
mod pace;
mod protocol;
mod reader;
mod receive;
mod records;
mod serve;
mod tags;
mod terms;
mod uploads;
mod visit;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use diagbot_base::clock::Clock;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use s3s::{
    S3Error, S3ErrorCode,
    config::{S3Config, StaticConfigProvider},
    service::S3ServiceBuilder,
    validation::{AwsNameValidation, NameValidation as _},
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::{
    accounts::Accounts, connections::Connections, disk::Disk, pace::Rate, protocol::BucketService, serve::Front,
    visit::Admission,
};
pub use self::{
    accounts::AccountsError,
    config::{StoreServerConfig, TlsFiles},
    limits::StoreLimits,
};

/// How often old uploads and objects are looked for.
const SWEEP_PAUSE: Duration = Duration::from_hours(1);
/// How far a signature's date may lie in the future, and that of a header in the past; S3's own rule (`RequestTimeTooSkewed`).
const SKEW_S: u32 = 15 * 60;

/// Why the server can't start, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum StoreServerError {
    /// Not a bucket name.
    #[error("`{0}` is not a valid bucket name: 3 to 63 lower-case letters, digits, dots and dashes")]
    BucketName(String),
    /// The folder can't be used.
    #[error("use the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The access keys can't be used.
    #[error("load the access keys")]
    Accounts(#[source] AccountsError),
    /// The certificate or its key can't be read.
    #[error("read the PEM file {}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The certificate and the key don't fit.
    #[error("use the certificate")]
    Tls(#[source] rustls::Error),
    /// The address is taken, or not ours.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server ended though nobody had asked it to.
    #[error("the store server ended by itself")]
    Ended,
}

/// A running store server.
#[derive(Debug)]
pub struct StoreServer {
    /// The address it listens on.
    pub addr: SocketAddr,
    has_tls: bool,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl StoreServer {
    /// Opens the folder and listens. Dropping the server ends it at once; [`Self::stop`] lets open requests finish.
    pub async fn start(config: StoreServerConfig) -> Result<Self, StoreServerError> {
        if !AwsNameValidation::new().validate_bucket_name(&config.bucket) {
            return Err(StoreServerError::BucketName(config.bucket));
        }
        let accounts = Accounts::load(config.credentials_file.clone()).map_err(StoreServerError::Accounts)?;
        let tls = config.tls.as_ref().map(acceptor).transpose()?;
        let disk = Disk::open(&config.folder, &config.bucket).map_err(|source| StoreServerError::Folder {
            path: config.folder.clone(),
            source,
        })?;
        let listen_fault = |source| StoreServerError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(listen_fault)?;
        let addr = listener.local_addr().map_err(listen_fault)?;
        let disk = Arc::new(disk);
        let mut builder = S3ServiceBuilder::new(BucketService::new(
            config.bucket.clone(),
            config.region.clone(),
            Arc::clone(&disk),
            config.max_body_bytes,
            config.full_object_checksums,
            config.limits.clone(),
        ));
        builder.set_auth(accounts);
        builder.set_access(Admission);
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(protocol_config()))));
        let has_tls = tls.is_some();
        let front = Front {
            service: builder.build(),
            region: config.region.clone(),
            tls,
            connections: Connections::new(config.max_connections, &config.limits),
            header_deadline: config.limits.header_deadline,
            rate: Rate {
                window: config.limits.rate_window,
                least_bytes_per_s: config.limits.least_bytes_per_s,
            },
        };
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve::serve(front, listener, stop.clone()));
        tasks.spawn(sweep_hourly(disk, config, stop.clone()));
        Ok(Self {
            addr,
            has_tls,
            stop,
            tasks,
        })
    }

    /// `http://address`, or https.
    pub fn url(&self) -> String {
        let scheme = if self.has_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.addr)
    }

    /// Returns when the server ended though it was not stopped.
    pub async fn ended(&mut self) {
        self.tasks.join_next().await;
    }

    /// Stops; open requests get a few seconds.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn protocol_config() -> S3Config {
    let mut config = S3Config::default();
    config.presigned_url_max_skew_time_secs = SKEW_S;
    config
}

async fn sweep_hourly(disk: Arc<Disk>, config: StoreServerConfig, stop: CancellationToken) {
    loop {
        let disk = Arc::clone(&disk);
        let now = Clock::System.now();
        let before = |age: Duration| now.saturating_sub(age).unwrap_or(Timestamp::MIN);
        let uploads = before(config.unfinished_uploads_after);
        let objects = config.objects_after.map(before);
        let swept = tokio::task::spawn_blocking(move || {
            let _lock = disk.commit_lock();
            disk.sweep(uploads, objects)
        });
        match swept.await {
            Ok(Ok((0, 0))) => {}
            Ok(Ok((uploads, objects))) => tracing::info!(uploads, objects, "removed what was too old"),
            Ok(Err(error)) => tracing::warn!(%error, "old uploads could not be removed"),
            Err(error) => tracing::warn!(%error, "the look for old uploads failed"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = diagbot_base::retry::pause(SWEEP_PAUSE) => {}
        }
    }
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, StoreServerError> {
    let fault = |path: &PathBuf| {
        let path = path.clone();
        move |source| StoreServerError::Pem { path, source }
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(&files.cert_file)
        .and_then(Iterator::collect)
        .map_err(fault(&files.cert_file))?;
    let key = PrivateKeyDer::from_pem_file(&files.key_file).map_err(fault(&files.key_file))?;
    let provider = rustls::crypto::ring::default_provider();
    let mut config = ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(StoreServerError::Tls)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The answer to what the server does not do.
fn refuse(what: &str) -> S3Error {
    S3Error::with_message(
        S3ErrorCode::NotImplemented,
        format!("this server does not support: {what}"),
    )
}
