//! The record: who asked for what, who decided, what was started, what came of it and who got it. One hash chain for each
//! process that writes.
//!
//! Owns the entries ([`Event`]), the chain ([`AuditLog`]), its way to the store ([`keep`]) and the proof that nothing is
//! missing ([`verify`]). Knows no runs and no Slack: callers say what happened. No entry ever holds a URL, a token or captured
//! text.
//!
//! # Design notes
//! An entry is JSON text; its hash is the SHA-256 of exactly those bytes, and each entry holds the hash of the former. It goes
//! to standard output at once (log target `record`) and to the store within a second, as objects that are created and never
//! replaced (`If-None-Match: *`), under Object Lock where the bucket has it. The last stored hash of each chain is written
//! into a Lease, and every new chain begins with the heads that it found there, so that the end of a chain can't be cut off
//! without a trace either. Where somebody else's object stands under the name of our next one, a chain of a new name goes on,
//! which begins with that word and then holds every entry that the store did not have. Whoever can write the store *and* the Lease can still make a new past: what stands in the
//! cluster's log collector, or under Object Lock, then tells.

mod anchor;
mod chain;
mod entry;
mod sink;
pub mod verify;

pub use anchor::{AnchorError, LEASE, heads};
pub use chain::{AuditLog, SinkAway, SinkState};
pub use entry::{Entry, Event, Head, Line, Word};
pub use sink::{FOLDER, RecordConfig, SinkParts, keep};
