//! Configuration: composes the settings that live with the modules they configure, loads them, and reports every fault with
//! file, key and rule at once. `check` and `serve` load with this same code.
//!
//! Never holds a secret: files are named here and read by [`Secrets::read`].

mod secrets;

use std::path::{Path, PathBuf};

use diagbot_artifacts::StoreConfig;
use diagbot_audit::RecordConfig;
use diagbot_captures::CapturesConfig;
use diagbot_catalog::{Catalog, CatalogError, load::Allowances};
use diagbot_cluster::ClusterConfig;
use diagbot_runs::{
    access::AccessConfig,
    admission::{BudgetConfig, RateConfig},
};
use diagbot_slack::config::SlackConfig;
pub use secrets::{SecretError, Secrets};
use serde::Deserialize;

use crate::{http::HttpConfig, triggers::config::TriggersConfig};

/// Everything that the bot is told by its configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The home cluster: holds runs and captures, and is a target too.
    pub cluster: ClusterConfig,
    /// The bot's namespace in the home cluster. Default: `diagbot`.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Further target clusters.
    #[serde(default)]
    pub clusters: Vec<ClusterConfig>,
    /// File with the bot's Secret: at least 32 random bytes, the same on every replica.
    pub secret_file: PathBuf,
    /// The allowlist.
    pub catalog: CatalogConfig,
    /// The agent's container.
    pub agent: CapturesConfig,
    /// Who may.
    #[serde(default)]
    pub access: AccessConfig,
    /// How often people may ask.
    #[serde(default)]
    pub rates: RateConfig,
    /// How much may be captured at a time and in an hour.
    #[serde(default)]
    pub budgets: BudgetConfig,
    /// The Slack front.
    pub slack: SlackConfig,
    /// The store.
    pub store: StoreConfig,
    /// The record of everything that is done.
    #[serde(default)]
    pub record: RecordConfig,
    /// Health and metrics.
    #[serde(default)]
    pub http: HttpConfig,
    /// Which alerts start what.
    #[serde(default)]
    pub triggers: TriggersConfig,
}

/// Where the allowlist is.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CatalogConfig {
    /// Folder with one YAML file a diagnostic.
    pub folder: PathBuf,
    /// Images may be named by tag. Default: false.
    #[serde(default)]
    pub allow_unpinned_images: bool,
}

fn default_namespace() -> String {
    "diagbot".to_owned()
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no configuration.
    #[error("{}: {fault}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Key and rule, with line and column.
        fault: String,
    },
    /// Values break rules.
    #[error("{} has {} fault(s):\n{}", path.display(), faults.len(), faults.join("\n"))]
    Faults {
        /// The file.
        path: PathBuf,
        /// Each as `key: rule`.
        faults: Vec<String>,
    },
    /// Rules of triggers that the catalog does not bear out.
    #[error("{} fault(s) in the rules of triggers:\n{}", .0.len(), .0.join("\n"))]
    Rules(Vec<String>),
    /// The catalog has faults.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl Config {
    /// Loads and checks the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let config: Self = serde_saphyr::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            fault: error.to_string(),
        })?;
        let faults = config.faults();
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Faults {
                path: path.to_owned(),
                faults,
            })
        }
    }

    /// The allowlist that this configuration names; every rule of a trigger must be borne out by it.
    pub fn catalog(&self) -> Result<Catalog, ConfigError> {
        let allowances = Allowances {
            unpinned_images: self.catalog.allow_unpinned_images,
        };
        let catalog = Catalog::load(&self.catalog.folder, allowances)?;
        let faults = self.triggers.faults_against(&catalog);
        if faults.is_empty() {
            Ok(catalog)
        } else {
            Err(ConfigError::Rules(faults))
        }
    }

    /// Everything that is wrong, each as `key: rule`.
    fn faults(&self) -> Vec<String> {
        let mut faults = self.store.faults();
        faults.extend(self.slack.faults());
        if !is_label(&self.namespace) {
            faults.push("namespace: lower-case letters, digits and dashes, at most 63".to_owned());
        }
        let pinned = self.agent.image.contains("@sha256:");
        if !pinned && !self.catalog.allow_unpinned_images {
            faults.push("agent.image: must be named by digest, or set catalog.allowUnpinnedImages".to_owned());
        }
        if self.agent.concurrency == 0 {
            faults.push("agent.concurrency: at least 1".to_owned());
        }
        if let Err(error) = self.agent.redaction.compile() {
            faults.push(format!("agent.redaction: {error}"));
        }
        for (index, cluster) in self.clusters.iter().enumerate() {
            if cluster.name == self.cluster.name || self.clusters[..index].iter().any(|c| c.name == cluster.name) {
                faults.push(format!("clusters[{index}].name: `{}` is used twice", cluster.name));
            }
        }
        let clusters: Vec<String> = std::iter::once(&self.cluster)
            .chain(&self.clusters)
            .map(|cluster| cluster.name.to_string())
            .collect();
        faults.extend(self.triggers.faults(&clusters));
        faults
    }
}

