//! An agent under test, and the bot's side of it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command as Program, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use diagbot_wire::{
    args::{AgentArgs, StepArgs},
    control::{self, Command, ControlLine, Ticket},
    digest::sha256_hex,
    journal::{Event, Hello, Reader},
    result::StepResult,
    upload::Grant,
};

use crate::store::Store;

const PROGRAM: &str = env!("CARGO_BIN_EXE_diagbot-agent");
const SECRET: &[u8] = b"the bot's Secret, 32 bytes of it";
const CAPTURE: &str = "d-0123456789abcdef-0";
const DEADLINE: Duration = Duration::from_secs(30);

/// A running agent.
pub(crate) struct Agent {
    child: Child,
    stdin: ChildStdin,
    lines: mpsc::Receiver<String>,
    reader: Reader,
    seq: u64,
    peak_kib: u64,
    steps: u16,
    /// Its hello.
    pub(crate) hello: Hello,
}

impl Agent {
    pub(crate) fn start(steps: Vec<StepArgs>) -> Self {
        Self::start_with(steps, 60, 600)
    }

    /// Starts it through another program: into the namespaces of a target.
    pub(crate) fn start_within(program: &[&str], steps: Vec<StepArgs>) -> Self {
        Self::spawn(program, steps, 60, 600)
    }

    pub(crate) fn start_with(steps: Vec<StepArgs>, wait_s: u32, deadline_s: u32) -> Self {
        Self::spawn(&[], steps, wait_s, deadline_s)
    }

    fn spawn(within: &[&str], steps: Vec<StepArgs>, wait_s: u32, deadline_s: u32) -> Self {
        let nonce_sha256 = sha256_hex(&control::nonce(SECRET, CAPTURE, 1));
        let count = u16::try_from(steps.len()).expect("few steps");
        let args = AgentArgs {
            capture: CAPTURE.to_owned(),
            nonce_sha256,
            wait_s,
            deadline_s,
            steps,
        };
        let words: Vec<&str> = within.iter().copied().chain([PROGRAM]).collect();
        let mut child = Program::new(words[0])
            .args(&words[1..])
            .args(args.render())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the agent starts");
        let stdin = child.stdin.take().expect("piped");
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut reader = Reader::default();
        let first = lines.recv_timeout(DEADLINE).expect("a first line");
        let Some((1, Event::Hello(hello))) = reader.take(&first, &key()) else {
            panic!("no hello: {first}")
        };
        Self {
            child,
            stdin,
            lines,
            reader,
            seq: 0,
            peak_kib: 0,
            steps: count,
            hello,
        }
    }

    /// A ticket with URLs of this store for every step.
    pub(crate) fn ticket(&mut self, store: &Store) {
        self.ticket_with(
            (0..self.steps).map(|step| store.grant(step)).collect(),
            Some(store.result_url()),
        );
    }

    pub(crate) fn ticket_with(&mut self, grants: Vec<Grant>, result_url: Option<String>) {
        let ticket = Ticket {
            processes: self.hello.processes.iter().map(|p| p.pinned.clone()).collect(),
            journal_key: hex::encode(key()),
            grants,
            result_url,
            result_headers: Vec::new(),
            store_ca_pem: None,
            proxy: None,
            room_bytes: None,
            redaction: Vec::new(),
        };
        self.say(Command::Ticket(Box::new(ticket)));
    }

    pub(crate) fn say(&mut self, command: Command) {
        self.say_with_nonce(&control::nonce(SECRET, CAPTURE, 1), command);
    }

    pub(crate) fn say_with_nonce(&mut self, nonce: &[u8], command: Command) {
        self.seq += 1;
        let line = ControlLine {
            seq: self.seq,
            nonce: hex::encode(nonce),
            command,
        }
        .render();
        self.stdin.write_all(line.as_bytes()).expect("the agent reads");
    }

    /// Reads the journal until `look` finds what it looks for.
    pub(crate) fn wait_for<T>(&mut self, look: impl Fn(&Event) -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        loop {
            let line = self
                .lines
                .recv_timeout(end - Instant::now())
                .expect("the journal goes on");
            self.peak_kib = self.peak_kib.max(peak_kib(self.child.id()));
            let Some((_, event)) = self.reader.take(&line, &key()) else {
                panic!("not ours: {line}")
            };
            if let Some(found) = look(&event) {
                return found;
            }
        }
    }

    pub(crate) fn step_ended(&mut self) -> StepResult {
        self.wait_for(|event| match event {
            Event::StepEnded { result } => Some(result.clone()),
            _ => None,
        })
    }

    pub(crate) fn end(&mut self) -> Event {
        self.wait_for(|event| matches!(event, Event::End { .. }).then(|| event.clone()))
    }

    /// The end line of an agent that never got the key for its HMACs.
    pub(crate) fn end_without_ticket(&mut self) -> Event {
        let line = self.lines.recv_timeout(DEADLINE).expect("an end line");
        let line: diagbot_wire::journal::JournalLine = serde_json::from_str(&line).expect("a journal line");
        serde_json::from_str(&line.body).expect("an event")
    }

    /// What `cat` prints, started as by exec into the same container.
    pub(crate) fn cat(step: u16, from: u64) -> Vec<u8> {
        let output = Program::new(PROGRAM)
            .args(["cat", &format!("--step={step}"), &format!("--from={from}")])
            .output()
            .expect("cat runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// The PID of the agent's child of this name, once it runs.
    pub(crate) fn child_named(&self, name: &str) -> u32 {
        let end = Instant::now() + DEADLINE;
        let named =
            |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
        while Instant::now() < end {
            let children = format!("/proc/{0}/task/{0}/children", self.child.id());
            let children = std::fs::read_to_string(children).expect("the agent runs");
            if let Some(pid) = children
                .split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .find(named)
            {
                return pid;
            }
            std::thread::yield_now();
        }
        panic!("no child is called {name}");
    }

    /// The PID of an agent that was started through a program that waits for it.
    pub(crate) fn within_pid(&self) -> i32 {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let children = std::fs::read_to_string(children).expect("children");
        children.trim().parse().expect("one child")
    }

    /// Asks it to end, as a kubelet does.
    pub(crate) fn terminate(&self) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a PID"), rustix::process::Signal::TERM).expect("it runs");
    }

    /// Most memory that it had resident, in KiB, as far as was seen.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.peak_kib
    }

    pub(crate) fn succeeds(&mut self) {
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn key() -> [u8; 32] {
    control::journal_key(SECRET, CAPTURE, 1)
}

fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}
