//! Heap dumps: written by the JVM where there is room, read back through a held folder, and gone again on every way out.
//!
//! # Design notes
//! The JVM writes the file itself, as its own uid, in its own file system. We open it, check that it is what the JVM would
//! have made, and remove its name at once: the bytes live on behind our descriptor, and a killed agent leaves nothing.
//! While the JVM still writes, the name is removed by [`crate::cleanup`] when we are cancelled.

use std::{io, os::fd::OwnedFd, sync::Arc};

use diagbot_wire::{args::StepArgs, result::Failure};
use rustix::fs::{fstatfs, fstatvfs};

use crate::{
    hotspot,
    pipeline::Captured,
    process::Process,
    report, spool,
    step_context::{Context, StepError},
};

/// Room that must stay free beside the dump, in bytes: the application writes to the same file system.
const MARGIN_BYTES: u64 = 64 << 20;
/// A file system in memory (`TMPFS_MAGIC` of linux/magic.h), as an emptyDir of medium Memory is.
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// What a JVM says at the end of a dump, since JDK 6.
const CREATED: &str = "Heap dump file created";

/// Takes a heap dump. `live`: only reachable objects, at the price of a full garbage collection.
pub(crate) async fn capture(
    process: &Process,
    live: bool,
    step: &StepArgs,
    context: &Context<'_>,
) -> Result<Captured, StepError> {
    let folder = hotspot::open_folder(process, context)?;
    let used_bytes = heap_used_bytes(&hotspot::ask(process, "GC.heap_info", context).await?);
    let held = || {
        let handle = folder.handle();
        handle.map_err(|error| StepError::new(Failure::Internal, error.to_string()))
    };
    let room = Room::of(&held()?, process, context)?;
    room.check(used_bytes)?;

    let name = format!(".diagbot-{}.hprof", spool::random_word()?);
    let mut made = context.cleanup.will_make(held()?, &name);
    let path = format!("{}/{name}", hotspot::FOLDER);
    let all = if live { "" } else { "-all " };
    let mut suffix = ".gz";
    let mut note = String::new();
    let command = format!("GC.heap_dump {all}-gz=1 {path}");
    let mut answer = hotspot::ask_to_write(process, &command, &mut made, context).await;
    if refuses_compression(&answer) {
        // JDKs before 15 can't compress; see JDK-8237354. Plain, references take twice what they take on the heap.
        room.check(used_bytes + used_bytes / 2)?;
        suffix = "";
        "this JVM can't compress its dump (JDK 15 and newer can); it is plain hprof".clone_into(&mut note);
        let command = format!("GC.heap_dump {all}{path}");
        answer = hotspot::ask_to_write(process, &command, &mut made, context).await;
    }
    check_answer(&answer?)?;
    let file = folder
        .read(&name, process.uid)
        .map_err(|error| StepError::new(Failure::ToolFailed, error.to_string()))?;
    drop(made);
    let size_bytes = file.metadata()?.len();
    (context.progress)(size_bytes);
    Ok(Captured {
        truncated: size_bytes > step.limit_bytes,
        size_bytes: size_bytes.min(step.limit_bytes),
        file: Arc::new(file),
        written: None,
        hashing: None,
        preview: String::new(),
        findings: Vec::new(),
        suffix,
        note,
        redaction: None,
    })
}

fn refuses_compression(answer: &Result<String, StepError>) -> bool {
    let unknown = |text: &str| text.contains("-gz") || text.contains("Unknown argument");
    match answer {
        Ok(text) => unknown(text) && !text.contains(CREATED),
        Err(error) => error.failure == Failure::ToolFailed && unknown(&error.detail),
    }
}

/// A dump that broke off half-way leaves a file, too, and the command counts as done: only these words say that it is whole.
fn check_answer(answer: &str) -> Result<(), StepError> {
    if answer.contains(CREATED) {
        return Ok(());
    }
    let failure = if answer.contains("No space left") {
        Failure::NoSpace
    } else if answer.contains("Read-only file system") {
        Failure::ReadOnlyFileSystem
    } else if answer.contains("Permission denied") {
        Failure::PermissionDenied
    } else {
        Failure::ToolFailed
    };
    Err(StepError::new(failure, format!("the JVM said: {}", answer.trim())))
}

/// Bytes in use, from `GC.heap_info`: the sum of the lines that say so. Zero where the text is of another kind. Serial,
/// parallel, G1 and Z write `used 9216K`, Shenandoah `34M used`.
fn heap_used_bytes(info: &str) -> u64 {
    info.lines()
        .filter(|line| {
            !["Metaspace", "class space"]
                .iter()
                .any(|word| line.trim_start().starts_with(word))
        })
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_end_matches(',')).collect();
            let at = words.iter().position(|word| *word == "used")?;
            [at.checked_add(1), at.checked_sub(1)]
                .into_iter()
                .find_map(|at| bytes_of(words.get(at?)?))
        })
        .sum()
}