/// An RFC 1123 label, as namespaces are named.
fn is_label(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| word(b) || b == b'-')
        && text.bytes().next().is_some_and(word)
        && text.bytes().last().is_some_and(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
cluster: { name: local }
secretFile: /etc/diagbot/secret
catalog: { folder: commands }
agent: { image: registry.example/agent@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef }
slack: { botTokenFile: /etc/diagbot/bot-token, appTokenFile: /etc/diagbot/app-token }
store: { bucket: evidence }
";

    fn load(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("diagbot.yaml");
        std::fs::write(&path, text).expect("write");
        Config::load(&path)
    }

    #[test]
    fn the_smallest_configuration_has_defaults_for_the_rest() {
        let config = load(GOOD).expect("valid");
        assert_eq!(config.namespace, "diagbot");
        assert_eq!(config.slack.command, "/diag");
    }

    /// What stands in `deploy/examples`.
    fn example() -> String {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples/config.yaml");
        std::fs::read_to_string(file).expect("the example is there")
    }

    #[test]
    fn the_example_says_what_holds_where_nothing_is_said() {
        let shown = load(&example()).expect("valid");
        let smallest = "
cluster: { name: local }
secretFile: /etc/diagbot/secrets/nonce-key
catalog: { folder: /etc/diagbot/commands }
agent: { image: IMAGE }
slack: { botTokenFile: /etc/diagbot/secrets/slack-bot-token, appTokenFile: /etc/diagbot/secrets/slack-app-token }
store: { bucket: diagbot }
"
        .replace("IMAGE", &shown.agent.image);
        let silent = load(&smallest).expect("valid");
        assert_eq!(format!("{shown:#?}"), format!("{silent:#?}"));
    }

    #[test]
    fn the_example_names_every_key() {
        let text = example();
        for section in [
            "",
            "cluster",
            "catalog",
            "agent",
            "redaction",
            "access",
            "rates",
            "budgets",
            "slack",
            "store",
            "links",
            "record",
            "http",
            "triggers",
        ] {
            // A key that nobody knows is answered with those that are known.
            let broken = section_with(&text, section, "noSuchKey: 1");
            let told = load(&broken).expect_err(section).to_string();
            let (_, known) = told
                .split_once("expected")
                .unwrap_or_else(|| panic!("{section}: {told}"));
            let first_line = known.lines().next().unwrap_or_default();
            let keys = first_line.trim_start_matches(" one of ").split(", ").map(str::trim);
            let keys: Vec<&str> = keys.filter(|key| !key.is_empty()).collect();
            assert!(!keys.is_empty(), "{section}: {told}");
            for key in keys {
                assert!(names(&text, section, key), "{section}.{key} is not in the example");
            }
        }
    }

    #[test]
    fn a_key_of_another_section_names_nothing() {
        let text = "top: 1\n# also: 2\na:\n  x: 1 # y: 2\n  b: { z: 1 } # w: 3\n  # v: 4\nc:\n  u: 5\n";
        for (section, key) in [
            ("", "top"),
            ("", "also"),
            ("a", "x"),
            ("a", "v"),
            ("b", "z"),
            ("b", "w"),
        ] {
            assert!(names(text, section, key), "{section}.{key}");
        }
        for (section, key) in [
            ("", "x"),
            ("a", "u"),
            ("a", "z"),
            ("a", "top"),
            ("b", "x"),
            ("c", "v"),
            ("b", ""),
        ] {
            assert!(!names(text, section, key), "{section}.{key}");
        }
    }

    /// Whether a section of the example names a key, as an entry or as a comment; the empty name is the top.
    fn names(text: &str, section: &str, key: &str) -> bool {
        let entry = format!("{key}:");
        let indent = |line: &str| line.len() - line.trim_start().len();
        let is_entry = |line: &str| line.trim_start().trim_start_matches("# ").starts_with(&entry);
        if section.is_empty() {
            return text.lines().any(|line| indent(line) == 0 && is_entry(line));
        }
        let head = format!("{section}:");
        let mut lines = text.lines().skip_while(|line| !line.trim_start().starts_with(&head));
        let first = lines.next().unwrap_or_else(|| panic!("no section {section}"));
        if first.contains('{') {
            // A flow mapping: what it may hold besides stands in the comment behind it.
            return first.split(['{', ',', '#', ' ']).skip(1).any(|word| word == entry);
        }
        lines
            .take_while(|line| line.trim().is_empty() || indent(line) > indent(first))
            .any(|line| indent(line) == indent(first) + 2 && is_entry(line))
    }

    /// The example with one more key in a section, which is a block or a flow mapping; the empty name is the top.
    fn section_with(text: &str, section: &str, entry: &str) -> String {
        if section.is_empty() {
            return format!("{text}\n{entry}\n");
        }
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let head = format!("{section}:");
        let at = lines.iter().position(|line| line.trim_start().starts_with(&head));
        let at = at.unwrap_or_else(|| panic!("no section {section}"));
        if lines[at].contains('{') {
            lines[at] = lines[at]
                .replacen('{', &format!("{{ {entry}, "), 1)
                .replace(", }", " }");
        } else {
            let indent = lines[at].len() - lines[at].trim_start().len() + 2;
            lines.insert(at + 1, format!("{}{entry}", " ".repeat(indent)));
        }
        lines.join("\n")
    }

    #[test]
    fn faults_are_told_with_their_keys_all_at_once() {
        let broken = GOOD
            .replace("bucket: evidence", "bucket: '', endpoint: 'ftp://x'")
            .replace(
                "name: local }",
                "name: local }\nnamespace: A\nclusters: [{ name: local }]",
            );
        let error = load(&broken).expect_err("faults").to_string();
        for key in ["store.bucket", "store.endpoint", "namespace", "clusters[0].name"] {
            assert!(error.contains(key), "{key} in {error}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = load(&GOOD.replace("catalog:", "catalogue:"))
            .expect_err("unknown key")
            .to_string();
        assert!(error.contains("catalogue") && error.contains("line 4"), "{error}");
    }
}
