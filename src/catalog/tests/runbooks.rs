//! The shipped runbooks are valid, what they render passes the fence, and every rule of their lint is broken once.

use std::{path::Path, time::Duration};

use diagbot_catalog::{
    Catalog, CatalogError, Entry, Fault, Impact, Method,
    load::Allowances,
    policy::{self, Fence},
};
use diagbot_wire::args::AgentArgs;
use proptest::prelude::*;
use regex::Regex;

const RUNBOOK: &str = r#"
name: hang
aliases: [stuck]
summary: A sample
targets: { max: 3 }
healthyControl: true
steps:
  - { diagnostic: pod-report, continueOnError: true }
  - diagnostic: jstack
    repeat: { count: 3, every: 5s }
    when: { runtime: jvm, container: running }
  - { diagnostic: heap-histogram, parameters: { objects: "-all" } }
"#;

fn files() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../commands");
    [
        "heap-dump",
        "heap-histogram",
        "jstack",
        "pod-report",
        "process",
        "sockets",
    ]
    .into_iter()
    .map(|name| {
        let file = format!("{name}.yaml");
        let text = std::fs::read_to_string(folder.join(&file)).expect("shipped");
        (file, text)
    })
    .collect()
}

fn parse(runbooks: &[(&str, String)]) -> Result<Catalog, CatalogError> {
    let mut all = files();
    all.extend(runbooks.iter().map(|(name, text)| ((*name).to_owned(), text.clone())));
    Catalog::parse(&all, Allowances::default())
}

fn faults_of(runbooks: &[(&str, String)]) -> Vec<Fault> {
    match parse(runbooks) {
        Err(CatalogError::Faults(faults)) => faults,
        Err(other) => panic!("{other}"),
        Ok(_) => Vec::new(),
    }
}

fn shipped() -> Catalog {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../commands");
    Catalog::load(&folder, Allowances::default()).expect("the shipped catalog is valid")
}

#[test]
fn the_shipped_runbooks_are_there_and_the_first_response_has_no_impact() {
    let catalog = shipped();
    let names: Vec<_> = catalog.runbooks().map(|r| r.name.as_str()).collect();
    assert_eq!(
        names,
        ["crashloop", "first-response", "jvm-hang", "jvm-memory", "slow-network"]
    );
    let impact = |name: &str| catalog.runbook(name).map(|r| r.impact(&catalog));
    assert_eq!(impact("first-response"), Some(Impact::None));
    assert_eq!(impact("jvm-hang"), Some(Impact::Pause));
    assert!(matches!(catalog.entry("crash"), Some(Entry::Runbook(r)) if r.name.as_str() == "crashloop"));
    assert!(catalog.get("jvm-hang").is_none(), "a runbook is no diagnostic");
}

#[test]
fn repetitions_become_steps_with_their_pauses() {
    let catalog = shipped();
    let hang = catalog.runbook("jvm-hang").expect("shipped").plan(&catalog);
    let steps: Vec<_> = hang.iter().map(|s| (s.diagnostic.name.as_str(), s.after)).collect();
    let pause = Duration::from_secs(5);
    assert_eq!(
        steps,
        [
            ("pod-report", Duration::ZERO),
            ("process", Duration::ZERO),
            ("jstack", Duration::ZERO),
            ("jstack", pause),
            ("jstack", pause),
            ("sockets", Duration::ZERO),
            ("heap-histogram", Duration::ZERO),
        ]
    );
}

/// The pattern that the rendered fence matches arguments with.
fn argument_pattern(catalog: &Catalog) -> Regex {
    let fence = Fence {
        namespace: "diagbot".into(),
        users: vec!["u".into()],
        agent_image: "i".into(),
    };
    let rendered = policy::render(catalog, &fence);
    let expressions = rendered[0]["spec"]["validations"].as_array().expect("validations");
    let expression = expressions
        .iter()
        .filter_map(|v| v["expression"].as_str())
        .find(|e| e.contains("c.args.all"))
        .expect("the rule of the arguments");
    let (_, rest) = expression.split_once("a.matches('").expect("a pattern");
    let pattern = rest.trim_end_matches("'))))").replace("\\\\", "\\").replace("\\'", "'");
    Regex::new(pattern.trim_end_matches("')))").trim_end_matches('\'')).expect("a pattern")
}

