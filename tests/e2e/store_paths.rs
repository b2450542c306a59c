//! The ways of the bytes: where a pod can't reach the store, they come through the bot.

use anyhow::{Context as _, ensure};
use diagbot_api::run::Phase;

use crate::{
    installation::{Variation, story},
    kubectl::run,
    workload::Workload,
};

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_pod_without_a_way_to_the_store_is_relayed() -> anyhow::Result<()> {
    story("relay", Variation::default(), async |installation| {
        installation
            .start_pod(&Workload::checkout("checkout", 128).user(1000))
            .await?;
        installation.wait_for_log("checkout", "checkout ready").await?;
        // The node's address is where the store listens. The kubelet's own way into the container is no network.
        let pid = installation.container_pid("checkout", "app").await?.to_string();
        let store = format!("{}/32", installation.store.ip());
        run(
            "nsenter",
            &["-t", &pid, "-n", "ip", "route", "add", "unreachable", &store],
            None,
        )
        .await
        .context("close the pod's way to the store")?;
        installation.start_bot().await?;
        let small = installation.ask("jstack", "checkout").await?;
        small.must_be(Phase::Succeeded)?;
        ensure!(
            small.download().await?.text().contains("checkout-worker-1"),
            "it is not the shop's dump"
        );
        let large = installation.ask("heap-dump", "checkout").await?;
        large.must_be(Phase::Succeeded)?;
        let dump = large.download_privately(&installation.people).await?;
        eprintln!("  {} MiB were relayed", dump.size_bytes >> 20);
        ensure!(
            dump.size_bytes > 100 << 20,
            "{} bytes are no dump of 128 MiB",
            dump.size_bytes
        );
        Ok(())
    })
    .await
}
