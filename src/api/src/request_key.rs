//! The identity of a request: its key, the name that follows from the key, and the names that people speak.
//!
//! Owns how a key becomes a name: the same request, delivered again on any replica at any time, has the same name, so that
//! the API server itself refuses the second create.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::run::{KeyKind, KeyRecord};

/// Crockford's base 32, lower-case: no `i`, `l`, `o`, `u`, so that names survive being read out.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Characters of a name behind `d-`: 80 bits of the key's SHA-256.
const NAME_CHARACTERS: usize = 16;

/// What made a request; equal keys are the same request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RequestKey {
    /// A slash command.
    Command {
        /// Slack team.
        team: String,
        /// The `trigger_id`, new for each command and equal in redeliveries.
        trigger_id: String,
    },
    /// An event, a mention say.
    Event {
        /// The `event_id`, equal in redeliveries.
        event_id: String,
    },
    /// A button: pressed twice or by two people it is one request.
    Action {
        /// The run whose message holds the button.
        run: RunName,
        /// Which button, with its choice.
        button: String,
    },
    /// A webhook.
    Webhook {
        /// Its configured source.
        source: String,
        /// The source's id of the event.
        id: String,
    },
    /// A schedule's firing.
    Schedule {
        /// UID of the schedule.
        uid: String,
        /// The due instant.
        due: Timestamp,
    },
    /// A form that was submitted.
    Form {
        /// Slack team.
        team: String,
        /// The form's `view.id`, new for each form that is opened and equal in redeliveries.
        view: String,
    },
    /// A terminal.
    Cli {
        /// A UUID made by the caller.
        id: String,
    },
}

impl RequestKey {
    fn kind(&self) -> KeyKind {
        match self {
            Self::Command { .. } => KeyKind::Command,
            Self::Event { .. } => KeyKind::Event,
            Self::Action { .. } => KeyKind::Action,
            Self::Webhook { .. } => KeyKind::Webhook,
            Self::Schedule { .. } => KeyKind::Schedule,
            Self::Form { .. } => KeyKind::Form,
            Self::Cli { .. } => KeyKind::Cli,
        }
    }

    /// The key as recorded. The id is a JSON list, so that no two keys share a text.
    pub fn record(&self) -> KeyRecord {
        let due;
        let parts: Vec<&str> = match self {
            Self::Command { team, trigger_id } => vec![team, trigger_id],
            Self::Event { event_id } => vec![event_id],
            Self::Action { run, button } => vec![run.as_str(), button],
            Self::Webhook { source, id } => vec![source, id],
            Self::Schedule { uid, due: instant } => {
                due = instant.to_string();
                vec![uid, &due]
            }
            Self::Form { team, view } => vec![team, view],
            Self::Cli { id } => vec![id],
        };
        KeyRecord {
            kind: self.kind(),
            id: serde_json::to_string(&parts).expect("a list of strings is valid JSON"),
        }
    }

    /// The name of the run that this request is.
    pub fn run_name(&self) -> RunName {
        RunName::of(&self.record())
    }
}

/// Name of a run: `d-` and 16 characters of Crockford's base 32.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunName(String);

/// A text is no run name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a run: `d-` and 16 letters or digits")]
pub struct RunNameError;

