//! The bot inside the cluster, from `deploy/overlays/one-node`: two replicas, the store beside them, everything as a service
//! account with the rights of `deploy/` and nothing more.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use diagbot_api::run::Phase;
use diagbot_sandbox::{slack::SlackServer, wait::until};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    fence,
    installation::{Installation, Variation, agent_image, repository, story},
    kubectl::{kubectl, printed, run},
    workload::Workload,
    writes,
};

/// Namespace of `deploy/`.
const HOME: &str = "diagbot";

#[tokio::test]
#[ignore = "needs cluster"]
async fn the_bot_runs_inside_the_cluster_from_the_one_node_overlay() -> anyhow::Result<()> {
    let variation = Variation {
        published_slack: true,
        ..Variation::default()
    };
    story("deployed", variation, async |installation| {
        let mut forwarding = JoinSet::new();
        let slack = publish(installation, &mut forwarding)?;
        let own = std::mem::replace(&mut installation.home, HOME.to_owned());
        let result = inside(installation, slack).await;
        if result.is_err() {
            for pod in ["deploy/diagbot", "deploy/diagbot-store"] {
                let log = kubectl(&["-n", HOME, "logs", pod, "--all-pods", "--tail=40"], None).await;
                eprintln!("--- {pod}\n{}", log.unwrap_or_else(|error| format!("{error:#}")));
            }
        }
        kubectl(
            &[
                "delete",
                "validatingadmissionpolicies,validatingadmissionpolicybindings",
                "-l",
                "app.kubernetes.io/name=diagbot",
            ],
            None,
        )
        .await?;
        // The namespace's name is fixed: the next run must find it free.
        kubectl(
            &["delete", "namespace", HOME, "--ignore-not-found", "--timeout=60s"],
            None,
        )
        .await?;
        forwarding.shutdown().await;
        installation.home = own;
        result
    })
    .await
}

async fn inside(installation: &mut Installation, slack: SocketAddr) -> anyhow::Result<()> {
    installation
        .start_pod(&Workload::checkout("checkout", 16).restricted())
        .await?;
    let deploy = copy(installation.folder.path(), slack).await?;
    kubectl(&["create", "namespace", HOME], None).await?;
    make_secrets(installation.folder.path()).await?;
    kubectl(&["apply", "--server-side", "--force-conflicts", "-k", &deploy], None).await?;
    for deployment in ["deploy/diagbot-store", "deploy/diagbot"] {
        kubectl(&["-n", HOME, "rollout", "status", deployment, "--timeout=90s"], None).await?;
    }
    let outcome = installation.ask("jstack", "checkout").await?;
    outcome.must_be(Phase::Succeeded)?;
    ensure!(
        outcome.download().await?.text().contains("Full thread dump"),
        "it is no thread dump"
    );
    let report = installation.ask("pod-report", "checkout").await?;
    report.must_be(Phase::Succeeded)?;

    fence::stands(installation, HOME).await?;
    let token = installation.folder.path().join("bots-own-token");
    std::fs::write(&token, installation.bot_kubeconfig().await?.to_string()).context("write the kubeconfig")?;
    let client = fence::client_of(&token.to_string_lossy()).await?;
    Box::pin(writes::admitted(installation, client)).await?;
    fence_is_checked().await?;

    // The leader goes; the other replica takes over and serves.
    let holder = kubectl(
        &[
            "-n",
            HOME,
            "get",
            "lease",
            "diagbot-leader",
            "-o",
            "jsonpath={.spec.holderIdentity}",
        ],
        None,
    )
    .await?;
    let pods = kubectl(
        &[
            "-n",
            HOME,
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/component=bot",
            "-o",
            "name",
        ],
        None,
    )
    .await?;
    let leader = pods
        .lines()
        .find(|pod| holder.starts_with(pod.trim_start_matches("pod/")))
        .context("the leader is one of the pods")?;
    let stolen = installation.folder.path().join("token-of-a-pod");
    let kubeconfig = installation.pod_kubeconfig(leader).await?;
    std::fs::write(&stolen, kubeconfig.to_string()).context("write the kubeconfig")?;
    let stolen = stolen.to_string_lossy();
    let known = who_is(&stolen).await?;
    ensure!(known.contains("system:serviceaccount:diagbot:diagbot"), "it is {known}");
    kubectl(&["-n", HOME, "delete", leader, "--grace-period=0", "--force"], None).await?;
    let outcome = installation.ask("process", "checkout").await?;
    outcome.must_be(Phase::Succeeded)?;

    // The pod's token went with it, whoever holds it. The API server remembers tokens for ten seconds.
    let told = until(Duration::from_mins(1), "the pod's token is worth nothing", async || {
        Ok(who_is(&stolen).await.err().map(|error| format!("{error:#}")))
    })
    .await?;
    ensure!(told.contains("Unauthorized"), "{told}");
    Ok(())
}

