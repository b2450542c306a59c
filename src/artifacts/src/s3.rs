//! The clients: how they are made, and that every call has a deadline. Owns [`Store`].

use std::{fmt, future::Future, sync::Arc, time::Duration};

use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_s3::{
    Client,
    config::{
        IdentityCache, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
        StalledStreamProtectionConfig, http::HttpResponse,
    },
    error::{ProvideErrorMetadata, SdkError},
    primitives::{ByteStream, DateTime},
    types::{ObjectLockMode, ServerSideEncryption},
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use bytes::{Bytes, BytesMut};
use diagbot_base::clock::Clock;
use jiff::Timestamp;
use tokio::sync::OnceCell;

use super::{ArtifactKey, StoreConfig, StoreError, config::Encryption, credentials::Signer, probe::Capabilities};

/// Longest wait for the answer of a call that carries little.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait for a part of the relay: at least 1 MB/s for 100 MiB.
pub(super) const PART_DEADLINE: Duration = Duration::from_mins(2);
/// Longest silence while an object is read.
const IDLE_DEADLINE: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 3;

/// What became of an object that must not exist yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It is there.
    New,
    /// Another one was there before, and stays.
    Exists,
}

/// The store of artifacts. Cheap to clone.
#[derive(Clone)]
pub struct Store(pub(super) Arc<Clients>);

pub(super) struct Clients {
    pub(super) config: StoreConfig,
    /// For our own calls.
    pub(super) bot: Client,
    /// Signs for pods.
    pub(super) pods: Client,
    /// Signs for people.
    pub(super) people: Client,
    pub(super) signer: Signer,
    pub(super) clock: Clock,
    pub(super) capabilities: OnceCell<Capabilities>,
    ca_pem: Option<String>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("bucket", &self.0.config.bucket)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Makes the clients. The store itself is not called: a bot starts while its store is away.
    pub async fn connect(config: &StoreConfig, clock: Clock) -> Result<Self, StoreError> {
        let faults = config.faults();
        if !faults.is_empty() {
            return Err(StoreError::Config(faults));
        }
        let ca_pem = read_ca(config).await?;
        let http = http_client(ca_pem.as_deref())?;
        let (signer, region) = identity(config, &http, &clock).await?;
        let client = |endpoint: Option<&String>| client(config, &http, &signer, &region, endpoint);
        let bot = config.endpoint.as_ref();
        Ok(Self(Arc::new(Clients {
            bot: client(bot),
            pods: client(config.endpoint_for_pods.as_ref().or(bot)),
            people: client(config.endpoint_for_people.as_ref().or(bot)),
            config: config.clone(),
            signer,
            clock,
            capabilities: OnceCell::new(),
            ca_pem,
        })))
    }

    /// The key of an object beneath the store's prefix.
    pub fn key(&self, segments: &[&str]) -> ArtifactKey {
        ArtifactKey::build(&self.0.config.prefix, segments)
    }

    /// Certificates that pods need to trust the store.
    pub fn ca_pem_for_pods(&self) -> Option<&str> {
        self.0.ca_pem.as_deref()
    }

    /// The proxy that pods need to reach the store.
    pub fn proxy_for_pods(&self) -> Option<&str> {
        self.0.config.proxy_for_pods.as_deref()
    }

    /// The settings.
    pub fn config(&self) -> &StoreConfig {
        &self.0.config
    }

    /// Writes a small object; an object of that key is replaced.
    pub async fn put(&self, key: &ArtifactKey, bytes: Bytes, media_type: &str) -> Result<(), StoreError> {
        let what = "write the object";
        let (encryption, kms_key) = encryption(&self.0.config.encryption);
        let request = self
            .0
            .bot
            .put_object()
            .bucket(&self.0.config.bucket)
            .key(key.as_str())
            .content_type(media_type)
            .content_md5(content_md5(&bytes))
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .set_tagging(tagging(&self.0.config, &[]))
            .body(ByteStream::from(bytes));
        let written = call(what, PART_DEADLINE, request.send()).await;
        written.map(|_| ()).map_err(StoreError::while_sending)
    }

