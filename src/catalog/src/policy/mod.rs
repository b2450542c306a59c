//! The fence: the catalog rendered to ValidatingAdmissionPolicies, so that the API server itself holds the bot to it.
//!
//! Owns the rules' text. Never talks to a cluster: `diagbot policy render` prints what comes out of here.
//!
//! # Design notes
//! Measured on a real API server: one expression that matches every argument against one alternation of whole-argument
//! patterns stays within CEL's cost limit with 400 diagnostics. The opt-in is an expression over `namespaceObject`, since a
//! `namespaceSelector` would *exempt* namespaces without the label. Admission never sees `pods/log` (a GET), so reading logs
//! can't be narrowed to our containers.

pub mod installed;
mod user;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use self::user::{
    AS_ROOT, GIVES_UP_WHAT_THE_TARGET_DOES, GROUP_NOT_ROOT, NOT_ROOT, TARGET, TARGET_GROUP_MAY_BE_ROOT,
    TARGET_MAY_BE_ROOT,
};
use crate::{diagnostic::Method, load::Catalog};

/// What the policies are rendered for.
#[derive(Debug, Clone)]
pub struct Fence {
    /// Namespace of the bot.
    pub namespace: String,
    /// The bot's user names, as `system:serviceaccount:<namespace>:<name>`.
    pub users: Vec<String>,
    /// Image of the agent, by digest.
    pub agent_image: String,
}

/// Label that opts a namespace in.
pub const ENABLED_LABEL: &str = "diagbot.dev/enabled";

/// Policy about the containers that the bot adds.
pub const CONTAINERS: &str = "diagbot-ephemeral-containers";
/// Policy about what the bot attaches to and executes.
pub const STREAMS: &str = "diagbot-streams";
/// Policy about who writes the bot's own objects, in the cluster that holds them.
pub const RECORDS: &str = "diagbot-records";
/// The condition of the policies that are about the bot alone.
const ONLY_THE_BOT: &str = "only-the-bot";

/// The policies and their bindings, as Kubernetes objects.
pub fn render(catalog: &Catalog, fence: &Fence) -> Vec<Value> {
    [
        policy(
            CONTAINERS,
            &ephemeral_rules(),
            &bot_only(fence),
            &ephemeral_validations(catalog, fence),
        ),
        policy(STREAMS, &stream_rules(), &bot_only(fence), &stream_validations()),
        policy(RECORDS, &record_rules(fence), &json!([]), &record_validations(fence)),
    ]
    .into_iter()
    .flat_map(|policy| {
        let binding = binding(&policy);
        [policy, binding]
    })
    .collect()
}

fn policy(name: &str, rules: &Value, conditions: &Value, validations: &[Value]) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": name, "labels": { "app.kubernetes.io/name": "diagbot" } },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": rules,
            "matchConditions": conditions,
            "validations": validations,
        },
    })
}

fn binding(policy: &Value) -> Value {
    let name = &policy["metadata"]["name"];
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": name, "labels": { "app.kubernetes.io/name": "diagbot" } },
        "spec": { "policyName": name, "validationActions": ["Deny"] },
    })
}

fn bot_only(fence: &Fence) -> Value {
    json!([{ "name": ONLY_THE_BOT, "expression": format!("request.userInfo.username in {}", list(&fence.users)) }])
}

fn ephemeral_rules() -> Value {
    json!({ "resourceRules": [{
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods/ephemeralcontainers"],
    }] })
}

fn stream_rules() -> Value {
    json!({ "resourceRules": [{
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"], "resources": ["pods/attach", "pods/exec"],
    }] })
}

