//! What people see in Slack, whatever Slack does meanwhile. The captures' controller is played by the test.

mod bot;
pub(crate) mod people;

use bot::Bot;
use diagbot_api::{capture::CapturePhase, run::CONDITION_REPORTED};
use diagbot_sandbox::slack::SlackConfig;
use diagbot_slack::scopes::SCOPES;
use people::public;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_one_message_that_is_edited_until_the_end_is_told() {
    let bot = Bot::start(SlackConfig::default()).await;
    let ack = bot.people.command("ada", "incidents", "jst shop/checkout").await;
    assert!(ack.contains("is recorded"), "{ack}");
    assert!(ack.contains("`jst` is taken for `jstack`"), "{ack}");
    let run = bot.newest().await;
    assert!(ack.contains(&run.short()), "{ack}");
    let capture = bot.world.capture(&run).await;
    bot.people.reads("incidents", "State: *capturing*").await;
    bot.world.report(&capture, CapturePhase::Succeeded).await;
    let messages = bot.people.reads("incidents", "State: *done*").await;
    let [root] = public(&messages)[..] else {
        panic!("one message, not {messages:#?}");
    };
    assert_eq!(root.part.as_deref(), Some("root"));
    assert!(root.edits >= 1);
    for wanted in ["checkout-7d9f8b6c5-x2x4z", "cluster `local`", "Asked by", &run.short()] {
        assert!(root.text.contains(wanted), "{wanted}: {}", root.text);
    }
    let status = bot
        .world
        .run(&run, |run| {
            let conditions = run.status.iter().flat_map(|status| &status.conditions);
            conditions
                .into_iter()
                .any(|c| c.type_ == CONDITION_REPORTED && c.status == "True")
        })
        .await;
    assert_eq!(status.telling.root_ts.as_deref(), Some(root.ts.as_str()));
    assert_eq!(bot.people.calls("chat.postMessage").await, 1);
    assert_eq!(bot.people.calls("chat.update").await, root.edits);
    for reading in ["conversations.history", "conversations.replies"] {
        assert_eq!(bot.people.calls(reading).await, 0, "nothing was uncertain");
    }
    bot.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_whose_answer_is_lost_is_looked_for_and_not_repeated() {
    let bot = Bot::start(SlackConfig::default()).await;
    // Once it went through, and once it did not: only the channel tells.
    bot.people.fault("chat.postMessage", "status_500", 1).await;
    bot.people.fault("chat.postMessage", "lost_answer", 1).await;
    bot.people.command("ada", "incidents", "process shop/ledger").await;
    let capture = bot.world.capture(&bot.newest().await).await;
    bot.world.report(&capture, CapturePhase::Succeeded).await;
    let messages = bot.people.reads("incidents", "State: *done*").await;
    assert_eq!(public(&messages).len(), 1, "{messages:#?}");
    bot.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_read_an_uncertain_post_is_repeated_once_marked_and_then_told_directly() {
    let mut local = SlackConfig::default();
    local.scopes.retain(|scope| !scope.ends_with(":history"));
    let bot = Bot::start(local).await;
    bot.people.fault("chat.postMessage", "lost_answer", 2).await;
    bot.people.command("ada", "incidents", "process shop/ledger").await;
    let capture = bot.world.capture(&bot.newest().await).await;
    bot.world.report(&capture, CapturePhase::Succeeded).await;
    let direct = bot.people.reads("@ada", "State: *done*").await;
    assert_eq!(public(&direct).len(), 1, "{direct:#?}");
    let messages = bot.people.reads("incidents", "").await;
    let marked = messages.iter().filter(|m| m.text.contains("Sent again")).count();
    assert_eq!((public(&messages).len(), marked), (2, 1), "{messages:#?}");
    bot.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_bot_may_not_post_the_person_is_told_directly_and_how_to_invite_it() {
    let required = SCOPES.iter().filter(|scope| scope.required);
    let bot = Bot::start(SlackConfig {
        scopes: required.map(|scope| scope.name.to_owned()).collect(),
        ..SlackConfig::default()
    })
    .await;
    bot.people.command("ada", "random", "process shop/ledger").await;
    let messages = bot.people.reads("@ada", "State: *capturing*").await;
    assert!(messages[0].text.contains("/invite"), "{messages:#?}");
    let capture = bot.world.capture(&bot.newest().await).await;
    bot.world.report(&capture, CapturePhase::Succeeded).await;
    let messages = bot.people.reads("@ada", "State: *done*").await;
    assert_eq!(public(&messages).len(), 1, "{messages:#?}");
    bot.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_slack_refuses_as_blocks_is_told_as_text_and_waits_are_kept() {
    let bot = Bot::start(SlackConfig::default()).await;
    bot.people.fault("chat.postMessage", "error:invalid_blocks", 1).await;
    bot.people.fault("chat.update", "rate_limited", 1).await;
    bot.people.fault("chat.update", "status_500", 1).await;
    bot.people.command("ada", "incidents", "process shop/ledger").await;
    let capture = bot.world.capture(&bot.newest().await).await;
    bot.world.report(&capture, CapturePhase::Succeeded).await;
    let messages = bot.people.reads("incidents", "State: ").await;
    assert_eq!(public(&messages)[0].blocks, 0, "{messages:#?}");
    let messages = bot.people.reads("incidents", "done").await;
    assert_eq!(public(&messages).len(), 1, "{messages:#?}");
    bot.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guess_with_an_impact_is_confirmed_by_one_who_may_and_the_next_hears_who_was_first() {
    let bot = Bot::start(SlackConfig::default()).await;
    bot.people
        .command("ada", "incidents", "heap-dump shop/checkout-7d")
        .await;
    let messages = bot.people.reads("incidents", "ConfirmationNeeded").await;
    let asks = public(&messages)[0].clone();
    // Grace's user group may take no heap dumps: the click was hers, and so is the denial.
    bot.people.click("grace", "incidents", &asks.ts, "Yes, run it").await;
    let messages = bot.people.reads("incidents", "State: *denied*").await;
    bot.people.reads("incidents", "[Yes, run it]").await;
    // The buttons stay for a moment longer, so that both can press.
    bot.people.fault("chat.update", "rate_limited", 1).await;
    bot.people.click("ada", "incidents", &asks.ts, "Yes, run it").await;
    bot.people.click("linus", "incidents", &asks.ts, "Yes, run it").await;
    let first = bot.people.reads("incidents", "was first").await;
    assert!(first.iter().any(|m| m.text.contains("@ada was first")), "{first:#?}");
    let denial = messages.iter().find(|m| m.text.contains("State: *denied*")).unwrap();
    assert_eq!(denial.thread_ts.as_deref(), Some(asks.ts.as_str()));
    bot.people.reads("incidents", "Confirmed by").await;
    let messages = bot.people.reads("incidents", "State: *capturing*").await;
    assert_eq!(public(&messages).len(), 3, "{messages:#?}");
    assert_eq!(bot.world.runs().await.len(), 3);
    bot.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_runs_thread_a_mention_needs_no_target_and_is_answered_there() {
    let bot = Bot::start(SlackConfig::default()).await;
    // The channel implies the target, too.
    bot.people.command("ada", "shop-oncall", "process").await;
    let messages = bot.people.reads("shop-oncall", "State: *capturing*").await;
    let root = public(&messages)[0].clone();
    assert!(root.text.contains("checkout-7d9f8b6c5-x2x4z"), "{}", root.text);
    for (text, wanted) in [
        ("<@U0DIAG0001> sockets", "*sockets* of `shop/checkout-7d9f8b6c5-x2x4z`"),
        ("<@U0DIAG0001> help jstack", "Impact on the target"),
        ("<@U0DIAG0001> frobnicate", "There is no diagnostic or runbook"),
    ] {
        let body = json!({ "user": "ada", "channel": "shop-oncall", "text": text, "thread_ts": root.ts });
        bot.people.act("message", body).await;
        let messages = bot.people.reads("shop-oncall", wanted).await;
        let answer = messages.iter().find(|m| m.text.contains(wanted) && m.by_bot).unwrap();
        assert_eq!(answer.thread_ts.as_deref(), Some(root.ts.as_str()), "{text}");
    }
    bot.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivered_command_is_one_run_and_a_cancel_tells_who_was_first() {
    let bot = Bot::start(SlackConfig::default()).await;
    for kind in ["duplicate_same_envelope", "duplicate_new_envelope"] {
        bot.people.fault("slash_commands", kind, 1).await;
    }
    bot.people.command("ada", "incidents", "process shop/ledger").await;
    bot.people.reads("incidents", "State: *capturing*").await;
    let id = bot.newest().await.short();
    let first = bot.people.command("ada", "incidents", &format!("cancel {id}")).await;
    assert!(first.contains("asked to stop"), "{first}");
    let second = bot.people.command("ada", "incidents", "cancel").await;
    assert!(
        second.contains("U0ADA00001") && second.contains("had asked"),
        "{second}"
    );
    let status = bot.people.command("ada", "incidents", &format!("status {id}")).await;
    assert!(status.contains("State:"), "{status}");
    let runs = bot.people.command("grace", "incidents", "runs ledger --since 1h").await;
    assert!(runs.contains(&id), "{runs}");
    assert_eq!(bot.world.runs().await.len(), 1);
    bot.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_texts_get_one_clear_message_each_and_start_nothing() {
    let bot = Bot::start(SlackConfig::default()).await;
    let long = format!("jstack {}", "x".repeat(40_000));
    let cases = [
        ("jstack $(reboot)", "is not a valid target"),
        ("jstack @channel", "is not a valid target"),
        ("jstack checkout; rm -rf /", "no option `-rf`"),
        ("jstack check\u{43e}ut", "U+043E"),
        ("jstack a\u{202e}b", "U+202E"),
        ("jstack \"checkout", "never closed"),
        ("jstack 🔥", "is not a valid target"),
        (long.as_str(), "at most 4,000"),
    ];
    for (text, wanted) in cases {
        let ack = bot.people.command("ada", "incidents", text).await;
        assert!(ack.contains(wanted) && ack.contains("What to do"), "{wanted}: {ack}");
    }
    assert_eq!(bot.world.runs().await.len(), 0);
    bot.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_replaced_before_they_go_and_found_dead_when_they_break() {
    let local = SlackConfig {
        disconnect_grace: std::time::Duration::from_secs(3),
        ..SlackConfig::default()
    };
    let bot = Bot::start(local).await;
    for (what, body) in [
        ("disconnect", json!({ "reason": "warning", "count": 2 })),
        ("disconnect", json!({ "reason": "refresh_requested", "count": 1 })),
        ("outage", json!({ "kind": "break", "count": 2 })),
        ("outage", json!({ "kind": "half_open", "count": 1 })),
    ] {
        let before = bot.people.see("connections").await["opened"].as_u64().unwrap();
        bot.people.act(what, body).await;
        let wanted = before + 1;
        let seen = bot
            .people
            .see(&format!("connections?at_least=1&opened={wanted}&wait_ms=40000"))
            .await;
        assert!(seen["opened"].as_u64().unwrap() >= wanted, "{what}: {seen}");
        assert!(seen["connections"].as_u64().unwrap() <= 3, "{what}: {seen}");
        let ack = bot.people.command("ada", "incidents", "list").await;
        assert!(ack.contains("jstack"), "{ack}");
    }
    assert!(bot.health.report().0);
    bot.people
        .act("disconnect", json!({ "reason": "link_disabled", "count": 2 }))
        .await;
    bot.people.see("connections?at_most=0&wait_ms=20000").await;
    let (ready, why) = bot.health.report();
    assert!(!ready && why.contains("Socket Mode is switched off"), "{why}");
    bot.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_post_and_end_tells_the_end_in_the_same_message() {
    let mut bot = Bot::start(SlackConfig::default()).await;
    bot.people.command("ada", "incidents", "process shop/ledger").await;
    let messages = bot.people.reads("incidents", "State: *capturing*").await;
    let root = public(&messages)[0].ts.clone();
    let capture = bot.world.capture(&bot.newest().await).await;
    bot.restart().await;
    bot.world.report(&capture, CapturePhase::Succeeded).await;
    let messages = bot.people.reads("incidents", "State: *done*").await;
    let [only] = public(&messages)[..] else {
        panic!("one message, not {messages:#?}");
    };
    assert_eq!(only.ts, root);
    let ack = bot.people.command("ada", "incidents", "status").await;
    assert!(ack.contains("*done*"), "{ack}");
    bot.stop().await;
}
