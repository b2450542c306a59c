use std::path::Path;

use diagbot_catalog::load::Allowances;
use proptest::prelude::*;

use super::*;

fn catalog() -> Catalog {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../commands");
    Catalog::load(&folder, Allowances { unpinned_images: true }).unwrap()
}

fn run(text: &str) -> RunCall {
    match parse(text, &catalog()) {
        Ok(Request::Run(call)) => call,
        other => panic!("{text}: {other:?}"),
    }
}

fn target(call: &RunCall) -> TargetRef {
    call.target(None, &ChannelDefaults::default()).unwrap()
}

#[test]
fn breaking_the_glass_takes_a_reason_that_somebody_can_read() {
    let with = |reason: &str| parse(&format!("jstack shop/checkout --break-glass {reason}"), &catalog());
    assert!(with("\"the queue stands still\"").is_ok());
    for blank in ["", "\"\"", "\"   \"", "\"\u{200b}\u{2060}\"", "\" . - \""] {
        assert_eq!(
            with(blank),
            Err(Fault::NoValue("--break-glass".to_owned())),
            "{blank:?}"
        );
    }
}

#[test]
fn a_command_is_read_whatever_the_keyboard_made_of_it() {
    let plain = run("heap-histogram shop/deploy/checkout objects=-all -n shop -c app --cluster eu --dry-run");
    assert_eq!(plain.diagnostic, "heap-histogram");
    assert!(plain.dry_run);
    assert_eq!(
        target(&plain).to_string() + target(&plain).container.as_deref().unwrap(),
        "eu:shop/deployment/checkoutapp"
    );
    let same = [
        // An em dash for `--`, a short dash for `-`.
        "heap-histogram shop/deploy/checkout objects=-all –n shop –c app —cluster eu —dry-run",
        "heap\u{2011}histogram shop/deploy/checkout objects=\u{2212}all -n shop -c app –cluster eu –dry-run",
        // Curly quotes, no-break spaces, a stray zero-width space.
        "heap-histogram\u{a0}shop/deploy/checkout objects=“-all” -n ‘shop’ -c\u{2003}app --cluster=eu --dry-run\u{200b}",
        // Slack's escapes and links; capitals of a phone; copied code marks.
        "Heap-Histogram <http://shop/deploy/checkout|shop/deploy/checkout> objects=-all -n shop -c app --cluster eu --dry-run",
        "`heap-histogram` *shop/Deploy/checkout* objects=-all --namespace=shop --container app --cluster eu --dry-run",
    ];
    for text in same {
        let call = run(text);
        assert_eq!(
            (target(&call), &call.parameters),
            (target(&plain), &plain.parameters),
            "{text}"
        );
        assert_eq!((&call.diagnostic, call.dry_run), (&plain.diagnostic, true), "{text}");
    }
}

#[test]
fn a_name_may_be_an_alias_or_begun_and_a_slip_is_understood() {
    assert_eq!(run("jmap x").diagnostic, "heap-dump");
    assert_eq!(run("jst x").diagnostic, "jstack");
    assert_eq!(run("jst x").typed, "jst");
    let meant = |text: &str| match parse(text, &catalog()) {
        Err(fault @ Fault::UnknownDiagnostic { .. }) => fault.remedy("/diag"),
        other => panic!("{text}: {other:?}"),
    };
    assert!(meant("jstakc x").starts_with("Did you mean `jstack`?"));
    assert!(meant("canecl d-abc").starts_with("Did you mean `cancel`?"));
    assert!(!meant("frobnicate x").contains("Did you mean"));
    let fault = parse("heap x", &catalog()).unwrap_err();
    assert!(
        matches!(&fault, Fault::AmbiguousDiagnostic { names, .. } if names.len() == 2),
        "{fault}"
    );
}

#[test]
fn a_restart_is_waited_for_a_day_unless_it_is_said_and_a_week_at_most() {
    let waits = |text: &str| run(text).armed_for_s.map(|seconds| seconds / 3_600);
    assert_eq!(waits("arm jstack deploy/checkout"), Some(24));
    assert_eq!(waits("arm threads checkout --for 3h"), Some(3));
    assert_eq!(waits("jstack checkout"), None);
    for wrong in [
        "arm",
        "arm list",
        "arm jstack checkout --for 8d",
        "arm jstack checkout --for soon",
        "arm jstack checkout --all",
        "jstack checkout --for 3h",
    ] {
        assert!(parse(wrong, &catalog()).is_err(), "{wrong}");
    }
}

#[test]
fn our_own_words_are_read() {
    let parse = |text: &str| parse(text, &catalog());
    assert_eq!(parse(""), Ok(Request::Help(None)));
    assert_eq!(parse("LIST"), Ok(Request::List));
    assert_eq!(parse("help threads"), Ok(Request::Help(Some("jstack".into()))));
    assert_eq!(parse("status"), Ok(Request::Status(None)));
    assert_eq!(parse("status d abc def"), Ok(Request::Status(Some("d-abc-def".into()))));
    assert_eq!(
        parse("cancel `d-abc-def`"),
        Ok(Request::Cancel(Some("d-abc-def".into())))
    );
    assert_eq!(
        parse("runs shop/checkout —since 24h"),
        Ok(Request::Runs {
            target: Some(diagbot_api::target::parse("shop/checkout").unwrap()),
            since: Some(SignedDuration::from_hours(24)),
        })
    );
    for bad in [
        "runs --since 24",
        "runs --since 99999999999999999999d",
        "runs --since -1h",
        "runs --since é",
        "runs --since 31d",
    ] {
        assert!(matches!(parse(bad), Err(Fault::Since(_))), "{bad}");
    }
}