impl RunName {
    /// The name that follows from a recorded key.
    pub fn of(key: &KeyRecord) -> Self {
        let mut hash = Sha256::new();
        hash.update(format!("diagbot run 1\n{}\n", key.kind.as_str()));
        hash.update(key.id.as_bytes());
        let bits = hash.finalize()[..10]
            .iter()
            .fold(0_u128, |bits, byte| (bits << 8) | u128::from(*byte));
        let id: String = (0..NAME_CHARACTERS)
            .rev()
            .map(|position| char::from(ALPHABET[(bits >> (5 * position)) as usize & 31]))
            .collect();
        Self(format!("d-{id}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 16 characters behind `d-`.
    pub fn id(&self) -> &str {
        &self.0[2..]
    }

    /// The short form that people speak: `d-abc-def`.
    pub fn short(&self) -> String {
        let id = self.id();
        format!("d-{}-{}", &id[..3], &id[3..6])
    }

    /// Whether `spoken`, as [`spoken_ids`] reads it, is a beginning of this name.
    pub fn matches(&self, spoken: &[String]) -> bool {
        spoken.iter().any(|prefix| self.id().starts_with(prefix.as_str()))
    }
}

/// What a person may have meant by an id: dashes, spaces, quotes and case don't matter, `d-` may be missing, and letters
/// that look alike are taken for each other (as Crockford has it). Empty where the text can't be an id.
pub fn spoken_ids(text: &str) -> Vec<String> {
    let text = text
        .trim_matches(|c: char| c.is_whitespace() || "`'\"*_".contains(c))
        .to_ascii_lowercase();
    let read = |text: &str| -> Option<String> {
        let id: Option<String> = text
            .chars()
            .filter(|c| !c.is_whitespace() && *c != '-')
            .map(|c| match c {
                'o' => Some('0'),
                'i' | 'l' => Some('1'),
                c if c.is_ascii() && ALPHABET.contains(&(c as u8)) => Some(c),
                _ => None,
            })
            .collect();
        id.filter(|id| (1..=NAME_CHARACTERS).contains(&id.len()))
    };
    match text.strip_prefix("d-") {
        Some(rest) => read(rest).into_iter().collect(),
        None => read(&text)
            .into_iter()
            .chain(text.strip_prefix('d').and_then(read))
            .collect(),
    }
}

impl FromStr for RunName {
    type Err = RunNameError;

    fn from_str(text: &str) -> Result<Self, RunNameError> {
        let id = text.strip_prefix("d-").ok_or(RunNameError)?;
        let fits = id.len() == NAME_CHARACTERS && id.bytes().all(|b| ALPHABET.contains(&b));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(RunNameError)
        }
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn command(team: &str, trigger_id: &str) -> RequestKey {
        RequestKey::Command {
            team: team.to_owned(),
            trigger_id: trigger_id.to_owned(),
        }
    }

    #[test]
    fn a_name_never_changes_for_a_key() {
        // Pinned: another rule would make a second run of a request that is redelivered across an upgrade.
        let run = "d-nth0dj3083yf14pw".parse().unwrap();
        let (team, id, source) = ("T1".to_owned(), "f1".to_owned(), "alertmanager".to_owned());
        let pinned = [
            (command("T1", "13345224609.738474920"), "d-nth0dj3083yf14pw"),
            (
                RequestKey::Event {
                    event_id: "Ev0001".to_owned(),
                },
                "d-n1tsf6zr60ybrbs8",
            ),
            (
                RequestKey::Action {
                    run,
                    button: "again".to_owned(),
                },
                "d-kepespt8xsvbd7fe",
            ),
            (RequestKey::Webhook { source, id }, "d-yqy4tcz9jp1gwj0q"),
            (
                RequestKey::Schedule {
                    uid: "uid-1".to_owned(),
                    due: "2026-11-02T03:00:00Z".parse().unwrap(),
                },
                "d-hgmdr9q9we9b1s1p",
            ),
            (
                RequestKey::Form {
                    team,
                    view: "V1".to_owned(),
                },
                "d-qansfdafrvydtvg2",
            ),
            (
                RequestKey::Cli {
                    id: "00000000-0000-4000-8000-000000000001".to_owned(),
                },
                "d-w6tekjcgbxvj2q9v",
            ),
        ];
        for (key, name) in pinned {
            assert_eq!(key.run_name().as_str(), name, "{key:?}");
            let recorded = serde_json::to_value(key.record().kind).unwrap();
            assert_eq!(recorded, key.record().kind.as_str());
        }
    }

    #[test]
    fn ids_are_found_as_people_say_them() {
        let name: RunName = "d-abcdef0123456789".parse().unwrap();
        assert_eq!(name.short(), "d-abc-def");
        for said in ["d-abc-def", "abcdef", "ABC DEF", "`d-abc`", "d-abcdefo1", "dabcdef"] {
            assert!(name.matches(&spoken_ids(said)), "{said}");
        }
        for said in ["d-abd", "", "d-", "abcdefu", "d-abcdef01234567890"] {
            assert!(!name.matches(&spoken_ids(said)), "{said}");
        }
        let d: RunName = "d-dabc000000000000".parse().unwrap();
        assert!(d.matches(&spoken_ids("dabc")), "an id may begin with d itself");
    }

    proptest! {
        #[test]
        fn names_parse_and_keys_don_t_run_together(a in ".{0,12}", b in ".{0,12}", c in ".{0,12}", d in ".{0,12}") {
            let (first, second) = (command(&a, &b), command(&c, &d));
            let name = first.run_name();
            prop_assert_eq!(name.as_str().parse::<RunName>(), Ok(name.clone()));
            prop_assert_eq!(first == second, first.record() == second.record());
            prop_assert_eq!(first == second, name == second.run_name());
            // The same texts under another kind are another request.
            let webhook = RequestKey::Webhook { source: a, id: b };
            prop_assert_ne!(webhook.run_name(), name);
        }

        #[test]
        fn spoken_ids_are_total(text in ".{0,60}") {
            let _ = spoken_ids(&text);
        }
    }
}
