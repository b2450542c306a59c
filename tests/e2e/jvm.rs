//! JVMs in every place where people put them.

use std::time::{Duration, Instant};

use anyhow::ensure;
use diagbot_api::run::Phase;
use serde_json::json;

use crate::{
    installation::{Installation, Variation, story},
    outcome::Outcome,
    workload::Workload,
};

/// Longest wait for the dump of 1 GiB, which an unoptimised store and bot on two busy cores take their time for.
const HEAP_DEADLINE: Duration = Duration::from_mins(4);

/// Written before a capture: what the capture leaves is newer.
const MARKER: &str = "/tmp/before-the-dump";
/// Written after it: what a search for what is newer must find.
const CONTROL: &str = "/tmp/after-the-dump";

/// A thread dump of the shop, whole: its threads by name, its deadlock, the end of the dump.
async fn thread_dump(installation: &Installation, pod: &str) -> anyhow::Result<Outcome> {
    let outcome = installation.ask("jstack", pod).await?;
    outcome.must_be(Phase::Succeeded)?;
    let dump = outcome.download().await?.text();
    for part in [
        "Full thread dump",
        "\"checkout-worker-1\"",
        "Found one Java-level deadlock",
        "JNI global refs",
    ] {
        ensure!(dump.contains(part), "the dump lacks `{part}`:\n{dump}");
    }
    Ok(outcome)
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_jvm_of_an_ordinary_user_gives_threads_and_histogram() -> anyhow::Result<()> {
    story("jvm-user", Variation::default(), async |installation| {
        installation
            .start_all(&Workload::checkout("checkout", 32).user(1000))
            .await?;
        thread_dump(installation, "checkout").await?;
        // The second addition to one pod is what a kubelet is slow at.
        thread_dump(installation, "checkout").await?;
        let outcome = installation.ask("heap-histogram", "checkout").await?;
        let histogram = outcome.download().await?.text();
        ensure!(
            histogram.contains("Checkout$Basket"),
            "the histogram lacks the shop's classes:\n{histogram}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_jvm_of_root_gives_a_thread_dump() -> anyhow::Result<()> {
    story("jvm-root", Variation::default(), async |installation| {
        installation
            .start_all(&Workload::checkout("checkout", 16).user(0))
            .await?;
        thread_dump(installation, "checkout").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_jvm_behind_a_shell_is_found() -> anyhow::Result<()> {
    story("jvm-shell", Variation::default(), async |installation| {
        let script = "java -Xmx128m -cp /app Checkout --heap-mib 16 --deadlock; echo ended";
        let pod = Workload::new("checkout", "localhost/jdk:17", &["/bin/sh", "-c", script]).user(1000);
        installation.start_all(&pod).await?;
        thread_dump(installation, "checkout").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_jvm_in_a_pod_that_shares_its_processes_is_found() -> anyhow::Result<()> {
    story("jvm-shared", Variation::default(), async |installation| {
        let neighbour = json!({ "name": "neighbour", "image": "localhost/busybox:1", "imagePullPolicy": "IfNotPresent",
            "command": ["/bin/sleep", "3600"], "securityContext": { "runAsUser": 1000, "runAsGroup": 1000 } });
        let shared = json!({ "shareProcessNamespace": true });
        let pod = Workload::checkout("checkout", 16)
            .user(1000)
            .spec(&shared)
            .container(neighbour);
        installation.start_all(&pod).await?;
        let outcome = installation
            .ask_line(&format!("jstack checkout -c app -n {}", installation.target))
            .await?;
        outcome.must_be(Phase::Succeeded)?;
        ensure!(
            outcome.download().await?.text().contains("\"checkout-worker-1\""),
            "not the shop's threads"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn of_two_jvms_that_share_their_processes_each_gives_its_own_threads() -> anyhow::Result<()> {
    story("jvm-two", Variation::default(), async |installation| {
        let second = json!({ "name": "second", "image": "localhost/jdk:17", "imagePullPolicy": "IfNotPresent",
            "command": ["java", "-Xmx128m", "-cp", "/app", "Checkout", "--heap-mib", "16"],
            "securityContext": { "runAsUser": 1000, "runAsGroup": 1000 } });
        let shared = json!({ "shareProcessNamespace": true });
        let pod = Workload::checkout("checkout", 16)
            .user(1000)
            .spec(&shared)
            .container(second);
        installation.start_pod(&pod).await?;
        installation.start_bot().await?;
        for (container, in_deadlock) in [("second", false), ("app", true)] {
            let line = format!("jstack checkout -c {container} -n {}", installation.target);
            let outcome = installation.ask_line(&line).await?;
            ensure!(
                outcome.phase() == Phase::Succeeded,
                "the run of {container} ended as {:?}: {}",
                outcome.phase(),
                outcome.text()
            );
            let dump = outcome.download().await?.text();
            ensure!(
                dump.contains("\"checkout-worker-1\"") && dump.contains("Java-level deadlock") == in_deadlock,
                "not the threads of {container}:\n{dump}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_read_only_jvm_gives_what_can_be_had_and_says_what_can_not() -> anyhow::Result<()> {
    story("jvm-readonly", Variation::default(), async |installation| {
        let read_only = json!({ "readOnlyRootFilesystem": true });
        installation
            .start_pod(&Workload::checkout("sealed", 16).user(1000).security(&read_only))
            .await?;
        let with_folder = Workload::checkout("checkout", 16)
            .user(1000)
            .security(&read_only)
            .writable("/tmp");
        installation.start_all(&with_folder).await?;
        thread_dump(installation, "checkout").await?;

        let refused = installation.ask("jstack", "sealed").await?;
        refused.must_be(Phase::Failed)?;
        ensure!(
            refused.reason() == "ReadOnlyFileSystem",
            "the reason is {}",
            refused.reason()
        );
        let text = refused.text();
        ensure!(
            text.contains("emptyDir") && text.contains("process"),
            "people are not told what to do:\n{text}"
        );

        let given = installation.ask("process", "sealed").await?;
        ensure!(
            given.download().await?.text().contains("java"),
            "the report is not about the JVM"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs cluster"]
async fn a_heap_dump_of_a_gigabyte_arrives_whole_and_leaves_nothing_behind() -> anyhow::Result<()> {
    story("heap", Variation::default(), async |installation| {
        installation
            .start_pod(&Workload::checkout("checkout", 1024).user(1000))
            .await?;
        installation.wait_for_log("checkout", "checkout ready").await?;
        installation.start_bot().await?;
        // Whatever is written from here on is newer.
        installation.exec("checkout", &["touch", MARKER]).await?;
        let started = Instant::now();
        let run = installation
            .command(&format!("/diag heap-dump checkout -n {}", installation.target))
            .await?;
        let outcome = installation.outcome(&run, HEAP_DEADLINE, started).await?;
        eprintln!("  heap-dump: {:.1} s; {}", outcome.took.as_secs_f64(), outcome.trace());
        outcome.must_be(Phase::Succeeded)?;
        let dump = outcome.download_privately(&installation.people).await?;
        eprintln!("  {} MiB arrived", dump.size_bytes >> 20);
        ensure!(
            dump.size_bytes > 900 << 20,
            "{} bytes are no dump of 1 GiB of random data",
            dump.size_bytes
        );
        let gzip = dump.head.starts_with(&[0x1f, 0x8b]);
        ensure!(gzip || dump.head.starts_with(b"JAVA PROFILE"), "it is no heap dump");
        // The search finds what there is.
        installation.exec("checkout", &["touch", CONTROL]).await?;
        let find = ["find", "/tmp", "/home", "-newer", MARKER, "-type", "f"];
        let left = installation.exec("checkout", &find).await?;
        ensure!(left.contains(CONTROL), "the search finds nothing: {left}");
        let left: Vec<&str> = left
            .lines()
            .filter(|file| *file != CONTROL && (file.contains("hprof") || file.contains("diag")))
            .collect();
        ensure!(left.is_empty(), "files were left in the target: {left:?}");
        Ok(())
    })
    .await
}
