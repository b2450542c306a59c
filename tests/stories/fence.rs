//! `diagbot check` proves the fence: what is missing, what was rendered from another catalog, and what the API server lets
//! through although the objects are there.

use std::{fs, path::Path, process::Stdio, time::Duration};

use diagbot_sandbox::{
    installation::Plan,
    kubernetes::{Fault, FaultKind},
};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    product::{LEDGER, Product},
    tools::{AGENT, tool},
};

const CONTAINERS: &str = "fence diagbot-ephemeral-containers";
const STREAMS: &str = "fence diagbot-streams";
const RECORDS: &str = "fence diagbot-records";
const IN_FORCE: &str = "fence in force";

/// A table of `diagbot check`, and whether it says that the bot can work.
struct Table {
    text: String,
    works: bool,
}

impl Table {
    /// The row of that name: its mark, and its words.
    fn row(&self, name: &str) -> (&str, &str) {
        let title = format!("sandbox: {name} ");
        let mut rows = self.text.lines().filter(|line| line.contains(&title));
        let row = rows.next().unwrap_or_else(|| panic!("{name} in {}", self.text));
        assert_eq!(rows.next(), None, "{name} is told once");
        let (mark, words) = row.split_once(&title).unwrap();
        (mark.trim(), words.trim())
    }

    fn says(&self, name: &str, mark: &str, words: &str) {
        let (found, told) = self.row(name);
        assert!(found == mark && told.contains(words), "{mark} {words:?}: {}", self.text);
    }
}

async fn bot(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sandbox-under-test"))
        .arg("bot")
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_mins(1), output).await;
    let output = output.expect("it ends").unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.success(), text)
}

async fn check(product: &Product, more: &[&str]) -> Table {
    check_with(&product.installation.bot_config(0), more).await
}

async fn check_with(config: &Path, more: &[&str]) -> Table {
    let arguments = ["check", "--config", config.to_str().unwrap()];
    let (works, text) = bot(&[&arguments[..], more].concat()).await;
    Table { text, works }
}

/// Renders the fence from the bot's own catalog, with one more diagnostic if one is given.
async fn render(product: &Product, further: Option<(String, String)>) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let mut commands = product.installation.bot_config(0).with_file_name("commands");
    if let Some((name, text)) = further {
        let copied = folder.path().join("commands");
        let copy = Command::new("cp").arg("-r").args([&commands, &copied]).status().await;
        assert!(copy.unwrap().success());
        fs::write(copied.join(name), text).unwrap();
        commands = copied;
    }
    let catalog = commands.to_str().unwrap();
    let (rendered, text) = bot(&["policy", "render", "--catalog", catalog, "--agent-image", AGENT]).await;
    assert!(rendered, "{text}");
    serde_saphyr::from_multiple(&text).unwrap()
}

