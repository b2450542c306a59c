//! What can be taken of a target: a button each, and what became of those that were pressed.

use std::fmt::Write as _;

use diagbot_api::{
    request_key::RunName,
    run::{Offer, RunStatus},
};

use super::{
    Builder,
    escape::{code, prose},
    run::Successor,
    words::{person, phase_word},
};
use crate::button::Button;

/// Offers of one section: Slack takes 3,000 characters.
const OF_A_SECTION: usize = 10;

/// One line an offer.
pub(super) fn sections(mut message: Builder, status: &RunStatus, successors: &[Successor]) -> Builder {
    let lines: Vec<String> = status
        .offers
        .iter()
        .enumerate()
        .map(|(index, offer)| told(offer, taken(successors, index)))
        .collect();
    for lines in lines.chunks(OF_A_SECTION) {
        message = message.section(&lines.join("\n"));
    }
    message
}

/// What nobody has pressed yet, or only who was denied.
pub(super) fn buttons(run: &RunName, status: &RunStatus, successors: &[Successor]) -> Vec<(Button, String)> {
    let left = status.offers.iter().enumerate();
    let left = left.filter(|(index, _)| taken(successors, *index).is_none_or(|next| next.open));
    left.map(|(index, offer)| {
        (
            Button::Take {
                run: run.clone(),
                index,
            },
            offer.diagnostic.clone(),
        )
    })
    .collect()
}

fn told(offer: &Offer, taken: Option<&Successor>) -> String {
    let mut text = format!("{} – {}", code(&offer.diagnostic), prose(&offer.summary));
    if let Some(impact) = &offer.impact {
        let _ = write!(text, " – _{}_", prose(impact));
    }
    if let Some(next) = taken {
        let state = if next.phase.is_final() {
            phase_word(next.phase)
        } else {
            "under way"
        };
        let (by, run) = (person(&next.by), code(&next.name.short()));
        let _ = write!(text, "\n      pressed by {by}: *{state}*, run {run}");
    }
    text
}

fn taken(successors: &[Successor], position: usize) -> Option<&Successor> {
    let of = |next: &&Successor| matches!(next.button, Button::Take { index, .. } if index == position);
    successors.iter().find(of)
}
