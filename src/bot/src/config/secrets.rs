//! The secrets, read from the files that the configuration names. Shown nowhere.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use diagbot_captures::{SecretKey, SecretTooShort};
use diagbot_slack::config::{SlackTokens, TokenError};

use super::Config;

/// What the bot keeps to itself.
#[derive(Debug)]
pub struct Secrets {
    /// Makes nonces and journal keys.
    pub key: SecretKey,
    /// Slack's two tokens.
    pub slack: SlackTokens,
}

/// Why a secret is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file can't be read.
    #[error("{key}: read {}", path.display())]
    Read {
        /// Key in the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A Slack token can't be had.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The bot's Secret is too short.
    #[error("secretFile")]
    Key(#[from] SecretTooShort),
}

impl Secrets {
    /// Reads the files.
    pub fn read(config: &Config) -> Result<Self, SecretError> {
        let bytes = read("secretFile", &config.secret_file)?;
        Ok(Self {
            key: SecretKey::try_from(bytes)?,
            slack: SlackTokens::read(&config.slack)?,
        })
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, SecretError> {
    fs::read(path).map_err(|source| SecretError::Read {
        key,
        path: path.to_owned(),
        source,
    })
}
