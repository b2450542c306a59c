//! A child process of the installation: started, watched until it answers, signalled, stopped. Knows nothing of what it is for.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use http::StatusCode;
use rustix::process::Signal;
use tokio::process::{Child, Command};

use super::{Plan, START_DEADLINE};
use crate::{people, wait};

/// Longest orderly end of a child before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(25);

/// A child process and where its health is.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) child: Child,
    pub(super) address: SocketAddr,
    pub(super) config: PathBuf,
}

impl Part {
    pub(super) fn start(
        program: &Path,
        name: &str,
        arguments: &[&str],
        config: &Path,
        address: SocketAddr,
        plan: &Plan,
    ) -> anyhow::Result<Self> {
        let child = Command::new(program)
            .arg("bot")
            .args(arguments)
            .arg(config)
            .args(["--log-format", "text"])
            .env("DIAGBOT_FAILPOINT_FILE", failpoint_file(config))
            .args(["--log", plan.log])
            .stdin(Stdio::null())
            .stdout(log_file(config, name, "record")?)
            .stderr(if plan.verbose {
                Stdio::inherit()
            } else {
                log_file(config, name, "log")?.into()
            })
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start the {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            address,
            config: config.to_owned(),
        })
    }

    /// Waits until its address answers as it should; fails when it has ended.
    pub(super) async fn wait_until(&mut self, url: &str, good: impl Fn(StatusCode) -> bool) -> anyhow::Result<()> {
        let Self { name, child, .. } = self;
        wait::until(START_DEADLINE, &format!("the {name} answers"), || {
            let ended = child.try_wait();
            let good = &good;
            async move {
                if let Some(status) = ended.context("look at a part")? {
                    bail!("it ended: {status}; --verbose shows why");
                }
                let answer = people::fetch(url).await.ok();
                Ok(answer.filter(|(status, _)| good(*status)).map(|_| ()))
            }
        })
        .await
    }

    pub(super) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        match pid.and_then(rustix::process::Pid::from_raw) {
            Some(pid) => rustix::process::kill_process(pid, signal).context("signal a part"),
            None => Ok(()),
        }
    }

    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        if tokio::time::timeout(STOP_DEADLINE, self.child.wait()).await.is_err() {
            self.child.kill().await.context("kill a part")?;
        }
        Ok(())
    }
}

/// Where a part's output goes; one that is started again goes on in the same file.
fn log_file(config: &Path, name: &str, kind: &str) -> anyhow::Result<fs::File> {
    let path = config.with_file_name(format!("{}.{kind}", name.replace(' ', "-")));
    let file = fs::OpenOptions::new().create(true).append(true).open(&path);
    file.with_context(|| format!("open {}", path.display()))
}

/// The file that arms a failpoint of the part with this configuration.
pub(super) fn failpoint_file(config: &Path) -> PathBuf {
    config.with_extension("failpoint")
}
