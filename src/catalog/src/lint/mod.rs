//! The rules that a catalog must keep. Owns the messages; reports every fault of every file at once.
//!
//! A file is read in two passes: first as a plain tree, in which every key is looked at by itself (so that one wrong key
//! does not hide the next), then as a [`Diagnostic`], whose parts are checked against each other.

mod argv;
mod keys;
mod pattern;
mod runbook;

use std::collections::BTreeMap;

use diagbot_wire::args::ProcessSelector;

pub use self::runbook::MAX_TARGETS;
use crate::{
    diagnostic::{Diagnostic, DiagnosticName, Method, Runtime},
    load::{Allowances, Fault},
    runbook::Runbook,
};

/// The folder of the runbooks beneath the catalog's.
pub const RUNBOOKS: &str = "runbooks";

/// Longest deadline of a tool in seconds.
const MAX_DEADLINE_S: u64 = 3_600;
/// Largest artifact: what S3 takes in 10,000 parts of our size, rounded down.
const MAX_LIMIT_BYTES: u64 = 1 << 40;
/// Longest summary in characters: one line of `list` on a phone.
const MAX_SUMMARY_CHARS: usize = 100;
/// Files that we put beside artifacts ourselves.
const RESERVED_FILES: [&str; 2] = ["manifest.json", "result.json"];

/// Parses and checks files, given as (name, text), runbooks as `runbooks/<name>`; returns what has the right shape, and every
/// fault.
pub fn check(files: &[(String, String)], allowances: Allowances) -> (Vec<Diagnostic>, Vec<Runbook>, Vec<Fault>) {
    let mut faults = Faults::default();
    let mut diagnostics = Vec::new();
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    let is_runbook = |file: &str| file.strip_prefix(RUNBOOKS).is_some_and(|rest| rest.starts_with('/'));
    for (file, text) in files.iter().filter(|(file, _)| !is_runbook(file)) {
        faults.file.clone_from(file);
        let Some(diagnostic) = keys::parse(text, &mut faults) else {
            continue;
        };
        check_names(&diagnostic, &mut owners, &mut faults);
        check_bounds(&diagnostic, &mut faults);
        check_artifact(&diagnostic, &mut faults);
        check_image(&diagnostic, allowances, &mut faults);
        check_method(&diagnostic, &mut faults);
        check_capabilities(&diagnostic, &mut faults);
        for (name, parameter) in &diagnostic.parameters {
            pattern::check(name, parameter, &mut faults);
        }
        argv::check(&diagnostic, &mut faults);
        diagnostics.push(diagnostic);
    }
    if files.iter().all(|(file, _)| is_runbook(file)) {
        ".".clone_into(&mut faults.file);
        faults.add("", "the folder has no *.yaml file: give at least one diagnostic");
    }
    let mut runbooks = Vec::new();
    let known = by_name(&diagnostics);
    for (file, text) in files.iter().filter(|(file, _)| is_runbook(file)) {
        faults.file.clone_from(file);
        let Some(runbook) = keys::parse_runbook(text, &mut faults) else {
            continue;
        };
        runbook::check(&runbook, &known, &mut owners, &mut faults);
        runbooks.push(runbook);
    }
    (diagnostics, runbooks, faults.all)
}

