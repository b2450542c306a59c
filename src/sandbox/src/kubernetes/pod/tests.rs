//! The validation table of ephemeral containers, text by text.

use serde_json::{Value, json};

use super::{admit, check_update, with_ephemeral_containers};

fn pod() -> Value {
    let mut pod =
        json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "app", "image": "app:1" }] } });
    admit(&mut pod).expect("a sound pod");
    pod
}

fn with(containers: &Value) -> Result<Value, String> {
    let mut wanted = pod();
    wanted["spec"]["ephemeralContainers"] = containers.clone();
    with_ephemeral_containers(&pod(), &wanted).map_err(|e| e.message)
}

#[test]
fn each_fault_has_the_real_servers_text() {
    let refused = |container: Value| with(&json!([container])).expect_err("a fault");
    let prefix = r#"Pod "p" is invalid: "#;
    for (container, text) in [
        (
            json!({ "name": "app", "image": "i" }),
            r#"spec.ephemeralContainers[0].name: Duplicate value: "app""#,
        ),
        (
            json!({ "name": "e", "image": "i", "targetContainerName": "nope" }),
            r#"spec.ephemeralContainers[0].targetContainerName: Not found: "nope""#,
        ),
        (
            json!({ "name": "e" }),
            "spec.ephemeralContainers[0].image: Required value",
        ),
        (
            json!({ "name": "e", "image": "i", "ports": [{ "containerPort": 1 }] }),
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            json!({ "name": "e", "image": "i", "volumeMounts": [{ "name": "nope", "mountPath": "/x" }] }),
            r#"spec.ephemeralContainers[0].volumeMounts[0].name: Not found: "nope""#,
        ),
    ] {
        assert_eq!(refused(container), format!("{prefix}{text}"));
    }
    let bad_name = refused(json!({ "name": "Bad_Name", "image": "i" }));
    assert!(
        bad_name.contains("a lowercase RFC 1123 label must consist of"),
        "{bad_name}"
    );
}

#[test]
fn what_is_there_can_be_repeated_but_neither_changed_nor_removed() {
    let first = with(&json!([{ "name": "e1", "image": "i:1" }])).expect("accepted");
    let again = with_ephemeral_containers(&first, &first).expect("a no-op");
    assert_eq!(again, first);
    let mut changed = first.clone();
    changed["spec"]["ephemeralContainers"][0]["image"] = json!("i:2");
    let refused = with_ephemeral_containers(&first, &changed)
        .expect_err("a change")
        .message;
    let text = r#"Pod "p" is invalid: spec.ephemeralContainers: Forbidden: existing ephemeral containers "e1" may not be changed"#;
    assert!(refused.starts_with(text), "{refused}");
    let refused = with_ephemeral_containers(&first, &pod())
        .expect_err("a removal")
        .message;
    assert!(
        refused.contains(r#"existing ephemeral containers "e1" may not be removed"#),
        "{refused}"
    );
}

#[test]
fn a_regular_container_can_be_changed_neither_through_the_subresource_nor_through_the_pod() {
    let mut wanted = pod();
    wanted["spec"]["containers"][0]["command"] = json!(["sh"]);
    let next = with_ephemeral_containers(&pod(), &wanted).expect("ignored");
    assert_eq!(next, pod());
    let refused = check_update(&pod(), &wanted).expect_err("a change of the spec").message;
    assert!(
        refused.contains("spec: Forbidden: pod updates may not change fields other than"),
        "{refused}"
    );
    let mut created = json!({ "metadata": { "name": "p" }, "spec": {
        "containers": [{ "name": "app", "image": "i" }], "ephemeralContainers": [{ "name": "e", "image": "i" }] } });
    let refused = admit(&mut created).expect_err("not on create").message;
    assert_eq!(
        refused,
        r#"Pod "p" is invalid: spec.ephemeralContainers: Forbidden: cannot be set on create"#
    );
}