/// `diagbot check` in the bot's pod tells a fence that a larger catalog rendered, the bot's own, and one that refuses nothing.
async fn fence_is_checked() -> anyhow::Result<()> {
    let containers = "diagbot-ephemeral-containers";
    row(
        &check().await?,
        containers,
        "FAULT",
        "(validations): `diagbot policy render",
    )?;
    fence::raise(&repository().join("commands"), &agent_image()?).await?;
    let table = check_until("the fence is in force", "ok", "was refused beside").await?;
    for policy in [containers, "diagbot-streams", "diagbot-records"] {
        row(&table, policy, "ok", "as this catalog renders it")?;
    }
    let patch = ["patch", "validatingadmissionpolicybinding", containers, "--type=merge"];
    let audit = ["-p", r#"{"spec":{"validationActions":["Audit"]}}"#];
    kubectl(&[&patch[..], &audit].concat(), None).await?;
    let table = check_until("nothing is refused", "FAULT", "is not fencing").await?;
    row(&table, containers, "FAULT", "(validationActions)")?;
    fence::raise(&repository().join("commands"), &agent_image()?).await
}

/// The table of `diagbot check` in one of the bot's pods, whatever it finds.
async fn check() -> anyhow::Result<String> {
    let bot = ["/diagbot", "check", "--config", "/etc/diagbot/config.yaml"];
    let pod = ["-n", HOME, "exec", "deploy/diagbot", "--"];
    printed(&[&pod[..], &bot].concat()).await
}

/// The table whose row about what was tried is as wanted: policies take effect some time after they are written.
async fn check_until(what: &str, mark: &str, words: &str) -> anyhow::Result<String> {
    until(Duration::from_mins(1), what, async || {
        let table = check().await?;
        Ok(row(&table, "in force", mark, words).is_ok().then_some(table))
    })
    .await
}

/// The table has that row about the fence.
fn row(table: &str, name: &str, mark: &str, words: &str) -> anyhow::Result<()> {
    let title = format!(": fence {name} ");
    let found = table.lines().find(|line| line.contains(&title)).unwrap_or_default();
    ensure!(
        found.starts_with(mark) && found.contains(words),
        "{mark} {name} {words:?} is not in:\n{table}"
    );
    Ok(())
}

/// Who the API server takes the holder of a kubeconfig for.
async fn who_is(kubeconfig: &str) -> anyhow::Result<String> {
    kubectl(&["--kubeconfig", kubeconfig, "auth", "whoami"], None).await
}

/// `deploy/` and the catalog with this story's addresses and images; returns the overlay's folder.
async fn copy(folder: &Path, slack: SocketAddr) -> anyhow::Result<String> {
    for part in ["deploy", "commands"] {
        let from = repository().join(part);
        run("cp", &["-r", &from.to_string_lossy(), &folder.to_string_lossy()], None).await?;
    }
    let overlay = folder.join("deploy/overlays/one-node");
    let config = std::fs::read_to_string(overlay.join("config.yaml")).context("read the overlay's settings")?;
    let config = config
        .replace("10.88.0.1:8090", &slack.to_string())
        .replace("10.88.0.1", &slack.ip().to_string())
        .replace("localhost/diagbot-agent:1", &agent_image()?);
    std::fs::write(overlay.join("config.yaml"), config).context("write the overlay's settings")?;
    Ok(overlay.to_string_lossy().into_owned())
}

async fn make_secrets(folder: &Path) -> anyhow::Result<()> {
    let file = |name: &str| format!("--from-file={}", folder.join(name).display());
    let mut bot = vec!["-n", HOME, "create", "secret", "generic", "diagbot"]
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    bot.extend(
        [
            "nonce-key",
            "slack-bot-token",
            "slack-app-token",
            "store-access-key",
            "store-secret-key",
        ]
        .map(file),
    );
    kubectl(&bot.iter().map(String::as_str).collect::<Vec<_>>(), None).await?;
    let store = file("credentials.yaml");
    kubectl(
        &["-n", HOME, "create", "secret", "generic", "diagbot-store", &store],
        None,
    )
    .await?;
    Ok(())
}

/// Hands connections from the node's address, which pods reach, to the local Slack, which listens on loopback only.
fn publish(installation: &mut Installation, forwarding: &mut JoinSet<()>) -> anyhow::Result<SocketAddr> {
    let slack = loopback(&installation.slack)?;
    let door = installation.slack_door.take().context("the local Slack is published")?;
    door.set_nonblocking(true)
        .context("wait for connections without blocking")?;
    let door = TcpListener::from_std(door).context("wait for connections")?;
    let address = door.local_addr().context("a listener has an address")?;
    forwarding.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut from, _)) = door.accept().await {
            let slack = slack.clone();
            connections.spawn(async move {
                if let Ok(mut to) = TcpStream::connect(slack).await {
                    // A connection that breaks is the business of its two ends.
                    let _closed = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    });
    Ok(address)
}

fn loopback(slack: &SlackServer) -> anyhow::Result<String> {
    let url = slack.people_url();
    Ok(url
        .strip_prefix("http://")
        .context("the local Slack speaks HTTP")?
        .to_owned())
}