fn by_name(diagnostics: &[Diagnostic]) -> BTreeMap<String, &Diagnostic> {
    let names = |d: &Diagnostic| {
        std::iter::once(&d.name)
            .chain(&d.aliases)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    diagnostics
        .iter()
        .flat_map(|d| names(d).into_iter().map(move |name| (name, d)))
        .collect()
}

/// Collects faults of the file at hand.
#[derive(Debug, Default)]
struct Faults {
    file: String,
    all: Vec<Fault>,
}

impl Faults {
    fn add(&mut self, key: impl Into<String>, rule: impl Into<String>) {
        self.all.push(Fault {
            file: self.file.clone(),
            key: key.into(),
            rule: rule.into(),
        });
    }
}

fn check_names(diagnostic: &Diagnostic, owners: &mut BTreeMap<String, String>, faults: &mut Faults) {
    let expected = format!("{}.yaml", diagnostic.name);
    if faults.file != expected {
        faults.add(
            "name",
            format!("the file of `{}` is called {expected}", diagnostic.name),
        );
    }
    own_names(&diagnostic.name, &diagnostic.aliases, owners, faults);
}

/// Names and aliases are unique over all files.
fn own_names(
    name: &DiagnosticName,
    aliases: &[DiagnosticName],
    owners: &mut BTreeMap<String, String>,
    faults: &mut Faults,
) {
    for (index, name) in std::iter::once(name).chain(aliases).enumerate() {
        let key = if index == 0 {
            "name".to_owned()
        } else {
            format!("aliases[{}]", index - 1)
        };
        if let Some(other) = owners.insert(name.to_string(), faults.file.clone()) {
            faults.add(
                key,
                format!("`{name}` is also a name or alias in {other}: names must be unique"),
            );
        }
    }
}

fn check_bounds(diagnostic: &Diagnostic, faults: &mut Faults) {
    if !(1..=MAX_DEADLINE_S).contains(&diagnostic.deadline.as_secs()) {
        faults.add("deadline", format!("must be between 1s and {MAX_DEADLINE_S}s"));
    }
    if !(1_024..=MAX_LIMIT_BYTES).contains(&diagnostic.limit.0) {
        faults.add("limit", "must be between 1KiB and 1024GiB");
    }
    check_summary(&diagnostic.summary, faults);
}

fn check_summary(summary: &str, faults: &mut Faults) {
    if summary.trim().is_empty() || summary.contains('\n') || summary.chars().count() > MAX_SUMMARY_CHARS {
        faults.add(
            "summary",
            format!("must be one line of at most {MAX_SUMMARY_CHARS} characters"),
        );
    }
}

fn check_artifact(diagnostic: &Diagnostic, faults: &mut Faults) {
    let name = &diagnostic.artifact.name;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if !(1..=64).contains(&name.len()) || !name.bytes().all(plain) || name.starts_with('.') {
        faults.add(
            "artifact.name",
            "must be lower-case letters, digits, dots, dashes and underscores, at most 64",
        );
    }
    if RESERVED_FILES.contains(&name.as_str()) {
        faults.add(
            "artifact.name",
            format!("`{name}` is a file that we put beside artifacts: choose another"),
        );
    }
    let media_type = &diagnostic.artifact.media_type;
    if !media_type.contains('/') || !media_type.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        faults.add("artifact.mediaType", "must be a media type such as text/plain");
    }
}

fn check_image(diagnostic: &Diagnostic, allowances: Allowances, faults: &mut Faults) {
    let Some(image) = &diagnostic.image else { return };
    let pinned = image.split_once("@sha256:").is_some_and(|(name, digest)| {
        !name.is_empty() && digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit())
    });
    if !pinned && !allowances.unpinned_images {
        faults.add(
            "image",
            "must be named by digest (name@sha256:…), or set catalog.allowUnpinnedImages",
        );
    }
}

fn check_method(diagnostic: &Diagnostic, faults: &mut Faults) {
    match diagnostic.method {
        Method::Ephemeral if diagnostic.argv.is_empty() => {
            faults.add("argv", "method `ephemeral` needs a program");
        }
        Method::Api => {
            if !diagnostic.argv.is_empty() || diagnostic.image.is_some() {
                faults.add("argv", "method `api` runs nothing: leave argv and image out");
            }
            if diagnostic.process != ProcessSelector::None {
                faults.add("process", "method `api` looks at no process: `none`");
            }
            if !diagnostic.capabilities.is_empty() {
                faults.add("capabilities", "method `api` runs nothing: leave capabilities out");
            }
        }
        Method::Ephemeral => {}
    }
    if diagnostic.runtime == Runtime::Jvm && diagnostic.process != ProcessSelector::Jvm {
        faults.add("process", "runtime `jvm` needs process `jvm`");
    }
}

fn check_capabilities(diagnostic: &Diagnostic, faults: &mut Faults) {
    for (index, capability) in diagnostic.capabilities.iter().enumerate() {
        let key = format!("capabilities[{index}]");
        if capability.starts_with("CAP_") {
            faults.add(key, "is written as in Kubernetes, without CAP_: SYS_PTRACE");
        } else if capability == "ALL" || capability == "SYS_ADMIN" {
            faults.add(
                key,
                format!("`{capability}` is as good as root on the node and never allowed"),
            );
        } else if capability.is_empty() || !capability.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') {
            faults.add(key, "is a word such as SYS_PTRACE");
        }
    }
}
