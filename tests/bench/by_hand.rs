//! The same capture as an administrator would take it: a debug container, its log, a copy to the store, a link.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use diagbot_artifacts::Store;
use diagbot_base::clock::Clock;
use diagbot_sandbox::wait::until;
use serde_json::{Value, json};

use crate::{
    installation::Installation,
    kubectl::{kubectl, run},
};

/// The thread dump that `/diag jstack` takes, by a JDK's own tool. JDK 17 looks for the JVM's socket in its own `/tmp`, so
/// somebody who knows that links it there; the JVM is asked to listen where nobody has asked it before.
const THREAD_DUMP: &str = "cd /proc/1/root/tmp && \
    if [ ! -S .java_pid1 ]; then touch .attach_pid1; kill -QUIT 1; until [ -S .java_pid1 ]; do sleep 0.1; done; fi && \
    cd / && ln -s /proc/1/root/tmp/.java_pid1 /tmp/.java_pid1 && exec jstack -l 1";
/// The last words of a whole thread dump.
const LAST_WORDS: &str = "JNI global refs";

/// The store as somebody with its credentials uses it.
pub(crate) async fn store(installation: &Installation) -> anyhow::Result<Store> {
    let config =
        std::fs::read_to_string(installation.folder.path().join("bot.yaml")).context("read the bot's settings")?;
    let config: Value = serde_json::from_str(&config).context("the bot's settings are JSON")?;
    let config = serde_json::from_value(config["store"].clone()).context("the bot has a store")?;
    Store::connect(&config, Clock::System)
        .await
        .context("connect to the store")
}

/// Takes the capture and returns the time from the first key to the link.
pub(crate) async fn take(installation: &Installation, store: &Store, pod: &str) -> anyhow::Result<Duration> {
    let container = format!("hand-{:06x}", rand::random::<u32>() & 0xff_ffff);
    let file = installation.folder.path().join(&container);
    let profile = installation.folder.path().join("profile.json");
    std::fs::write(
        &profile,
        json!({ "securityContext": { "runAsUser": 1000, "runAsGroup": 1000 } }).to_string(),
    )
    .context("write the debug profile")?;
    let (file, profile) = (file.to_string_lossy(), profile.to_string_lossy());
    let started = Instant::now();
    let custom = format!("--custom={profile}");
    let name = format!("--container={container}");
    let debug = [
        "-n",
        &installation.target,
        "debug",
        pod,
        "--image=localhost/jdk:17",
        "--image-pull-policy=IfNotPresent",
        "--target=app",
        "--profile=general",
        &custom,
        &name,
        "--",
        "/bin/sh",
        "-c",
        THREAD_DUMP,
    ];
    kubectl(&debug, None).await?;
    // A log can't be had before its container has begun; followed, it ends when the container does, so that it is whole.
    let text = until(Duration::from_secs(30), "the debug container has a log", async || {
        let log = ["-n", &installation.target, "logs", "-f", pod, "-c", &container];
        Ok(kubectl(&log, None).await.ok().filter(|text| !text.is_empty()))
    })
    .await?;
    ensure!(text.contains(LAST_WORDS), "by hand no thread dump was taken: {text}");
    std::fs::write(&*file, &text).context("keep the log")?;
    upload(store, &container, &file).await?;
    let key = store.key(&["by-hand", &container]);
    store
        .link(&key, None, "threads.txt", false)
        .await
        .context("sign a link")?;
    Ok(started.elapsed())
}

/// Copies a file to the store with curl; returns how long curl took.
pub(crate) async fn upload(store: &Store, name: &str, file: &str) -> anyhow::Result<Duration> {
    let key = store.key(&["by-hand", name]);
    let url = store.presign_put(&key, u64::MAX).await.context("sign an upload")?.url;
    let started = Instant::now();
    run(
        "curl",
        &["-sS", "--fail", "-H", "Expect:", "-T", file, url.expose()],
        None,
    )
    .await?;
    Ok(started.elapsed())
}
