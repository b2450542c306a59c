//! Heap dumps: written by the JVM where there is room, read back through a held folder, and gone again on every way out.
//!
//! # Design notes
//! The JVM writes the file itself, as its own uid, in its own file system. We open it, check that it is what the JVM would
//! have made, and remove its name at once: the bytes live on behind our descriptor, and a killed agent leaves nothing.
//! While the JVM still writes, the name is removed by [`crate::cleanup`] when we are cancelled.

use diagbot_wire::{args::StepArgs, result::Failure};
use rustix::fs::fstatvfs;

use crate::{
    hotspot,
    pipeline::Captured,
    process::Process,
    spool,
    step::{Context, StepError},
};

/// Room that must stay free beside the dump, in bytes: the application writes to the same file system.
const MARGIN_BYTES: u64 = 64 << 20;

/// Takes a heap dump. `live`: only reachable objects, at the price of a full garbage collection.
pub(crate) async fn capture(
    process: &Process,
    live: bool,
    step: &StepArgs,
    context: &Context<'_>,
) -> Result<Captured, StepError> {
    let folder = hotspot::open_folder(process, context)?;
    let used_bytes = heap_used_bytes(&hotspot::ask(process, "GC.heap_info", context).await?);
    let held = folder
        .handle()
        .map_err(|error| StepError::new(Failure::Internal, error.to_string()))?;
    check_room(&held, used_bytes, context.room_bytes)?;

    let name = format!(".diagbot-{}.hprof", spool::random_word()?);
    let made = context.cleanup.will_make(held, &name);
    let path = format!("{}/{name}", hotspot::FOLDER);
    let all = if live { "" } else { "-all " };
    let mut suffix = ".gz";
    let mut note = String::new();
    let mut answer = hotspot::ask(process, &format!("GC.heap_dump {all}-gz=1 {path}"), context).await;
    if refuses_compression(&answer) {
        // JDKs before 15 can't compress; see JDK-8237354.
        suffix = "";
        "this JVM can't compress its dump (JDK 15 and newer can); it is plain hprof".clone_into(&mut note);
        answer = hotspot::ask(process, &format!("GC.heap_dump {all}{path}"), context).await;
    }
    let answer = answer?;
    let file = folder
        .read(&name, process.uid)
        .map_err(|error| StepError::new(Failure::ToolFailed, format!("{error}; the JVM said: {}", answer.trim())))?;
    drop(made);
    let size_bytes = file.metadata()?.len();
    (context.progress)(size_bytes);
    Ok(Captured {
        truncated: size_bytes > step.limit_bytes,
        size_bytes: size_bytes.min(step.limit_bytes),
        file,
        preview: String::new(),
        findings: Vec::new(),
        suffix,
        note,
    })
}

fn refuses_compression(answer: &Result<String, StepError>) -> bool {
    let unknown = |text: &str| text.contains("-gz") || text.contains("Unknown argument");
    match answer {
        Ok(text) => unknown(text) && !text.contains("Heap dump file created"),
        Err(error) => error.failure == Failure::ToolFailed && unknown(&error.detail),
    }
}

/// Bytes in use, from `GC.heap_info`: the sum of the lines that say so. Zero where the text is of another kind.
fn heap_used_bytes(info: &str) -> u64 {
    info.lines()
        .filter(|line| !line.trim_start().starts_with("Metaspace") && !line.trim_start().starts_with("class space"))
        .filter_map(|line| {
            let (_, after) = line.split_once("used ")?;
            let digits = after.split('K').next()?;
            digits.parse::<u64>().ok().map(|kib| kib << 10)
        })
        .sum()
}

/// Refuses before anything is written where the dump would not fit.
fn check_room(folder: &std::os::fd::OwnedFd, used_bytes: u64, limit_bytes: Option<u64>) -> Result<(), StepError> {
    let stat = fstatvfs(folder).map_err(std::io::Error::from)?;
    let free_bytes = stat.f_bavail * stat.f_frsize;
    let needed_bytes = used_bytes + MARGIN_BYTES;
    let mib = |bytes: u64| bytes >> 20;
    if free_bytes < needed_bytes {
        let text = format!(
            "the dump may need {} MiB and {} MiB are free",
            mib(needed_bytes),
            mib(free_bytes)
        );
        return Err(StepError::new(
            Failure::NoSpace,
            format!("{text}; `heap-histogram` needs no room"),
        ));
    }
    if limit_bytes.is_some_and(|limit| limit < needed_bytes) {
        let limit = mib(limit_bytes.unwrap_or_default());
        let text = format!(
            "the dump may need {} MiB and the pod may use {limit} MiB",
            mib(needed_bytes)
        );
        return Err(StepError::new(
            Failure::NoSpace,
            format!("{text} of ephemeral storage: it would be evicted; `heap-histogram` needs no room"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_heap_is_read_from_each_collectors_words() {
        let g1 = " garbage-first heap   total 262144K, used 9216K [0x1, 0x2)\n  region size 2048K, 4 young\n Metaspace       used 1500K, committed 1600K\n";
        assert_eq!(heap_used_bytes(g1), 9216 << 10);
        let serial =
            " def new generation   total 9792K, used 1000K [\n tenured generation   total 21888K, used 2000K [\n";
        assert_eq!(heap_used_bytes(serial), 3000 << 10);
        assert_eq!(heap_used_bytes("nonsense used up"), 0);
    }

    #[test]
    fn a_dump_that_would_evict_the_pod_is_refused() {
        let folder = std::os::fd::OwnedFd::from(std::fs::File::open("/tmp").expect("a folder"));
        let error = check_room(&folder, 1 << 30, Some(1 << 30)).expect_err("too small");
        assert_eq!(error.failure, Failure::NoSpace);
        assert!(error.detail.contains("evicted"), "{}", error.detail);
        assert!(check_room(&folder, 1 << 62, None).is_err(), "no disk has that room");
        assert!(check_room(&folder, 0, None).is_ok());
    }
}
