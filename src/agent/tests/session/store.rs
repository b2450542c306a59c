//! A store that takes parts over plain HTTP, checks their MD5s, and answers as it is told to.

use std::{
    collections::{HashMap, VecDeque},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use diagbot_wire::{
    control,
    digest::PartMd5,
    result::{CaptureResult, SignedResult},
    upload::Grant,
};

/// What the store does with the next request.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// Closes the connection in the middle of the body.
    Cut,
    /// 403, as S3 says that a URL has expired.
    Expired,
    /// The same, before a byte of the body is read; then the connection is reset.
    ExpiredAtTheHead,
    /// Takes the body and never answers.
    Silence,
    /// A status and an S3 error code; none comes from something on the way to the store.
    Status(u16, &'static str),
}

/// A running store.
pub(crate) struct Store {
    base: String,
    state: Arc<Mutex<State>>,
    listener: TcpListener,
}

#[derive(Default)]
struct State {
    objects: HashMap<String, Vec<u8>>,
    next: VecDeque<Answer>,
    closed: bool,
}

impl Store {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a socket");
        let base = format!("http://{}", listener.local_addr().expect("its address"));
        let state = Arc::new(Mutex::new(State::default()));
        let (accepting, shared) = (listener.try_clone().expect("a handle"), Arc::clone(&state));
        std::thread::spawn(move || {
            for stream in accepting.incoming().flatten() {
                let shared = Arc::clone(&shared);
                if shared.lock().expect("no panic").closed {
                    continue;
                }
                std::thread::spawn(move || serve(&stream, &shared));
            }
        });
        Self { base, state, listener }
    }

    /// Refuses every connection from now on: they are closed before a byte.
    pub(crate) fn close(&self) {
        self.state.lock().expect("no panic").closed = true;
        // Shutting a listening socket down makes connects fail on Linux.
        let _shut = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }

    pub(crate) fn answer_next(&self, answers: &[Answer]) {
        self.state.lock().expect("no panic").next.extend(answers);
    }

    pub(crate) fn grant(&self, step: u16) -> Grant {
        let urls = (1..=64)
            .map(|part| format!("{}/{step}/{part}?signature=x", self.base))
            .collect();
        Grant {
            step,
            part_size_bytes: 8 << 20,
            first_part: 1,
            urls,
            expires_at_ms: u64::MAX,
        }
    }

    pub(crate) fn result_url(&self) -> String {
        format!("{}/result", self.base)
    }

    /// A stored part of the first step.
    pub(crate) fn object(&self, part: u32) -> Vec<u8> {
        self.state.lock().expect("no panic").objects[&format!("/0/{part}?signature=x")].clone()
    }

    /// The result object, if its HMAC is right.
    pub(crate) fn result(&self) -> CaptureResult {
        let bytes = self.state.lock().expect("no panic").objects["/result"].clone();
        let sealed: SignedResult = serde_json::from_slice(&bytes).expect("a sealed result");
        let key = control::journal_key(b"the bot's Secret, 32 bytes of it", "d-0123456789abcdef-0", 1);
        sealed.open(&key).expect("the HMAC is right")
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    let path = head
        .first()
        .and_then(|line| line.split(' ').nth(1))
        .unwrap_or_default()
        .to_owned();
    let header = |name: &str| {
        head.iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let length: usize = header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    let next = state.lock().expect("no panic").next.pop_front();
    if let Some(Answer::Cut) = next {
        let mut half = vec![0; length / 2];
        let _read = reader.read_exact(&mut half);
        let _shut = stream.shutdown(Shutdown::Both);
        return;
    }
    let expired = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>".to_owned();
    if let Some(Answer::ExpiredAtTheHead) = next {
        answer(stream, 403, &expired);
        return;
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    if let Some(Answer::Silence) = next {
        // Until the client gives up.
        let _ended = reader.read(&mut [0]);
        return;
    }
    let (status, text) = match next {
        Some(Answer::Expired) => (403, expired),
        Some(Answer::Status(status, "")) => (status, "<html>no".to_owned()),
        Some(Answer::Status(status, code)) => (status, format!("<Error><Code>{code}</Code></Error>")),
        _ if header("content-md5").is_some_and(|md5| md5 != PartMd5::of(&body).content_md5()) => {
            (400, "<Error><Code>BadDigest</Code></Error>".to_owned())
        }
        _ => {
            state.lock().expect("no panic").objects.insert(path, body);
            (200, String::new())
        }
    };
    answer(stream, status, &text);
}

fn answer(mut stream: &TcpStream, status: u16, text: &str) {
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        text.len()
    );
    let _written = stream.write_all(format!("{head}{text}").as_bytes());
}