/// `kubectl apply --server-side`, as the cluster's administrator.
async fn apply(product: &Product, objects: &[Value]) {
    for object in objects {
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", object["kind"].as_str().unwrap());
        let resource = ApiResource::from_gvk(&kind);
        let api: Api<DynamicObject> = Api::all_with(product.installation.runs().into_client(), &resource);
        let name = object["metadata"]["name"].as_str().unwrap();
        let params = PatchParams::apply("story").force();
        api.patch(name, &params, &Patch::Apply(object)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_a_missing_an_older_and_a_loose_fence() {
    let product = Product::start().await;
    let missing = check(&product, &[]).await;
    for policy in [CONTAINERS, STREAMS, RECORDS] {
        let advice = format!("missing: `diagbot policy render --agent-image {AGENT} | kubectl apply --server-side");
        missing.says(policy, "FAULT", &advice);
    }
    missing.says(
        IN_FORCE,
        "FAULT",
        "the API server is not fencing `system:serviceaccount:diagbot:diagbot`",
    );
    assert!(
        !missing.works && missing.text.contains("4 fault(s)"),
        "{}",
        missing.text
    );

    // Of a catalog that has been changed since.
    let older = render(&product, Some(tool("former", &["true"], "20s", "1MiB"))).await;
    apply(&product, &older).await;
    let older = check(&product, &[]).await;
    older.says(
        CONTAINERS,
        "FAULT",
        "was rendered from another catalog, or changed (validations): `diagbot",
    );
    older.says(
        STREAMS,
        "ok",
        "as this catalog renders it, for system:serviceaccount:diagbot:diagbot",
    );
    older.says(RECORDS, "ok", "as this catalog renders it");
    older.says(IN_FORCE, "ok", "was refused beside shop/");
    assert!(!older.works, "{}", older.text);

    let rendered = render(&product, None).await;
    apply(&product, &rendered).await;
    let fenced = check(&product, &[]).await;
    for policy in [CONTAINERS, STREAMS, RECORDS] {
        fenced.says(policy, "ok", "as this catalog renders it");
    }
    fenced.says(IN_FORCE, "ok", "was refused beside shop/");
    assert!(
        fenced.works && fenced.text.contains("diagbot can work."),
        "{}",
        fenced.text
    );
    // Whatever was tried was a dry run.
    assert_eq!(product.ephemeral(LEDGER).await, Vec::<String>::new());
    let told = product.runs(&format!("process {LEDGER}")).await;
    assert!(told.root.text.contains("process"), "{}", told.root.text);
    assert_eq!(
        product.ephemeral(LEDGER).await.len(),
        1,
        "what the catalog holds passes the fence"
    );

    // The objects are there, but nothing is refused.
    let mut loose = rendered;
    loose[1]["spec"]["validationActions"] = json!(["Audit"]);
    apply(&product, &loose[1..2]).await;
    let loose = check(&product, &[]).await;
    loose.says(CONTAINERS, "FAULT", "changed (validationActions)");
    loose.says(IN_FORCE, "FAULT", "the API server is not fencing");

    // With an administrator's kubeconfig there is nothing to see, and nobody is told to fence it in.
    let config = fs::read_to_string(product.installation.bot_config(0)).unwrap();
    let admins = product.installation.bot_config(0).with_file_name("admins.yaml");
    fs::write(&admins, config.replace("bot.kubeconfig", "admin.kubeconfig")).unwrap();
    let admins = check_with(&admins, &[]).await;
    admins.says(
        STREAMS,
        "FAULT",
        "does not hold `kubernetes-admin`, but system:serviceaccount:diagbot:diagbot; this account",
    );
    assert!(!admins.works && !admins.text.contains("--user"), "{}", admins.text);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_what_of_the_fence_it_can_not_see() {
    let product = Product::with(Plan::default()).await;
    apply(&product, &render(&product, None).await).await;

    // Another's refusal proves nothing, on any of the pods.
    let fault = Fault::of(FaultKind::PodSecurityDenies).on("patch", "pods/ephemeralcontainers");
    product.installation.kubernetes().arm(fault.times(u32::MAX));
    let hidden = check(&product, &[]).await;
    hidden.says(IN_FORCE, "less", "not tried: ");
    hidden.says(IN_FORCE, "less", "PodSecurity");
    product.installation.kubernetes().disarm();

    let empty = check(&product, &["--fence-namespace", "default"]).await;
    empty.says(
        IN_FORCE,
        "less",
        "not tried: no running pod in a namespace labelled diagbot.dev/enabled=true",
    );
    assert!(empty.works, "{}", empty.text);

    let roles: Api<ClusterRole> = Api::all(product.installation.runs().into_client());
    let mut rules = roles.get("diagbot-cluster").await.unwrap().rules.unwrap();
    rules.retain(|rule| rule.api_groups != Some(vec!["admissionregistration.k8s.io".to_owned()]));
    let without = Patch::Merge(json!({ "rules": rules }));
    roles
        .patch("diagbot-cluster", &PatchParams::default(), &without)
        .await
        .unwrap();
    let blind = check(&product, &[]).await;
    for policy in [CONTAINERS, STREAMS, RECORDS] {
        blind.says(
            policy,
            "FAULT",
            "not allowed to read it (get, by name): apply the roles in deploy/base",
        );
    }
    blind.says(IN_FORCE, "ok", "was refused beside shop/");
    assert!(!blind.works, "{}", blind.text);
    product.stop().await;
}
