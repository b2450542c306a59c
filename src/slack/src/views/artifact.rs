//! Artifacts in words: size, digest, proof, link, preview.

use std::fmt::Write as _;

use diagbot_api::{
    capture::{ArtifactRecord, Explanation, Proof, Shortfall},
    request_key::RunName,
    run::CaptureSummary,
};
use diagbot_runs::service::{ArtifactLink, Bundle};

use super::{
    Builder, Message,
    escape::{block, code, counted, line, size},
    words::{Links, explanation, link_end},
};

/// Lines of a preview.
const PREVIEW_LINES: usize = 8;
/// Characters of a line of a preview; wider ones wrap on a phone.
const PREVIEW_WIDTH: usize = 100;

/// Said instead of evidence where not everybody who reads may see it.
const HIDDEN: &str =
    "_Not everybody here may read it: the person who asked gets it in a direct message, others by the button._";

/// What a capture produced, and why it failed unless that was `said` already.
pub(super) fn sections(
    mut message: Builder,
    capture: &CaptureSummary,
    said: Option<&Explanation>,
    links: Links<'_>,
    hidden: bool,
) -> Builder {
    if let Some(reason) = capture.reason.as_ref().filter(|reason| said != Some(reason)) {
        message = message.section(&explanation(reason));
    }
    for artifact in &capture.artifacts {
        let link = match links {
            Links::Withheld => None,
            Links::Signed(links) => links
                .iter()
                .find(|link| link.capture == capture.name && link.name == artifact.name && !link.sensitive),
        };
        message = message.section(&record(artifact, link));
        if hidden {
            message = message.section(HIDDEN);
            continue;
        }
        if !artifact.sensitive && !artifact.findings.is_empty() {
            let found: Vec<String> = artifact
                .findings
                .iter()
                .map(|found| format!("• {}", line(found)))
                .collect();
            message = message.section(&format!("*Found:*\n{}", found.join("\n")));
        }
        if !artifact.sensitive && !artifact.preview.trim().is_empty() {
            message = message.section(&block(&artifact.preview, PREVIEW_LINES, PREVIEW_WIDTH));
        }
    }
    message
}

fn record(artifact: &ArtifactRecord, link: Option<&ArtifactLink>) -> String {
    let mut text = format!(
        "*{}* – {}\nSHA-256 {}\nProof: {}",
        line(&artifact.name),
        size(artifact.size_bytes),
        code(&artifact.sha256),
        proof(artifact.proof),
    );
    if artifact.truncated {
        text.push_str(not_whole(artifact.shortfall));
    }
    let removed = artifact.redaction.as_ref().map_or(0, |redaction| redaction.count);
    if removed > 0 {
        let _written = write!(
            text,
            "\nRedacted: {} that looked like a secret",
            counted(removed, "place")
        );
    }
    match link {
        _ if artifact.sensitive => {
            text.push_str(
                "\n*Sensitive:* a link is sent privately, to people who may read it: press “Send me a link”.",
            );
        }
        Some(link) => {
            text.push('\n');
            text.push_str(&anchor(link));
        }
        None => text.push_str("\nPress “Send me a link” to get it."),
    }
    text
}

fn not_whole(shortfall: Option<Shortfall>) -> &'static str {
    match shortfall {
        Some(Shortfall::Limit) => "\n*Not whole:* the output exceeded its limit; this is its beginning.",
        Some(Shortfall::Tool) => "\n*Not whole:* its tool failed or was stopped half-way.",
        None => "\n*Not whole:* the output exceeded its limit, or its tool failed half-way.",
    }
}

fn proof(proof: Proof) -> &'static str {
    match proof {
        Proof::StoreChecked => "store-checked (the store compared every part and the whole)",
        Proof::ReadBack => "read-back (read from the store again and compared)",
    }
}

/// `<url|Download threads.txt> – the link ends …`
fn anchor(link: &ArtifactLink) -> String {
    // A presigned URL is percent-encoded; these three would end or split the link.
    let url = link.url.expose().replace('&', "&amp;").replace(['<', '>', '|'], "");
    let label = line(&link.name).replace('|', "/");
    format!("<{url}|Download {label}> – {}", link_end(link.expires_at))
}

/// The link to everything as one archive, for one person.
pub fn bundle(run: &RunName, bundle: &Bundle) -> Message {
    let head = format!(
        "The bundle of run {}, for you: {} files and a manifest.",
        code(&run.short()),
        bundle.files
    );
    let mut text = format!(
        "{}\n{}\nSHA-256 {}\nProof: {}",
        anchor(&bundle.link),
        size(bundle.size_bytes),
        code(&bundle.sha256),
        proof(bundle.link.proof),
    );
    if bundle.link.truncated {
        text.push_str("\n*Not all of it is whole:* the manifest tells which files exceeded their limit.");
    }
    if bundle.link.sensitive {
        text.push_str("\n*Sensitive:* whoever has the link can read it until it ends.");
    }
    if !bundle.withheld.is_empty() {
        let names: Vec<String> = bundle.withheld.iter().map(|name| code(name)).collect();
        let _written = write!(text, "\nLeft out, since you may not read it: {}.", names.join(", "));
    }
    Builder::new().section(&head).section(&text).build()
}

/// Fresh links, for one person.
pub fn links(run: &RunName, cluster: &str, links: &[ArtifactLink]) -> Message {
    let head = format!(
        "Links of run {}, cluster {}, for you:",
        code(&run.short()),
        code(cluster)
    );
    let mut message = Builder::new().section(&head);
    for link in links {
        let mut text = anchor(link);
        if link.truncated {
            text.push_str(not_whole(link.shortfall));
        }
        if link.sensitive {
            text.push_str("\n*Sensitive:* whoever has the link can read it until it ends.");
        }
        message = message.section(&text);
    }
    if links.is_empty() {
        message = message.section("There is no artifact to link.");
    }
    message.build()
}
