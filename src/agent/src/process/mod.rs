//! Processes: what `/proc` says of them, which one a step looks at, and how one is pinned.

mod proc_fs;
mod select;

pub(crate) use proc_fs::{ProcFs, Process, printable, read_text};
pub(crate) use select::choose;
