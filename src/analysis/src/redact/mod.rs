//! Secrets out of text while it passes: rules over lines, in linear time and bounded memory.
//!
//! # Design notes
//! The `regex` crate matches in time linear to the text, whatever the pattern. Most text holds no secret: whole lines are
//! first searched at once for any rule, and only where one matches they are looked at one by one. A line longer than
//! [`MAX_LINE_BYTES`] is looked at in windows that overlap by [`OVERLAP_BYTES`]; a match that reaches the end of a window
//! takes everything up to the next blank with it. However a stream is cut into pieces, nothing that a line shows is missed.

mod rules;
mod stream;
#[cfg(test)]
mod tests;

pub use rules::{MAX_RULES, RuleError, Rules};
pub use stream::{Redactor, Removed};

/// Longest line that is looked at as one, in bytes.
pub const MAX_LINE_BYTES: usize = 64 * 1024;
/// Longest secret, with what its rule needs around it, that is found wherever a longer line is cut; in bytes.
pub const OVERLAP_BYTES: usize = 4 * 1024;
/// Longest block between a begin and an end, in bytes; behind that, text is text again.
pub const MAX_BLOCK_BYTES: usize = 64 * 1024;
