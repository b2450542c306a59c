//! Kubernetes: clients, targets, their resolution, the leader's lease. Knows no runs and no Slack.

pub mod census;
mod client;
pub mod lease;
pub mod resolve;
pub mod symptoms;

pub use client::{CallError, Cluster, ClusterConfig, ClusterError, Clusters, deadline};
