//! Every queue, cache, retry and history has a limit, and `docs/bounds.md` says which.

use std::{fs, path::Path};

/// The crates of the bot; those of the agent and the sandbox have no table.
const CRATES: [&str; 10] = [
    "base",
    "api",
    "cluster",
    "artifacts",
    "store-server",
    "audit",
    "captures",
    "runs",
    "slack",
    "bot",
];

/// Rows of the table: file, constant, value.
fn table() -> Vec<(String, String, String)> {
    let page = read("docs/bounds.md");
    let rows = page.lines().filter_map(|line| {
        let mut columns = line.split('|').map(|column| column.trim().trim_matches('`').to_owned());
        let (file, name, value) = (columns.nth(1)?, columns.next()?, columns.next()?);
        (Path::new(&file).extension()? == "rs").then_some((file, name, value))
    });
    rows.collect()
}

/// A file of the repository.
fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_documented_limits_are_those_of_the_sources() {
    let table = table();
    assert!(table.len() > 30, "the table is read: {table:?}");
    for (file, name, value) in table {
        let (start, end) = (format!("const {name}: "), format!(" = {value};"));
        let found = read(&file)
            .lines()
            .any(|line| line.contains(&start) && line.ends_with(&end));
        assert!(found, "{file} has no {name} of {value}");
    }
}

#[test]
fn no_channel_is_without_a_bound() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders: Vec<_> = CRATES.iter().map(|name| root.join(name).join("src")).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the sources are there") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).expect("a source");
            assert!(!text.contains("unbounded"), "{}", path.display());
        }
    }
}
