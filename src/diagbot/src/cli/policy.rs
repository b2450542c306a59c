//! `diagbot policy render`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use diagbot_catalog::{
    Catalog,
    load::Allowances,
    policy::{self, Fence},
};

use super::say;

/// What the policies are rendered for.
#[derive(Debug, Args)]
pub(super) struct RenderArguments {
    /// Folder of the catalog.
    #[arg(long, default_value = "commands")]
    catalog: PathBuf,
    /// The agent's image, as the bot names it.
    #[arg(long)]
    agent_image: String,
    /// Namespace of the bot.
    #[arg(long, default_value = "diagbot")]
    namespace: String,
    /// Service account of the bot.
    #[arg(long, default_value = "diagbot")]
    service_account: String,
    /// The catalog may name images by tag.
    #[arg(long)]
    allow_unpinned_images: bool,
}

/// Prints the policies and their bindings as one YAML stream.
pub(super) fn render(arguments: &RenderArguments) -> anyhow::Result<ExitCode> {
    let allowances = Allowances {
        unpinned_images: arguments.allow_unpinned_images,
    };
    let catalog = Catalog::load(&arguments.catalog, allowances)?;
    let fence = Fence {
        namespace: arguments.namespace.clone(),
        users: vec![format!(
            "system:serviceaccount:{}:{}",
            arguments.namespace, arguments.service_account
        )],
        agent_image: arguments.agent_image.clone(),
    };
    for object in policy::render(&catalog, &fence) {
        say("---");
        say(serde_saphyr::to_string(&object)?.trim_end());
    }
    Ok(ExitCode::SUCCESS)
}
