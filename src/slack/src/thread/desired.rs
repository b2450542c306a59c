//! From a run to the messages that people should see. Pure.

use diagbot_api::{
    approval::Audience,
    request_key::RunName,
    run::{CONDITION_REPORTED, CaptureSummary, DiagnosticRun, KeyKind, KeyRecord, MANY_CAPTURES, Phase},
};

use crate::{
    button::Button,
    views::{Links, Message, RunView, Successor},
};

/// Part name of the root message.
pub(super) const ROOT: &str = "root";
/// Part name of the message to the person who asked, where the channel may not see the evidence.
pub(super) const DIRECT: &str = "direct";
/// Part name of the table of many targets.
pub(super) const TABLE: &str = "table";
/// Part name of the word that the off-switch stops the run.
pub(super) const PAUSED: &str = "paused";
/// Key in the record of what was sent: the run that a button started, as the root message says it.
pub(super) const SUCCESSOR: &str = "successor";

/// Key in the record of what was sent: how many more alerts the root message tells of.
pub(super) const COUNTED: &str = "counted";

/// A message that people should see.
#[derive(Debug, Clone)]
pub(super) struct DesiredMessage<'a> {
    /// Part name, stable.
    pub(super) part: String,
    /// Its content, without links.
    pub(super) digest: String,
    /// Nothing will change it any more.
    pub(super) settled: bool,
    /// Its artifacts may be linked where everybody reads.
    pub(super) linked: bool,
    content: Content<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Content<'a> {
    Root,
    Table,
    Paused,
    Capture(&'a CaptureSummary),
    Direct,
}

/// The messages, in the order in which they are sent. A quiet run has none unless it failed or found something.
pub(super) fn desired<'a>(view: &RunView<'a>, audience: Audience) -> Vec<DesiredMessage<'a>> {
    if view.run.spec.origin.quiet && !is_remarkable(view.run) {
        return Vec::new();
    }
    let ended = view.run.phase().is_final();
    let captures = view
        .run
        .status
        .as_ref()
        .map(|status| status.captures.as_slice())
        .unwrap_or_default();
    let mut all = vec![of(view, ROOT.to_owned(), Content::Root, ended, captures.iter().take(1))];
    let status = view.run.status.as_ref();
    if status.is_some_and(|status| status.stopped_by_pause.is_some()) {
        all.push(of(view, PAUSED.to_owned(), Content::Paused, true, std::iter::empty()));
    }
    if captures.len() > MANY_CAPTURES {
        all.push(of(view, TABLE.to_owned(), Content::Table, ended, std::iter::empty()));
    } else if captures.len() > 1 {
        let ended = captures.iter().filter(|capture| capture.phase.is_final());
        all.extend(ended.map(|capture| {
            let captures = std::iter::once(capture);
            of(view, capture.name.clone(), Content::Capture(capture), true, captures)
        }));
    }
    if ended && serves_directly(view, audience) {
        all.push(of(view, DIRECT.to_owned(), Content::Direct, true, captures.iter()));
    }
    all
}

/// The channel may not see the evidence, and the person who asked may.
fn serves_directly(view: &RunView<'_>, audience: Audience) -> bool {
    let Some(status) = &view.run.status else { return false };
    let spec = &view.run.spec;
    let in_channel = spec.origin.channel.starts_with(['C', 'G']);
    let person = !spec.requester.team.is_empty();
    let evidence = status.captures.iter().any(|capture| !capture.artifacts.is_empty());
    view.hidden && audience.requester && in_channel && person && evidence
}

fn of<'a>(
    view: &RunView<'a>,
    part: String,
    content: Content<'a>,
    settled: bool,
    captures: impl Iterator<Item = &'a CaptureSummary>,
) -> DesiredMessage<'a> {
    DesiredMessage {
        part,
        settled,
        digest: render(view, content, Links::Withheld).digest(),
        linked: captures.flat_map(|capture| &capture.artifacts).any(|a| !a.sensitive),
        content,
    }
}

impl DesiredMessage<'_> {
    /// The message.
    pub(super) fn message(&self, view: &RunView<'_>, links: Links<'_>) -> Message {
        render(view, self.content, links)
    }
}

fn render(view: &RunView<'_>, content: Content<'_>, links: Links<'_>) -> Message {
    match content {
        Content::Root => view.root(links),
        Content::Table => view.table(),
        Content::Paused => view.stopped(),
        Content::Capture(capture) => view.part(capture, links),
        Content::Direct => RunView {
            hidden: false,
            successors: &[],
            ..*view
        }
        .root(links),
    }
}

/// Whether a run has ended with a failure or a finding.
fn is_remarkable(run: &DiagnosticRun) -> bool {
    let captures = run.status.iter().flat_map(|status| &status.captures);
    let mut artifacts = captures.flat_map(|capture| &capture.artifacts);
    run.phase().is_final() && (run.phase() != Phase::Succeeded || artifacts.any(|a| !a.findings.is_empty()))
}

/// Everything was told, no button has started anything since, and no alert was counted since.
pub(super) fn is_told(run: &DiagnosticRun, successors: &[Successor]) -> bool {
    let Some(status) = &run.status else { return false };
    let reported = status
        .conditions
        .iter()
        .any(|c| c.type_ == CONDITION_REPORTED && c.status == "True");
    let named = status.telling.sent.get(SUCCESSOR);
    let counted = status.telling.sent.get(COUNTED).map(String::as_str);
    reported
        && status.phase.is_final()
        && named == mark(run, successors).as_ref()
        && counted.unwrap_or("0") == run.alerts().to_string()
}

/// The record's word for the runs that buttons started. Of an offer, and of what began nothing, how they stand is told too.
pub(super) fn mark(run: &DiagnosticRun, successors: &[Successor]) -> Option<String> {
    let of = |next: &Successor| match next.phase {
        phase if next.open || run.is_offer() && phase.is_final() => {
            format!("{}:{}", next.name.as_str(), phase.as_str())
        }
        _ => next.name.as_str().to_owned(),
    };
    let marks: Vec<String> = successors.iter().map(of).collect();
    (!marks.is_empty()).then(|| marks.join(","))
}

/// The buttons of a run that could have started another one.
pub(super) fn starters(name: &RunName, run: &DiagnosticRun) -> Vec<Button> {
    let (candidates, offers) = run
        .status
        .as_ref()
        .map_or((0, 0), |status| (status.candidates.len(), status.offers.len()));
    let run = || name.clone();
    if offers > 0 {
        return (0..offers).map(|index| Button::Take { run: run(), index }).collect();
    }
    let mut buttons: Vec<Button> = (0..candidates)
        .map(|index| Button::Choose { run: run(), index })
        .collect();
    buttons.push(Button::Confirm { run: run() });
    buttons.push(Button::Again { run: run() });
    buttons.push(Button::AskOwners { run: run() });
    buttons
}

/// The button that started a run, if one did.
pub(super) fn pressed(key: &KeyRecord) -> Option<Button> {
    if key.kind != KeyKind::Action {
        return None;
    }
    let [run, button]: [String; 2] = serde_json::from_str(&key.id).ok()?;
    Button::of_action(&button, &run)
}
