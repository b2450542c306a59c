//! Against a real JVM on this machine, of the same uid.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use diagbot_wire::{
    args::{OutputKind, ProcessSelector, StepArgs},
    control::{self, CancelReason},
    journal::Event,
    result::{Failure, StepOutcome},
};
use flate2::read::GzDecoder;
use rustix::process::{Pid, Signal, kill_process};

use crate::{agent::Agent, store::Store};

/// A program that says when it runs, and has a deadlock for the findings; `-Dfill=N` holds N MiB that compress badly.
const SOURCE: &str = r#"
public class Sample {
    static final Object A = new Object(), B = new Object();
    static byte[][] filling;
    static void lock(Object first, Object second, java.util.concurrent.CyclicBarrier both) {
        synchronized (first) {
            try { both.await(); } catch (Exception e) { throw new RuntimeException(e); }
            synchronized (second) { }
        }
    }
    public static void main(String[] args) throws Exception {
        filling = new byte[Integer.getInteger("fill", 0)][1 << 20];
        for (byte[] piece : filling) new java.util.Random(1).nextBytes(piece);
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
/// uid and gid of targets that are not root.
const USER: u32 = 1000;

/// A JVM in namespaces of its own, as in a container: PID 1 there, with its own `/tmp`, and nothing to mistake for it.
struct Jvm {
    unshare: Child,
    stdout: BufReader<std::process::ChildStdout>,
    /// Its PID in our namespace.
    pid: i32,
    _source: tempfile::TempDir,
}

impl Jvm {
    fn start(options: &[&str]) -> Self {
        Self::start_as(0, ":;", options)
    }

    /// `tmp`: further options of the mount of its `/tmp`; `environment` goes by `options` that are `NAME=value`.
    fn start_as(uid: u32, prepare: &str, options: &[&str]) -> Self {
        // Copied to a file system of its own, where any user may read it, whoever may enter the folder of this checkout.
        let source = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let file = source.path().join("Sample.java");
        std::fs::write(&file, SOURCE).expect("write");
        let identity = format!("--reuid={uid} --regid={uid} --clear-groups");
        let copied = format!("mount -t tmpfs tmpfs /mnt && install -m 0444 {} /mnt/", file.display());
        let script = format!(
            "{copied} && mount -t tmpfs tmpfs /tmp && {{ {prepare} }} && cd / && exec setpriv {identity} env \"$@\""
        );
        let mut unshare = Command::new("unshare")
            .args([
                "--pid",
                "--fork",
                "--mount-proc",
                "--kill-child",
                "sh",
                "-c",
                &script,
                "sh",
            ])
            .args(options.iter().filter(|option| !option.starts_with('-')))
            .arg("java")
            .args(options.iter().filter(|option| option.starts_with('-')))
            .arg("/mnt/Sample.java")
            .stdout(Stdio::piped())
            .spawn()
            .expect("a JDK is on the path, and we are root");
        let mut stdout = BufReader::new(unshare.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("its first line");
        assert_eq!(line, "ready\n");
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let pid = std::fs::read_to_string(children).expect("unshare has a child");
        Self {
            unshare,
            stdout,
            pid: pid.trim().parse().expect("one child"),
            _source: source,
        }
    }

    /// An agent beside it as in an ephemeral container: the same PID namespace, file systems of its own.
    fn agent(&self, steps: Vec<StepArgs>) -> Agent {
        self.agent_as(&[], steps)
    }

    fn agent_as(&self, identity: &[&str], steps: Vec<StepArgs>) -> Agent {
        let pid = self.pid.to_string();
        let mut within = vec!["nsenter", "--pid", "--target", &pid, "unshare", "--mount", "sh", "-c"];
        within.extend(["mount -t proc proc /proc && exec \"$@\"", "sh"]);
        within.extend(identity);
        let agent = Agent::start_within(&within, steps);
        let jvm = &agent.hello.processes[0];
        assert_eq!(jvm.pinned.pid, 1, "the JVM is PID 1 of its namespace");
        agent
    }

    /// Its `/tmp`, from here.
    fn tmp(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/tmp", self.pid))
    }

    /// Files of ours in its `/tmp`.
    fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.tmp()).expect("a folder").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names
            .filter(|name| name.starts_with(".diagbot") || name.starts_with(".attach_pid"))
            .collect()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid).expect("a PID"), signal).expect("it runs");
    }

    /// Ends it, and tells what it printed after its first line.
    fn log(mut self) -> String {
        self.signal(Signal::KILL);
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).expect("its log");
        text
    }
}

impl Drop for Jvm {
    fn drop(&mut self) {
        // Itself, too: whoever changes the uid is not killed with `unshare`.
        let _ended = kill_process(Pid::from_raw(self.pid).expect("a PID"), Signal::KILL);
        let _killed = self.unshare.kill();
        let _reaped = self.unshare.wait();
    }
}

