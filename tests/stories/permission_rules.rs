//! Rules beside the cluster's permissions: two people, break-glass, who may see, opting in, the off-switch, what is named to
//! whom. Each with what is allowed, what is refused, and how that is explained. What a real cluster answers equally stands in
//! `tests/data/rules.yaml`; here is what takes more than a line to tell.

use std::{fs, time::Duration};

use diagbot_api::{
    run::{DiagnosticRun, Phase},
    schedule::DiagnosticSchedule,
};
use diagbot_audit::{Event, Word};
use diagbot_sandbox::{installation::Plan, kubernetes::KubernetesConfig, wait};
use diagbot_tests::rules::{self, Place};
use k8s_openapi::api::{
    core::v1::Namespace,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    product::{LEDGER, Product, Told, run_in},
    record::entries,
    tools::{processes, seconds_of_our_own, tool, until_processes, with_tool},
};

/// What the bot has put on record so far, as its log has it.
fn on_record(product: &Product) -> Vec<Event> {
    let log = fs::read_to_string(product.installation.file("bot-0.record")).unwrap();
    entries(&log).into_iter().map(|entry| entry.event).collect()
}

/// Whether somebody's word about a run that takes two people is on record.
fn said(product: &Product, run: &str, user: &str, word: Word) -> bool {
    on_record(product).iter().any(|event| {
        matches!(event, Event::Approval { run: of, person, verdict, .. }
            if of == run && person.ends_with(user) && *verdict == word)
    })
}

/// Changes metadata of a namespace, as its owners do.
async fn mark(product: &Product, namespace: &str, metadata: Value) {
    let api: Api<Namespace> = Api::all(product.installation.runs().into_client());
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    api.patch(namespace, &PatchParams::default(), &patch).await.unwrap();
}

/// Gives a person of the local Slack a role of its own in `shop`.
pub(crate) async fn give(product: &Product, name: &str, user: &str, rule: Value) {
    give_to(product, name, ("User", &format!("slack:T0DIAG0001:{user}")), rule).await;
}

async fn give_to(product: &Product, name: &str, (kind, subject): (&str, &str), rule: Value) {
    let client = product.installation.runs().into_client();
    let role: Role = serde_json::from_value(json!({ "metadata": { "name": name }, "rules": [rule] })).unwrap();
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": subject }],
    }))
    .unwrap();
    let params = PostParams::default();
    let roles: Api<Role> = Api::namespaced(client.clone(), "shop");
    roles.create(&params, &role).await.unwrap();
    let bindings: Api<RoleBinding> = Api::namespaced(client, "shop");
    bindings.create(&params, &binding).await.unwrap();
}

/// Types a command as somebody in a channel, and waits until its end is told there.
async fn ends(product: &Product, person: &str, channel: &str, text: &str) -> Told {
    let answer = product.people.command(person, channel, text).await;
    let id = run_in(&answer).unwrap_or_else(|| panic!("no run: {answer}"));
    product.ended_in(&id, channel).await
}

