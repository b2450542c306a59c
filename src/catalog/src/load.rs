//! Reading `commands/` into a [`Catalog`]; every fault of every file is reported at once.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{diagnostic::Diagnostic, lint, runbook::Runbook};

/// The allowlist in force.
#[derive(Debug, Clone)]
pub struct Catalog {
    diagnostics: BTreeMap<String, Diagnostic>,
    runbooks: BTreeMap<String, Runbook>,
    names: BTreeMap<String, String>,
}

/// What a word of the catalog names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Entry<'a> {
    /// A diagnostic.
    Diagnostic(&'a Diagnostic),
    /// A runbook.
    Runbook(&'a Runbook),
}

impl<'a> Entry<'a> {
    /// Canonical name.
    pub fn name(self) -> &'a str {
        match self {
            Self::Diagnostic(diagnostic) => diagnostic.name.as_str(),
            Self::Runbook(runbook) => runbook.name.as_str(),
        }
    }
}

/// One fault of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// File, relative to the folder.
    pub file: String,
    /// Key in the file, dotted; empty where the file as a whole is meant.
    pub key: String,
    /// The rule that is broken, and what to do.
    pub rule: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {}: {}",
            self.file,
            if self.key.is_empty() { "file" } else { &self.key },
            self.rule
        )
    }
}

/// Why there is no catalog.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The folder can't be read.
    #[error("read the catalog folder {}", path.display())]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Files break rules.
    #[error("the catalog has {} fault(s):\n{}", .0.len(), .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Faults(Vec<Fault>),
}

/// What the owner allows beyond the lint's defaults.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowances {
    /// Images may be named by tag.
    pub unpinned_images: bool,
}

impl Catalog {
    /// Reads every `*.yaml` of `folder` and of its subfolder `runbooks`, where there is one, and checks it.
    pub fn load(folder: &Path, allowances: Allowances) -> Result<Self, CatalogError> {
        let mut files = yaml_files(folder, "")?;
        let runbooks = folder.join(lint::RUNBOOKS);
        if runbooks.is_dir() {
            files.extend(yaml_files(&runbooks, &format!("{}/", lint::RUNBOOKS))?);
        }
        files.sort();
        Self::parse(&files, allowances)
    }

    /// Checks files that were read: (name, text) pairs; a runbook's name begins with `runbooks/`.
    pub fn parse(files: &[(String, String)], allowances: Allowances) -> Result<Self, CatalogError> {
        let (diagnostics, runbooks, faults) = lint::check(files, allowances);
        if !faults.is_empty() {
            return Err(CatalogError::Faults(faults));
        }
        let mut names = BTreeMap::new();
        for d in &diagnostics {
            for name in std::iter::once(&d.name).chain(&d.aliases) {
                names.insert(name.to_string(), d.name.to_string());
            }
        }
        for r in &runbooks {
            for name in std::iter::once(&r.name).chain(&r.aliases) {
                names.insert(name.to_string(), r.name.to_string());
            }
        }
        Ok(Self {
            runbooks: runbooks.into_iter().map(|r| (r.name.to_string(), r)).collect(),
            diagnostics: diagnostics.into_iter().map(|d| (d.name.to_string(), d)).collect(),
            names,
        })
    }

    /// The diagnostic of that canonical name or alias.
    pub fn get(&self, name: &str) -> Option<&Diagnostic> {
        self.diagnostics.get(self.names.get(name)?)
    }

    /// The runbook of that canonical name or alias.
    pub fn runbook(&self, name: &str) -> Option<&Runbook> {
        self.runbooks.get(self.names.get(name)?)
    }

    /// The diagnostic or runbook of that canonical name or alias.
    pub fn entry(&self, name: &str) -> Option<Entry<'_>> {
        let diagnostic = self.get(name).map(Entry::Diagnostic);
        diagnostic.or_else(|| self.runbook(name).map(Entry::Runbook))
    }

    /// All runbooks, by canonical name.
    pub fn runbooks(&self) -> impl Iterator<Item = &Runbook> {
        self.runbooks.values()
    }

    /// All diagnostics, by canonical name.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.values()
    }

    /// SHA-256 of the catalog in force (its diagnostics and runbooks as JSON, by name), hexadecimal: recorded with every capture.
    pub fn sha256(&self) -> String {
        let text = serde_json::to_string(&(&self.diagnostics, &self.runbooks)).expect("a catalog is plain data");
        diagbot_wire::digest::sha256_hex(text.as_bytes())
    }

    /// Every word that names a diagnostic or a runbook: canonical names and aliases.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }
}

/// The folder's `*.yaml` files by name behind `prefix`, and their text.
fn yaml_files(folder: &Path, prefix: &str) -> Result<Vec<(String, String)>, CatalogError> {
    let read_error = |source| CatalogError::Read {
        path: folder.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(read_error)? {
        let path = entry.map_err(read_error)?.path();
        if path.extension().is_some_and(|e| e == "yaml") {
            let text = fs::read_to_string(&path).map_err(|source| CatalogError::Read {
                path: path.clone(),
                source,
            })?;
            let name = path
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default();
            files.push((format!("{prefix}{name}"), text));
        }
    }
    Ok(files)
}
