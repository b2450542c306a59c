//! Kubernetes: clients, targets, their resolution, the leader's lease. Knows no runs and no Slack.

pub mod census;
mod client;
pub mod condition;
pub mod lease;
pub mod resolve;
pub mod symptoms;
pub mod target;

pub use client::{CallError, Cluster, ClusterConfig, ClusterError, ClusterName, Clusters, deadline};
