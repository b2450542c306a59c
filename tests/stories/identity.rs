//! Who somebody is: every account here holds the same right by its id, and only people of this workspace in good standing
//! get anything of it. Names are nothing, addresses and user groups count as Slack vouches for them.

use std::time::{Duration, Instant};

use diagbot_api::run::Phase;
use diagbot_sandbox::{installation::Plan, kubernetes::KubernetesConfig, slack::SlackConfig, wait};
use serde_json::{Value, json};

use crate::product::{LEDGER, Product, Told, run_in};

/// How long user groups count (SECURITY.md says so), and a little.
const GROUPS: Duration = Duration::from_secs(61);

/// A channel that all of these people are in.
const ROOM: &str = "room-00";

fn binding(name: &str, subjects: &[Value]) -> String {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": { "name": name, "namespace": "shop" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "diagbot-runner" },
        "subjects": subjects,
    })
    .to_string()
}

fn subject(kind: &str, name: &str) -> Value {
    json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name })
}

/// A crowd, of which the people with these ids may run everything in `shop`; so may who has that address.
fn plan(ids: &[&str]) -> Plan {
    let by_id: Vec<Value> = ids.iter().map(|id| subject("User", &format!("slack:{id}"))).collect();
    let by_address = subject("Group", "slack:email:on-call@example.com");
    Plan {
        slack: SlackConfig {
            crowd: 12,
            rooms: 1,
            rate_limited: false,
            ..SlackConfig::default()
        },
        kubernetes: KubernetesConfig {
            manifests: vec![binding("by-id", &by_id), binding("by-address", &[by_address])],
            ..KubernetesConfig::default()
        },
        ..Plan::default()
    }
}

