//! What `deploy/` runs: no root, nothing writable, no capability, in everything that makes pods and on the real image files.

use std::{fs, path::Path};

use serde_json::Value;

use crate::product::files;

/// Every YAML document below `deploy/`; one that can't be read fails.
fn documents() -> Vec<(String, Value)> {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let yaml = files(&deploy)
        .into_iter()
        .filter(|file| file.extension().is_some_and(|e| e == "yaml"));
    yaml.flat_map(|file| {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.display().to_string();
        let parts: Vec<_> = text
            .split("\n---\n")
            .map(|part| (name.clone(), part.to_owned()))
            .collect();
        parts
    })
    .map(|(name, text)| {
        let document = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, document)
    })
    .collect()
}

/// The pod that a document makes, of whatever kind the document is.
fn pod_of(document: &Value) -> Option<&Value> {
    let spec = &document["spec"];
    let places = [
        spec,
        &spec["template"]["spec"],
        &spec["jobTemplate"]["spec"]["template"]["spec"],
    ];
    places.into_iter().find(|place| place["containers"].is_array())
}

/// Every container of a pod, those that run before it and beside it included.
fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|kind| pod[kind].as_array().into_iter().flatten())
}

#[test]
fn every_pod_is_non_root_read_only_and_without_capabilities() {
    let documents = documents();
    let pods: Vec<_> = documents
        .iter()
        .filter_map(|(file, document)| Some((file, document, pod_of(document)?)))
        .collect();
    // What has no selector is a patch of a Deployment that stands elsewhere.
    let whole = |document: &Value| document["kind"] != "Deployment" || document["spec"]["selector"].is_object();
    assert!(
        pods.iter().filter(|(_, document, _)| whole(document)).count() >= 2,
        "bot and store"
    );
    for (file, document, pod) in pods {
        if whole(document) {
            let security = &pod["securityContext"];
            assert_eq!(security["runAsNonRoot"], true, "{file}");
            assert!(security["runAsUser"].as_u64().is_some_and(|uid| uid > 0), "{file}");
            assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{file}");
        } else {
            assert!(pod.get("securityContext").is_none(), "{file}: a patch changes it");
        }
        for container in containers(pod) {
            let security = &container["securityContext"];
            if whole(document) {
                assert_eq!(security["readOnlyRootFilesystem"], true, "{file}");
                assert_eq!(security["allowPrivilegeEscalation"], false, "{file}");
                assert_eq!(security["capabilities"]["drop"][0], "ALL", "{file}");
                assert!(security["capabilities"].get("add").is_none(), "{file}");
            } else {
                assert!(security.is_null(), "{file}: a patch changes it");
            }
        }
    }
}

#[test]
fn the_images_hold_files_that_nobody_can_change() {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/images");
    let bot = fs::read_to_string(images.join("bot.Dockerfile")).unwrap();
    assert!(
        bot.contains("\nUSER 65532:65532\n") && bot.contains("--chmod=0555"),
        "{bot}"
    );
    let agent = fs::read_to_string(images.join("agent.Dockerfile")).unwrap();
    // Readable, its memory could be dumped by a process of its own uid.
    assert!(
        agent.contains("\nFROM scratch\n") && agent.contains("--chmod=0111"),
        "{agent}"
    );
}

#[test]
fn the_images_name_no_base_that_may_change() {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/images");
    for file in ["bot.Dockerfile", "agent.Dockerfile"] {
        let text = fs::read_to_string(images.join(file)).unwrap();
        let bases: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
        assert!(!bases.is_empty(), "{file}");
        for base in bases {
            let name = base.split_whitespace().next().unwrap();
            // An argument without a default: whoever builds says which, by digest as the manual asks.
            let argument = name.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
            let given = argument.is_some_and(|argument| text.lines().any(|line| line == format!("ARG {argument}")));
            assert!(
                name == "scratch" || name.contains("@sha256:") || given,
                "{file}: {base}"
            );
        }
    }
    let manual = fs::read_to_string(images.join("../README.md")).unwrap();
    for argument in ["RUST_IMAGE", "DEBIAN_IMAGE"] {
        assert!(manual.contains(&format!("--build-arg {argument}=")), "{argument}");
    }
}

/// What stands between backquotes in a document.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Whether a file of the repository defines this test: an attribute stands right above, not only a function of that name.
fn has_test(file: &str, test: &str) -> bool {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let defines = |line: &str| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ")
            .and_then(|rest| rest.strip_prefix(test))
            .is_some_and(|rest| rest.starts_with("()"))
    };
    lines.iter().enumerate().any(|(at, line)| {
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        defines(line) && above.into_iter().any(|line| line.contains("test"))
    })
}

#[test]
fn every_test_that_security_md_names_exists() {
    let text = include_str!("../../SECURITY.md");
    let named: Vec<(&str, &str)> = quoted(text)
        .into_iter()
        .filter_map(|word| word.split_once(".rs::"))
        .collect();
    assert!(named.len() >= 30, "{named:?}");
    let missing: Vec<String> = named
        .iter()
        .filter(|(file, test)| !has_test(&format!("{file}.rs"), test))
        .map(|(file, test)| format!("{file}.rs::{test}"))
        .collect();
    assert!(
        missing.is_empty(),
        "SECURITY.md names tests that do not exist: {missing:#?}"
    );
    // Files that it names without a test exist, too.
    for file in quoted(text)
        .into_iter()
        .filter(|word| word.contains('/') && Path::new(word).extension().is_some_and(|e| e == "rs"))
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        assert!(path.is_file(), "SECURITY.md names {file}");
    }
    assert!(!has_test("tests/stories/deploy.rs", "every_test_that_nobody_wrote"));
    assert!(!has_test("tests/stories/deploy.rs", "has_test"));
}

#[test]
fn every_file_that_the_documents_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for document in [
        "README.md",
        "docs/architecture.md",
        "docs/bounds.md",
        "deploy/README.md",
        "SECURITY.md",
    ] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        let files = quoted(&text).into_iter().filter(|word| {
            let below = ["src/", "tests/", "docs/", "deploy/", "commands/"];
            below.iter().any(|folder| word.starts_with(folder)) && !word.contains("::") && !word.contains(['*', ' '])
        });
        for file in files {
            assert!(root.join(file).exists(), "{document} names {file}");
        }
    }
}