    /// Writes a small object that must not exist yet. `until`: the store must neither change nor remove it before (Object
    /// Lock, compliance mode).
    pub async fn create(
        &self,
        key: &ArtifactKey,
        bytes: Bytes,
        media_type: &str,
        until: Option<Timestamp>,
    ) -> Result<Created, StoreError> {
        let (encryption, kms_key) = encryption(&self.0.config.encryption);
        let request = self
            .0
            .bot
            .put_object()
            .bucket(&self.0.config.bucket)
            .key(key.as_str())
            .if_none_match("*")
            .content_type(media_type)
            .content_md5(content_md5(&bytes))
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .set_object_lock_mode(until.map(|_| ObjectLockMode::Compliance))
            .set_object_lock_retain_until_date(until.map(|until| DateTime::from_secs(until.as_second())))
            .body(ByteStream::from(bytes));
        match call("write the record", CALL_DEADLINE, request.send()).await {
            Ok(_) => Ok(Created::New),
            Err(StoreError::Other { status: 412, .. }) => Ok(Created::Exists),
            Err(error) => Err(error),
        }
    }

    /// Keys of all objects beneath these segments, in the order of their bytes.
    pub async fn keys(&self, segments: &[&str]) -> Result<Vec<ArtifactKey>, StoreError> {
        let mut found = Vec::new();
        let mut token = None;
        loop {
            let request = self
                .0
                .bot
                .list_objects_v2()
                .bucket(&self.0.config.bucket)
                .prefix(format!("{}/", self.key(segments).as_str()))
                .set_continuation_token(token);
            let page = call("list the objects", CALL_DEADLINE, request.send()).await?;
            let keys = page.contents().iter().filter_map(|object| object.key.clone());
            found.extend(keys.filter_map(|key| ArtifactKey::try_from(key).ok()));
            token = page.next_continuation_token;
            if token.is_none() {
                return Ok(found);
            }
        }
    }