fn step(argv: &[&str], output: OutputKind) -> StepArgs {
    StepArgs {
        name: "jvm".to_owned(),
        process: ProcessSelector::Jvm,
        output,
        limit_bytes: 1 << 30,
        deadline_s: 60,
        after_s: 0,
        stop_on_error: false,
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
    }
}

fn thread_dump() -> StepArgs {
    step(&["@jvm", "Thread.print", "-l"], OutputKind::Text)
}

fn heap_dump() -> StepArgs {
    step(&["@jvm-heap-dump", "all"], OutputKind::Binary)
}

fn failure(outcome: StepOutcome) -> (Failure, String) {
    match outcome {
        StepOutcome::Failed { failure, detail } => (failure, detail),
        other => panic!("{other:?}"),
    }
}

fn cleaned_up(agent: &mut Agent) -> (u32, Vec<String>) {
    agent.wait_for(|event| match event {
        Event::CleanedUp { removed, left } => Some((*removed, left.clone())),
        _ => None,
    })
}

#[test]
#[ignore = "needs a JDK and root"]
fn a_thread_dump_is_taken_without_any_jdk_tool_and_its_deadlock_is_found() {
    let jvm = Jvm::start(&[]);
    let store = Store::start();
    let mut agent = jvm.agent(vec![thread_dump()]);
    agent.ticket(&store);
    let result = agent.step_ended();
    assert_eq!(result.outcome, StepOutcome::Done);
    let text = String::from_utf8(store.object(1)).expect("text");
    assert!(text.contains("Full thread dump") && text.contains("Found one Java-level deadlock"));
    let findings = result.artifact.expect("an artifact").findings;
    assert!(
        findings[0].starts_with("1 deadlock: \"") && findings[0].contains("\"left\""),
        "{findings:?}"
    );
    assert_eq!(cleaned_up(&mut agent), (1, Vec::new()), "the attach trigger is gone");
}

#[test]
#[ignore = "needs a JDK and root"]
fn a_heap_dump_is_compressed_by_the_jvm_whole_and_gone_from_its_disk() {
    let jvm = Jvm::start(&["-Xmx64m"]);
    let store = Store::start();
    let mut agent = jvm.agent(vec![heap_dump()]);
    agent.ticket(&store);
    let artifact = agent.step_ended().artifact.expect("an artifact");
    assert_eq!(artifact.suffix, ".gz");
    let bytes: Vec<u8> = (1..=artifact.parts).flat_map(|part| store.object(part)).collect();
    let mut plain = Vec::new();
    GzDecoder::new(bytes.as_slice())
        .read_to_end(&mut plain)
        .expect("whole gzip");
    assert!(plain.starts_with(b"JAVA PROFILE 1.0.2"));
    assert_eq!(cleaned_up(&mut agent), (2, Vec::new()), "the trigger and the dump");
    assert_eq!(jvm.left(), Vec::<String>::new());
}

#[test]
#[ignore = "needs a JDK and root"]
fn a_jvm_that_can_not_attach_is_not_signalled_and_the_way_out_is_named() {
    let jvm = Jvm::start(&["JAVA_TOOL_OPTIONS=-XX:+DisableAttachMechanism"]);
    let store = Store::start();
    let mut agent = jvm.agent(vec![thread_dump()]);
    agent.ticket(&store);
    let (failure, detail) = failure(agent.step_ended().outcome);
    assert_eq!(failure, Failure::AttachRefused);
    assert!(detail.contains("pod-report"), "{detail}");
    agent.end();
    assert_eq!(jvm.log(), "", "no thread dump in the application's log");
}

