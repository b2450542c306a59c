//! The catalog's diagnostics as steps of a capture.

use std::collections::BTreeMap;

use diagbot_api::capture::{StepMethod, StepSpec};
use diagbot_wire::args::{OutputKind, ProcessSelector, StepArgs};

/// A diagnostic that a story asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Jstack,
    HeapDump,
    Process,
    PodReport,
    /// Twenty million bytes: three parts.
    Noise,
}

impl Step {
    pub(crate) fn spec(self) -> StepSpec {
        let (name, argv, process, output, artifact): (_, &[&str], _, _, _) = match self {
            Self::Jstack => (
                "jstack",
                &["@jvm", "Thread.print", "-l"],
                ProcessSelector::Jvm,
                OutputKind::Text,
                "threads.txt",
            ),
            Self::HeapDump => (
                "heap-dump",
                &["@jvm-heap-dump", "all"],
                ProcessSelector::Jvm,
                OutputKind::Binary,
                "heap.hprof",
            ),
            Self::Process => (
                "process",
                &["@process"],
                ProcessSelector::Main,
                OutputKind::Text,
                "process.txt",
            ),
            Self::Noise => (
                "noise",
                &["head", "-c", "20000000", "/dev/urandom"],
                ProcessSelector::None,
                OutputKind::Binary,
                "noise.bin",
            ),
            Self::PodReport => (
                "pod-report",
                &["@none"],
                ProcessSelector::None,
                OutputKind::Text,
                "pod-report.txt",
            ),
        };
        let args = StepArgs {
            name: name.to_owned(),
            process,
            output,
            limit_bytes: 256 << 20,
            deadline_s: 60,
            after_s: 0,
            stop_on_error: false,
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        };
        let by_bot = matches!(self, Self::PodReport);
        StepSpec {
            diagnostic: name.to_owned(),
            method: if by_bot { StepMethod::Api } else { StepMethod::Ephemeral },
            parameters: BTreeMap::new(),
            step: if by_bot { String::new() } else { args.render() },
            capabilities: Vec::new(),
            artifact: artifact.to_owned(),
            media_type: "text/plain; charset=utf-8".to_owned(),
            sensitive: matches!(self, Self::HeapDump),
            limit_bytes: 256 << 20,
            deadline_s: 60,
            optional: false,
        }
    }
}
