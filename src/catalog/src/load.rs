//! Reading `commands/` into a [`Catalog`]; every fault of every file is reported at once.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{diagnostic::Diagnostic, lint};

/// The allowlist in force.
#[derive(Debug, Clone)]
pub struct Catalog {
    diagnostics: BTreeMap<String, Diagnostic>,
    names: BTreeMap<String, String>,
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
    /// Reads every `*.yaml` of `folder` (not its subfolders) and checks it.
    pub fn load(folder: &Path, allowances: Allowances) -> Result<Self, CatalogError> {
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
                files.push((name, text));
            }
        }
        files.sort();
        Self::parse(&files, allowances)
    }

    /// Checks files that were read: (name, text) pairs.
    pub fn parse(files: &[(String, String)], allowances: Allowances) -> Result<Self, CatalogError> {
        let (diagnostics, faults) = lint::check(files, allowances);
        if !faults.is_empty() {
            return Err(CatalogError::Faults(faults));
        }
        let mut names = BTreeMap::new();
        for d in &diagnostics {
            for name in std::iter::once(&d.name).chain(&d.aliases) {
                names.insert(name.to_string(), d.name.to_string());
            }
        }
        Ok(Self {
            diagnostics: diagnostics.into_iter().map(|d| (d.name.to_string(), d)).collect(),
            names,
        })
    }

    /// The diagnostic of that canonical name or alias.
    pub fn get(&self, name: &str) -> Option<&Diagnostic> {
        self.diagnostics.get(self.names.get(name)?)
    }

    /// All diagnostics, by canonical name.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.values()
    }

    /// SHA-256 of the catalog in force (its diagnostics as JSON, by name), hexadecimal: recorded with every capture.
    pub fn sha256(&self) -> String {
        let text = serde_json::to_string(&self.diagnostics).expect("a catalog is plain data");
        diagbot_wire::digest::sha256_hex(text.as_bytes())
    }

    /// Every word that names a diagnostic: canonical names and aliases.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }
}
