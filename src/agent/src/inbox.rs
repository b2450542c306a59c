//! Control lines from standard input, sorted: what stops us, what grants URLs, what releases a staged file.
//!
//! Lines with a foreign nonce, repeated lines and lines that are too long are dropped without a trace on the journal: a
//! neighbour could otherwise fill it.

use std::{
    cell::RefCell,
    io::{BufRead as _, BufReader, Read as _},
    time::Duration,
};

use diagbot_wire::{
    control::{CancelReason, Command, ControlLine, MAX_LINE_BYTES, Ticket},
    upload::Grant,
};
use tokio::sync::{Notify, mpsc};

/// Lines that may wait; the bot sends a handful.
const QUEUE: usize = 16;
/// Pause after an end of standard input. The runtime keeps it open between attaches (`stdinOnce: false`); where it does not,
/// the next attach may open it again.
const END_PAUSE: Duration = Duration::from_millis(250);

/// What has come in.
#[derive(Debug)]
pub(crate) struct Inbox {
    nonce_sha256: String,
    contents: RefCell<Contents>,
    changed: Notify,
}

/// What has come in and was not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    last_seq: u64,
    ticket: Option<Ticket>,
    grants: Vec<Grant>,
    released: Vec<u16>,
    cancelled: Option<CancelReason>,
}

/// Starts to read standard input, until the process ends. The thread can't be joined: a read of standard input can't be
/// interrupted.
pub(crate) fn lines_of_stdin() -> std::io::Result<mpsc::Receiver<String>> {
    let (sender, lines) = mpsc::channel(QUEUE);
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut stdin = BufReader::new(std::io::stdin());
        while read_line(&mut stdin, &sender) {}
    })?;
    Ok(lines)
}

impl Inbox {
    /// An empty inbox for lines that carry the nonce with this hash.
    pub(crate) fn new(nonce_sha256: &str) -> Self {
        Self {
            nonce_sha256: nonce_sha256.to_owned(),
            contents: RefCell::default(),
            changed: Notify::new(),
        }
    }

    /// Takes lines for ever; runs beside the session.
    pub(crate) async fn pump(&self, mut lines: mpsc::Receiver<String>) {
        while let Some(line) = lines.recv().await {
            if let Some(line) = ControlLine::parse(&line, &self.nonce_sha256) {
                self.contents.borrow_mut().take(line);
                self.changed.notify_waiters();
            }
        }
        std::future::pending::<()>().await;
    }

    /// Waits until `look` finds what it looks for.
    pub(crate) async fn wait<T>(&self, mut look: impl FnMut(&mut Contents) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            if let Some(found) = look(&mut self.contents.borrow_mut()) {
                return found;
            }
            changed.await;
        }
    }

    /// Puts the ticket's grants with those that come later.
    pub(crate) fn add_grants(&self, grants: Vec<Grant>) {
        self.contents.borrow_mut().add_grants(grants);
        self.changed.notify_waiters();
    }

    /// Stops the session as a cancel line would.
    pub(crate) fn cancel(&self, reason: CancelReason) {
        self.contents.borrow_mut().cancelled.get_or_insert(reason);
        self.changed.notify_waiters();
    }
}

impl Contents {
    fn take(&mut self, line: ControlLine) {
        if line.seq <= self.last_seq {
            return;
        }
        self.last_seq = line.seq;
        match line.command {
            Command::Ticket(ticket) => self.ticket = Some(*ticket),
            Command::Urls { grant } => self.grants.push(grant),
            Command::Release { step } => self.released.push(step),
            Command::Cancel { reason } => self.cancelled = Some(reason),
        }
    }

    /// The ticket, once.
    pub(crate) fn take_ticket(&mut self) -> Option<Ticket> {
        self.ticket.take()
    }

    fn add_grants(&mut self, grants: Vec<Grant>) {
        self.grants.extend(grants);
    }

    /// The first grant for a step, once.
    pub(crate) fn take_grant(&mut self, step: u16) -> Option<Grant> {
        let index = self.grants.iter().position(|grant| grant.step == step)?;
        Some(self.grants.remove(index))
    }

    /// Whether the step's staged file can go.
    pub(crate) fn is_released(&self, step: u16) -> bool {
        self.released.contains(&step)
    }

    /// Why we are to stop, if we are.
    pub(crate) fn cancelled(&self) -> Option<CancelReason> {
        self.cancelled
    }
}

/// Hands one line over; false when nobody listens any more.
fn read_line(stdin: &mut BufReader<std::io::Stdin>, sender: &mpsc::Sender<String>) -> bool {
    let mut line = Vec::new();
    let read = stdin.take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line);
    match read {
        Ok(0) | Err(_) => {
            std::thread::sleep(END_PAUSE);
            !sender.is_closed()
        }
        Ok(_) if line.ends_with(b"\n") => sender
            .blocking_send(String::from_utf8_lossy(&line).into_owned())
            .is_ok(),
        // Too long, or cut by a detach: the rest is no line either and fails to parse.
        Ok(_) => !sender.is_closed(),
    }
}

#[cfg(test)]
mod tests {
    use diagbot_wire::{control::nonce, digest::sha256_hex};

    use super::*;

    #[test]
    fn foreign_and_repeated_lines_are_ignored() {
        let own = nonce(b"secret", "uid", 1);
        let foreign = nonce(b"other secret", "uid", 1);
        let hash = sha256_hex(&own);
        let mut contents = Contents::default();
        let mut say = |nonce: &[u8], seq, command| {
            let line = ControlLine {
                seq,
                nonce: hex::encode(nonce),
                command,
            }
            .render();
            if let Some(line) = ControlLine::parse(&line, &hash) {
                contents.take(line);
            }
        };
        let cancel = Command::Cancel {
            reason: CancelReason::Requested,
        };
        say(&foreign, 1, cancel.clone());
        say(&own, 2, Command::Release { step: 3 });
        say(&own, 2, cancel.clone());
        say(&own, 1, cancel);
        say(&own, 4, Command::Release { step: 5 });
        assert!(contents.is_released(3) && contents.is_released(5));
        assert_eq!(contents.cancelled(), None);
    }
}
