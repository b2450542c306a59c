//! A whole installation on loopback: a local Slack, a local Kubernetes with a node that runs real processes over sample
//! workloads, the store, and the bot itself, unchanged, talking to them over sockets.
//!
//! For demo and tests; never in a release image. One program plays every part: started as `bot …` it is the bot, as
//! `agent …` the agent in an ephemeral container, as `workload …` a sample application.

mod command;
pub mod installation;
pub mod kubernetes;
pub mod network_fault;
pub mod once;
pub mod pagerduty;
pub mod people;
mod seeded;
pub mod slack;
pub mod store;
pub mod triggers;
pub mod wait;

pub use command::run;
pub use seeded::SeededFaults;
