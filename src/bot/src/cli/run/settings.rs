//! What `diagbot run` is told besides the request: the allowlist, the agent's image, the store. The bot's own configuration
//! file will do; of it only these parts are read.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use diagbot_artifacts::StoreConfig;
use diagbot_captures::CapturesConfig;
use diagbot_catalog::{Catalog, load::Allowances};
use serde::Deserialize;

use crate::config::CatalogConfig;

/// Where the settings are.
#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// A configuration file with `catalog`, `agent` and, for `--link`, `store`; the bot's own will do.
    #[arg(long, env = "DIAGBOT_CONFIG")]
    config: Option<PathBuf>,
    /// Folder of the allowlist, instead of the file's.
    #[arg(long, env = "DIAGBOT_CATALOG")]
    catalog: Option<PathBuf>,
    /// The agent's image by digest, instead of the file's.
    #[arg(long, env = "DIAGBOT_AGENT_IMAGE")]
    image: Option<String>,
}

/// The parts of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    catalog: Option<CatalogConfig>,
    #[serde(default)]
    agent: Option<CapturesConfig>,
    #[serde(default)]
    store: Option<StoreConfig>,
}

/// The settings, checked.
#[derive(Debug)]
pub(super) struct Settings {
    catalog: CatalogConfig,
    /// The agent's container.
    pub(super) agent: CapturesConfig,
    /// The store, where there is one.
    pub(super) store: Option<StoreConfig>,
}

impl Settings {
    /// Reads the file, if one is named, and what was given instead of its parts.
    pub(super) fn load(arguments: &Arguments) -> anyhow::Result<Self> {
        let file = match &arguments.config {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("read the configuration {}", path.display()))?;
                serde_saphyr::from_str(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?
            }
            None => File::default(),
        };
        let mut agent = file.agent;
        if let Some(image) = &arguments.image {
            match &mut agent {
                Some(agent) => agent.image.clone_from(image),
                None => agent = Some(CapturesConfig::of_image(image.clone())),
            }
        }
        let catalog = match (&arguments.catalog, file.catalog) {
            (Some(folder), former) => Some(CatalogConfig {
                folder: folder.clone(),
                allow_unpinned_images: former.is_some_and(|former| former.allow_unpinned_images),
            }),
            (None, former) => former,
        };
        let (Some(catalog), Some(agent)) = (catalog, agent) else {
            bail!(
                "the allowlist and the agent's image are not known: name the bot's configuration file with --config, or \
                 the two with --catalog and --image"
            );
        };
        let mut faults = file.store.as_ref().map(StoreConfig::faults).unwrap_or_default();
        if !agent.image.contains("@sha256:") && !catalog.allow_unpinned_images {
            faults.push("the agent's image must be named by digest".to_owned());
        }
        if let Err(error) = agent.redaction.compile() {
            faults.push(format!("agent.redaction: {error}"));
        }
        if !faults.is_empty() {
            bail!("{}", faults.join("; "));
        }
        Ok(Self {
            catalog,
            agent,
            store: file.store,
        })
    }

    /// The allowlist.
    pub(super) fn catalog(&self) -> anyhow::Result<Catalog> {
        let allowances = Allowances {
            unpinned_images: self.catalog.allow_unpinned_images,
        };
        Ok(Catalog::load(&self.catalog.folder, allowances)?)
    }
}
