//! Every message that people see, as a named constructor: blocks and, for when Slack refuses the blocks, plain text.
//!
//! Owns all wording, escaping and Slack's limits. Never decides what is told when, and never makes a link: links are handed
//! in when a message is sent.

pub mod answers;
mod approval;
mod artifact;
mod build;
mod comparison;
pub mod escape;
pub mod form;
mod offer;
mod remark;
mod run;
pub mod schedule;
mod table;
mod words;

#[cfg(test)]
pub(crate) mod tests;

pub use self::{
    artifact::{bundle, links},
    build::{Builder, Message},
    remark::{invitation, repeated},
    run::{RunView, Successor},
    words::Links,
};