#[test]
#[ignore = "needs a JDK and root"]
fn a_process_of_another_start_is_not_touched() {
    let jvm = Jvm::start(&[]);
    let mut agent = jvm.agent(vec![thread_dump()]);
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

#[test]
#[ignore = "needs a JDK and root"]
fn a_socket_that_a_former_jvm_left_is_no_obstacle() {
    let jvm = Jvm::start(&[]);
    drop(UnixListener::bind(jvm.tmp().join(".java_pid1")).expect("a socket"));
    let store = Store::start();
    let mut agent = jvm.agent(vec![thread_dump()]);
    agent.ticket(&store);
    assert_eq!(agent.step_ended().outcome, StepOutcome::Done);
    agent.end();
}

#[test]
#[ignore = "needs a JDK and root"]
fn on_a_read_only_file_system_what_can_be_had_is_given_and_what_can_not_is_said() {
    let jvm = Jvm::start_as(0, "mount -o remount,ro /tmp;", &[]);
    let store = Store::start();
    let process = StepArgs {
        process: ProcessSelector::Main,
        ..step(&["@process"], OutputKind::Text)
    };
    let mut agent = jvm.agent(vec![thread_dump(), process]);
    agent.ticket(&store);
    let (failure, detail) = failure(agent.step_ended().outcome);
    assert_eq!(failure, Failure::ReadOnlyFileSystem);
    assert!(detail.contains("emptyDir") && detail.contains("`process`"), "{detail}");
    assert_eq!(agent.step_ended().outcome, StepOutcome::Done);
    assert_eq!(cleaned_up(&mut agent), (0, Vec::new()));
    assert_eq!(jvm.log(), "", "no thread dump in the application's log");
}

#[test]
#[ignore = "needs a JDK and root"]
fn a_jvm_that_does_not_answer_is_asked_once() {
    let jvm = Jvm::start(&[]);
    let store = Store::start();
    let mut agent = jvm.agent(vec![thread_dump(), thread_dump()]);
    jvm.signal(Signal::STOP);
    agent.ticket(&store);
    for words in ["did not open", "not asked again"] {
        let (failure, detail) = failure(agent.step_ended().outcome);
        assert_eq!(failure, Failure::AttachRefused);
        assert!(detail.contains(words), "{detail}");
    }
    assert_eq!(cleaned_up(&mut agent), (1, Vec::new()));
}

#[test]
#[ignore = "needs a JDK and root"]
fn a_dump_without_room_is_refused_before_a_byte_is_written() {
    let jvm = Jvm::start_as(0, "mount -o remount,size=8m /tmp;", &[]);
    let store = Store::start();
    let mut agent = jvm.agent(vec![heap_dump()]);
    agent.ticket(&store);
    let (failure, detail) = failure(agent.step_ended().outcome);
    assert_eq!(failure, Failure::NoSpace);
    assert!(
        detail.contains("are free") && detail.contains("heap-histogram"),
        "{detail}"
    );
    assert_eq!(cleaned_up(&mut agent), (1, Vec::new()), "the trigger");
}

#[test]
#[ignore = "needs a JDK and root"]
fn a_dump_that_is_cancelled_half_way_is_gone_when_that_is_said() {
    let jvm = Jvm::start(&["-Dfill=200", "-Xmx512m"]);
    let store = Store::start();
    let mut agent = jvm.agent(vec![heap_dump()]);
    agent.ticket(&store);
    let writing = || jvm.left().iter().any(|name| name.starts_with(".diagbot"));
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !writing() {
        assert!(std::time::Instant::now() < end, "the dump never starts");
        std::thread::yield_now();
    }
    agent.say(control::Command::Cancel {
        reason: CancelReason::Requested,
    });
    assert_eq!(agent.step_ended().outcome, StepOutcome::Cancelled);
    assert_eq!(cleaned_up(&mut agent), (2, Vec::new()));
    assert_eq!(jvm.left(), Vec::<String>::new());
    agent.end();
}

#[test]
#[ignore = "needs a JDK and root"]
fn an_agent_of_the_targets_uid_needs_no_capability_and_is_closed_to_its_neighbours() {
    let jvm = Jvm::start_as(USER, ":;", &[]);
    let store = Store::start();
    // As in the image: owned by root, for execution only; in a file system of its own, like the JVM's source.
    let copied = format!(
        "mount -t tmpfs tmpfs /mnt && install -m 0111 {} /mnt/ && exec \"$@\"",
        env!("CARGO_BIN_EXE_diagbot-agent")
    );
    let script = "shift; exec /mnt/diagbot-agent \"$@\"";
    let identity = [
        "sh",
        "-c",
        &copied,
        "sh",
        "setpriv",
        "--reuid=1000",
        "--regid=1000",
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--no-new-privs",
        "sh",
        "-c",
        script,
        "sh",
    ];
    let mut agent = jvm.agent_as(&identity, vec![thread_dump(), heap_dump()]);
    assert_eq!((agent.hello.uid, agent.hello.processes[0].uid), (USER, USER));
    for attempt in ["ls /proc/PID/fd", "head -c 1 /proc/PID/environ", "ls /proc/PID/root/"] {
        let may = |pid: i32| {
            let script = attempt.replace("PID", &pid.to_string());
            let mut neighbour = Command::new("setpriv");
            neighbour.args(["--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-c", &script]);
            neighbour.output().expect("it runs").status.success()
        };
        assert!(may(jvm.pid), "{attempt} works on a process that is not closed");
        assert!(!may(agent.within_pid()), "{attempt} works on the agent");
    }
    agent.ticket(&store);
    assert_eq!(agent.step_ended().outcome, StepOutcome::Done);
    assert_eq!(agent.step_ended().outcome, StepOutcome::Done);
    assert_eq!(cleaned_up(&mut agent), (2, Vec::new()));
    assert_eq!(jvm.left(), Vec::<String>::new());
}
