//! The shipped catalog is valid, and every rule of the lint is broken once.

use std::{collections::BTreeMap, path::Path};

use diagbot_catalog::{Catalog, CatalogError, Fault, Impact, load::Allowances, parameter::ParameterError};
use diagbot_wire::args::AgentArgs;
use proptest::prelude::*;
use regex::Regex;

const GOOD: &str = r#"
name: sample
aliases: [probe]
summary: A sample
method: ephemeral
image: registry.example/tools@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
argv: ["/usr/bin/tool", "--count={count}", "--mode", "{mode}"]
parameters:
  count: { kind: integer, pattern: "^[0-9]{1,4}$", default: "10", rule: a number up to 9999 }
  mode: { kind: choice, pattern: "^(?:fast|slow)$", rule: fast or slow }
deadline: 30s
limit: 1MiB
artifact: { name: sample.txt, mediaType: text/plain, output: text }
sensitivity: normal
impact: none
"#;

fn shipped() -> Catalog {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../commands");
    Catalog::load(&folder, Allowances::default()).expect("the shipped catalog is valid")
}

fn faults_of(files: &[(&str, String)]) -> Vec<Fault> {
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), text.clone()))
        .collect();
    match Catalog::parse(&files, Allowances::default()) {
        Err(CatalogError::Faults(faults)) => faults,
        Err(other) => panic!("{other}"),
        Ok(_) => Vec::new(),
    }
}

#[test]
fn the_shipped_catalog_has_the_six_diagnostics_and_their_tool_names() {
    let catalog = shipped();
    let names: Vec<_> = catalog.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "heap-dump",
            "heap-histogram",
            "jstack",
            "pod-report",
            "process",
            "sockets"
        ]
    );
    assert_eq!(catalog.get("jmap").map(|d| d.name.as_str()), Some("heap-dump"));
    assert_eq!(catalog.get("jstack").map(|d| d.impact), Some(Impact::None));
    assert!(catalog.get("rm").is_none());
}

#[test]
fn every_shipped_step_matches_its_own_pattern_and_survives_the_command_line() {
    for diagnostic in shipped().iter().filter(|d| !d.argv.is_empty()) {
        let values = diagnostic
            .check_parameters(&BTreeMap::new())
            .expect("every shipped parameter has a default");
        let step = diagnostic.render_step(&values);
        let pattern = Regex::new(&format!("^(?:{})$", diagnostic.step_pattern())).expect("a pattern");
        assert!(
            pattern.is_match(&step.render()),
            "{}: {}",
            diagnostic.name,
            step.render()
        );
        let args = AgentArgs {
            capture: "d-0".into(),
            nonce_sha256: "00".into(),
            wait_s: 1,
            deadline_s: 1,
            steps: vec![step],
        };
        assert_eq!(AgentArgs::parse(&args.render()), Ok(args));
    }
}

#[test]
fn a_good_file_has_no_faults() {
    assert_eq!(faults_of(&[("sample.yaml", GOOD.to_owned())]), []);
}

