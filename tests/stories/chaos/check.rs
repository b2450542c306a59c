//! What must be true whatever broke: one run a command, one container a step, artifacts that verify, one end told, nothing
//! left open.

use std::{collections::BTreeMap, fs};

use anyhow::Context as _;
use diagbot::runs::resource::{DiagnosticRun, Phase};
use diagbot_sandbox::{installation::Installation, people::Message};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use sha2::{Digest as _, Sha256};

use super::{
    play::{Heard, ROOMS, Typed, user},
    script::{Script, What},
};
use crate::product;

/// What became of a seed.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) commands: usize,
    pub(crate) runs: usize,
    /// How runs ended, and how many.
    pub(crate) ends: BTreeMap<String, usize>,
    /// Posts that were repeated, marked.
    pub(crate) repeated: usize,
    /// Rules that were broken.
    pub(crate) violations: Vec<String>,
    /// What happened when.
    pub(crate) diary: String,
}

/// People whose command was acknowledged as recorded, and who have no run. (One that was "not confirmed yet" is not: it
/// dies with the replica that tries it again.)
pub(crate) fn missing(typed: &[Typed], runs: &[DiagnosticRun]) -> Vec<usize> {
    let promised = typed.iter().filter(|t| match &t.heard {
        // What is not acknowledged is delivered again until somebody does; that may be nobody.
        Heard::Nobody | Heard::Nothing => false,
        Heard::Answer(text) => text.contains("is recorded"),
    });
    promised
        .map(|t| t.person)
        .filter(|person| !runs.iter().any(|run| run.spec.requester.user == user(*person)))
        .collect()
}

/// What people can read of a run.
struct Mail<'a> {
    /// In all channels.
    rooms: &'a [Message],
    /// Sent to the person who asked.
    direct: &'a [Message],
}

/// Looks at everything.
pub(crate) async fn check(
    script: &Script,
    installation: &Installation,
    typed: &[Typed],
    runs: &[DiagnosticRun],
    diary: &str,
) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict {
        commands: typed.len(),
        runs: runs.len(),
        diary: diary.to_owned(),
        ..Verdict::default()
    };
    let pods: Api<Pod> = Api::namespaced(installation.runs().into_client(), "shop");
    let pods = pods.list(&ListParams::default()).await.context("list the pods")?.items;
    let mut messages = Vec::new();
    for room in 0..ROOMS {
        messages.extend(installation.people().read(&format!("room-{room:02}")).await?);
    }
    for typed in typed {
        let theirs: Vec<&DiagnosticRun> = runs
            .iter()
            .filter(|r| r.spec.requester.user == user(typed.person))
            .collect();
        match theirs[..] {
            [] => {
                let why = match &typed.heard {
                    Heard::Nobody => "no run: nobody was there".to_owned(),
                    Heard::Nothing => "no run: no acknowledgement".to_owned(),
                    Heard::Answer(text) if text.contains("not confirmed yet") => "no run: never confirmed".to_owned(),
                    Heard::Answer(text) => format!("no run: {text}"),
                };
                *verdict.ends.entry(why).or_default() += 1;
            }
            [run] => {
                // Where a channel can't be read and two posts are uncertain, the person is told directly.
                let direct = if script.history {
                    Vec::new()
                } else {
                    installation.people().read(&format!("@p{:03}", typed.person)).await?
                };
                verdict.run(
                    script,
                    installation,
                    typed,
                    run,
                    &pods,
                    &Mail {
                        rooms: &messages,
                        direct: &direct,
                    },
                );
            }
            _ => verdict.broken(&format!("p{:03} has {} runs", typed.person, theirs.len())),
        }
    }
    let open = product::files(&installation.store_folder().join("evidence/uploads"));
    let open = open.iter().filter(|file| file.ends_with("upload.json"));
    for upload in open.filter_map(|file| fs::read_to_string(file).ok()) {
        if !upload.contains("/_probe/") {
            verdict.broken(&format!("an upload is open: {upload}"));
        }
    }
    Ok(verdict)
}

impl Verdict {
    fn broken(&mut self, rule: &str) {
        self.violations.push(rule.to_owned());
    }

