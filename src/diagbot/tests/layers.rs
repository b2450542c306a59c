//! A module imports only what stands below it. The order here is the one in the crate's documentation.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Top to bottom.
const LAYERS: [&str; 18] = [
    "cli",
    "config",
    "http",
    "slack",
    "triggers",
    "schedules",
    "runs",
    "captures",
    "admission",
    "access",
    "record",
    "artifacts",
    "cluster",
    "telemetry",
    "retry",
    "tasks",
    "clock",
    "failpoint",
];

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| *layer == module)
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The modules that a source names: `crate::module`, also within `use crate::{a, b::c}`.
fn named(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in source.match_indices("crate::") {
        let rest = &source[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => {
                let mut depth = 0;
                let mut word = String::new();
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => names.push(std::mem::take(&mut word)),
                        c if depth == 0 => word.push(c),
                        _ => {}
                    }
                }
                names.push(word);
            }
            None => names.push(rest.to_owned()),
        }
    }
    let first = |name: String| {
        let name = name.trim_start();
        let end = name
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(name.len());
        name[..end].to_owned()
    };
    names.into_iter().map(first).filter(|name| !name.is_empty()).collect()
}

#[test]
fn modules_import_only_what_stands_below_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut broken = Vec::new();
    let mut edges = 0;
    for file in files {
        let relative = file
            .strip_prefix(&root)
            .expect("below the root")
            .to_string_lossy()
            .into_owned();
        let module = relative.split(['/', '.']).next().unwrap_or_default().to_owned();
        let Some(own) = rank(&module) else { continue };
        for name in named(&fs::read_to_string(&file).expect("a source")) {
            let Some(other) = rank(&name) else { continue };
            edges += 1;
            if other < own {
                broken.push(format!("{relative} names crate::{name}, which stands above {module}"));
            }
        }
    }
    assert!(edges > 20, "the check sees the imports: {edges}");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn fronts_talk_to_runs_and_never_touch_clusters_captures_or_each_other() {
    const FRONTS: [&str; 3] = ["slack", "triggers", "schedules"];
    for front in FRONTS {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(front);
        let mut files = Vec::new();
        sources(&root, &mut files);
        for file in files {
            let source = fs::read_to_string(&file).expect("a source");
            for forbidden in [
                "crate::artifacts",
                "kube::Client",
                "captures::controller",
                "captures::act",
            ] {
                assert!(!source.contains(forbidden), "{} names {forbidden}", file.display());
            }
            for other in FRONTS.into_iter().filter(|other| *other != front) {
                let names = named(&source);
                assert!(
                    !names.iter().any(|name| name == other),
                    "{} names {other}",
                    file.display()
                );
            }
        }
    }
}
