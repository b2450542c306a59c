//! Stories on a real cluster: everything that only a kubelet can answer.
//!
//! They need `KUBECONFIG` (an administrator of a one-node cluster whose pods reach the node's address), `kubectl` on `PATH`,
//! `DIAGBOT_E2E_AGENT_IMAGE` (the agent by digest, on the node), `K8S_HOME` and `DIAGBOT_E2E_UP` (the cluster's folder and the
//! script that starts what of it does not run) and the images `localhost/jdk:17`, `localhost/ledger:1` and
//! `localhost/busybox:1` there; `.ci/e2e` prepares all that. Each story has a home and a target namespace, a local Slack, a
//! store and a bot of its own; the bot has exactly the rights of `deploy/base`. A failed story prints its thread and the
//! end of the bot's log; `DIAGBOT_E2E_KEEP=1` keeps its namespaces.

#![allow(
    clippy::unwrap_used,
    reason = "a story that meets something unexpected fails where it does"
)]
#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a story reports what it measured"
)]

mod captures;
mod crashes;
mod deployed;
mod fence;
mod hostile;
mod installation;
mod jvm;
mod kubectl;
mod link;
mod many;
mod namespaces;
mod outcome;
mod permission;
mod pods;
mod sick;
mod store_paths;
mod terminal;
mod workload;
mod writes;
