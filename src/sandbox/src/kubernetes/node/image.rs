//! The images that the node knows, and what running one means here.
//!
//! Owns the table of images; never starts anything.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// What a container of an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Image {
    /// diagbot's agent: the multi-call program, as `agent <args>`.
    Agent,
    /// A JVM with named threads, two of them deadlocked.
    Checkout,
    /// The multi-call program, as `workload ledger`.
    Ledger,
    /// The multi-call program, as `workload billing`: logs and fails.
    Billing,
    /// A shell and whatever else the machine has.
    Tools,
    /// No process at all: a pod that only fills lists.
    Idle,
}

/// What the agent's program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agents {
    /// The multi-call program, as `agent`.
    MultiCall,
    /// The agent and nothing else.
    Alone,
}

impl Agents {
    fn words(self) -> Vec<&'static str> {
        match self {
            Self::MultiCall => vec![Image::Agent.program(), "agent"],
            Self::Alone => vec![Image::Agent.program()],
        }
    }
}

impl Image {
    /// The image behind a reference; none for what the sandbox can't pull.
    pub(super) fn of_reference(reference: &str) -> Option<Self> {
        let name = reference.split('@').next().unwrap_or_default();
        let last = name.rsplit('/').next().unwrap_or_default();
        let name = last.split(':').next().unwrap_or_default();
        match name {
            "diagbot-agent" | "agent" => Some(Self::Agent),
            "checkout" => Some(Self::Checkout),
            "ledger" => Some(Self::Ledger),
            "billing" => Some(Self::Billing),
            "busybox" | "toolbox" => Some(Self::Tools),
            "idle" => Some(Self::Idle),
            _ => None,
        }
    }

    /// uid and gid that the image itself asks for.
    pub(super) fn user(self) -> (u32, u32) {
        match self {
            Self::Agent | Self::Checkout | Self::Ledger | Self::Billing => (1000, 1000),
            Self::Tools | Self::Idle => (0, 0),
        }
    }

    /// Where the multi-call program lies in the container.
    pub(super) fn program(self) -> &'static str {
        if self == Self::Agent {
            "/diagbot-agent"
        } else {
            "/diagbot-sandbox"
        }
    }

    /// The command line, from the image's own entrypoint and the container's `command` and `args`.
    pub(super) fn argv(self, agents: Agents, command: &[String], args: &[String]) -> Vec<String> {
        let own: Vec<&str> = match self {
            Self::Agent => agents.words(),
            Self::Checkout => vec![
                "java",
                "-Xmx96m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-cp",
                "/app",
                "Checkout",
            ],
            Self::Ledger => vec![self.program(), "workload", "ledger"],
            Self::Billing => vec![self.program(), "workload", "billing"],
            Self::Tools => vec!["sh"],
            Self::Idle => Vec::new(),
        };
        let own = own.into_iter().map(str::to_owned);
        if !command.is_empty() {
            self.translate(command, agents)
                .into_iter()
                .chain(args.iter().cloned())
                .collect()
        } else if self == Self::Tools && !args.is_empty() {
            args.to_vec()
        } else {
            own.chain(args.iter().cloned()).collect()
        }
    }

    /// A command in the container, where the agent's own program goes by one name and lies behind another.
    pub(super) fn translate(self, command: &[String], agents: Agents) -> Vec<String> {
        match command.split_first() {
            Some((first, rest)) if self == Self::Agent && Path::new(first).ends_with("diagbot-agent") => {
                let words = agents.words().into_iter().map(str::to_owned);
                words.chain(rest.iter().cloned()).collect()
            }
            _ => command.to_vec(),
        }
    }
}

/// `imageID` of a reference: the digest it is pinned to, or one made of its name.
pub(super) fn id(reference: &str) -> String {
    if reference.contains('@') {
        return reference.to_owned();
    }
    let name = reference
        .rsplit_once(':')
        .filter(|(_, tag)| !tag.contains('/'))
        .map_or(reference, |(name, _)| name);
    format!("{name}@sha256:{}", hex::encode(Sha256::digest(reference)))
}

/// A program on this machine's search path.
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    super::launch::SEARCH_PATH
        .split(':')
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::{Agents, Image, id};

    #[test]
    fn references_with_tags_and_digests_name_the_same_image() {
        for reference in [
            "ghcr.io/diagbot/diagbot-agent@sha256:00",
            "localhost:5000/diagbot-agent:1",
            "diagbot-agent",
        ] {
            assert_eq!(Image::of_reference(reference), Some(Image::Agent), "{reference}");
        }
        assert_eq!(Image::of_reference("localhost/nope:1"), None);
        assert!(id("registry.sandbox/ledger:1").starts_with("registry.sandbox/ledger@sha256:"));
    }

    #[test]
    fn the_agent_is_the_multi_call_program_whatever_it_is_called_by() {
        let args = vec!["run".to_owned()];
        assert_eq!(
            Image::Agent.argv(Agents::MultiCall, &[], &args),
            ["/diagbot-agent", "agent", "run"]
        );
        let exec = ["/usr/bin/diagbot-agent".to_owned(), "cat".to_owned()];
        assert_eq!(
            Image::Agent.translate(&exec, Agents::MultiCall),
            ["/diagbot-agent", "agent", "cat"]
        );
        assert_eq!(Image::Agent.argv(Agents::Alone, &[], &args), ["/diagbot-agent", "run"]);
    }
}
