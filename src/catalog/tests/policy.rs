//! The rendered policies, without an API server: what they refuse by their patterns, and that they refuse at all.
//!
//! What only an API server can answer is tried in `tests/e2e/fence.rs`.

use diagbot_catalog::{
    Catalog,
    load::Allowances,
    policy::{self, Fence},
};
use regex::Regex;
use serde_json::Value;

const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A tool whose literals are full of characters that a pattern gives a meaning to.
const LITERAL: &str = r#"
name: sample
summary: A sample
method: ephemeral
image: registry.example/tools@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
argv: ["/usr/bin/tool.v1+x", "--only=(a|b)*[c]?^$", "{mode}"]
parameters:
  mode: { kind: choice, pattern: "^(?:fast|slow)$", default: fast, rule: fast or slow }
deadline: 30s
limit: 1MiB
artifact: { name: sample.txt, mediaType: text/plain, output: text }
sensitivity: normal
impact: none
"#;

fn catalog() -> Catalog {
    Catalog::parse(&[("sample.yaml".to_owned(), LITERAL.to_owned())], Allowances::default()).expect("a catalog")
}

fn rendered() -> Vec<Value> {
    let users = ["system:serviceaccount:diagbot:diagbot", "oidc:diag'bot"];
    let fence = Fence {
        namespace: "diagbot".to_owned(),
        users: users.map(str::to_owned).to_vec(),
        agent_image: format!("registry.example/agent@sha256:{DIGEST}"),
    };
    policy::render(&catalog(), &fence)
}

fn found<'a>(rendered: &'a [Value], kind: &str, name: &str) -> &'a Value {
    rendered
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .expect("it is rendered")
}

/// The expression of a policy's rule with these words in its message.
fn expression(policy: &str, words: &str) -> String {
    let rendered = rendered();
    let policy = found(&rendered, "ValidatingAdmissionPolicy", policy);
    let rules = policy["spec"]["validations"].as_array().expect("rules").iter();
    let mut fitting = rules.filter(|rule| rule["message"].as_str().is_some_and(|said| said.contains(words)));
    let rule = fitting.next().expect("there is such a rule");
    assert_eq!(fitting.next(), None, "{words}");
    rule["expression"].as_str().expect("an expression").to_owned()
}

/// The pattern of the first `x.matches('…')` behind `what`, as CEL reads the literal.
fn pattern(expression: &str, what: &str) -> Regex {
    let start = format!("{what}.matches('");
    let (_, rest) = expression.split_once(&start).expect("it is matched");
    let mut text = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next().expect("the literal ends") {
            '\\' => text.extend(characters.next()),
            '\'' => break,
            other => text.push(other),
        }
    }
    Regex::new(&text).expect("a pattern")
}

/// The arguments that the bot gives a container.
fn arguments() -> Vec<String> {
    let catalog = catalog();
    let sample = catalog.get("sample").expect("the sample");
    let values = sample.check_parameters(&[].into()).expect("it has defaults");
    vec![
        "run".to_owned(),
        "--capture=d-0123456789abcdef-0".to_owned(),
        format!("--nonce={DIGEST}"),
        "--wait=60".to_owned(),
        "--deadline=360".to_owned(),
        format!("--step={}", sample.render_step(&values).render()),
    ]
}

fn catalogued() -> Regex {
    pattern(
        &expression("diagbot-ephemeral-containers", "an argument is not in the catalog"),
        "a",
    )
}

#[test]
fn each_policy_refuses_and_fails_closed() {
    let rendered = rendered();
    for name in ["diagbot-ephemeral-containers", "diagbot-streams", "diagbot-records"] {
        let policy = found(&rendered, "ValidatingAdmissionPolicy", name);
        assert_eq!(policy["spec"]["failurePolicy"], "Fail", "{name}");
        let binding = found(&rendered, "ValidatingAdmissionPolicyBinding", name);
        assert_eq!(binding["spec"]["policyName"], name);
        assert_eq!(
            binding["spec"]["validationActions"],
            serde_json::json!(["Deny"]),
            "{name}"
        );
    }
    assert_eq!(rendered.len(), 6, "a policy that this test does not know");
}

