//! Words that several messages share: people, phases, explanations, links.

use diagbot_api::{capture::Explanation, requester::Requester, run::Phase};
use diagbot_runs::service::ArtifactLink;
use jiff::Timestamp;

use super::escape::{code, moment, prose};

/// Links to artifacts.
#[derive(Debug, Clone, Copy)]
pub enum Links<'a> {
    /// None: for digests, and where no link can be signed.
    Withheld,
    /// Signed just now, for a place that everybody in the channel reads.
    Signed(&'a [ArtifactLink]),
}

/// Reasons whose message names a person of Slack and holds no text that somebody chose, so that the name may be a mention.
const NAMING: [&str; 3] = ["Paused", "ApprovalRefused", "ApproverMayNot"];

/// What happened and what to do.
pub(super) fn explanation(reason: &Explanation) -> String {
    let mut text = prose(&reason.message);
    if NAMING.contains(&reason.code.as_str()) {
        text = mentioning(&text);
    }
    if !reason.remedy.is_empty() {
        text.push_str("\n*What to do:* ");
        text.push_str(&prose(&reason.remedy));
    }
    text
}

/// Principals of people, written as code, as mentions.
fn mentioning(text: &str) -> String {
    let pieces = text.split('`').enumerate().map(|(index, piece)| {
        let user = piece.strip_prefix("slack:").and_then(|of_team| of_team.split_once(':'));
        match user {
            Some((team, user)) if index % 2 == 1 && is_id(team) && is_id(user) => format!("<@{user}>"),
            _ if index % 2 == 1 => format!("`{piece}`"),
            _ => piece.to_owned(),
        }
    });
    pieces.collect()
}

/// Whether it is written as ids of Slack are: capital letters and digits.
fn is_id(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

/// A person, or the name of whatever asked.
pub(super) fn person(requester: &Requester) -> String {
    if requester.team.is_empty() || !is_id(&requester.user) {
        code(&requester.user)
    } else {
        format!("<@{}>", requester.user)
    }
}

/// The phase in a word.
pub(super) fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Accepted => "queued",
        Phase::Resolving => "looking for the target",
        Phase::Authorizing => "checking permissions",
        Phase::AwaitingApproval => "waiting for approval",
        Phase::Capturing => "capturing",
        Phase::Cancelling => "being stopped",
        Phase::Succeeded => "done",
        Phase::PartlyFailed => "partly done",
        Phase::Failed => "failed",
        Phase::Refused => "refused",
        Phase::Denied => "denied",
        Phase::Expired => "expired",
        Phase::Cancelled => "cancelled",
        Phase::TimedOut => "timed out",
    }
}

/// Ends of links, as a sentence.
pub(super) fn link_end(at: Timestamp) -> String {
    format!("the link ends {}", moment(at))
}
