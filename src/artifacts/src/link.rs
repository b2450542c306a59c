//! Presigned URLs: for pods to upload, for people to download. Owns how long they live and what a download is called.

use std::{fmt, time::Duration};

use aws_sdk_s3::{error::SdkError, presigning::PresigningConfig};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use diagbot_wire::upload::MOST_BYTES_PARAMETER;
use jiff::{SignedDuration, Timestamp};

use super::{
    ArtifactKey, Store, StoreError, UploadId, config::LONGEST_SIGNATURE, credentials::signed, s3::encryption,
    upload::wire_number,
};

/// How long a part's URL lives; the agent asks for more when they end. Short, since they are bearer secrets in a pod.
const PART_LIFETIME: SignedDuration = SignedDuration::from_hours(1);
/// How long the URL of the result object lives: the longest capture and some. What is put there is signed by the agent.
const RESULT_LIFETIME: SignedDuration = SignedDuration::from_hours(12);
/// A signature that would live shorter is not worth handing out.
const SHORTEST: SignedDuration = SignedDuration::from_secs(30);
/// Longest name of a downloaded file, in bytes; file systems end at 255.
const LONGEST_NAME: usize = 150;

/// A presigned URL: a bearer secret. Neither `Debug` nor `Display` shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedUrl {
    url: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl SignedUrl {
    /// The URL, for the one who will use it.
    pub fn expose(&self) -> &str {
        &self.url
    }

    /// The URL, for the one who will use it.
    pub fn into_exposed(self) -> String {
        self.url
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedUrl")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// URLs of consecutive parts.
#[derive(Debug, Clone)]
pub struct SignedParts {
    /// One URL a part, in order.
    pub urls: Vec<SignedUrl>,
    /// When the first of them ends.
    pub expires_at: Timestamp,
}

/// A URL that writes, with what must go with it.
#[derive(Debug, Clone)]
pub struct SignedPut {
    /// The URL.
    pub url: SignedUrl,
    /// Headers that are part of the signature: the settings for encryption, where there are any.
    pub headers: Vec<(String, String)>,
}

/// A link for people: a presigned URL and its true expiry.
pub type Link = SignedUrl;

impl Store {
    /// Signs URLs for `count` parts of at most `most_bytes` from `first_part` (from 1), for pods.
    pub async fn presign_parts(
        &self,
        key: &ArtifactKey,
        upload: &UploadId,
        first_part: u32,
        count: u32,
        most_bytes: u64,
    ) -> Result<SignedParts, StoreError> {
        let what = "sign part URLs";
        let (expires_at, config) = self.signature(what, PART_LIFETIME).await?;
        let mut urls = Vec::new();
        for number in first_part..first_part.saturating_add(count) {
            let request = self
                .0
                .pods
                .upload_part()
                .bucket(&self.0.config.bucket)
                .key(key.as_str())
                .upload_id(upload.as_str())
                .part_number(wire_number(number))
                .customize()
                .mutate_request(move |request| limit_body(request, most_bytes))
                .presigned(config.clone())
                .await;
            urls.push(finish(what, request, expires_at)?);
        }
        Ok(SignedParts { urls, expires_at })
    }

    /// Signs a URL that writes one object of at most `most_bytes`, for pods.
    pub async fn presign_put(&self, key: &ArtifactKey, most_bytes: u64) -> Result<SignedPut, StoreError> {
        let what = "sign an upload URL";
        let (expires_at, config) = self.signature(what, RESULT_LIFETIME).await?;
        let (encryption, kms_key) = encryption(&self.0.config.encryption);
        let request = self
            .0
            .pods
            .put_object()
            .bucket(&self.0.config.bucket)
            .key(key.as_str())
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(kms_key)
            .customize()
            .mutate_request(move |request| limit_body(request, most_bytes))
            .presigned(config)
            .await;
        let headers = request.as_ref().map_or_else(|_| Vec::new(), signed_headers);
        Ok(SignedPut {
            url: finish(what, request, expires_at)?,
            headers,
        })
    }

    /// Signs a link for people, to one version of the object where the store has versions.
    pub async fn link(
        &self,
        key: &ArtifactKey,
        version: Option<&str>,
        file_name: &str,
        sensitive: bool,
    ) -> Result<Link, StoreError> {
        let what = "sign a link";
        let lifetimes = self.0.config.links;
        let lifetime = if sensitive {
            lifetimes.sensitive
        } else {
            lifetimes.normal
        };
        let (expires_at, config) = self.signature(what, signed(lifetime)).await?;
        let name = safe_file_name(file_name);
        let request = self
            .0
            .people
            .get_object()
            .bucket(&self.0.config.bucket)
            .key(key.as_str())
            .set_version_id(version.map(str::to_owned))
            .response_content_disposition(format!("attachment; filename=\"{name}\""))
            .response_content_type(download_type(&name))
            .presigned(config)
            .await;
        finish(what, request, expires_at)
    }

    /// When a signature of at most `wanted` ends, and how to make it.
    async fn signature(
        &self,
        what: &'static str,
        wanted: SignedDuration,
    ) -> Result<(Timestamp, PresigningConfig), StoreError> {
        let expired = StoreError::ExpiredCredentials { call: what };
        let wanted = wanted.min(signed(LONGEST_SIGNATURE));
        let good_until = self.0.signer.good_until(wanted).await.map_err(|_| expired.clone())?;
        let now = whole_seconds(self.0.clock.now());
        let lifetime = whole_seconds(good_until).duration_since(now);
        if lifetime < SHORTEST.min(wanted) {
            return Err(expired);
        }
        let expires_in = Duration::try_from(lifetime).map_err(|_| expired.clone())?;
        let config = PresigningConfig::builder()
            .start_time(now.into())
            .expires_in(expires_in)
            .build()
            .map_err(|_| expired)?;
        Ok((now.saturating_add(lifetime).unwrap_or(Timestamp::MAX), config))
    }
}

/// Signatures count whole seconds.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Has the URL name the longest body that it is for.
fn limit_body(request: &mut HttpRequest, most_bytes: u64) {
    let uri = request.uri();
    let joint = if uri.contains('?') { '&' } else { '?' };
    let limited = format!("{uri}{joint}{MOST_BYTES_PARAMETER}={most_bytes}");
    // A URI with one more parameter is a URI.
    let _set = request.set_uri(limited);
}

/// What must be sent with a signed request, but for what every client sends.
fn signed_headers(request: &aws_sdk_s3::presigning::PresignedRequest) -> Vec<(String, String)> {
    let headers = request.headers().filter(|(name, _)| name.starts_with("x-amz-"));
    headers
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn finish<E>(
    what: &'static str,
    request: Result<aws_sdk_s3::presigning::PresignedRequest, SdkError<E, aws_sdk_s3::config::http::HttpResponse>>,
    expires_at: Timestamp,
) -> Result<SignedUrl, StoreError>
where
    E: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + 'static,
{
    let request = request.map_err(|error| StoreError::from_sdk(what, &error))?;
    Ok(SignedUrl {
        url: request.uri().to_owned(),
        expires_at,
    })
}

/// A file name that is safe in a header, a shell and a file system: `[A-Za-z0-9._-]`, no dot in front.
fn safe_file_name(name: &str) -> String {
    let safe: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '_'
            }
        })
        .collect();
    let start = safe.trim_start_matches(['.', '-']);
    let cut = start.len().saturating_sub(LONGEST_NAME);
    // The end holds the endings, so it is the beginning that goes.
    let name = start[cut..].trim_start_matches(['.', '-']);
    if name.is_empty() {
        "artifact".to_owned()
    } else {
        name.to_owned()
    }
}

