//! What proves a delivery: secrets and tokens, read from files. Shown nowhere; compared in constant time.

use std::{fmt, fs, io, path::PathBuf};

use hmac::{Hmac, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;

/// Least characters of a secret: PagerDuty's have 64, and a token that people make should not be guessable either.
const LEAST: usize = 16;

/// Several live secrets: a new one is added before the old one goes.
#[derive(Debug, Clone)]
pub struct Live(Vec<SecretString>);

/// Why secrets can't be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A file can't be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Too short to be one.
    #[error("{} holds fewer than {LEAST} characters", path.display())]
    Short {
        /// The file.
        path: PathBuf,
    },
}

impl Live {
    /// Reads each file; white space around the secret does not count.
    pub fn read(files: &[PathBuf]) -> Result<Self, SecretsError> {
        files.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether `signature` is the HMAC-SHA-256 of `body` under any of them.
    pub fn signed(&self, body: &[u8], signature: &[u8]) -> bool {
        self.any(|secret| {
            let mut mac = keyed(secret.as_bytes());
            mac.update(body);
            mac.verify_slice(signature).is_ok()
        })
    }

    /// Whether `token` is any of them.
    pub fn holds(&self, token: &str) -> bool {
        // Both sides go through an HMAC under a key of the moment, so that the comparison says nothing about the token.
        let key: [u8; 32] = rand::random();
        let mut given = keyed(&key);
        given.update(token.as_bytes());
        let given = given.finalize().into_bytes();
        self.any(|secret| {
            let mut mac = keyed(&key);
            mac.update(secret.as_bytes());
            mac.verify_slice(&given).is_ok()
        })
    }

    /// Every one is tried, whichever fits.
    fn any(&self, fits: impl Fn(&str) -> bool) -> bool {
        self.0
            .iter()
            .fold(false, |found, secret| fits(secret.expose_secret()) | found)
    }
}

/// One secret of a file.
pub(super) fn read(path: &PathBuf) -> Result<SecretString, SecretsError> {
    let text = fs::read_to_string(path).map_err(|source| SecretsError::Read {
        path: path.clone(),
        source,
    })?;
    let text = text.trim();
    if text.len() < LEAST {
        return Err(SecretsError::Short { path: path.clone() });
    }
    Ok(SecretString::from(text.to_owned()))
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of every length")
}

impl fmt::Display for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} live", self.0.len())
    }
}
