//! `diagbot run`: people with a kubeconfig and a terminal, without Slack and without the bot.

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use diagbot_sandbox::wait;
use kube::api::DeleteParams;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{
    product::{BILLING, LEDGER, Product, files, open},
    tools,
};

/// Longest wait for a program to end.
const LONGEST: Duration = Duration::from_secs(45);
/// May look at pods, and nothing else.
const VIEWER: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: viewer, namespace: shop }
rules: [{ apiGroups: [''], resources: [pods], verbs: [get, list, watch] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: viewer, namespace: shop }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: viewer }
subjects: [{ kind: User, apiGroup: rbac.authorization.k8s.io, name: viewer }]
";

/// Somebody at a terminal, with a folder of their own.
struct Terminal<'a> {
    product: &'a Product,
    folder: TempDir,
    kubeconfig: PathBuf,
}

/// How a program ended.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl<'a> Terminal<'a> {
    /// A terminal of the cluster's administrator.
    fn of(product: &'a Product) -> Self {
        Self {
            product,
            folder: tempfile::tempdir().unwrap(),
            kubeconfig: product.installation.addresses().kubeconfig,
        }
    }

    /// The same with another user's kubeconfig.
    fn as_user(product: &'a Product, user: &str) -> Self {
        let terminal = Self::of(product);
        let kubeconfig = product.installation.file(&format!("{user}.kubeconfig"));
        fs::write(&kubeconfig, product.installation.kubernetes().kubeconfig(user)).unwrap();
        Self { kubeconfig, ..terminal }
    }

    fn starts(&self, arguments: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_sandbox-under-test"))
            .args(["bot", "run", "--config"])
            .arg(self.product.installation.bot_config(0))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    async fn types(&self, arguments: &[&str]) -> Ended {
        Self::ended(self.starts(arguments)).await
    }

    async fn ended(child: Child) -> Ended {
        let output = tokio::time::timeout(LONGEST, child.wait_with_output())
            .await
            .unwrap()
            .unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Everything in the folder, hidden files too.
    fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = files(self.folder.path())
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_captured_from_a_terminal_is_a_file_or_a_link_and_needs_no_bot() {
    let mut product = Product::start().await;
    product.installation.stop_bot(0).await.unwrap();
    let terminal = Terminal::of(&product);
    let shown = terminal.types(&["process", "ledger", "-n", "shop", "--dry-run"]).await;
    assert_eq!(shown.code, 0, "{}", shown.err);
    for words in ["ephemeralContainer:", "--step=process;", "targetContainerName: ledger"] {
        assert!(shown.out.contains(words), "{words} in {}", shown.out);
    }
    assert!(product.ephemeral(LEDGER).await.is_empty() && terminal.files().is_empty());

    let first = terminal.types(&["process", "shop/ledger"]).await;
    assert_eq!(
        (first.code, first.out.as_str()),
        (0, "./process.txt\n"),
        "{}",
        first.err
    );
    let report = fs::read(terminal.folder.path().join("process.txt")).unwrap();
    assert!(
        first.err.contains(&format!("SHA-256 {}", sha256(&report))),
        "{}",
        first.err
    );
    let again = terminal
        .types(&["process", LEDGER, "-n", "shop", "--output", "json"])
        .await;
    let told: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!((again.code, &told["phase"]), (0, &"Succeeded".into()), "{}", again.err);
    let artifact = &told["artifacts"][0];
    assert_eq!(artifact["file"], "./process-2.txt", "{told}");
    let second = fs::read(terminal.folder.path().join("process-2.txt")).unwrap();
    assert_eq!(artifact["sha256"], sha256(&second), "{told}");
    let first_again = fs::read(terminal.folder.path().join("process.txt")).unwrap();
    assert_eq!(report, first_again, "nothing is written over");
    let crashed = terminal.types(&["pod-report", BILLING, "-n", "shop"]).await;
    assert_eq!(
        (crashed.code, crashed.out.as_str()),
        (0, "./pod-report.txt\n"),
        "{}",
        crashed.err
    );
    assert_eq!(terminal.files(), ["pod-report.txt", "process-2.txt", "process.txt"]);

    let linked = terminal
        .types(&["process", "shop/ledger", "--link", "--output", "json"])
        .await;
    let told: Value = serde_json::from_str(&linked.out).unwrap();
    let artifact = &told["artifacts"][0];
    let bytes = open(artifact["link"]["url"].as_str().unwrap()).await;
    assert_eq!(artifact["sha256"], sha256(&bytes), "{told}");
    assert_eq!(terminal.files().len(), 3, "a link leaves no file");
    assert_eq!(product.recorded().await, 0, "no run is recorded in the cluster");
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_asked_from_a_terminal_is_one_message_with_a_remedy_and_begins_nothing() {
    let mut plan = diagbot_sandbox::installation::Plan::default();
    plan.kubernetes.manifests.push(VIEWER.to_owned());
    let product = Product::with(plan).await;
    let admin = Terminal::of(&product);
    let nowhere = Terminal {
        kubeconfig: "/nonexistent/kubeconfig".into(),
        ..Terminal::of(&product)
    };
    let (viewer, nobody) = (
        Terminal::as_user(&product, "viewer"),
        Terminal::as_user(&product, "nobody"),
    );
    let cases: [(&Terminal<'_>, &[&str], i32, &str); 12] = [
        (&admin, &["proccess", "shop/ledger"], 2, "Did you mean `process`?"),
        (&admin, &["process", "shop/legder"], 2, "Did you mean `shop/ledger-"),
        (&admin, &["process", "shop/ledger", "-c", "web"], 2, "It has `ledger`."),
        (
            &admin,
            &["process", "shop/ledger", "depth=3"],
            2,
            "there is no parameter `depth`",
        ),
        (&admin, &["process", "shop/ledger", "deep"], 2, "write key=value"),
        (&admin, &["process", "../etc/passwd"], 2, "is not a valid target"),
        (&admin, &["process", "shop/billing"], 2, "`pod-report shop/billing"),
        (
            &admin,
            &["process", "shop/ledger", "--out", "missing"],
            2,
            "name a folder that you may write to",
        ),
        (
            &admin,
            &["process", "shop/ledger", "--out", "/proc"],
            2,
            "nothing can be written to the folder /proc",
        ),
        (&nowhere, &["process", "shop/ledger"], 2, "use your kubeconfig"),
        (
            &viewer,
            &["process", "shop/ledger"],
            3,
            "may not `patch pods/ephemeralcontainers`, `get pods/log`",
        ),
        (
            &nobody,
            &["process", "shop/ledger"],
            3,
            "may not `get pods`, `list pods` in namespace `shop`",
        ),
    ];
    for (terminal, arguments, code, words) in cases {
        if arguments.contains(&"shop/billing") {
            // It runs for moments; asked about is the time between.
            product.pod_waits(BILLING, "CrashLoopBackOff").await;
        }
        let ended = terminal.types(arguments).await;
        assert_eq!(
            (ended.code, ended.out.as_str()),
            (code, ""),
            "{arguments:?}: {}",
            ended.err
        );
        assert!(ended.err.contains(words), "{arguments:?}: {words} in {}", ended.err);
        assert_eq!(
            ended.err.lines().filter(|line| line.starts_with("diagbot: ")).count(),
            1,
            "{}",
            ended.err
        );
        assert!(terminal.files().is_empty(), "{arguments:?}");
    }
    let told = viewer.types(&["process", "shop/ledger", "--output", "json"]).await;
    let told: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(
        (&told["phase"], &told["reason"]["code"]),
        (&"Denied".into(), &"CallerForbidden".into())
    );
    assert!(product.ephemeral(LEDGER).await.is_empty());
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_stops_in_the_pod_and_a_pod_that_goes_is_told_and_neither_leaves_a_file() {
    let seconds = tools::seconds_of_our_own("7341");
    let line = format!("/bin/sleep {seconds}");
    let product = Product::with(tools::with_tool("sleeper", &["/bin/sleep", &seconds], "120s", "1MiB")).await;
    let terminal = Terminal::of(&product);
    let child = terminal.starts(&["sleeper", "shop/ledger"]);
    tools::until_processes(&line, 1, LONGEST).await;
    let pid = child.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .await
            .unwrap()
            .success()
    );
    let ended = Terminal::ended(child).await;
    assert_eq!((ended.code, ended.out.as_str()), (130, ""), "{}", ended.err);
    assert!(ended.err.contains("stopped in the pod, and proven so"), "{}", ended.err);
    tools::until_processes(&line, 0, LONGEST).await;
    assert!(terminal.files().is_empty());

    let child = terminal.starts(&["sleeper", "shop/ledger"]);
    tools::until_processes(&line, 1, LONGEST).await;
    product.pods().delete(LEDGER, &DeleteParams::default()).await.unwrap();
    let ended = Terminal::ended(child).await;
    assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{}", ended.err);
    assert!(ended.err.contains("The pod is "), "{}", ended.err);
    assert!(terminal.files().is_empty());
    wait::until(LONGEST, "the tool has ended with its pod", || async {
        Ok(tools::processes(&line).is_empty().then_some(()))
    })
    .await
    .unwrap();
    product.stop().await;
}