fn record_rules(fence: &Fence) -> Value {
    json!({
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": fence.namespace } },
        "resourceRules": [{
            "apiGroups": ["diagbot.dev"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
            "resources": [
                "diagnosticruns", "diagnosticruns/status", "diagnosticcaptures", "diagnosticcaptures/status",
                "diagnosticschedules", "diagnosticschedules/status", "diagnosticpauses",
            ],
        }],
    })
}

/// The containers that a request adds.
const ADDED: &str = "object.spec.ephemeralContainers.filter(c, !has(oldObject.spec.ephemeralContainers) || \
                     !oldObject.spec.ephemeralContainers.exists(o, o.name == c.name))";

fn ephemeral_validations(catalog: &Catalog, fence: &Fence) -> Vec<Value> {
    let images: BTreeSet<_> = std::iter::once(&fence.agent_image)
        .chain(catalog.iter().filter_map(|d| d.image.as_ref()))
        .collect();
    let capabilities: BTreeSet<_> = catalog.iter().flat_map(|d| &d.capabilities).collect();
    let arguments = argument_pattern(catalog);
    let all = |rule: &str| format!("{ADDED}.all(c, {rule})");
    let security = |rule: &str| format!("{ADDED}.all(c, has(c.securityContext) && {rule})");
    vec![
        rule(
            &format!(
                "has(namespaceObject.metadata.labels) && '{ENABLED_LABEL}' in namespaceObject.metadata.labels && \
                 namespaceObject.metadata.labels['{ENABLED_LABEL}'] == 'true'"
            ),
            &format!("the namespace does not carry the label {ENABLED_LABEL}=true"),
        ),
        rule(
            &format!(
                "!(namespaceObject.metadata.name in ['kube-system', {}])",
                quote(&fence.namespace)
            ),
            "captures are never taken in kube-system or in diagbot's own namespace",
        ),
        rule(
            // There the agent would see, and could look into, processes of other pods and of the node itself.
            "!has(object.spec.hostPID) || !object.spec.hostPID",
            "captures are never taken in a pod that shares the processes of its node (hostPID)",
        ),
        rule(
            &all(&format!("c.name.matches('{OWN_NAME}') && has(c.targetContainerName)")),
            "a container of the bot is called diag-<run>-<n>-<attempt> and names its target",
        ),
        rule(
            &all(&format!("c.image in {}", list(images))),
            "the image is not in the catalog",
        ),
        rule(
            &all(
                "!has(c.command) && !has(c.env) && !has(c.envFrom) && !has(c.volumeMounts) && !has(c.volumeDevices) && \
                 !has(c.workingDir)",
            ),
            "a container of the bot has no command, environment, mounts or working directory",
        ),
        rule(
            // The kubelet mounts a file that everybody may write at the path of the message.
            &all(
                "(!has(c.terminationMessagePath) || c.terminationMessagePath == '/dev/termination-log') && \
                 (!has(c.terminationMessagePolicy) || c.terminationMessagePolicy == 'File') && \
                 !(has(c.tty) && c.tty) && !(has(c.stdinOnce) && c.stdinOnce)",
            ),
            "a container of the bot has no terminal, and its termination message where it always is",
        ),
        rule(
            &all(&format!(
                "has(c.args) && size(c.args) >= 6 && c.args.all(a, a.matches({}))",
                quote(&arguments)
            )),
            "an argument is not in the catalog",
        ),
        rule(
            &all(&format!(
                "has(c.args) && size(c.args) > {count} && {head} && \
                 size(c.args.filter(a, a.startsWith('--step='))) == size(c.args) - {count}",
                count = HEAD.len(),
                head = head()
            )),
            "the arguments are run, --capture, --nonce, --wait and --deadline, each once and in this order, and then steps",
        ),
        rule(
            &security(
                "(!has(c.securityContext.privileged) || !c.securityContext.privileged) && \
                 !has(c.securityContext.procMount) && !has(c.securityContext.seLinuxOptions) && \
                 !has(c.securityContext.appArmorProfile) && !has(c.securityContext.windowsOptions) && \
                 has(c.securityContext.seccompProfile) && c.securityContext.seccompProfile.type == 'RuntimeDefault'",
            ),
            "privileged containers, other proc mounts, SELinux, AppArmor and seccomp settings are not allowed",
        ),
        rule(
            &security(&format!(
                "(!has(c.securityContext.capabilities) || !has(c.securityContext.capabilities.add) || \
                 c.securityContext.capabilities.add.all(k, k in {} || {TARGET}.exists(t, has(t.securityContext) && \
                 has(t.securityContext.capabilities) && has(t.securityContext.capabilities.add) && \
                 k in t.securityContext.capabilities.add)))",
                list(capabilities)
            )),
            "a capability is neither in the catalog nor the target's own",
        ),
        rule(
            &security(&format!(
                "({NOT_ROOT} || ({TARGET_MAY_BE_ROOT} && {}))",
                user::not_seen_otherwise("uid")
            )),
            "root, or a way to it, is allowed only beside a target that runs as root",
        ),
        rule(
            &security(&format!(
                "({NOT_ROOT} || {TARGET}.all(t, {GIVES_UP_WHAT_THE_TARGET_DOES}))"
            )),
            "beside a target that runs as root, a container gives up every capability that the target does, and escalation",
        ),
        rule(
            &security(&format!(
                "({AS_ROOT} || {GROUP_NOT_ROOT} || ({TARGET_GROUP_MAY_BE_ROOT} && {}))",
                user::not_seen_otherwise("gid")
            )),
            "the group 0 is allowed only beside a target that has it",
        ),
    ]
}

/// Name of a container of the bot: of the run, of the capture, of the attempt.
const OWN_NAME: &str = "^diag-[0-9a-z]{16}-[0-9]{1,3}-[1-3]$";

/// How the arguments begin, each of them whole as the pattern of all arguments has it. Steps follow.
const HEAD: [&str; 5] = ["run", "--capture=", "--nonce=", "--wait=", "--deadline="];

/// The first arguments are those of [`HEAD`], in its order.
fn head() -> String {
    let each = HEAD.iter().enumerate();
    each.map(|(at, start)| format!("c.args[{at}].startsWith({})", quote(start)))
        .collect::<Vec<_>>()
        .join(" && ")
}

/// One pattern that every argument must match whole: the fixed arguments, and one alternative a diagnostic.
fn argument_pattern(catalog: &Catalog) -> String {
    let steps: Vec<_> = catalog
        .iter()
        .filter(|d| d.method == Method::Ephemeral)
        .map(|d| format!("--step={}", catalog.step_pattern(d)))
        .collect();
    format!(
        "^(?:run|--capture=d-[0-9a-z]{{16}}-[0-9]{{1,3}}|--nonce=[0-9a-f]{{64}}|--wait=[0-9]{{1,5}}|--deadline=[0-9]{{1,5}}|{})$",
        steps.join("|")
    )
}

fn stream_validations() -> Vec<Value> {
    vec![
        rule(
            &format!("has(object.container) && object.container.matches('{OWN_NAME}')"),
            "the bot attaches to and executes in its own containers only",
        ),
        rule(
            "request.subResource != 'exec' || (size(object.command) == 4 && object.command[1] == 'cat' && \
             object.command[0] == '/diagbot-agent' && object.command[2].matches('^--step=[0-9]{1,4}$') && \
             object.command[3].matches('^--from=[0-9]{1,15}$'))",
            "the bot executes nothing but its agent's cat",
        ),
    ]
}

/// The garbage collector with a service account of its own, and without one.
const GARBAGE_COLLECTORS: [&str; 2] = [
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:kube-controller-manager",
];

fn record_validations(fence: &Fence) -> Vec<Value> {
    vec![
        rule(
            // What is deleted with `--cascade=foreground` is freed by the garbage collector, whom everything else binds.
            &format!(
                "request.userInfo.username in {} || \
                 (request.operation == 'UPDATE' && has(object.metadata.deletionTimestamp) && \
                 request.userInfo.username in {})",
                list(&fence.users),
                list(GARBAGE_COLLECTORS)
            ),
            "only the bot writes runs, captures and pauses; ask it in Slack",
        ),
        rule(
            // A schedule is paused and resumed by its spec, as a CronJob is.
            "request.operation != 'UPDATE' || object.spec == oldObject.spec || \
             (request.resource.resource == 'diagnosticschedules' && \
             object.spec.all(k, k == 'suspend' || (k in oldObject.spec && object.spec[k] == oldObject.spec[k])) && \
             oldObject.spec.all(k, k == 'suspend' || k in object.spec))",
            "the spec of a run or capture never changes, and of a schedule nothing but suspend",
        ),
    ]
}

fn rule(expression: &str, message: &str) -> Value {
    json!({ "expression": expression, "message": message })
}

/// A CEL string literal.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn list<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    format!(
        "[{}]",
        items
            .into_iter()
            .map(|item| quote(item.as_ref()))
            .collect::<Vec<_>>()
            .join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_can_not_leave_its_literal() {
        assert_eq!(quote(r"a'b\d"), r"'a\'b\\d'");
    }
}
