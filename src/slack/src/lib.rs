//! The Slack front: what people type and click becomes requests, and what becomes of runs is told to people.
//!
//! Owns everything that Slack is: the socket, the Web API, the grammar, the messages. Talks to
//! [`diagbot_runs`] only, never to a cluster or the store. On every replica [`handlers`] takes requests in; on the leader
//! [`thread`] tells people.
//!
//! ```text
//! socket  -> inbound -> grammar -> front  -> runs::service        (every replica)
//! runs::service -> thread -> views -> api                         (the leader)
//! ```

pub mod api;
mod button;
pub mod config;
pub mod context;
mod dial;
pub mod directory;
mod form;
pub mod grammar;
pub mod handlers;
pub mod inbound;
pub mod scopes;
pub mod socket;
pub mod thread;
pub mod views;

/// The names of all that people are told by.
#[cfg(feature = "failpoints")]
pub const ACTIONS: &[&[&str]] = &[thread::ACTIONS];
