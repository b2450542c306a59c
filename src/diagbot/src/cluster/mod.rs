//! Kubernetes: clients, targets, their resolution, the leader's lease. Knows no runs and no Slack.
