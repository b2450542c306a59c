//! The allowlist that `deploy/` puts into the cluster is the whole folder `commands/`.

use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn every_diagnostic_is_deployed() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../commands"));
    let listed = fs::read_to_string(folder.join("Kustomization")).expect("commands/Kustomization is in the repository");
    let deployed: BTreeSet<_> = listed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- "))
        .filter(|item| item.rsplit('.').next() == Some("yaml"))
        .map(str::to_owned)
        .collect();
    let present: BTreeSet<_> = fs::read_dir(folder)
        .expect("commands/ can be read")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.rsplit('.').next() == Some("yaml"))
        .collect();
    assert_eq!(
        deployed, present,
        "list the files of commands/ in commands/Kustomization"
    );
}
