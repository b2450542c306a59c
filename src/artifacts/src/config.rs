//! Settings of the store client. Owns what they mean and which are wrong; reads no file.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::key;

/// S3 signs for at most seven days: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html>.
pub(super) const LONGEST_SIGNATURE: Duration = Duration::from_hours(7 * 24);
/// S3 takes at most ten tags an object: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html>.
const MOST_TAGS: usize = 10;

/// Where artifacts go, and how.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoreConfig {
    /// Bucket.
    pub bucket: String,
    /// Region; unless given, `us-east-1`, or without key files what the environment says.
    #[serde(default)]
    pub region: Option<String>,
    /// Address for the bot; AWS unless given.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Address for pods; the bot's unless given.
    #[serde(default)]
    pub endpoint_for_pods: Option<String>,
    /// Address for people; the bot's unless given.
    #[serde(default)]
    pub endpoint_for_people: Option<String>,
    /// Bucket in the path instead of the host name; as a rule what stores other than AWS need. Default: with `endpoint`.
    #[serde(default)]
    pub path_style: Option<bool>,
    /// Prefix of every key.
    #[serde(default = "default_prefix")]
    pub prefix: String,
    /// File with the access key; together with `secretKeyFile`. Read again whenever it is needed, so it can be rotated.
    /// Without the two: web identity, container, instance or environment credentials.
    #[serde(default)]
    pub access_key_file: Option<PathBuf>,
    /// File with the secret key.
    #[serde(default)]
    pub secret_key_file: Option<PathBuf>,
    /// Certificates (PEM) to trust besides the machine's; handed to pods too.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// HTTP proxy that pods use to reach the store.
    #[serde(default)]
    pub proxy_for_pods: Option<String>,
    /// Encryption by the store.
    #[serde(default)]
    pub encryption: Encryption,
    /// Tags of every artifact.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// How long links live.
    #[serde(default)]
    pub links: LinkLifetimes,
    /// The way of the bytes.
    #[serde(default)]
    pub transfer: Transfer,
}

/// Encryption by the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encryption {
    /// What the bucket's default says.
    #[default]
    None,
    /// Keys of the store.
    SseS3,
    /// A key of the key management service.
    #[serde(rename = "kmsKeyId")]
    Kms(String),
}

/// How long links live. A link never outlives the credentials that signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LinkLifetimes {
    /// Links to normal artifacts; 24 h unless given, at most 7 days.
    #[serde(with = "humantime_serde")]
    pub normal: Duration,
    /// Links to sensitive artifacts; 1 h unless given, at most `normal`.
    #[serde(with = "humantime_serde")]
    pub sensitive: Duration,
}

impl Default for LinkLifetimes {
    fn default() -> Self {
        Self {
            normal: Duration::from_hours(24),
            sensitive: Duration::from_hours(1),
        }
    }
}

/// The way of the bytes from the pod to the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transfer {
    /// From the pod to the store, through the bot where the pod can't reach it.
    #[default]
    Auto,
    /// Always through the bot.
    Relay,
}

fn default_prefix() -> String {
    "diagbot".to_owned()
}

impl StoreConfig {
    /// Everything that is wrong, each as `key: rule`.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.bucket.is_empty() {
            faults.push("store.bucket: must name a bucket".to_owned());
        }
        let endpoints = [
            ("endpoint", &self.endpoint),
            ("endpointForPods", &self.endpoint_for_pods),
            ("endpointForPeople", &self.endpoint_for_people),
        ];
        for (name, endpoint) in endpoints {
            if endpoint.as_deref().is_some_and(|text| !is_endpoint(text)) {
                faults.push(format!(
                    "store.{name}: must be http(s)://host[:port], without user, path and query"
                ));
            }
        }
        if self.access_key_file.is_some() != self.secret_key_file.is_some() {
            faults.push("store.accessKeyFile, store.secretKeyFile: give both or none".to_owned());
        }
        if !self.prefix.split('/').all(key::is_clean_segment) {
            faults.push("store.prefix: words of [A-Za-z0-9._-], joined by `/`".to_owned());
        }
        if self.links.normal > LONGEST_SIGNATURE {
            faults.push("store.links.normal: at most 7 days".to_owned());
        }
        if self.links.sensitive > self.links.normal {
            faults.push("store.links.sensitive: at most store.links.normal".to_owned());
        }
        if self.links.sensitive < Duration::from_mins(1) {
            faults.push("store.links: at least one minute".to_owned());
        }
        if self.tags.len() > MOST_TAGS {
            faults.push(format!("store.tags: at most {MOST_TAGS}"));
        }
        faults
    }

    pub(super) fn uses_path_style(&self) -> bool {
        self.path_style.unwrap_or(self.endpoint.is_some())
    }
}

fn is_endpoint(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && matches!(url.path(), "" | "/")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryption_is_a_word_or_a_key() {
        let config: StoreConfig = serde_saphyr::from_str("bucket: b\nencryption: {kmsKeyId: alias/x}\n").unwrap();
        assert_eq!(config.encryption, Encryption::Kms("alias/x".to_owned()));
        let config: StoreConfig = serde_saphyr::from_str("bucket: b\nencryption: sse-s3\n").unwrap();
        assert_eq!(config.encryption, Encryption::SseS3);
        assert!(config.faults().is_empty());
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let text = "bucket: ''\nendpoint: 's3.local'\naccessKeyFile: /a\nprefix: '../x'\nlinks: {normal: 8days}\n";
        let config: StoreConfig = serde_saphyr::from_str(text).unwrap();
        assert_eq!(config.faults().len(), 5, "{:?}", config.faults());
    }
}