#[test]
fn a_target_may_be_implied_and_options_fill_it() {
    let defaults = ChannelDefaults {
        cluster: Some("eu".into()),
        namespace: Some("shop".into()),
        target: Some("checkout".into()),
    };
    let of = |text: &str, implied: Option<&str>| {
        let implied = implied.map(|t| diagbot_api::target::parse(t).unwrap());
        run(text).target(implied, &defaults).map(|t| t.to_string())
    };
    assert_eq!(of("jstack ledger", None).unwrap(), "eu:shop/ledger");
    assert_eq!(of("jstack", None).unwrap(), "eu:shop/checkout");
    assert_eq!(
        of("jstack", Some("us:bank/pod/ledger-0")).unwrap(),
        "us:bank/pod/ledger-0"
    );
    assert_eq!(
        of("jstack -n pay", Some("us:bank/pod/ledger-0")).unwrap(),
        "us:pay/pod/ledger-0"
    );
    assert!(matches!(
        of("jstack bank/ledger -n pay", None),
        Err(Fault::Conflict { .. })
    ));
    let none = run("jstack").target(None, &ChannelDefaults::default());
    assert_eq!(none, Err(Fault::NoTarget));
}

#[test]
fn what_can_t_be_meant_gets_one_clear_message() {
    let long = "x".repeat(40_000);
    let cases = [
        ("jstack $(reboot)", "`$(reboot)` is not a valid target"),
        ("jstack @channel", "is not a valid target"),
        ("jstack <!channel>", "is not a valid target"),
        ("jstack <@U123|ada>", "is not a valid target"),
        ("jstack 🔥", "U+1F525"),
        ("jstack check\u{43e}ut", "U+043E"),
        ("jst\u{430}ck x", "U+0430"),
        ("jstack a\u{202e}b", "invisible character (U+202E)"),
        ("jstack a\u{7}b", "invisible character (U+0007)"),
        ("jstack \"a", "never closed"),
        ("jstack a b", "two targets"),
        ("jstack a --force", "no option `--force`"),
        ("jstack a --dryrun", "no option `--dryrun`"),
        ("jstack a -n", "`-n` needs a value"),
        ("jstack a -n x -n y", "given twice"),
        ("jstack a -n X_Y", "can't be"),
        ("jstack a depth=3", "jstack has no parameter `depth`"),
        ("heap-dump a objects=some", "objects: all"),
        ("jstack a --since 1h", "means nothing here"),
        ("list x=y", "takes no parameters"),
        (long.as_str(), "40000 bytes"),
    ];
    for (text, wanted) in cases {
        let fault = parse(text, &catalog()).unwrap_err();
        let said = fault.to_string();
        let name: String = text.chars().take(40).collect();
        assert!(said.contains(wanted), "{name}: {said}");
        assert!(!fault.remedy("/diag").is_empty());
        assert!(said.len() < 700, "{name}: {} bytes", said.len());
        assert!(!said.chars().any(diagbot_wire::text::is_hidden), "{said:?}");
    }
}

#[test]
fn a_mention_is_taken_off() {
    assert_eq!(behind_mention("hey <@UBOT> jstack x", Some("UBOT")), " jstack x");
    assert_eq!(behind_mention("<@UADA> <@UBOT|diag> list", Some("UBOT")), " list");
    assert_eq!(behind_mention("<@UBOT> list", None), " list");
}

fn word() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9-]{0,12}"
}

proptest! {
    #[test]
    fn parsing_is_total(text in any::<String>()) {
        let _ = parse(&text, &catalog());
    }

    #[test]
    fn parsing_is_total_near_real_commands(
        text in "(jstack|help|runs|heap-dump|<@U1>|“|—|&amp;|-n|=|objects=|/|:|<|>|\\||\"|'| |é|\u{202e}){0,24}"
    ) {
        if let Err(fault) = parse(&text, &catalog()) {
            prop_assert!(!fault.to_string().is_empty());
        }
    }

    #[test]
    fn a_request_is_read_back_from_what_it_shows(
        name in prop::sample::select(vec!["jstack", "threads", "jst", "process"]),
        pod in prop::option::of(word()),
        namespace in prop::option::of(word()),
        container in prop::option::of(word()),
        cluster in prop::option::of(word()),
        dry_run in any::<bool>(),
        hours in prop::option::of(1..168_u32),
    ) {
        let mut text = name.to_owned();
        for (option, value) in [("", &pod), ("-n ", &namespace), ("-c ", &container), ("--cluster ", &cluster)] {
            if let Some(value) = value {
                text = format!("{text} {option}{value}");
            }
        }
        match hours {
            Some(hours) => text = format!("arm {text} --for {hours}h"),
            None if dry_run => text.push_str(" --dry-run"),
            None => {}
        }
        let call = run(&text);
        prop_assert_eq!(run(&call.to_string()), call);
    }
}
