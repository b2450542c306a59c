//! Every queue, cache, retry and history has a limit, and the crate's documentation says which.

use std::{fs, path::Path};

/// Rows of the table: file, constant, value.
fn table() -> Vec<(String, String, String)> {
    let page = source("lib.rs");
    let rows = page.lines().filter_map(|line| {
        let row = line.strip_prefix("//! ")?;
        let columns: Vec<&str> = row
            .split("  ")
            .map(str::trim)
            .filter(|column| !column.is_empty())
            .collect();
        match columns[..] {
            [file, name, value, _what] if Path::new(file).extension().is_some_and(|kind| kind == "rs") => {
                Some((file.to_owned(), name.to_owned(), value.to_owned()))
            }
            _ => None,
        }
    });
    rows.collect()
}

fn source(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_documented_limits_are_those_of_the_sources() {
    let table = table();
    assert!(table.len() > 30, "the table is read: {table:?}");
    for (file, name, value) in table {
        let (start, end) = (format!("const {name}: "), format!(" = {value};"));
        let found = source(&file)
            .lines()
            .any(|line| line.contains(&start) && line.ends_with(&end));
        assert!(found, "{file} has no {name} of {value}");
    }
}

#[test]
fn no_channel_is_without_a_bound() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
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