fn bytes_of(word: &str) -> Option<u64> {
    let shift = match word.chars().last()? {
        'K' => 10,
        'M' => 20,
        'G' => 30,
        _ => return None,
    };
    word[..word.len() - 1].parse::<u64>().ok().map(|number| number << shift)
}

/// Room for a dump in the target's folder.
#[expect(clippy::struct_field_names, reason = "units stand in names")]
struct Room {
    free_bytes: u64,
    /// The folder is memory, which counts against the container's limit: what that leaves.
    memory_bytes: Option<u64>,
    /// What the pod may use of the node's disk.
    storage_bytes: Option<u64>,
}

impl Room {
    fn of(folder: &OwnedFd, process: &Process, context: &Context<'_>) -> Result<Self, StepError> {
        let stat = fstatvfs(folder).map_err(io::Error::from)?;
        let in_memory = fstatfs(folder).map_err(io::Error::from)?.f_type == TMPFS_MAGIC;
        Ok(Self {
            free_bytes: stat.f_bavail * stat.f_frsize,
            memory_bytes: in_memory
                .then(|| report::memory_headroom_bytes(context.proc_fs, process))
                .flatten(),
            storage_bytes: context.room_bytes.filter(|_| !in_memory),
        })
    }

    /// Refuses before anything is written where the dump would not fit.
    fn check(&self, dump_bytes: u64) -> Result<(), StepError> {
        let needed = dump_bytes + MARGIN_BYTES;
        let too_small = |room: u64, where_: &str| {
            let (needed, room) = (needed >> 20, room >> 20);
            let text =
                format!("the dump may need {needed} MiB and {room} MiB {where_}; `heap-histogram` needs no room");
            Err(StepError::new(Failure::NoSpace, text))
        };
        let limits = [
            (Some(self.free_bytes), "are free"),
            (
                self.memory_bytes,
                "of memory are left, in which the target's /tmp lies: it would be killed",
            ),
            (
                self.storage_bytes,
                "of ephemeral storage are the pod's: it would be evicted",
            ),
        ];
        for (room, where_) in limits {
            if let Some(room) = room.filter(|room| *room < needed) {
                return too_small(room, where_);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_heap_is_read_from_each_collectors_words() {
        let g1 = " garbage-first heap   total 262144K, used 9216K [0x1, 0x2)\n  region size 2048K, 4 young\n Metaspace       used 1500K, committed 1600K\n";
        assert_eq!(heap_used_bytes(g1), 9216 << 10);
        let serial = " def new generation   total 9792K, used 1000K [\n  eden space 8704K,  11% used [0x1\n tenured generation   total 21888K, used 2000K [\n";
        assert_eq!(heap_used_bytes(serial), 3000 << 10);
        let z = " ZHeap           used 52M, capacity 256M, max capacity 4096M\n Metaspace       used 1500K\n  class space    used 300K\n";
        assert_eq!(heap_used_bytes(z), 52 << 20);
        let shenandoah = "Shenandoah Heap\n 1024M max, 1024M soft max, 64M committed, 34M used\n 512 x 2048K regions\n";
        assert_eq!(heap_used_bytes(shenandoah), 34 << 20);
        assert_eq!(heap_used_bytes("nonsense used up"), 0);
    }

    #[test]
    fn a_dump_that_would_evict_or_kill_the_pod_is_refused() {
        let gib = 1 << 30;
        let room = |free_bytes, memory_bytes, storage_bytes| Room {
            free_bytes,
            memory_bytes,
            storage_bytes,
        };
        let refusal = |room: Room| room.check(gib).expect_err("too small");
        for (room, word) in [
            (room(gib, None, None), "are free"),
            (room(9 * gib, Some(gib), None), "killed"),
            (room(9 * gib, None, Some(gib)), "evicted"),
        ] {
            let error = refusal(room);
            assert_eq!(error.failure, Failure::NoSpace);
            assert!(error.detail.contains(word), "{}", error.detail);
        }
        assert!(room(2 * gib, Some(2 * gib), Some(2 * gib)).check(gib).is_ok());
    }

    #[test]
    fn only_a_dump_that_the_jvm_calls_created_is_whole() {
        assert!(check_answer("Dumping heap to /tmp/x ...\nHeap dump file created [1 bytes in 0.1 secs]\n").is_ok());
        for (answer, failure) in [
            (
                "Dumping heap to /tmp/x ...\nNo space left on device\n",
                Failure::NoSpace,
            ),
            ("Unable to create /tmp/x: File exists\n", Failure::ToolFailed),
            ("", Failure::ToolFailed),
        ] {
            assert_eq!(
                check_answer(answer).expect_err("not whole").failure,
                failure,
                "{answer}"
            );
        }
    }
}