#[test]
fn each_rule_names_file_key_and_remedy() {
    let table: &[(&str, &str, &str, &str)] = &[
        // what is replaced, by what, the key at fault, words of the rule
        (
            "deadline: 30s",
            "deadline: 30s\ndeadlines: 1s",
            "deadlines",
            "is not a key",
        ),
        (
            "output: text }",
            "output: text, kind: x }",
            "artifact.kind",
            "is not a key",
        ),
        ("kind: integer", "kind: int", "parameters.count.kind", "unknown variant"),
        ("impact: none", "impact: little", "impact", "unknown variant"),
        ("sensitivity: normal\n", "", "sensitivity", "is missing"),
        ("deadline: 30s", "deadline: 30h", "deadline", "is not a time"),
        ("deadline: 30s", "deadline: 0s", "deadline", "between"),
        ("limit: 1MiB", "limit: 1MB", "limit", "unit of bytes"),
        ("name: sample\n", "name: other\n", "name", "is called other.yaml"),
        ("aliases: [probe]", "aliases: [sample]", "aliases[0]", "unique"),
        ("^[0-9]{1,4}$", "[0-9]{1,4}", "parameters.count.pattern", "anchored"),
        ("^[0-9]{1,4}$", "^[0-9]{1,4}", "parameters.count.pattern", "anchored"),
        ("^(?:fast|slow)$", "^fast|slow$", "parameters.mode.pattern", "anchored"),
        (
            "^(?:fast|slow)$",
            "^fast$|^slow$",
            "parameters.mode.pattern",
            "anchored",
        ),
        ("^[0-9]{1,4}$", "^[0-9]+$", "parameters.count.pattern", "bounded"),
        ("^[0-9]{1,4}$", "^[0-9]{1,999}$", "parameters.count.pattern", "bounded"),
        ("^[0-9]{1,4}$", "^.{1,4}$", "parameters.count.pattern", "quotes"),
        (
            "^[0-9]{1,4}$",
            "^[0-9",
            "parameters.count.pattern",
            "is not a valid pattern",
        ),
        (
            "^[0-9]{1,4}$",
            "^[x\\\\\\\\]{1,4}$",
            "parameters.count.pattern",
            "quotes",
        ),
        ("^[0-9]{1,4}$", "^[Z-a]{1,4}$", "parameters.count.pattern", "quotes"),
        ("^[0-9]{1,4}$", "^a\\\\\\\\b$", "parameters.count.pattern", "quotes"),
        ("^[0-9]{1,4}$", "^[x\\\"]{1,4}$", "parameters.count.pattern", "quotes"),
        ("^[0-9]{1,4}$", "^[x\\\\n]{1,4}$", "parameters.count.pattern", "quotes"),
        (
            "default: \"10\"",
            "default: \"ten\"",
            "parameters.count.default",
            "must match",
        ),
        ("rule: fast or slow", "rule: \" \"", "parameters.mode.rule", "in words"),
        (
            "\"/usr/bin/tool\"",
            "\"/bin/sh\", \"-c\"",
            "argv[0]",
            "runs other commands",
        ),
        (
            "\"/usr/bin/tool\"",
            "\"/usr/bin/tool\", \"bash\"",
            "argv[1]",
            "runs other commands",
        ),
        ("\"/usr/bin/tool\"", "\"{mode}\"", "argv[0]", "can't be a parameter"),
        ("\"/usr/bin/tool\"", "\"@shell\"", "argv[0]", "is not a built-in"),
        ("\"/usr/bin/tool\"", "\"@jvm\"", "runtime", "needs runtime"),
        ("{mode}", "{speed}", "argv[3]", "nothing fills"),
        ("{mode}", "{speed}", "parameters.mode", "no argument uses"),
        ("\"{mode}\"", "\"{mode}}\"", "argv[3]", "unpaired brace"),
        ("@sha256:0123", ":latest#", "image", "by digest"),
        ("@sha256:0123", "@sha256:123", "image", "by digest"),
        ("@sha256:0123", "@sha256:00123", "image", "by digest"),
        ("@sha256:0123", "@sha256:g123", "image", "by digest"),
        ("@sha256:0123", "@sha512:0123", "image", "by digest"),
        ("method: ephemeral", "method: api", "argv", "runs nothing"),
        ("name: sample.txt", "name: ../sample.txt", "artifact.name", "lower-case"),
        (
            "name: sample.txt",
            "name: manifest.json",
            "artifact.name",
            "choose another",
        ),
        (
            "name: sample.txt",
            "name: result.json",
            "artifact.name",
            "choose another",
        ),
        (
            "impact: none",
            "impact: none\ncapabilities: [ALL]",
            "capabilities[0]",
            "never allowed",
        ),
        (
            "impact: none",
            "impact: none\ncapabilities: [CAP_NET_RAW]",
            "capabilities[0]",
            "without CAP_",
        ),
        (
            "impact: none",
            "impact: none\ncapabilities: [SYS_ADMIN]",
            "capabilities[0]",
            "never allowed",
        ),
        ("impact: none", "impact: [", "", "no YAML"),
    ];
    for (old, new, key, words) in table {
        assert!(GOOD.contains(old), "the sample has `{old}`");
        let faults = faults_of(&[("sample.yaml", GOOD.replacen(old, new, 1))]);
        assert!(
            faults
                .iter()
                .any(|f| f.file == "sample.yaml" && f.key == *key && f.rule.contains(words)),
            "`{new}` should be a fault of `{key}` saying `{words}`, but: {faults:?}"
        );
    }
}

