//! The pods that stories look at.

use serde_json::{Value, json};

/// A pod of one container called `app`.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    name: String,
    pod: Value,
}

impl Workload {
    /// Any pod: image and command.
    pub(crate) fn new(name: &str, image: &str, command: &[&str]) -> Self {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "app",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": command,
                }],
            },
        });
        Self {
            name: name.to_owned(),
            pod,
        }
    }

    /// The shop's JVM with a heap of about that many MiB; it holds two threads in a deadlock.
    pub(crate) fn checkout(name: &str, heap_mib: u32) -> Self {
        let heap = heap_mib.to_string();
        let most = format!("-Xmx{}m", heap_mib + heap_mib / 2 + 128);
        let command = [
            "java",
            &most,
            "-cp",
            "/app",
            "Checkout",
            "--heap-mib",
            &heap,
            "--deadlock",
        ];
        Self::new(name, "localhost/jdk:17", &command)
    }

    /// One static binary in an image without anything else.
    pub(crate) fn ledger(name: &str) -> Self {
        Self::new(name, "localhost/ledger:1", &["/ledger"])
    }

    /// A shell script in busybox.
    pub(crate) fn script(name: &str, script: &str) -> Self {
        Self::new(name, "localhost/busybox:1", &["/bin/sh", "-c", script])
    }

    /// Runs as that user and group.
    pub(crate) fn user(self, uid: u32) -> Self {
        self.security(&json!({ "runAsUser": uid, "runAsGroup": uid, "runAsNonRoot": uid != 0 }))
    }

    /// Adds to the container's security context.
    pub(crate) fn security(mut self, context: &Value) -> Self {
        merge(&mut self.pod["spec"]["containers"][0]["securityContext"], context);
        self
    }

    /// What Pod Security `restricted` asks for.
    pub(crate) fn restricted(self) -> Self {
        self.security(&json!({
            "runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000, "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
        }))
    }

    /// Gives the container a writable, empty folder.
    pub(crate) fn writable(mut self, path: &str) -> Self {
        self.pod["spec"]["volumes"] = json!([{ "name": "writable", "emptyDir": {} }]);
        self.pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "writable", "mountPath": path }]);
        self
    }

    /// Gives the container a liveness probe.
    pub(crate) fn probe(mut self, probe: &Value) -> Self {
        self.pod["spec"]["containers"][0]["livenessProbe"] = probe.clone();
        self
    }

    /// Adds a second container.
    pub(crate) fn container(mut self, container: Value) -> Self {
        if let Some(containers) = self.pod["spec"]["containers"].as_array_mut() {
            containers.push(container);
        }
        self
    }

    /// Adds to the pod's spec.
    pub(crate) fn spec(mut self, fields: &Value) -> Self {
        merge(&mut self.pod["spec"], fields);
        self
    }

    /// Name of the pod.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The manifest in a namespace.
    pub(crate) fn manifest(&self, namespace: &str) -> String {
        let mut pod = self.pod.clone();
        pod["metadata"]["namespace"] = json!(namespace);
        pod.to_string()
    }
}

fn merge(into: &mut Value, fields: &Value) {
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in fields.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}