/// Types a command that takes two people; gives the run's id and the message that asks for the second.
async fn asks_for_two(product: &Product, person: &str, text: &str) -> (String, String) {
    let answer = product.people.command(person, "incidents", text).await;
    let id = run_in(&answer).unwrap_or_else(|| panic!("no run: {answer}"));
    let asked = format!("run `{id}`");
    let messages = product.people.reads("incidents", "It takes a second person").await;
    let message = messages.iter().rfind(|m| m.by_bot && m.text.contains(&asked));
    let message = message.unwrap_or_else(|| panic!("no question about {id}: {messages:#?}"));
    (id, message.ts.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_rules_holds_on_the_sandbox() {
    let mut plan = Plan::default();
    plan.slack.rate_limited = false;
    let product = Product::with(plan).await;
    let place = Place {
        client: product.installation.runs().into_client(),
        people: product.installation.people().clone(),
        home: "diagbot".to_owned(),
        namespace: "shop".to_owned(),
        pod: LEDGER.to_owned(),
        cluster: "sandbox".to_owned(),
    };
    let lines = rules::hold(&place).await.unwrap();
    assert!(lines.len() >= 20, "{lines:#?}");
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_two_people_is_done_when_another_agrees_who_may() {
    let product = Product::start().await;
    mark(
        &product,
        "shop",
        json!({ "annotations": { "diagbot.dev/approval": "process" } }),
    )
    .await;
    let (id, message) = asks_for_two(&product, "ada", "process ledger").await;
    for (person, cause) in [
        ("ada", "Nobody agrees to their own request"),
        ("linus", "You may not `approve` the diagnostic `process`"),
        ("gus", "guests may not run diagnostics"),
    ] {
        product.people.click(person, "incidents", &message, "Approve").await;
        let messages = product.people.reads("incidents", cause).await;
        let answer = messages.iter().find(|m| m.text.contains(cause)).unwrap();
        assert!(
            answer.ephemeral && answer.text.contains("What to do:"),
            "{}",
            answer.text
        );
    }
    assert!(product.ephemeral(LEDGER).await.is_empty(), "nobody agreed yet");
    product.people.click("grace", "incidents", &message, "Approve").await;
    let told = product.ended(&id).await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    told.says(&["*Approved* by @grace"]);
    let run = told.run.metadata.name.clone().unwrap();
    for (user, word) in [
        ("U0ADA00001", Word::Asked),
        ("U0GRACE001", Word::SaidYes),
        ("U0GRACE001", Word::Approved),
    ] {
        assert!(
            said(&product, &run, user, word),
            "{user} {word:?}: {:#?}",
            on_record(&product)
        );
    }
    let denied = |event: &Event| {
        matches!(event, Event::Decision { run: of, person, verb, allowed: false, .. }
            if *of == run && person.ends_with("U0LINUS001") && verb == "approve")
    };
    assert!(on_record(&product).iter().any(denied), "{:#?}", on_record(&product));
    let approval = told.run.status.unwrap().approval.unwrap();
    assert_eq!(approval.targets[0].pod, LEDGER);
    assert!(approval.verdict.unwrap().decision.unwrap().allowed);

    let (id, message) = asks_for_two(&product, "ada", "process ledger").await;
    product.people.click("grace", "incidents", &message, "Refuse").await;
    let told = product.ended(&id).await;
    assert_eq!(told.run.phase(), Phase::Denied, "{}", told.text());
    told.explains("@grace did not agree");
    let run = told.run.metadata.name.clone().unwrap();
    assert!(said(&product, &run, "U0GRACE001", Word::Refused));
    assert_eq!(product.ephemeral(LEDGER).await.len(), 1);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runbook_takes_the_rights_and_the_second_person_that_any_of_its_steps_takes() {
    let product = Product::start().await;
    let some = ["pod-report", "process", "jstack"];
    let rule = json!({
        "apiGroups": ["diagbot.dev"], "resources": ["diagnostics"], "resourceNames": some, "verbs": ["run", "read", "list"],
    });
    give(&product, "some", "U0LINUS001", rule).await;
    let target = format!("first-response shop/pod/{LEDGER}");
    let denied = ends(&product, "linus", "incidents", &target).await;
    denied.explains("You may not `run` the diagnostic `sockets`");
    assert!(product.ephemeral(LEDGER).await.is_empty(), "not one step was taken");

    let asked = json!({ "annotations": { "diagbot.dev/approval": "sockets" } });
    mark(&product, "shop", asked).await;
    let (id, message) = asks_for_two(&product, "ada", &target).await;
    assert!(product.ephemeral(LEDGER).await.is_empty() && product.objects().is_empty());
    product.people.click("grace", "incidents", &message, "Approve").await;
    let told = product.ended(&id).await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());

    // A bundle holds what its reader may read.
    product
        .people
        .click("linus", "incidents", &told.root.ts, "Bundle")
        .await;
    let messages = product
        .people
        .reads("incidents", "Left out, since you may not read it")
        .await;
    let bundle = messages.iter().find(|m| m.text.contains("Left out, since")).unwrap();
    assert!(bundle.ephemeral && bundle.text.contains("2 files"), "{}", bundle.text);
    assert!(bundle.text.contains("`sockets`"), "{}", bundle.text);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_denied_can_ask_the_owners_and_see_what_they_would_apply() {
    let product = Product::start().await;
    let denied = ends(&product, "linus", "incidents", &format!("process shop/pod/{LEDGER}")).await;
    denied.explains("You may not `run` the diagnostic `process`");
    product
        .people
        .click("linus", "incidents", &denied.root.ts, "Show the RoleBinding")
        .await;
    let messages = product.people.reads("incidents", "kind: RoleBinding").await;
    let answer = messages.iter().find(|m| m.text.contains("kind: RoleBinding")).unwrap();
    assert!(answer.ephemeral && answer.text.contains("slack:T0DIAG0001:U0LINUS001"));
    product
        .people
        .click("linus", "incidents", &denied.root.ts, "Ask the owners")
        .await;
    let asked = product.people.reads("incidents", "no right of their own").await;
    let asked = asked.iter().find(|m| m.text.contains("no right of their own")).unwrap();
    product.people.click("grace", "incidents", &asked.ts, "Approve").await;
    let told = product.ended_in_thread(&denied.root.ts, "*Approved* by @grace").await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn break_glass_is_on_record_with_the_person() {
    let product = Product::start().await;
    let named = json!({ "apiGroups": ["diagbot.dev"], "resources": ["diagnostics"], "resourceNames": ["process"],
        "verbs": ["break-glass"] });
    give(&product, "glass", "U0LINUS001", named).await;
    let text = format!("process shop/pod/{LEDGER} --break-glass \"checkout is down\"");
    let broken = ends(&product, "linus", "incidents", &text).await;
    assert_eq!(broken.run.phase(), Phase::Succeeded, "{}", broken.text());
    let run = broken.run.metadata.name.clone().unwrap();
    assert!(said(&product, &run, "U0LINUS001", Word::BreakGlass));
    assert!(broken.run.status.unwrap().break_glass.unwrap().allowed);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn break_glass_is_refused_where_nobody_else_reads_it() {
    let product = Product::start().await;
    let named = json!({ "apiGroups": ["diagbot.dev"], "resources": ["diagnostics"], "resourceNames": ["process"],
        "verbs": ["break-glass"] });
    give(&product, "glass", "U0ADA00001", named).await;
    // Whoever is in a private channel can send the others away.
    let leaves = json!({ "user": "grace", "channel": "war-room", "member": false });
    product.people.act("membership", leaves).await;
    let text = format!("process shop/pod/{LEDGER} --break-glass \"checkout is down\"");
    // In #random the bot is no member: what it says comes to the person alone.
    for (channel, told_in) in [("war-room", "war-room"), ("@ada", "@ada"), ("random", "@ada")] {
        let answer = product.people.command("ada", channel, &text).await;
        let id = run_in(&answer).unwrap_or_else(|| panic!("{channel}: no run: {answer}"));
        let refused = product.ended_in(&id, told_in).await;
        assert_eq!(refused.run.phase(), Phase::Refused, "{channel}: {}", refused.text());
        assert_eq!(refused.code(), "BreakGlassUnheard", "{channel}");
        refused.explains("nobody but you and the bot would read it here");
        refused.says(&["Use it in a channel that the bot is in, with at least one other member"]);
    }
    assert!(product.ephemeral(LEDGER).await.is_empty() && product.objects().is_empty());
    // #shop-oncall has other members, and reads it.
    let broken = ends(&product, "ada", "shop-oncall", &text).await;
    assert_eq!(broken.run.phase(), Phase::Succeeded, "{}", broken.text());
    broken.says(&["*Break-glass* by @ada, without a second person. Reason: checkout is down"]);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_may_not_read_is_told_the_state_and_the_person_gets_the_evidence() {
    let product = Product::start().await;
    let told = ends(&product, "ada", "war-room", "process ledger").await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    told.says(&["Not everybody here may read it", "Send me a link"]);
    assert!(!told.text().contains("Download"), "{}", told.text());
    let messages = product.people.reads("@ada", "Download").await;
    let direct = messages.iter().find(|m| m.text.contains("Download")).unwrap();
    assert!(direct.text.contains(&told.id) && !direct.text.contains("Not everybody"));
    let public = product.runs("process ledger").await;
    public.says(&["Download"]);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_to_read_that_is_taken_away_closes_what_was_captured_before() {
    let product = Product::start().await;
    let told = product.runs("process ledger").await;
    told.says(&["Download"]);
    let status = format!("status {}", told.id);
    let before = product.people.command("grace", "incidents", &status).await;
    assert!(!before.contains("Not everybody here may read it"), "{before}");
    let client = product.installation.runs().into_client();
    let bindings: Api<RoleBinding> = Api::namespaced(client, "shop");
    bindings.delete("channels", &DeleteParams::default()).await.unwrap();
    wait::until(
        Duration::from_secs(30),
        "the channel is told the state only",
        || async {
            let after = product.people.command("grace", "incidents", &status).await;
            Ok(after.contains("Not everybody here may read it").then_some(()))
        },
    )
    .await
    .unwrap();
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_private_channel_may_is_for_who_asks_there_wherever_the_run_came_from() {
    let product = Product::start().await;
    let rule = |verb: &str| json!({ "apiGroups": ["diagbot.dev"], "resources": ["diagnostics"], "verbs": [verb] });
    give_to(&product, "room", ("Group", "slack:channel:C0WARROOM1"), rule("cancel")).await;
    give(&product, "linus-lists", "U0LINUS001", rule("list")).await;
    let people = &product.people;
    let answer = people
        .command("ada", "war-room", "arm process shop/deploy/ledger --for 1h")
        .await;
    let id = run_in(&answer).unwrap_or_else(|| panic!("no run: {answer}"));
    let cancel = format!("cancel {id}");
    let outside = people.command("linus", "incidents", &cancel).await;
    assert!(outside.contains("You may not `cancel`"), "{outside}");
    let inside = people.command("grace", "war-room", &cancel).await;
    assert!(!inside.contains("You may not"), "{inside}");
    let ended = product.ended_in(&id, "war-room").await;
    assert_eq!(ended.run.phase(), Phase::Cancelled, "{}", ended.text());
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_stops_what_runs_and_all_concerned_hear_who_said_it() {
    let seconds = seconds_of_our_own("86011");
    let line = &format!("sleep {seconds}");
    let words = ["timeout", "--foreground", "86000", "sleep", &seconds];
    let product = Product::with(with_tool("stall", &words, "10m", "1MiB")).await;
    let id = product.asks("stall ledger").await;
    until_processes(line, 2, Duration::from_secs(20)).await;
    product.people.command("ada", "war-room", "pause shop").await;
    product.people.reads("war-room", "*Paused* by @ada").await;
    let told = product.ended(&id).await;
    assert_eq!(processes(line), Vec::<u32>::new());
    assert_eq!(told.run.phase(), Phase::Cancelled, "{}", told.text());
    told.says(&["*Paused* by @ada", "the namespace `shop`"]);
    let messages = product.people.reads("incidents", "is stopped").await;
    let heard = |m: &&crate::slack::people::Message| m.thread_ts.as_deref() == Some(&*told.root.ts) && !m.ephemeral;
    let heard = messages
        .iter()
        .filter(heard)
        .filter(|m| m.text.contains("*Paused* by @ada"));
    assert_eq!(heard.count(), 1, "{messages:#?}");
    product.people.command("linus", "incidents", "health").await;
    let health = product
        .people
        .reads("incidents", "Captures: *paused* for the namespace")
        .await;
    assert!(health.iter().any(|m| m.text.contains("by @ada, since")), "{health:#?}");
    product.people.command("ada", "war-room", "resume shop").await;
    product.people.reads("war-room", "*Resumed* by @ada").await;
    let switched = |paused: bool| {
        let entries = on_record(&product);
        entries.iter().any(|event| {
            matches!(event, Event::Pause { person, scope, paused: now }
                if person.ends_with("U0ADA00001") && scope == "sandbox/shop" && *now == paused)
        })
    };
    assert!(switched(true) && switched(false), "{:#?}", on_record(&product));
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_make_a_pod_stand_still_never_do_at_a_time() {
    let seconds = seconds_of_our_own("86012");
    let line = &format!("sleep {seconds}");
    let words = ["timeout", "--foreground", "86000", "sleep", &seconds];
    let (file, text) = tool("halt", &words, "10m", "1MiB");
    let mut plan = with_tool("stall", &words, "10m", "1MiB");
    plan.diagnostics
        .push((file, text.replace("impact: none", "impact: pause")));
    let product = Product::with(plan).await;
    let halt = format!("halt shop/pod/{LEDGER}");
    let first = product.asks(&halt).await;
    until_processes(line, 2, Duration::from_secs(20)).await;
    let second = product.runs(&halt).await;
    assert_eq!(second.run.phase(), Phase::Refused, "{}", second.text());
    second.explains("two never do at a time");
    product.types(&format!("cancel {first}")).await;
    product.ended(&first).await;
    let third = product.asks(&halt).await;
    until_processes(line, 2, Duration::from_secs(20)).await;
    product.types(&format!("cancel {third}")).await;
    product.ended(&third).await;
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_off_switch_is_a_command_and_a_label_and_a_namespace_opts_in() {
    let product = Product::start().await;
    let refused = product.people.command("linus", "incidents", "pause shop").await;
    assert!(refused.contains("You may not pause or resume"), "{refused}");
    let paused = product.types("pause shop").await;
    assert!(paused.contains("Paused"), "{paused}");
    let told = product.runs("process ledger").await;
    assert_eq!(told.run.phase(), Phase::Refused);
    told.explains("diagbot is paused for the namespace `shop` of `sandbox`, by @ada;");
    let resumed = product.types("resume shop").await;
    assert!(resumed.contains("Resumed"), "{resumed}");
    let told = product.runs("process ledger").await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());

    mark(
        &product,
        "diagbot",
        json!({ "labels": { "diagbot.dev/paused": "true" } }),
    )
    .await;
    // It holds for whatever is asked after it was set.
    product
        .runs("process ledger")
        .await
        .explains("label diagbot.dev/paused");
    mark(&product, "diagbot", json!({ "labels": { "diagbot.dev/paused": null } })).await;
    mark(&product, "shop", json!({ "labels": { "diagbot.dev/enabled": null } })).await;
    let told = wait::until(
        Duration::from_secs(20),
        "the label no longer pauses the bot",
        || async {
            let told = product.runs("process ledger").await;
            Ok((!told.text().contains("diagbot.dev/paused")).then_some(told))
        },
    )
    .await
    .unwrap();
    told.explains("The namespace `shop` of `sandbox` does not take part");
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_of_what_they_may_not_list() {
    let product = Product::start().await;
    let told = product.runs("process ledger").await;
    let (id, people) = (&told.id, &product.people);
    for (text, wanted) in [
        (format!("status {id}"), "There is no run"),
        (format!("cancel {id}"), "There is no run"),
        ("runs".to_owned(), "There are no such runs"),
        ("runs ledger -n shop".to_owned(), "There are no such runs"),
    ] {
        let answer = people.command("linus", "incidents", &text).await;
        assert!(answer.contains(wanted), "{text}: {answer}");
        assert!(!answer.contains("ledger-"), "{text}: {answer}");
    }
    let listed = people.command("grace", "incidents", "runs").await;
    assert!(listed.contains(id), "{listed}");
    // The beginning of several ids names only those that one may be told of.
    let runs = product.installation.runs();
    for name in ["d-zzzzzzzzzzzzzzz1", "d-zzzzzzzzzzzzzzz2"] {
        let mut spec = told.run.spec.clone();
        spec.diagnostic = "nonsense".to_owned();
        runs.create(&PostParams::default(), &DiagnosticRun::new(name, spec))
            .await
            .unwrap();
    }
    let both = wait::until(Duration::from_secs(30), "their owner is told of both", || async {
        let own = people.command("ada", "incidents", "status d-zzzz").await;
        Ok(own.contains("Several runs").then_some(own))
    });
    assert!(both.await.unwrap().contains("d-zzzzzzzzzzzzzzz2"));
    for (person, text) in [("linus", "status d-zzzz"), ("gus", "cancel d-zzzz")] {
        let answer = people.command(person, "incidents", text).await;
        assert!(answer.contains("There is no run"), "{person} {text}: {answer}");
        assert!(!answer.contains("d-zzzzz"), "{person} {text}: {answer}");
    }
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_the_cluster_itself_and_beside_the_bot_nothing_is_captured_whoever_may_what() {
    let manifests = ["kube-system", "diagbot"].into_iter().flat_map(|namespace| {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": { "name": "ada-everything", "namespace": namespace },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "diagbot-runner" },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "slack:T0DIAG0001:U0ADA00001" }],
        });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "keeper", "namespace": namespace },
            "spec": { "containers": [{ "name": "app", "image": "registry.sandbox/idle:1" }] },
        });
        [binding.to_string(), pod.to_string()]
    });
    let product = Product::with(Plan {
        kubernetes: KubernetesConfig {
            manifests: manifests.collect(),
            ..KubernetesConfig::default()
        },
        ..Plan::default()
    })
    .await;
    for namespace in ["kube-system", "diagbot"] {
        mark(
            &product,
            namespace,
            json!({ "labels": { "diagbot.dev/enabled": "true" } }),
        )
        .await;
        let told = ends(
            &product,
            "ada",
            "incidents",
            &format!("pod-report keeper -n {namespace}"),
        )
        .await;
        assert_eq!(told.run.phase(), Phase::Refused, "{}", told.text());
        assert_eq!(told.run.status.unwrap().reason.unwrap().code, "NeverThere");
    }
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_channels_schedule_is_changed_by_who_asks_there() {
    let product = Product::start().await;
    let room = ("Group", "slack:channel:C0WARROOM1");
    let rule = json!({ "apiGroups": ["diagbot.dev"], "resources": ["diagnostics"], "verbs": ["list", "cancel"] });
    give_to(&product, "room", room, rule).await;
    let people = &product.people;
    let add = "schedule add nightly \"0 3 * * *\" process shop/ledger";
    let draft = people.command("ada", "war-room", add).await;
    assert!(draft.contains("Not saved yet"), "{draft}");
    let messages = people.reads("war-room", "Not saved yet").await;
    let message = messages.iter().rfind(|m| m.text.contains("Not saved yet")).unwrap();
    people.click("ada", "war-room", &message.ts, "Save").await;
    people.reads("war-room", "Saved:").await;

    let schedules: Api<DiagnosticSchedule> = Api::namespaced(product.installation.runs().into_client(), "diagbot");
    for change in ["pause", "resume", "delete"] {
        let answer = people
            .command("linus", "incidents", &format!("schedule {change} nightly"))
            .await;
        assert!(answer.contains("There is no schedule"), "{change}: {answer}");
    }
    let kept = schedules.get("nightly").await.unwrap();
    assert!(!kept.spec.suspend, "nobody paused it");
    for (change, told) in [("pause", "paused"), ("resume", "resumed"), ("delete", "deleted")] {
        let answer = people
            .command("grace", "war-room", &format!("schedule {change} nightly"))
            .await;
        assert!(answer.contains(told), "{change}: {answer}");
    }
    assert!(schedules.get_opt("nightly").await.unwrap().is_none());
    product.stop().await;
}

/// A workload of two pods is captured one after the other. What the second launch rests on is taken away in between.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_away_between_two_launches_stops_the_second() {
    // An answer counts for 10 s, and what Slack says of a person for 30 s; the first capture takes longer.
    for (taken, seconds, told) in [
        ("binding", "12", "You may not `run`"),
        ("label", "13", "does not take part"),
        ("account", "34", "the account is deactivated"),
    ] {
        let seconds = seconds_of_our_own(seconds);
        let argv = ["timeout", "--foreground", "86013", "sleep", &seconds];
        let mut plan = with_tool("slow", &argv, "1m", "1MiB");
        plan.config = json!({ "agent": { "concurrency": 1 } });
        let product = Product::with(plan).await;
        let rule = json!({
            "apiGroups": ["diagbot.dev"], "resources": ["diagnostics"], "verbs": ["run", "list", "read"],
        });
        give(&product, "linus-runs", "U0LINUS001", rule).await;
        let containers = product.pods().get(LEDGER).await.unwrap().spec.unwrap().containers;
        product.add_stateful("web", 2, &json!(containers));
        for pod in ["web-0", "web-1"] {
            product.pod_runs(pod).await;
        }
        let answer = product
            .people
            .command("linus", "incidents", "slow shop/sts/web --all")
            .await;
        let id = run_in(&answer).unwrap_or_else(|| panic!("no run: {answer}"));
        until_processes(&format!("sleep {seconds}"), 2, Duration::from_secs(30)).await;
        match taken {
            "binding" => {
                let bindings: Api<RoleBinding> = Api::namespaced(product.installation.runs().into_client(), "shop");
                bindings.delete("linus-runs", &DeleteParams::default()).await.unwrap();
            }
            "account" => {
                let left = json!({ "user": "U0LINUS001", "deleted": true });
                product.people.act("account", left).await;
            }
            _ => mark(&product, "shop", json!({ "labels": { "diagbot.dev/enabled": null } })).await,
        }
        let ended = product.ended(&id).await;
        assert_eq!(ended.run.phase(), Phase::PartlyFailed, "{taken}: {}", ended.text());
        ended.explains(told);
        let mut launched = product.ephemeral("web-0").await;
        launched.extend(product.ephemeral("web-1").await);
        assert_eq!(launched.len(), 1, "{taken}: {launched:?}");
        product.stop().await;
    }
}
