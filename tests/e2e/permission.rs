//! The rules beside permissions, against a real API server: the same roles, bindings, labels and words as on the sandbox
//! (`tests/stories/permission_rules.rs`), and the same answers.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use diagbot::runs::resource::{DiagnosticRun, Phase};
use diagbot_sandbox::{people::Button, wait::until};
use kube::Api;
use serde_json::{Value, json};

use crate::{
    installation::{CHANNEL, Installation, RUN_DEADLINE, Variation, story},
    kubectl::{apply, kubectl},
    outcome::Outcome,
    workload::Workload,
};

#[tokio::test]
#[ignore = "needs cluster"]
async fn the_rules_beside_permissions_hold_as_on_the_sandbox() -> anyhow::Result<()> {
    story("permission", Variation::default(), async |installation| {
        installation.start_all(&Workload::ledger("ledger")).await?;
        let (home, target) = (installation.home.clone(), installation.target.clone());
        let named = json!({ "apiGroups": ["diagbot.dev"], "resources": ["diagnostics"], "resourceNames": ["process"],
            "verbs": ["break-glass"] });
        let wildcard = json!({ "apiGroups": ["diagbot.dev"], "resources": ["diagnostics"], "verbs": ["*"] });
        give(&target, "glass", "U0LINUS001", &named).await?;
        give(&target, "everything", "U0GRACE001", &wildcard).await?;
        let plain = format!("process pod/ledger -n {target}");
        let glass = format!("{plain} --break-glass \"checkout is down\"");

        let rows = [
            (
                "linus",
                &plain,
                Phase::Denied,
                "You may not `run` the diagnostic `process`",
            ),
            ("ada", &plain, Phase::Succeeded, "Download"),
            (
                "grace",
                &glass,
                Phase::Denied,
                "comes from a wildcard, which does not count",
            ),
            ("ada", &glass, Phase::Denied, "You may not `break-glass` for `process`"),
            ("linus", &glass, Phase::Succeeded, "checkout is down"),
        ];
        for (person, line, phase, words) in rows {
            expect(installation, person, line, phase, words).await?;
        }

        annotate(&target, "diagbot.dev/approval=process").await?;
        let run = asks(installation, "ada", &plain).await?;
        let message = question(installation, &run).await?;
        for (person, words) in [
            ("ada", "Nobody agrees to their own request"),
            ("linus", "You may not `approve`"),
        ] {
            click(installation, person, &message, "Approve").await?;
            reads(installation, words).await?;
        }
        click(installation, "grace", &message, "Approve").await?;
        let outcome = installation.outcome(&run, RUN_DEADLINE, Instant::now()).await?;
        outcome.must_be(Phase::Succeeded)?;
        says(&outcome, "*Approved* by", "two people")?;
        annotate(&target, "diagbot.dev/approval-").await?;

        kubectl(&["label", "namespace", &home, "diagbot.dev/paused=true"], None).await?;
        let refused = until(RUN_DEADLINE, "the label pauses the bot", async || {
            let run = asks(installation, "ada", &plain).await?;
            let outcome = installation.outcome(&run, RUN_DEADLINE, Instant::now()).await?;
            Ok((outcome.phase() == Phase::Refused).then_some(outcome))
        })
        .await?;
        says(&refused, "label diagbot.dev/paused", "the off-switch")?;
        kubectl(&["label", "namespace", &home, "diagbot.dev/paused-"], None).await?;
        kubectl(&["label", "namespace", &target, "diagbot.dev/enabled-"], None).await?;
        let refused = until(RUN_DEADLINE, "the namespace does not take part", async || {
            let run = asks(installation, "ada", &plain).await?;
            let outcome = installation.outcome(&run, RUN_DEADLINE, Instant::now()).await?;
            Ok((!outcome.text().contains("diagbot.dev/paused")).then_some(outcome))
        })
        .await?;
        refused.must_be(Phase::Refused)?;
        says(&refused, "does not take part", "opting in")
    })
    .await
}

/// One row: a person types a line, and reads these words.
async fn expect(
    installation: &Installation,
    person: &str,
    line: &str,
    phase: Phase,
    words: &str,
) -> anyhow::Result<()> {
    let run = asks(installation, person, line).await?;
    let outcome = installation.outcome(&run, RUN_DEADLINE, Instant::now()).await?;
    outcome.must_be(phase).with_context(|| format!("{person}: {line}"))?;
    says(&outcome, words, person)
}

fn says(outcome: &Outcome, words: &str, what: &str) -> anyhow::Result<()> {
    let text = outcome.text();
    eprintln!("  {what}: {:?}: {words}", outcome.phase());
    ensure!(text.contains(words), "{what}: {words:?} is missing: {text}");
    Ok(())
}

async fn asks(installation: &Installation, person: &str, line: &str) -> anyhow::Result<String> {
    installation.command_of(person, &format!("/diag {line}")).await
}

/// `ts` of the message that asks for a second person.
async fn question(installation: &Installation, run: &str) -> anyhow::Result<String> {
    let runs: Api<DiagnosticRun> = Api::namespaced(installation.client.clone(), &installation.home);
    until(RUN_DEADLINE, "a second person is asked for", async || {
        let status = runs.get(run).await?.status.unwrap_or_default();
        let asked = status.phase == Phase::AwaitingApproval;
        Ok(status.telling.root_ts.filter(|_| asked))
    })
    .await
}

async fn click(installation: &Installation, person: &str, message: &str, label: &str) -> anyhow::Result<()> {
    let people = &installation.people;
    people.click(person, CHANNEL, message, Button::Label(label)).await?;
    Ok(())
}

async fn reads(installation: &Installation, words: &str) -> anyhow::Result<()> {
    until(RUN_DEADLINE, "the answer is read", async || {
        let messages = installation.people.read(CHANNEL).await?;
        let found = messages.iter().any(|m| m.plain.join("\n").contains(words));
        Ok(found.then_some(()))
    })
    .await
    .with_context(|| words.to_owned())
}

async fn annotate(namespace: &str, annotation: &str) -> anyhow::Result<()> {
    kubectl(&["annotate", "namespace", namespace, annotation], None).await?;
    Ok(())
}

/// Gives a person of the local Slack a role of its own in the namespace.
async fn give(namespace: &str, name: &str, user: &str, rule: &Value) -> anyhow::Result<()> {
    let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
          "metadata": { "name": name, "namespace": namespace }, "rules": [rule] },
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
          "metadata": { "name": name, "namespace": namespace },
          "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
          "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User",
            "name": format!("slack:T0DIAG0001:{user}") }] },
    ] });
    apply(&objects.to_string()).await
}
