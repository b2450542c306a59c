//! The scopes of our app: which, and why. The manifest in `deploy/` and `diagbot check` follow this list.

/// One scope of the bot token.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// Slack's name of it.
    pub name: &'static str,
    /// Whether the bot can't work without it.
    pub required: bool,
    /// What it is for, and what falls short without it.
    pub reason: &'static str,
}

const fn required(name: &'static str, reason: &'static str) -> Scope {
    Scope {
        name,
        required: true,
        reason,
    }
}

const fn optional(name: &'static str, reason: &'static str) -> Scope {
    Scope {
        name,
        required: false,
        reason,
    }
}

/// All scopes that we use.
pub const SCOPES: &[Scope] = &[
    required("commands", "takes the slash command"),
    required(
        "chat:write",
        "tells about runs in channels that the bot is a member of, and in direct messages",
    ),
    required(
        "app_mentions:read",
        "takes mentions, since slash commands don't work in threads",
    ),
    required(
        "users:read",
        "knows guests, strangers, bots and deactivated people, who may nothing",
    ),
    required(
        "users:read.email",
        "the group slack:email:<address>; Slack wants it with users:read",
    ),
    required("usergroups:read", "the groups slack:usergroup:<id>"),
    required("channels:read", "knows whether a channel is public or shared"),
    required("groups:read", "the same for private channels"),
    optional(
        "channels:history",
        "without it an uncertain post is repeated once, marked",
    ),
    optional("groups:history", "the same in private channels"),
    optional("im:history", "the same in direct messages"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_manifest_asks_for_what_is_required_and_names_what_is_optional() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/slack-app-manifest.yaml");
        let text = std::fs::read_to_string(path).expect("the manifest is in the repository");
        let manifest: serde_json::Value = serde_saphyr::from_str(&text).expect("the manifest is YAML");
        let asked: BTreeSet<_> = manifest["oauth_config"]["scopes"]["bot"]
            .as_array()
            .expect("a list of scopes")
            .iter()
            .filter_map(|scope| scope.as_str())
            .collect();
        let required: BTreeSet<_> = SCOPES.iter().filter(|s| s.required).map(|s| s.name).collect();
        assert_eq!(asked, required);
        for scope in SCOPES.iter().filter(|s| !s.required) {
            assert!(text.contains(&format!("# - {}\n", scope.name)), "{}", scope.name);
        }
    }
}
