//! The rules that a catalog must keep.

use crate::{
    diagnostic::Diagnostic,
    load::{Allowances, Fault},
};

/// Parses and checks files; returns the diagnostics and every fault.
pub fn check(files: &[(String, String)], allowances: Allowances) -> (Vec<Diagnostic>, Vec<Fault>) {
    let _ = allowances;
    let mut diagnostics = Vec::new();
    let mut faults = Vec::new();
    for (file, text) in files {
        match serde_saphyr::from_str::<Diagnostic>(text) {
            Ok(diagnostic) => diagnostics.push(diagnostic),
            Err(error) => faults.push(Fault {
                file: file.clone(),
                key: String::new(),
                rule: error.to_string(),
            }),
        }
    }
    (diagnostics, faults)
}
