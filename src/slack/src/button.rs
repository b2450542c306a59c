//! Buttons as typed, opaque ids: a kind and the name of a run. What a click does is looked up on our side, at click time,
//! for the person who clicks.

use diagbot_api::request_key::RunName;

/// Begins the `action_id` of every button of ours.
const PREFIX: &str = "diag";
/// Begins the number of a later attempt.
const ATTEMPT: char = '~';
/// Presses that may be denied before a button is used up.
pub(crate) const ATTEMPTS: usize = 8;

/// A button.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Button {
    /// One of the run's candidates, by its position.
    Choose {
        /// The run that asks.
        run: RunName,
        /// Position among its candidates.
        index: usize,
    },
    /// One of the run's offers, by its position.
    Take {
        /// The run that offers.
        run: RunName,
        /// Position among its offers.
        index: usize,
    },
    /// "Yes, the impact is understood."
    Confirm {
        /// The run that asks.
        run: RunName,
    },
    /// Stop the run.
    Cancel {
        /// The run.
        run: RunName,
    },
    /// Fresh links, privately.
    Link {
        /// The run.
        run: RunName,
    },
    /// The same of a healthy replica, to compare.
    Compare {
        /// The run.
        run: RunName,
    },
    /// Everything of the run as one archive, privately.
    Bundle {
        /// The run.
        run: RunName,
    },
    /// The same again.
    Again {
        /// The run.
        run: RunName,
    },
    /// "I agree", by a second person.
    Approve {
        /// The run.
        run: RunName,
    },
    /// "I don't agree."
    Refuse {
        /// The run.
        run: RunName,
    },
    /// The same again, and somebody else shall decide.
    AskOwners {
        /// The run that was denied.
        run: RunName,
    },
    /// What the owners would have to apply, privately.
    Grant {
        /// The run that was denied.
        run: RunName,
    },
}

impl Button {
    /// The run that the button belongs to.
    pub fn run(&self) -> &RunName {
        match self {
            Self::Choose { run, .. }
            | Self::Take { run, .. }
            | Self::Confirm { run }
            | Self::Cancel { run }
            | Self::Link { run }
            | Self::Bundle { run }
            | Self::Compare { run }
            | Self::Again { run }
            | Self::Approve { run }
            | Self::Refuse { run }
            | Self::AskOwners { run }
            | Self::Grant { run } => run,
        }
    }

    /// Which button of the run; the second half of an action's key.
    pub fn key(&self) -> String {
        match self {
            Self::Choose { index, .. } => format!("choose-{index}"),
            Self::Take { index, .. } => format!("take-{index}"),
            Self::Confirm { .. } => "confirm".to_owned(),
            Self::Cancel { .. } => "cancel".to_owned(),
            Self::Link { .. } => "link".to_owned(),
            Self::Bundle { .. } => "bundle".to_owned(),
            Self::Compare { .. } => "compare".to_owned(),
            Self::Again { .. } => "again".to_owned(),
            Self::Approve { .. } => "approve".to_owned(),
            Self::Refuse { .. } => "refuse".to_owned(),
            Self::AskOwners { .. } => "ask-owners".to_owned(),
            Self::Grant { .. } => "grant".to_owned(),
        }
    }

    /// The second half of its action's key: one for each attempt, since what was denied to one person may be another's to do.
    pub fn attempt(&self, attempt: usize) -> String {
        match attempt {
            0 => self.key(),
            attempt => format!("{}{ATTEMPT}{attempt}", self.key()),
        }
    }

    /// The button of an action's key, whichever attempt it was.
    pub fn of_action(key: &str, run: &str) -> Option<Self> {
        let key = key.split_once(ATTEMPT).map_or(key, |(key, _)| key);
        Self::parse(&format!("{PREFIX}.{key}"), run)
    }

    /// Unique in a message.
    pub fn action_id(&self) -> String {
        format!("{PREFIX}.{}", self.key())
    }

    /// The opaque value: the run's name.
    pub fn value(&self) -> String {
        self.run().as_str().to_owned()
    }

    /// Reads a click back; nothing else is a button of ours.
    pub fn parse(action_id: &str, value: &str) -> Option<Self> {
        let key = action_id.strip_prefix(PREFIX)?.strip_prefix('.')?;
        let run: RunName = value.parse().ok()?;
        match key {
            "confirm" => Some(Self::Confirm { run }),
            "cancel" => Some(Self::Cancel { run }),
            "link" => Some(Self::Link { run }),
            "bundle" => Some(Self::Bundle { run }),
            "compare" => Some(Self::Compare { run }),
            "again" => Some(Self::Again { run }),
            "approve" => Some(Self::Approve { run }),
            "refuse" => Some(Self::Refuse { run }),
            "ask-owners" => Some(Self::AskOwners { run }),
            "grant" => Some(Self::Grant { run }),
            _ => {
                let (kind, index) = key.rsplit_once('-')?;
                let index = index.parse().ok().filter(|index| *index < 100)?;
                match kind {
                    "choose" => Some(Self::Choose { run, index }),
                    "take" => Some(Self::Take { run, index }),
                    _ => None,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_click_is_read_back_and_nothing_else_is_a_button() {
        let run: RunName = "d-0123456789abcdef".parse().unwrap();
        let buttons = [
            Button::Choose {
                run: run.clone(),
                index: 3,
            },
            Button::Take {
                run: run.clone(),
                index: 11,
            },
            Button::Confirm { run: run.clone() },
            Button::Cancel { run: run.clone() },
            Button::Link { run: run.clone() },
            Button::Bundle { run: run.clone() },
            Button::Compare { run: run.clone() },
            Button::Again { run: run.clone() },
            Button::Approve { run: run.clone() },
            Button::Refuse { run: run.clone() },
            Button::AskOwners { run: run.clone() },
            Button::Grant { run },
        ];
        for button in buttons {
            assert_eq!(Button::parse(&button.action_id(), &button.value()), Some(button));
        }
        for (action, value) in [
            ("diag.choose-", "d-0123456789abcdef"),
            ("diag.choose--1", "d-0123456789abcdef"),
            ("diag.rm", "d-0123456789abcdef"),
            ("cancel", "d-0123456789abcdef"),
            ("diag.cancel", "shop/checkout"),
        ] {
            assert_eq!(Button::parse(action, value), None, "{action} {value}");
        }
    }
}
