//! Kubernetes: clients, targets, their resolution, the leader's lease. Knows no runs and no Slack.

mod client;
pub mod lease;
pub mod pod_index;
pub mod pod_signals;
pub mod resolve;

pub use client::{CallError, Cluster, ClusterConfig, ClusterError, Clusters, deadline};
