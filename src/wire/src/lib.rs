//! What the bot and the agent say to each other, and nothing else.
//!
//! Owns: the agent's command line ([`args`]), the control lines on its standard input ([`control`]), the journal on its
//! standard output ([`journal`]), the result object in the store ([`result`]), the digests ([`digest`]),
//! the rules of redaction ([`redaction`]), and which characters of foreign text are hidden ([`text`]). Never does any I/O and knows neither Kubernetes nor Slack.
//!
//! # Design notes
//! Every format carries [`VERSION`]. A bot must work with an agent one version older, so fields are only added, with a
//! default, and unknown fields are ignored; enums that travel get an `Unknown` arm on the reading side.

pub mod args;
pub mod control;
pub mod digest;
pub mod journal;
pub mod redaction;
pub mod result;
pub mod text;
pub mod upload;

/// Version of the formats in this crate; the agent tells it in its `hello`.
pub const VERSION: u32 = 1;
