//! Bad input: exactly one message each, with the cause, what to do and, where there is one, the run; nothing half-done stays.

use diagbot_sandbox::installation::Plan;

use crate::product::{LEDGER, Product};

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_no_request_gets_one_private_answer_and_starts_nothing() {
    let product = Product::start().await;
    let long = format!("process {}", "x".repeat(40_000));
    let cases = [
        ("jstak checkout", "no diagnostic or runbook `jstak`"),
        ("process ledger bogus=1", "no parameter `bogus`"),
        ("heap-histogram ledger objects=live", "counts unreachable objects"),
        ("process ledger --frobnicate", "no option `--frobnicate`"),
        ("process ledger checkout", "two targets"),
        ("process", "There is no target"),
        ("process ledger -n", "`-n` needs a value"),
        ("process ledger -n a -n b", "given twice"),
        ("process shop/service/ledger", "is not a kind of target"),
        ("process shop/ledger -n other", "contradicts the target"),
        ("runs --since yesterday", "is not a valid duration"),
        ("status d-zzz-zzz", "There is no run"),
        ("process $(reboot)", "is not a valid target"),
        ("process ledger; rm -rf /", "no option `-rf`"),
        ("process ../../etc/passwd", "is not a valid target"),
        ("process @channel", "is not a valid target"),
        ("process <!channel>", "is not a valid target"),
        ("<!channel> ledger", "no diagnostic"),
        ("process <!here|ledger>", "is not a valid target"),
        ("process \"led\nger\"", "is not a valid target"),
        ("process \"ledger", "never closed"),
        ("process l\u{435}dger", "U+0435"),
        ("process \u{202e}regdel", "U+202E"),
        ("process 🔥", "is not a valid target"),
        (long.as_str(), "at most 4,000"),
    ];
    for (text, wanted) in cases {
        let answer = product.types(text).await;
        assert!(
            answer.contains(wanted) && answer.contains("*What to do:*"),
            "{wanted}: {answer}"
        );
        assert!(answer.chars().count() < 600, "a short answer: {answer}");
    }
    let messages = product.messages("incidents").await;
    assert_eq!(messages.len(), cases.len(), "one answer each");
    assert!(messages.iter().all(|m| m.ephemeral), "{messages:#?}");
    let raw = product.people.see("channels/incidents").await.to_string();
    for call in ["<!channel", "<!here", "<!everyone", "\u{202e}"] {
        assert!(!raw.contains(call), "{call:?} is in a message");
    }
    assert_nothing_started(&product).await;
    assert_eq!(product.recorded().await, 0);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_nothing_fits_is_refused_in_one_message_with_its_run() {
    let mut plan = Plan::default();
    // Eight messages at once; Slack's own pace is another story's.
    plan.slack.rate_limited = false;
    let product = Product::with(plan).await;
    let cases = [
        ("process nosuch", "Nothing called `nosuch`", "UnknownTarget"),
        ("process ledgre", "Did you mean", "UnknownTarget"),
        ("process nowhere/ledger", "namespace `nowhere`", "UnknownTarget"),
        ("process ledger -n nowhere", "namespace `nowhere`", "UnknownTarget"),
        ("process statefulset/ledger", "Nothing called", "UnknownTarget"),
        ("process ledger -c nosuch", "no container `nosuch`", "UnknownContainer"),
        ("process mars:shop/ledger", "no cluster `mars`", "UnknownCluster"),
        (
            "jstack checkout",
            "nothing can be started beside it",
            "TargetNotRunning",
        ),
    ];
    let mut asked = Vec::new();
    for (text, ..) in cases {
        asked.push(product.asks(text).await);
    }
    for (id, (text, cause, code)) in asked.iter().zip(cases) {
        let told = product.ended(id).await;
        told.explains(cause);
        told.says(&["State: *refused*", code]);
        assert!(!told.text().contains("[Send me a link]"), "{text}: {}", told.text());
    }
    assert_eq!(product.public().await.len(), cases.len(), "one message each");
    assert_nothing_started(&product).await;
    product.stop().await;
}

async fn assert_nothing_started(product: &Product) {
    assert!(product.ephemeral(LEDGER).await.is_empty());
    assert_eq!(product.objects(), Vec::<String>::new());
    assert!(product.open_uploads().is_empty(), "{:?}", product.open_uploads());
}