#[test]
fn the_fence_admits_what_the_runbooks_render_and_no_other_pause() {
    let catalog = shipped();
    let pattern = argument_pattern(&catalog);
    for runbook in catalog.runbooks() {
        let plan = runbook.plan(&catalog);
        let steps: Vec<_> = plan
            .iter()
            .filter(|s| s.diagnostic.method == Method::Ephemeral)
            .map(diagbot_catalog::PlannedStep::render)
            .collect();
        if steps.is_empty() {
            continue;
        }
        let args = AgentArgs {
            capture: "d-0123456789abcdef-0".into(),
            nonce_sha256: "0".repeat(64),
            wait_s: 60,
            deadline_s: 900,
            steps,
        };
        for argument in args.render() {
            assert!(pattern.is_match(&argument), "{}: {argument}", runbook.name);
        }
        assert_eq!(AgentArgs::parse(&args.render()), Ok(args));
    }
    let after = |seconds: u32| {
        format!(
            "--step=jstack;process=jvm;output=text;limit=67108864;deadline=60;after={seconds};argv=[\"@jvm\",\"Thread.print\",\"-l\"]"
        )
    };
    assert!(pattern.is_match(&after(5)));
    assert!(!pattern.is_match(&after(6)), "no runbook pauses 6 s before jstack");
}

#[test]
fn each_rule_of_a_runbook_names_file_key_and_remedy() {
    let table: &[(&str, &str, &str, &str)] = &[
        ("healthyControl", "healthyControls", "healthyControls", "is not a key"),
        (
            "count: 3",
            "count: 3, often: 1",
            "steps[1].repeat.often",
            "is not a key",
        ),
        (
            "runtime: jvm",
            "runtimes: jvm",
            "steps[1].when.runtimes",
            "is not a key",
        ),
        (
            "runtime: jvm",
            "runtime: ruby",
            "steps[1].when.runtime",
            "unknown variant",
        ),
        (
            "container: running",
            "container: up",
            "steps[1].when.container",
            "unknown variant",
        ),
        (
            "diagnostic: jstack",
            "diagnostic: perf",
            "steps[1].diagnostic",
            "no diagnostic `perf`",
        ),
        (
            "diagnostic: jstack",
            "diagnostic: threads",
            "steps[1].diagnostic",
            "write `jstack`",
        ),
        ("{ max: 3 }", "{ max: 0 }", "targets.max", "between"),
        ("{ max: 3 }", "{ max: 5000 }", "targets.max", "between"),
        ("{ max: 3 }", "some", "targets", "`one`, `all`"),
        ("count: 3", "count: 0", "steps[1].repeat.count", "between"),
        ("count: 3", "count: 400000000", "steps", "at most 20"),
        ("every: 5s", "every: 0s", "steps[1].repeat.every", "between"),
        (
            "every: 5s",
            "every: 99999999999999999999m",
            "steps[1].repeat.every",
            "not a time",
        ),
        (
            "objects: \"-all\"",
            "objects: live",
            "steps[2].parameters",
            "-all counts",
        ),
        (
            "objects: \"-all\"",
            "things: x",
            "steps[2].parameters",
            "no parameter `things`",
        ),
        (
            "pod-report, continueOnError: true",
            "pod-report",
            "steps[0].continueOnError",
            "beside",
        ),
        ("name: hang\n", "name: jstack\n", "name", "unique"),
        ("aliases: [stuck]", "aliases: [jmap]", "aliases[0]", "unique"),
        ("name: hang\n", "name: other\n", "name", "runbooks/other.yaml"),
        ("summary: A sample", "summary: \" \"", "summary", "one line"),
        ("summary: A sample\n", "", "summary", "is missing"),
    ];
    assert_eq!(faults_of(&[("runbooks/hang.yaml", RUNBOOK.to_owned())]), []);
    for (old, new, key, words) in table {
        assert!(RUNBOOK.contains(old), "the sample has `{old}`");
        let faults = faults_of(&[("runbooks/hang.yaml", RUNBOOK.replacen(old, new, 1))]);
        assert!(
            faults
                .iter()
                .any(|f| f.file == "runbooks/hang.yaml" && f.key == *key && f.rule.contains(words)),
            "`{new}` should be a fault of `{key}` saying `{words}`, but: {faults:?}"
        );
    }
}

