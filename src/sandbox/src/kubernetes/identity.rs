//! Who asks: bearer tokens, and the users and groups behind them.
//!
//! Owns the tokens of one server; never decides what a user may do.
//!
//! # Design notes
//! The server speaks plain HTTP on loopback, and kubectl sends no bearer token over plain HTTP. So a kubeconfig carries its
//! token twice: in the user's entry, and as the first segments of the server's path (`/token/<token>`), which any client keeps.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// A user as authorization sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    /// User name.
    pub(super) name: String,
    /// Groups.
    pub(super) groups: Vec<String>,
}

impl User {
    /// A person or program with a name of its own.
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            groups: vec!["system:authenticated".to_owned()],
        }
    }

    /// A service account.
    pub(super) fn service_account(namespace: &str, name: &str) -> Self {
        Self {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ],
        }
    }

    /// Whoever has no token.
    pub(super) fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
        }
    }

    fn admin() -> Self {
        Self {
            name: "kubernetes-admin".to_owned(),
            groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
        }
    }

    /// `admin` and `bot` are known; a word with a colon before the last part, as `system:serviceaccount:<ns>:<name>`, is a
    /// service account; anything else is a user of that name.
    fn of_word(word: &str) -> Self {
        match word.split(':').collect::<Vec<_>>().as_slice() {
            ["admin"] => Self::admin(),
            ["bot"] => Self::service_account("diagbot", "diagbot"),
            ["system", "serviceaccount", namespace, name] => Self::service_account(namespace, name),
            _ => Self::named(word),
        }
    }
}

/// The tokens that have been given out.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    users: Mutex<BTreeMap<String, User>>,
}

impl Tokens {
    /// A token for the user that `word` names.
    pub(super) fn issue(&self, word: &str) -> String {
        let token = hex::encode(rand::random::<[u8; 16]>());
        self.users
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(token.clone(), User::of_word(word));
        token
    }

    /// The user of a token.
    pub(super) fn user(&self, token: &str) -> Option<User> {
        self.users
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(token)
            .cloned()
    }
}

/// Takes `/token/<token>` off a path.
pub(super) fn split_path(path: &str) -> (Option<&str>, &str) {
    path.strip_prefix("/token/")
        .and_then(|rest| rest.split_once('/').map(|(token, _)| (token, &rest[token.len()..])))
        .map_or((None, path), |(token, rest)| (Some(token), rest))
}

/// A kubeconfig with one cluster, user and context named `sandbox`.
pub(super) fn kubeconfig(base: &str, token: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: sandbox\n\
         clusters:\n- name: sandbox\n  cluster:\n    server: {base}/token/{token}\n\
         users:\n- name: sandbox\n  user:\n    token: {token}\n\
         contexts:\n- name: sandbox\n  context:\n    cluster: sandbox\n    user: sandbox\n    namespace: default\n"
    )
}

#[cfg(test)]
mod tests {
    use super::{Tokens, split_path};

    #[test]
    fn a_token_in_the_path_is_taken_off_and_names_its_user() {
        assert_eq!(split_path("/token/abc/api/v1/pods"), (Some("abc"), "/api/v1/pods"));
        assert_eq!(split_path("/api/v1/pods"), (None, "/api/v1/pods"));
        let tokens = Tokens::default();
        let token = tokens.issue("bot");
        assert_eq!(
            tokens.user(&token).map(|u| u.name),
            Some("system:serviceaccount:diagbot:diagbot".to_owned())
        );
        assert_eq!(tokens.user("forged"), None);
    }
}
