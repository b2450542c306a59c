//! Who may use the store: access keys and their secrets, from a file. Never shows a secret.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use s3s::{
    S3ErrorCode, S3Result,
    auth::{S3Auth, SecretKey},
};
use serde::Deserialize;

/// Why the access keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The file can't be read.
    #[error("read the access keys from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a list of keys. The parser's words are left out: they could quote a secret.
    #[error("{}: not a YAML list of {{accessKey, secretKey}}", .0.display())]
    Format(PathBuf),
    /// A store without keys serves nobody.
    #[error("{}: holds no access key, one twice, or a secret under 8 characters", .0.display())]
    Unusable(PathBuf),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Account {
    access_key: String,
    secret_key: String,
}

/// The access keys. A change of the file is noticed at the next request.
pub(super) struct Accounts {
    path: PathBuf,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    stamp: Stamp,
    secrets: HashMap<String, SecretKey>,
}

type Stamp = (Option<SystemTime>, u64);

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Accounts {
    pub(super) fn load(path: PathBuf) -> Result<Self, AccountsError> {
        let loaded = Mutex::new(read(&path)?);
        Ok(Self { path, loaded })
    }

    fn secret(&self, access_key: &str) -> Option<SecretKey> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if stamp(&self.path).is_ok_and(|stamp| stamp != loaded.stamp) {
            match read(&self.path) {
                Ok(fresh) => *loaded = fresh,
                Err(error) => tracing::warn!(%error, "the access keys changed but can't be used; the former ones stay"),
            }
        }
        loaded.secrets.get(access_key).cloned()
    }
}

#[async_trait::async_trait]
impl S3Auth for Accounts {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        self.secret(access_key)
            .ok_or_else(|| S3ErrorCode::InvalidAccessKeyId.into())
    }
}

fn stamp(path: &PathBuf) -> std::io::Result<Stamp> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.modified().ok(), metadata.len()))
}

fn read(path: &PathBuf) -> Result<Loaded, AccountsError> {
    let fault = |source| AccountsError::Read {
        path: path.clone(),
        source,
    };
    let stamp = stamp(path).map_err(fault)?;
    let text = std::fs::read_to_string(path).map_err(fault)?;
    let accounts: Vec<Account> = serde_saphyr::from_str(&text).map_err(|_| AccountsError::Format(path.clone()))?;
    let count = accounts.len();
    let usable = accounts
        .iter()
        .all(|a| !a.access_key.is_empty() && a.secret_key.len() >= 8);
    let secrets: HashMap<_, _> = accounts
        .into_iter()
        .map(|a| (a.access_key, SecretKey::from(a.secret_key)))
        .collect();
    if count == 0 || !usable || secrets.len() != count {
        return Err(AccountsError::Unusable(path.clone()));
    }
    Ok(Loaded { stamp, secrets })
}
