//! A local Slack: Socket Mode, the Web API methods that a bot calls, `response_url`s, people, and a page to look at.
//!
//! It is a simulator with state and fault knobs, used by the demo and by tests alike. It owns the workspace (users,
//! channels, messages, views, open sockets) in memory, and refuses what Slack refuses, with Slack's own error names. It never
//! keeps a secret: its tokens are configuration, and it listens on loopback only.
//!
//! # Design notes
//! - One TCP port serves everything: `/api/*` (Web API), `/link` (Socket Mode), `/response/*` (`response_url`), `/upload/*`
//!   (files), `/people/*` (what people do, for tests and the page) and the page at `/`. A browser on another origin is refused.
//! - Where Slack's documentation and reports disagree, the stricter reading is taken: a bot that passes here has slack to spare.
//! - Ids start with the moment the server started, so that a cluster which outlives this Slack never sees one twice.
//! - Slack's own numbers stand beside the constants that hold them; what is a guess says so.

mod alone;
mod api;
mod args;
mod block_kit;
mod calls;
mod config;
mod delivery;
mod directory;
mod faults;
mod limits;
mod link;
mod message;
mod payloads;
mod people;
mod plain;
mod response_url;
mod server;
#[cfg(test)]
mod tests;
mod workspace;

pub use alone::serve_alone;
pub use config::{RedeliveredEnvelope, Redelivery, SlackConfig};
pub use faults::{Fault, FaultKind};
pub use server::SlackServer;