async fn asks(product: &Product, person: &str, channel: &str) -> Told {
    let answer = product
        .people
        .command(person, channel, &format!("process shop/pod/{LEDGER}"))
        .await;
    let id = run_in(&answer).unwrap_or_else(|| panic!("no run for {person}: {answer}"));
    product.ended_in(&id, channel).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_people_of_this_workspace_in_good_standing_have_what_is_bound_to_them() {
    const STRANGER: &str = "people of another organisation or workspace may not run diagnostics";
    const NO_RIGHT: &str = "You may not `run` the diagnostic `process` in namespace `shop`";
    let product = Product::with(plan(&[
        "T0DIAG0001:U0CROWD000",
        "T0DIAG0001:U0CROWD001",
        "T0DIAG0001:U0CROWD002",
        "T0DIAG0001:U0CROWD003",
        "T0GRID0001:U0CROWD003",
        "T0DIAG0001:U0CROWD004",
        "T0DIAG0001:U0CROWD005",
        "T0OTHER001:U0SAM00001",
        "T0DIAG0001:U0SAM00001",
        // A handle is no principal, though somebody bound it.
        "T0DIAG0001:p009",
        "p009",
    ]))
    .await;
    // Who, what becomes of the account before anything is asked, and what follows.
    let rows: [(&str, Value, Option<&str>); 12] = [
        ("U0CROWD000", json!({}), None),
        (
            "U0CROWD001",
            json!({ "bot": true }),
            Some("bots and apps may not run diagnostics"),
        ),
        (
            "U0CROWD002",
            json!({ "deleted": true }),
            Some("the account is deactivated"),
        ),
        ("U0CROWD003", json!({ "team": "grid" }), Some(STRANGER)),
        (
            "U0CROWD004",
            json!({ "restricted": true }),
            Some("guests may not run diagnostics"),
        ),
        // The right is the id's: another address takes nothing away.
        ("U0CROWD005", json!({ "email": "new@example.com" }), None),
        // The right is the address's, and goes with it.
        (
            "U0CROWD006",
            json!({ "email": "elsewhere@example.com" }),
            Some(NO_RIGHT),
        ),
        (
            "U0CROWD007",
            json!({ "email": "on-call@example.com", "confirmed": false }),
            Some(NO_RIGHT),
        ),
        ("U0CROWD008", json!({ "email": "On-Call@example.com" }), None),
        // What people choose themselves is nobody's right.
        (
            "U0CROWD009",
            json!({ "name": "root", "email": "p9@example.com" }),
            Some(NO_RIGHT),
        ),
        (
            "U0CROWD010",
            json!({ "name": "ada", "email": "p10@example.com" }),
            Some(NO_RIGHT),
        ),
        ("U0SAM00001", json!({}), Some(STRANGER)),
    ];
    let mut captured = 0;
    for (person, account, refused) in rows {
        let mut change = account.clone();
        change["user"] = json!(person);
        product.people.act("account", change).await;
        let channel = if person == "U0SAM00001" { "partners" } else { ROOM };
        let told = asks(&product, person, channel).await;
        match refused {
            None => {
                captured += 1;
                assert_eq!(told.run.phase(), Phase::Succeeded, "{account}: {}", told.text());
            }
            Some(why) => {
                assert_eq!(told.run.phase(), Phase::Denied, "{account}: {}", told.text());
                told.explains(why);
            }
        }
        assert_eq!(product.ephemeral(LEDGER).await.len(), captured, "{account}");
    }
    // Groups were asked for once, whoever asked.
    assert_eq!(product.people.calls("usergroups.list").await, 1);

    // A message of a bot is no request, whatever it says: answering those makes loops.
    let recorded = product.recorded().await;
    let line = json!({ "user": "U0CROWD001", "channel": ROOM, "text": "@diag process shop/ledger" });
    let sent = product.people.act("message", line).await;
    assert_eq!(sent["delivered"], true, "{sent}");
    assert_eq!(product.recorded().await, recorded);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_group_is_asked_for_once_and_what_became_of_it_counts_after_a_minute() {
    const NO_RIGHT: &str = "You may not `run` the diagnostic `process` in namespace `shop`";
    let mut plan = plan(&[]);
    let on_call = subject("Group", "slack:usergroup:S0ONCALL01");
    plan.kubernetes.manifests = vec![binding("on-call", &[on_call])];
    let product = Product::with(plan).await;
    let members = async |users: &[&str]| {
        let body = json!({ "group": "oncall", "users": users });
        product.people.act("group", body).await;
    };
    let expect = async |person: &str, phase: Phase| {
        let told = asks(&product, person, ROOM).await;
        assert_eq!(told.run.phase(), phase, "{person}: {}", told.text());
        if phase == Phase::Denied {
            told.explains(NO_RIGHT);
        }
    };
    // Nobody is anything while Slack does not tell the groups, though the person's account is in order.
    members(&["U0CROWD000", "U0CROWD001"]).await;
    product.people.fault("usergroups.list", "status_500", 100_000).await;
    let text = format!("process shop/pod/{LEDGER}");
    let waiting = run_in(&product.people.command("U0CROWD000", ROOM, &text).await).unwrap();
    assert_eq!(product.ephemeral(LEDGER).await.len(), 0);
    product.people.act("faults", json!({ "kind": "none" })).await;
    let done = product.ended_in(&waiting, ROOM).await;
    assert_eq!(done.run.phase(), Phase::Succeeded, "{}", done.text());

    // One question for all of them.
    let before = product.people.calls("usergroups.list").await;
    for (person, phase) in [
        ("U0CROWD000", Phase::Succeeded),
        ("U0CROWD001", Phase::Succeeded),
        ("U0CROWD002", Phase::Denied),
        ("U0CROWD001", Phase::Succeeded),
    ] {
        expect(person, phase).await;
    }
    assert_eq!(product.people.calls("usergroups.list").await, before);

    // Who leaves and who comes is seen once the answer's minute is over, by one question more.
    members(&["U0CROWD000", "U0CROWD002"]).await;
    let changed = Instant::now();
    let over = || async { Ok((changed.elapsed() > GROUPS).then_some(())) };
    wait::until(GROUPS * 2, "the groups' minute is over", over)
        .await
        .unwrap();
    expect("U0CROWD001", Phase::Denied).await;
    expect("U0CROWD002", Phase::Succeeded).await;
    assert_eq!(product.people.calls("usergroups.list").await, before + 1);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_slack_does_not_say_who_somebody_is_nobody_gets_anything() {
    let product = Product::with(plan(&["T0DIAG0001:U0CROWD000", "T0DIAG0001:U0CROWD001"])).await;
    let told = asks(&product, "U0CROWD000", ROOM).await;
    assert_eq!(told.run.phase(), Phase::Succeeded, "{}", told.text());
    for method in ["users.info", "usergroups.list"] {
        product.people.fault(method, "status_500", 100_000).await;
    }
    // Whom Slack vouched for a moment ago may go on; who is new is nobody, at a click, in a list and for a run.
    let text = format!("process shop/pod/{LEDGER}");
    let answer = product.people.command("U0CROWD001", ROOM, &text).await;
    let waiting = run_in(&answer).unwrap();
    product
        .people
        .click("U0CROWD001", ROOM, &told.root.ts, "Send me a link")
        .await;
    let unanswered = "Your permission could not be checked: the person's account could not be checked";
    let messages = product.people.reads(ROOM, unanswered).await;
    let denied = messages.iter().find(|m| m.text.contains(unanswered)).unwrap();
    assert!(denied.ephemeral && !denied.text.contains("Download"), "{}", denied.text);
    let status = product
        .people
        .command("U0CROWD001", ROOM, &format!("status {}", told.id))
        .await;
    assert!(status.contains("There is no run"), "{status}");
    assert_eq!(product.ephemeral(LEDGER).await.len(), 1, "nothing new is started");
    // Once Slack says it, what waited is done.
    product.people.act("faults", json!({ "kind": "none" })).await;
    let done = product.ended_in(&waiting, ROOM).await;
    assert_eq!(done.run.phase(), Phase::Succeeded, "{}", done.text());
    product.stop().await;
}