#[test]
fn every_user_of_the_bot_is_fenced() {
    let rendered = rendered();
    for name in ["diagbot-ephemeral-containers", "diagbot-streams"] {
        let policy = found(&rendered, "ValidatingAdmissionPolicy", name);
        assert_eq!(
            policy["spec"]["matchConditions"][0]["expression"],
            r"request.userInfo.username in ['system:serviceaccount:diagbot:diagbot', 'oidc:diag\'bot']",
        );
    }
}

#[test]
fn arguments_match_whole_or_not_at_all() {
    let pattern = catalogued();
    for argument in arguments() {
        assert!(pattern.is_match(&argument), "{argument}");
        for more in ["x", "\n", ";", "]", " ", "\n--step=x"] {
            assert!(!pattern.is_match(&format!("{argument}{more}")), "{argument}{more:?}");
            assert!(!pattern.is_match(&format!("{more}{argument}")), "{more:?}{argument}");
        }
    }
}

#[test]
fn literals_of_a_step_stand_for_themselves() {
    let pattern = catalogued();
    let step = arguments().pop().expect("a step");
    for (what, other) in [
        ("tool.v1+x", "toolxv1+x"),
        ("tool.v1+x", "tool.v11x"),
        ("tool.v1+x", "tool.v1x"),
        ("(a|b)*[c]?^$", "aab"),
        ("(a|b)*[c]?^$", ""),
        ("(a|b)*[c]?^$", "(a"),
        ("process=main", "process=mainly"),
        ("fast", "fast|slow"),
    ] {
        assert!(step.contains(what), "{step}");
        let changed = step.replace(what, other);
        assert!(!pattern.is_match(&changed), "{changed}");
    }
    assert!(pattern.is_match(&step.replace("fast", "slow")));
}

#[test]
fn the_first_arguments_are_there_in_order_and_steps_follow() {
    let order = expression("diagbot-ephemeral-containers", "in this order, and then steps");
    for (at, argument) in arguments()[..5].iter().enumerate() {
        let start = argument.split_inclusive('=').next().expect("a word");
        let wanted = format!("c.args[{at}].startsWith('{start}')");
        assert!(order.contains(&wanted), "{wanted} is not in {order}");
    }
    assert!(order.contains("size(c.args) > 5 &&"), "{order}");
    assert!(
        order.contains("c.args.filter(a, a.startsWith('--step='))) == size(c.args) - 5"),
        "{order}"
    );
    let catalogued = expression("diagbot-ephemeral-containers", "an argument is not in the catalog");
    assert!(
        catalogued.contains("has(c.args) && size(c.args) >= 6 && c.args.all(a, "),
        "{catalogued}"
    );
}

#[test]
fn names_and_streams_match_whole() {
    let added = expression("diagbot-ephemeral-containers", "is called diag-");
    let streams = expression("diagbot-streams", "its own containers only");
    for name in [pattern(&added, "c.name"), pattern(&streams, "object.container")] {
        assert!(name.is_match("diag-0123456789abcdef-0-1"));
        for other in [
            "diag-0123456789abcdef-0-1-x",
            "diag-0123456789abcdef-0-1\n",
            "x-diag-0123456789abcdef-0-1",
            "diag-0123456789abcdef-0-4",
        ] {
            assert!(!name.is_match(other), "{other:?}");
        }
    }
    let cat = expression("diagbot-streams", "nothing but its agent's cat");
    for (at, good) in [(2, "--step=0"), (3, "--from=17")] {
        let word = pattern(&cat, &format!("object.command[{at}]"));
        assert!(word.is_match(good));
        assert!(
            !word.is_match(&format!("{good}x")) && !word.is_match(&format!("x{good}")),
            "{good}"
        );
    }
}

#[test]
fn a_pod_that_shares_its_nodes_processes_is_refused() {
    let rule = expression("diagbot-ephemeral-containers", "hostPID");
    assert_eq!(rule, "!has(object.spec.hostPID) || !object.spec.hostPID");
}

#[test]
fn what_the_kubelet_says_of_a_sidecar_counts_too() {
    for (words, id) in [("root, or a way to it", "uid"), ("the group 0", "gid")] {
        let rule = expression("diagbot-ephemeral-containers", words);
        for statuses in ["containerStatuses", "initContainerStatuses"] {
            let (_, seen) = rule
                .split_once(&format!("object.status.{statuses}.exists("))
                .expect("the status is looked at");
            assert!(seen.contains(&format!("s.user.linux.{id} > 0")), "{rule}");
        }
    }
}
