//! What `deploy/` runs: no root, nothing writable, no capability, in every Deployment and on the real image files.

use std::{fs, path::Path};

use serde_json::Value;

use crate::product::files;

/// Every YAML document below `deploy/`.
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
    .filter_map(|(name, text)| Some((name, serde_saphyr::from_str(&text).ok()?)))
    .collect()
}

#[test]
fn every_deployment_is_non_root_read_only_and_without_capabilities() {
    let deployments: Vec<_> = documents()
        .into_iter()
        .filter(|(_, d)| d["kind"] == "Deployment")
        .collect();
    let whole = |d: &Value| d["spec"]["selector"].is_object();
    assert!(
        deployments.iter().filter(|(_, d)| whole(d)).count() >= 2,
        "bot and store"
    );
    for (file, deployment) in deployments {
        let pod = &deployment["spec"]["template"]["spec"];
        if whole(&deployment) {
            let security = &pod["securityContext"];
            assert_eq!(security["runAsNonRoot"], true, "{file}");
            assert!(security["runAsUser"].as_u64().is_some_and(|uid| uid > 0), "{file}");
            assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{file}");
        } else {
            assert!(pod.get("securityContext").is_none(), "{file}: a patch changes it");
        }
        for container in pod["containers"].as_array().into_iter().flatten() {
            let security = &container["securityContext"];
            if whole(&deployment) {
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
