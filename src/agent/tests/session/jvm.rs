//! Against a real JVM on this machine, of the same uid.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
};

use diagbot_wire::{
    args::{OutputKind, ProcessSelector, StepArgs},
    journal::Event,
    result::{Failure, StepOutcome},
};
use flate2::read::GzDecoder;

use crate::{agent::Agent, store::Store};

/// A program that says when it runs, and has a deadlock for the findings.
const SOURCE: &str = r#"
public class Sample {
    static final Object A = new Object(), B = new Object();
    static void lock(Object first, Object second, java.util.concurrent.CyclicBarrier both) {
        synchronized (first) {
            try { both.await(); } catch (Exception e) { throw new RuntimeException(e); }
            synchronized (second) { }
        }
    }
    public static void main(String[] args) throws Exception {
        var both = new java.util.concurrent.CyclicBarrier(2);
        new Thread(() -> lock(A, B, both), "left").start();
        new Thread(() -> lock(B, A, both), "right").start();
        while (java.lang.management.ManagementFactory.getThreadMXBean().findDeadlockedThreads() == null)
            Thread.yield();
        System.out.println("ready");
        Thread.sleep(Long.MAX_VALUE);
    }
}
"#;

/// A JVM as in a container: PID 1 of a PID namespace, with a temporary folder of its own.
struct Jvm(Child);

impl Jvm {
    fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let file = folder.path().join("Sample.java");
        std::fs::write(&file, SOURCE).expect("write");
        let mut child = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
            .args(["sh", "-c", "mount -t tmpfs tmpfs /tmp && exec \"$@\"", "sh", "java"])
            .args(options)
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a JDK is on the path");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped"))
            .read_line(&mut line)
            .expect("its first line");
        assert_eq!(line, "ready\n");
        Self(child)
    }

    /// PID of the JVM as we see it.
    fn pid(&self) -> String {
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        std::fs::read_to_string(children)
            .expect("unshare has a child")
            .trim()
            .to_owned()
    }

    /// Its file system.
    fn root(&self) -> std::path::PathBuf {
        std::path::Path::new("/proc").join(self.pid()).join("root")
    }

    /// An agent beside it, in the same PID namespace.
    fn agent(&self, argv: &[&str], output: OutputKind) -> Agent {
        let step = StepArgs {
            name: "jvm".to_owned(),
            process: ProcessSelector::Jvm,
            output,
            limit_bytes: 1 << 30,
            deadline_s: 60,
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        };
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        let jvm = std::fs::read_to_string(children)
            .expect("unshare has a child")
            .trim()
            .to_owned();
        let agent = Agent::start_within(&["nsenter", "--pid", "--mount", "--target", &jvm], vec![step]);
        assert_eq!(
            agent.hello.processes[0].pinned.pid, 1,
            "the JVM is PID 1 of its namespace"
        );
        agent
    }
}

impl Drop for Jvm {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
#[ignore = "needs a JDK and root"]
fn a_thread_dump_is_taken_without_any_jdk_tool_and_its_deadlock_is_found() {
    let jvm = Jvm::start(&[]);
    let store = Store::start();
    let mut agent = jvm.agent(&["@jvm", "Thread.print", "-l"], OutputKind::Text);
    agent.ticket(&store);
    let result = agent.step_ended();
    assert_eq!(result.outcome, StepOutcome::Done);
    let text = String::from_utf8(store.object(1)).expect("text");
    assert!(text.contains("Full thread dump") && text.contains("Found one Java-level deadlock"));
    let findings = result.artifact.expect("an artifact").findings;
    assert!(
        findings[0].starts_with("1 deadlock(s): \"") && findings[0].contains("\"left\""),
        "{findings:?}"
    );
    let removed = agent.wait_for(|event| match event {
        Event::CleanedUp { removed, left } => Some((*removed, left.clone())),
        _ => None,
    });
    assert_eq!(removed, (1, Vec::new()), "the attach trigger is gone");
}

#[test]
#[ignore = "needs a JDK and root"]
fn a_heap_dump_is_compressed_by_the_jvm_whole_and_gone_from_its_disk() {
    let jvm = Jvm::start(&["-Xmx64m"]);
    let store = Store::start();
    let mut agent = jvm.agent(&["@jvm-heap-dump", "all"], OutputKind::Binary);
    agent.ticket(&store);
    let artifact = agent.step_ended().artifact.expect("an artifact");
    assert_eq!(artifact.suffix, ".gz");
    let bytes: Vec<u8> = (1..=artifact.parts).flat_map(|part| store.object(part)).collect();
    let mut plain = Vec::new();
    GzDecoder::new(bytes.as_slice())
        .read_to_end(&mut plain)
        .expect("whole gzip");
    assert!(plain.starts_with(b"JAVA PROFILE 1.0.2"));
    agent.end();
    let left = std::fs::read_dir(jvm.root().join("tmp")).expect("a folder").flatten();
    let left: Vec<_> = left
        .map(|e| e.file_name())
        .filter(|n| n.to_string_lossy().ends_with(".hprof"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
#[ignore = "needs a JDK and root"]
fn a_jvm_that_can_not_attach_is_not_signalled_and_the_way_out_is_named() {
    let jvm = Jvm::start(&["-XX:+DisableAttachMechanism"]);
    let store = Store::start();
    let mut agent = jvm.agent(&["@jvm", "Thread.print"], OutputKind::Text);
    agent.ticket(&store);
    let outcome = agent.step_ended().outcome;
    let StepOutcome::Failed {
        failure: Failure::AttachRefused,
        detail,
    } = outcome
    else {
        panic!("{outcome:?}")
    };
    assert!(detail.contains("pod-report"), "{detail}");
    agent.end();
}

#[test]
#[ignore = "needs a JDK and root"]
fn a_process_of_another_start_is_not_touched() {
    let jvm = Jvm::start(&[]);
    let mut agent = jvm.agent(&["@jvm", "Thread.print"], OutputKind::Text);
    agent.hello.processes[0].pinned.start_time += 1;
    agent.ticket_with(Vec::new(), None);
    let outcome = agent.step_ended().outcome;
    assert!(
        matches!(
            outcome,
            StepOutcome::Failed {
                failure: Failure::TargetReplaced,
                ..
            }
        ),
        "{outcome:?}"
    );
    agent.end();
}
