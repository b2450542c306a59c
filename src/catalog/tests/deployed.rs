//! The allowlist that `deploy/` puts into the cluster is the whole folder `commands/`, runbooks included.

use std::{collections::BTreeSet, fs, path::Path};

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The `*.yaml` files of a folder of `commands/`, by their path beneath it.
fn present(folder: &str) -> BTreeSet<String> {
    fs::read_dir(repository().join("commands").join(folder))
        .expect("the folder can be read")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.rsplit('.').next() == Some("yaml"))
        .map(|name| format!("{folder}{name}"))
        .collect()
}

#[test]
fn every_diagnostic_and_runbook_is_deployed() {
    let listed =
        fs::read_to_string(repository().join("commands/Kustomization")).expect("commands/Kustomization can be read");
    let deployed: BTreeSet<_> = listed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- "))
        .filter(|item| item.rsplit('.').next() == Some("yaml"))
        .map(str::to_owned)
        .collect();
    let mut all = present("");
    all.extend(present("runbooks/"));
    assert_eq!(deployed, all, "list the files of commands/ in commands/Kustomization");
}

#[test]
fn every_runbook_is_mounted_where_the_catalog_looks_for_it() {
    let bot = fs::read_to_string(repository().join("deploy/base/bot.yaml")).expect("deploy/base/bot.yaml can be read");
    for path in present("runbooks/") {
        let name = path.trim_start_matches("runbooks/");
        let item = format!("{{ key: {name}, path: {path} }}");
        assert!(bot.contains(&item), "deploy/base/bot.yaml has no item {item}");
    }
}