#[test]
fn no_program_that_runs_others_is_taken() {
    let programs = [
        "sh",
        "bash",
        "dash",
        "ash",
        "zsh",
        "ksh",
        "ksh93",
        "mksh",
        "csh",
        "tcsh",
        "fish",
        "rbash",
        "busybox",
        "busybox-static",
        "busybox.static",
        "toybox",
        "env",
        "xargs",
        "eval",
        "nsenter",
        "unshare",
        "chroot",
        "su",
        "sudo",
        "doas",
        "gosu",
        "su-exec",
        "runuser",
        "setpriv",
        "ssh",
        "parallel",
        "watch",
        "script",
        "expect",
        "python",
        "python3",
        "python3.12",
        "pypy3",
        "perl",
        "perl5.36.0",
        "ruby",
        "ruby3.1",
        "node",
        "nodejs",
        "deno",
        "bun",
        "php",
        "php8.2",
        "lua",
        "lua5.4",
        "luajit",
        "tclsh8.6",
        "awk",
        "gawk",
        "mawk",
        "nawk",
        "jshell",
        "groovy",
        "pwsh",
        "powershell",
    ];
    for program in programs {
        for path in [
            program.to_owned(),
            format!("/bin/{program}"),
            format!("../usr/bin/{program}"),
        ] {
            let argv = |words: &str| GOOD.replacen("\"/usr/bin/tool\"", words, 1);
            for (text, key) in [
                (argv(&format!("\"{path}\"")), "argv[0]"),
                (argv(&format!("\"/usr/bin/timeout\", \"{path}\"")), "argv[1]"),
            ] {
                let faults = faults_of(&[("sample.yaml", text)]);
                assert!(
                    matches!(&faults[..], [fault] if fault.key == key && fault.rule.contains("runs other commands")),
                    "{path} as {key}: {faults:?}"
                );
            }
        }
    }
    for harmless in [
        "tool",
        "pidstat",
        "show",
        "shell-less",
        "nodes",
        "environment",
        "sha256sum",
        "pythonic",
        "env.txt",
    ] {
        let text = GOOD.replacen("/usr/bin/tool", &format!("/usr/bin/{harmless}"), 1);
        assert_eq!(faults_of(&[("sample.yaml", text)]), [], "{harmless}");
    }
}

#[test]
fn all_faults_of_all_files_are_told_at_once() {
    let broken = GOOD
        .replacen("impact: none", "impact: some", 1)
        .replacen("limit: 1MiB", "size: 1MiB", 1)
        .replacen("name: sample\n", "name: a\n", 1)
        .replacen("argv: [", "argv: [sh, ", 1);
    let twin = GOOD.replacen("name: sample\n", "name: twin\n", 1);
    let faults = faults_of(&[
        ("a.yaml", broken),
        ("sample.yaml", GOOD.to_owned()),
        ("twin.yaml", twin),
    ]);
    let told: Vec<_> = faults.iter().map(|f| (f.file.as_str(), f.key.as_str())).collect();
    assert_eq!(
        told,
        [
            ("a.yaml", "size"),
            ("a.yaml", "limit"),
            ("a.yaml", "impact"),
            ("a.yaml", "argv[0]"),
            ("sample.yaml", "aliases[0]"),
            ("twin.yaml", "aliases[0]")
        ]
    );
}

#[test]
fn parameters_are_matched_whole_and_every_fault_is_told() {
    let files = [("sample.yaml".to_owned(), GOOD.to_owned())];
    let catalog = Catalog::parse(&files, Allowances::default()).expect("valid");
    let sample = catalog.get("probe").expect("by alias");
    let given = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let errors = sample
        .check_parameters(&given(&[("count", "1\n"), ("sped", "1")]))
        .expect_err("three faults");
    assert!(matches!(&errors[0], ParameterError::Unknown { name, .. } if name == "sped"));
    assert!(matches!(&errors[1], ParameterError::Refused { name, .. } if name == "count"));
    assert!(matches!(&errors[2], ParameterError::Missing { name, .. } if name == "mode"));
    let values = sample.check_parameters(&given(&[("mode", "fast")])).expect("complete");
    assert_eq!(
        sample.render_step(&values).argv,
        ["/usr/bin/tool", "--count=10", "--mode", "fast"]
    );
}

proptest! {
    #[test]
    fn only_allowed_values_render_to_a_step_that_the_pattern_matches(count in "\\PC{0,6}", mode in "fast|slow|[a-z\"{}; ]{0,5}") {
        let files = [("sample.yaml".to_owned(), GOOD.to_owned())];
        let catalog = Catalog::parse(&files, Allowances::default()).expect("valid");
        let sample = catalog.get("sample").expect("there");
        let pattern = Regex::new(&format!("^(?:{})$", sample.step_pattern())).expect("a pattern");
        let given = BTreeMap::from([("count".to_owned(), count.clone()), ("mode".to_owned(), mode.clone())]);
        let rendered = sample.render_step(&given).render();
        prop_assert_eq!(sample.check_parameters(&given).is_ok(), pattern.is_match(&rendered), "{}", rendered);
    }

    #[test]
    fn no_text_makes_the_lint_panic(text in "\\PC{0,200}") {
        let _checked = Catalog::parse(&[("x.yaml".to_owned(), text)], Allowances::default());
    }
}
