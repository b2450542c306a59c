//! What must be true whatever broke: one run a command, one container a step, artifacts that verify, one end told, nothing
//! left open.

use std::{collections::BTreeMap, fs};

use anyhow::Context as _;
use diagbot_api::{
    capture::DiagnosticCapture,
    run::{DiagnosticRun, Phase},
};
use diagbot_sandbox::{installation::Installation, people::Message};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use sha2::{Digest as _, Sha256};

use super::{
    play::{Heard, ROOMS, Typed, user},
    script::{Script, What},
};
use crate::product;

/// Once nothing breaks any more, a tool that is to stop is reached within this time.
const REACHED: SignedDuration = SignedDuration::from_secs(20);

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

/// What is looked at.
pub(crate) struct Scene<'a> {
    script: &'a Script,
    installation: &'a Installation,
    /// When the last fault was over.
    mended: Timestamp,
    pods: Vec<Pod>,
    captures: Vec<DiagnosticCapture>,
    /// In all channels.
    messages: Vec<Message>,
}

impl<'a> Scene<'a> {
    /// Reads it, once everything has settled.
    pub(crate) async fn read(
        script: &'a Script,
        installation: &'a Installation,
        mended: Timestamp,
    ) -> anyhow::Result<Self> {
        let client = installation.runs().into_client();
        let params = ListParams::default();
        let pods = Api::namespaced(client.clone(), "shop").list(&params).await;
        let captures = Api::namespaced(client, "diagbot").list(&params).await;
        let mut messages = Vec::new();
        for room in 0..ROOMS {
            messages.extend(installation.people().read(&format!("room-{room:02}")).await?);
        }
        Ok(Self {
            script,
            installation,
            mended,
            pods: pods.context("list the pods")?.items,
            captures: captures.context("list the captures")?.items,
            messages,
        })
    }

    /// The run's tool ended before anybody could stop it: while things still broke, or shortly after.
    fn outran_the_cancel(&self, run: &DiagnosticRun) -> bool {
        let name = run.metadata.name.as_deref().unwrap_or_default();
        let captures = self.captures.iter().filter(|capture| capture.spec.run == name);
        let mut ends = captures.filter_map(|capture| capture.status.as_ref()?.trace.get("toolEnded"));
        run.phase() == Phase::Succeeded && ends.all(|end| end.0.duration_since(self.mended) < REACHED)
    }
}

/// Of so many commands one at least must have become a run: a bot that refuses everything keeps every rule.
const ONE_RUN_OF: usize = 4;

/// Looks at everything.
pub(crate) async fn check(
    scene: &Scene<'_>,
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
    if runs.len() * ONE_RUN_OF < typed.len() {
        verdict.broken(&format!("only {} runs of {} commands", runs.len(), typed.len()));
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
                let direct = if scene.script.history {
                    Vec::new()
                } else {
                    let address = format!("@p{:03}", typed.person);
                    scene.installation.people().read(&address).await?
                };
                verdict.run(scene, typed, run, &direct);
            }
            _ => verdict.broken(&format!("p{:03} has {} runs", typed.person, theirs.len())),
        }
    }
    let open = product::files(&scene.installation.store_folder().join("evidence/uploads"));
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

    fn run(&mut self, scene: &Scene<'_>, typed: &Typed, run: &DiagnosticRun, direct: &[Message]) {
        let name = run.metadata.name.as_deref().unwrap_or_default();
        let who = format!("{name} (p{:03}, {:?} at pod {})", typed.person, typed.what, typed.pod);
        let phase = run.phase();
        let reason = run.status.as_ref().and_then(|s| s.reason.clone());
        let code = reason.as_ref().map_or(String::new(), |r| format!(" {}", r.code));
        *self.ends.entry(format!("{}{code}", phase.as_str())).or_default() += 1;
        let good = match typed.what {
            What::Stopped => phase == Phase::Cancelled || scene.outran_the_cancel(run),
            _ => phase == Phase::Succeeded,
        };
        if !good {
            let captures = run.status.iter().flat_map(|s| &s.captures);
            let why: Vec<_> = captures.map(|c| &c.reason).collect();
            let cancel = run.cancel_request().map(|cancel| cancel.at);
            self.broken(&format!(
                "{who} ended {phase:?}: {reason:?} {why:?}, asked to stop {cancel:?}"
            ));
        }
        self.containers(typed, &who, name, phase, &scene.pods);
        self.artifacts(scene.installation, &who, run);
        self.told(scene, &who, name, direct);
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
    fn told(&mut self, scene: &Scene<'_>, who: &str, name: &str, direct: &[Message]) {
        let footer = format!("· run `{}-{}`", &name[..5], &name[5..8]);
        let of_run = |messages: &[Message]| -> Vec<String> {
            let public = messages.iter().filter(|m| m.ephemeral_to.is_none());
            let texts = public.map(|m| m.plain.join("\n"));
            texts.filter(|text| text.contains(&footer)).collect()
        };
        let rooms = of_run(&scene.messages);
        // Evidence that not everybody may see goes to the person too, as a message of its own.
        let (direct, evidence): (Vec<_>, Vec<_>) = of_run(direct)
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
            (0 | 1, 1) => !scene.script.history,
            (2, 0 | 1) => !scene.script.history && repeats >= 1,
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