/// The media type of a download. Never one that a browser would run.
fn download_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("txt" | "log") => "text/plain; charset=utf-8",
        Some("json") => "application/json",
        Some("gz") => "application/gzip",
        Some("zst") => "application/zstd",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_can_not_break_out_of_the_header() {
        assert_eq!(safe_file_name("heap.hprof.gz"), "heap.hprof.gz");
        assert_eq!(safe_file_name("../../etc/passwd"), "_.._etc_passwd");
        assert_eq!(
            safe_file_name("a\"; filename=\"x.html\r\nX: y"),
            "a___filename__x.html__X__y"
        );
        assert_eq!(safe_file_name("\u{202e}..."), "_...");
        assert_eq!(safe_file_name(""), "artifact");
        let long = safe_file_name(&format!("{}.hprof.gz", "x".repeat(300)));
        assert_eq!(long.len(), LONGEST_NAME);
        assert!(long.ends_with(".hprof.gz"));
    }

    #[test]
    fn a_browser_never_runs_a_download() {
        assert_eq!(download_type("x.html"), "application/octet-stream");
        assert_eq!(download_type("x.svg"), "application/octet-stream");
        assert_eq!(download_type("x.txt"), "text/plain; charset=utf-8");
    }

    #[test]
    fn debug_output_holds_no_url() {
        let url = SignedUrl {
            url: "https://store/x?X-Amz-Signature=abc".to_owned(),
            expires_at: Timestamp::UNIX_EPOCH,
        };
        assert!(!format!("{url:?}").contains("store"));
    }
}