#[test]
fn faults_of_diagnostics_and_runbooks_are_told_together() {
    let broken = RUNBOOK
        .replacen("diagnostic: jstack", "diagnostic: perf", 1)
        .replacen("count: 3", "count: 30", 1);
    let twin = RUNBOOK
        .replacen("name: hang\n", "name: twin\n", 1)
        .replacen("jstack", "strace", 1);
    let mut all = files();
    all.push(("wrong.yaml".into(), "name: wrong".into()));
    all.push(("runbooks/hang.yaml".into(), broken));
    all.push(("runbooks/twin.yaml".into(), twin));
    let Err(CatalogError::Faults(faults)) = Catalog::parse(&all, Allowances::default()) else {
        panic!("faults")
    };
    let files: std::collections::BTreeSet<_> = faults.iter().map(|f| f.file.as_str()).collect();
    assert_eq!(
        files.into_iter().collect::<Vec<_>>(),
        ["runbooks/hang.yaml", "runbooks/twin.yaml", "wrong.yaml"]
    );
}

proptest! {
    #[test]
    fn a_runbook_that_the_lint_lets_pass_is_bounded_whole_and_admitted(
        steps in prop::collection::vec(
            (prop::sample::select(vec!["jstack", "process", "sockets", "pod-report", "heap-dump", "perf"]),
             0_u32..30, 0_u64..400, any::<bool>()),
            0..8,
        ),
        max in 0_u32..400,
    ) {
        use std::fmt::Write as _;
        let mut text = format!("name: sample\nsummary: s\ntargets: {{ max: {max} }}\nsteps:\n");
        for (diagnostic, count, every, proceed) in &steps {
            let repeat = if *count == 1 { String::new() } else { format!(", repeat: {{ count: {count}, every: {every}s }}") };
            writeln!(text, "  - {{ diagnostic: {diagnostic}{repeat}, continueOnError: {proceed} }}").unwrap();
        }
        if let Ok(catalog) = parse(&[("runbooks/sample.yaml", text)]) {
            let plan = catalog.runbook("sample").expect("there").plan(&catalog);
            let wanted: u32 = steps.iter().map(|(_, count, ..)| *count).sum();
            prop_assert!((1..=20).contains(&plan.len()));
            prop_assert_eq!(plan.len(), wanted as usize, "no step is lost");
            let time: u64 = plan.iter().map(|s| (s.diagnostic.deadline + s.after).as_secs()).sum();
            prop_assert!(time <= 3_600);
            prop_assert!((1..=200).contains(&max));
            let pattern = argument_pattern(&catalog);
            for step in plan.iter().filter(|s| s.diagnostic.method == Method::Ephemeral) {
                let argument = format!("--step={}", step.render().render());
                prop_assert!(pattern.is_match(&argument), "{}", argument);
            }
        }
    }

    #[test]
    fn no_text_makes_the_lint_of_runbooks_panic(text in "\\PC{0,200}") {
        let _checked = parse(&[("runbooks/x.yaml", text)]);
    }
}

#[test]
fn the_digest_of_a_catalog_covers_its_runbooks() {
    let of = |runbooks: &[(&str, String)]| parse(runbooks).expect("a catalog").sha256();
    let runbook = RUNBOOK.to_owned();
    let changed = RUNBOOK.replace("count: 3", "count: 2");
    let name = "runbooks/hang.yaml";
    let digests = [of(&[]), of(&[(name, runbook.clone())]), of(&[(name, changed)])];
    assert_eq!(digests[1], of(&[(name, runbook)]));
    let different: std::collections::BTreeSet<&String> = digests.iter().collect();
    assert_eq!(different.len(), 3, "a consent is bound to what it covers: {digests:?}");
}
