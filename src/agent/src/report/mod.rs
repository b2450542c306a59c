//! Reports from `/proc`: text for people, made without any tool.

mod cgroup;
mod process;
mod sockets;

pub(crate) use cgroup::memory_headroom_bytes;
pub(crate) use process::process;
pub(crate) use sockets::sockets;

/// A count of bytes for eyes.
fn human(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 => format!("{:.1} GiB", b as f64 / f64::from(1 << 30)),
        b if b >= 1 << 20 => format!("{:.1} MiB", b as f64 / f64::from(1 << 20)),
        b if b >= 1 << 10 => format!("{:.1} KiB", b as f64 / f64::from(1 << 10)),
        b => format!("{b} B"),
    }
}
