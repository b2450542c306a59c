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
    /// A further user name of the bot, as a cluster that is reached by a kubeconfig with a client certificate or by OIDC knows
    /// it; may be repeated. `kubectl auth whoami` with that kubeconfig says it.
    #[arg(long = "user")]
    users: Vec<String>,
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
        users: arguments.users(),
        agent_image: arguments.agent_image.clone(),
    };
    for object in policy::render(&catalog, &fence) {
        say("---");
        say(serde_saphyr::to_string(&object)?.trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

impl RenderArguments {
    /// Every user name of the bot: its service account's, and those that were named.
    fn users(&self) -> Vec<String> {
        let account = service_account_user(&self.namespace, &self.service_account);
        std::iter::once(account).chain(self.users.iter().cloned()).collect()
    }
}

/// As whom the API server knows a service account.
pub(super) fn service_account_user(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct PolicyLine {
        #[command(flatten)]
        arguments: RenderArguments,
    }

    #[test]
    fn each_named_user_is_fenced_beside_the_service_account() {
        let users = |more: &[&str]| {
            let line = ["render", "--agent-image", "agent@sha256:0"];
            let line = PolicyLine::try_parse_from([&line[..], more].concat()).expect("arguments");
            line.arguments.users()
        };
        assert_eq!(users(&[]), ["system:serviceaccount:diagbot:diagbot"]);
        assert_eq!(
            users(&["--namespace", "ops", "--user", "CN=diagbot", "--user", "oidc:diagbot"]),
            ["system:serviceaccount:ops:diagbot", "CN=diagbot", "oidc:diagbot"]
        );
    }
}
