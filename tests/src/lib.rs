//! What stories on the sandbox and stories on a real cluster have in common.

pub mod rules;