    /// Reads an object of at most `max_bytes`; `None` where there is none.
    pub async fn read_small(&self, key: &ArtifactKey, max_bytes: usize) -> Result<Option<Bytes>, StoreError> {
        let what = "read the object";
        let request = self.0.bot.get_object().bucket(&self.0.config.bucket).key(key.as_str());
        let mut body = match call(what, CALL_DEADLINE, request.send()).await {
            Ok(answer) => answer.body,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = BytesMut::new();
        while let Some(chunk) = next_chunk(what, &mut body).await? {
            if bytes.len() + chunk.len() > max_bytes {
                return Err(StoreError::TooLong {
                    call: what,
                    limit_bytes: max_bytes as u64,
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes.freeze()))
    }

    /// Removes an object, or one version of it. That it is not there is no error.
    pub async fn delete(&self, key: &ArtifactKey, version: Option<&str>) -> Result<(), StoreError> {
        let request = self
            .0
            .bot
            .delete_object()
            .bucket(&self.0.config.bucket)
            .key(key.as_str())
            .set_version_id(version.map(str::to_owned));
        match call("remove the object", CALL_DEADLINE, request.send()).await {
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Waits at most `limit` for a call. The SDK's futures are 16 kB and more, so they live on the heap.
pub(super) fn call<T, E>(
    what: &'static str,
    limit: Duration,
    request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send,
) -> impl Future<Output = Result<T, StoreError>> + Send
where
    T: Send,
    E: ProvideErrorMetadata + std::error::Error + Send + 'static,
{
    let request = Box::pin(request);
    async move {
        match tokio::time::timeout(limit, request).await {
            Ok(answer) => answer.map_err(|error| StoreError::from_sdk(what, &error)),
            Err(_) => Err(StoreError::late(what, limit)),
        }
    }
}

/// The next bytes of an object; an error where the stream is silent for too long or breaks off.
pub(super) async fn next_chunk(what: &'static str, body: &mut ByteStream) -> Result<Option<Bytes>, StoreError> {
    match tokio::time::timeout(IDLE_DEADLINE, body.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
        Ok(Some(Err(error))) => Err(StoreError::unreachable(what, &error)),
        Err(_) => Err(StoreError::late(what, IDLE_DEADLINE)),
    }
}

/// The value of `Content-MD5`.
pub(super) fn content_md5(bytes: &[u8]) -> String {
    diagbot_wire::digest::PartMd5::of(bytes).content_md5()
}

pub(super) fn encryption(setting: &Encryption) -> (Option<ServerSideEncryption>, Option<String>) {
    match setting {
        Encryption::None => (None, None),
        Encryption::SseS3 => (Some(ServerSideEncryption::Aes256), None),
        Encryption::Kms(key) => (Some(ServerSideEncryption::AwsKms), Some(key.clone())),
    }
}

/// Configured tags and `more`, as the header wants them; a tag in `more` wins.
pub(super) fn tagging(config: &StoreConfig, more: &[(String, String)]) -> Option<String> {
    let mut tags = config.tags.clone();
    tags.extend(more.iter().cloned());
    (!tags.is_empty()).then(|| {
        url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(tags)
            .finish()
    })
}

async fn read_ca(config: &StoreConfig) -> Result<Option<String>, StoreError> {
    let Some(path) = &config.ca_file else { return Ok(None) };
    let fault = |why: String| StoreError::Config(vec![format!("store.caFile: {}: {why}", path.display())]);
    let pem = tokio::fs::read_to_string(path)
        .await
        .map_err(|error| fault(error.to_string()))?;
    if pem.contains("-----BEGIN CERTIFICATE-----") {
        Ok(Some(pem))
    } else {
        Err(fault("holds no certificate".to_owned()))
    }
}

fn http_client(ca_pem: Option<&str>) -> Result<SharedHttpClient, StoreError> {
    // An image without certificates is fine for a store with a CA of its own, or without TLS; the client's maker would panic.
    let native = !rustls_native_certs::load_native_certs().certs.is_empty();
    if !native {
        tracing::warn!("this machine trusts no certificates: only those of store.caFile count");
    }
    let mut trust = TrustStore::empty().with_native_roots(native);
    if let Some(pem) = ca_pem {
        trust.add_pem_certificate(pem.as_bytes());
    }
    let context = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|_| StoreError::Config(vec!["store.caFile: no usable certificate".to_owned()]))?;
    Ok(Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(context)
        .build_https())
}

/// Who signs, and for which region. The environment is asked only where the settings name no key files: asking looks for
/// an instance's metadata service, which takes seconds where there is none.
async fn identity(
    config: &StoreConfig,
    http: &SharedHttpClient,
    clock: &Clock,
) -> Result<(Signer, Region), StoreError> {
    let named = config.region.clone().map(Region::new);
    let fallback = || Region::from_static("us-east-1");
    if let (Some(access), Some(secret)) = (&config.access_key_file, &config.secret_key_file) {
        let signer = Signer::from_files(access.clone(), secret.clone(), clock.clone());
        return Ok((signer, named.unwrap_or_else(fallback)));
    }
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
    if let Some(region) = named.clone() {
        loader = loader.region(region);
    }
    let loaded = Box::pin(loader.load()).await;
    let provider = loaded.credentials_provider().ok_or(StoreError::ExpiredCredentials {
        call: "find credentials",
    })?;
    let region = named.or_else(|| loaded.region().cloned()).unwrap_or_else(fallback);
    Ok((Signer::from_provider(provider, clock.clone()), region))
}

fn client(
    config: &StoreConfig,
    http: &SharedHttpClient,
    signer: &Signer,
    region: &Region,
    endpoint: Option<&String>,
) -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_timeout(PART_DEADLINE)
        .build();
    let stalled = StalledStreamProtectionConfig::enabled()
        .grace_period(IDLE_DEADLINE)
        .build();
    let mut settings = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http.clone())
        .credentials_provider(signer.clone())
        .identity_cache(IdentityCache::no_cache())
        .region(region.clone())
        .force_path_style(config.uses_path_style())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(timeouts)
        .stalled_stream_protection(stalled)
        // A presigned URL must be usable with no header but the host: the default adds checksum headers to the signature.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    settings.set_endpoint_url(endpoint.cloned());
    Client::from_conf(settings.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_encoded_and_those_of_the_call_win() {
        let config: StoreConfig = serde_saphyr::from_str("bucket: b\ntags: {team: a b, run: x}\n").unwrap();
        let tags = tagging(&config, &[("run".to_owned(), "d-1&2".to_owned())]);
        assert_eq!(tags.as_deref(), Some("run=d-1%262&team=a+b"));
    }
}