    fn run(
        &mut self,
        script: &Script,
        installation: &Installation,
        typed: &Typed,
        run: &DiagnosticRun,
        pods: &[Pod],
        mail: &Mail<'_>,
    ) {
        let name = run.metadata.name.as_deref().unwrap_or_default();
        let who = format!("{name} (p{:03}, {:?} at pod {})", typed.person, typed.what, typed.pod);
        let phase = run.phase();
        let reason = run.status.as_ref().and_then(|s| s.reason.clone());
        let code = reason.as_ref().map_or(String::new(), |r| format!(" {}", r.code));
        *self.ends.entry(format!("{}{code}", phase.as_str())).or_default() += 1;
        let good = match typed.what {
            What::Stopped => matches!(phase, Phase::Cancelled),
            _ => phase == Phase::Succeeded,
        };
        if !good {
            let captures = run.status.iter().flat_map(|s| &s.captures);
            let why: Vec<_> = captures.map(|c| &c.reason).collect();
            self.broken(&format!("{who} ended {phase:?}: {reason:?} {why:?}"));
        }
        self.containers(typed, &who, name, phase, pods);
        self.artifacts(installation, &who, run);
        self.told(script, &who, name, mail);
    }

    /// No step acted twice: a step acts in one container, and no run may have more than one.
    fn containers(&mut self, typed: &Typed, who: &str, name: &str, phase: Phase, pods: &[Pod]) {
        let containers = pods
            .iter()
            .filter_map(|pod| pod.spec.as_ref()?.ephemeral_containers.as_ref())
            .flatten();
        let ours = containers.filter(|c| c.name.contains(&name[2..])).count();
        let fits = match (typed.what, phase) {
            (What::Report, _) => ours == 0,
            (_, Phase::Succeeded) => ours == 1,
            _ => ours <= 1,
        };
        if !fits {
            self.broken(&format!("{who} has {ours} containers"));
        }
    }

    fn artifacts(&mut self, installation: &Installation, who: &str, run: &DiagnosticRun) {
        let captures: Vec<_> = run.status.iter().flat_map(|s| &s.captures).collect();
        let artifacts: Vec<_> = captures.iter().flat_map(|c| &c.artifacts).collect();
        if run.phase() == Phase::Succeeded && artifacts.len() != 1 {
            self.broken(&format!("{who} has {} artifacts", artifacts.len()));
        }
        for artifact in artifacts {
            let bytes = product::object_in(&installation.store_folder(), &artifact.key, artifact.version.as_deref());
            if hex::encode(Sha256::digest(&bytes)) != artifact.sha256 || bytes.len() as u64 != artifact.size_bytes {
                self.broken(&format!(
                    "{who}: the artifact {} is not what was recorded",
                    artifact.name
                ));
            }
        }
    }

    /// One message; where the channel can't be read, one more that says so, and then at most one to the person directly.
    fn told(&mut self, script: &Script, who: &str, name: &str, mail: &Mail<'_>) {
        let footer = format!("· run `{}-{}`", &name[..5], &name[5..8]);
        let of_run = |messages: &[Message]| -> Vec<String> {
            let public = messages.iter().filter(|m| m.ephemeral_to.is_none());
            let texts = public.map(|m| m.plain.join("\n"));
            texts.filter(|text| text.contains(&footer)).collect()
        };
        let rooms = of_run(mail.rooms);
        // Evidence that not everybody may see goes to the person too, as a message of its own.
        let (direct, evidence): (Vec<_>, Vec<_>) = of_run(mail.direct)
            .into_iter()
            .partition(|text| text.contains("comes to you directly"));
        let unmarked = evidence.iter().filter(|text| !text.contains("Sent again")).count();
        if unmarked > 1 {
            self.broken(&format!("{who}: the evidence came directly {unmarked} times, unmarked"));
        }
        let repeats = rooms.iter().filter(|text| text.contains("Sent again")).count();
        self.repeated += repeats;
        let single = match (rooms.len(), direct.len()) {
            (1, 0) => true,
            (0 | 1, 1) => !script.history,
            (2, 0 | 1) => !script.history && repeats >= 1,
            _ => false,
        };
        if !single {
            self.broken(&format!(
                "{who} is told in {} messages, {} of them directly: {rooms:#?} {direct:#?}",
                rooms.len() + direct.len(),
                direct.len()
            ));
        }
        let ended = |text: &String| {
            [
                "*done*",
                "*stopped*",
                "*cancelled*",
                "*failed*",
                "*refused*",
                "*denied*",
                "*expired*",
            ]
            .iter()
            .any(|end| text.contains(end))
        };
        if !rooms.iter().chain(&direct).any(ended) {
            self.broken(&format!("the end of {who} is not told: {rooms:#?} {direct:#?}"));
        }
    }
}
