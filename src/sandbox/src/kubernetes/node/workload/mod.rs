//! The sample workloads: what sick and healthy programs look like.
//!
//! `ledger` and `billing` are this very program (`diagbot-sandbox workload <name>`); `checkout` is a small Java program that
//! is compiled on the machine it runs on.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    thread,
    time::Duration,
};

use super::image;

const CHECKOUT: &str = include_str!("Checkout.java");

/// Entry of `workload <name>`; runs until it is killed, or fails as its story wants.
pub fn workload(args: &[OsString]) -> ExitCode {
    let ended = match args.first().and_then(|a| a.to_str()) {
        Some("ledger") => ledger(),
        Some("billing") => billing(),
        _ => writeln!(io::stderr(), "workload: `ledger` or `billing`").map(|()| ExitCode::from(2)),
    };
    ended.unwrap_or(ExitCode::FAILURE)
}

/// A few named threads, a listening socket, and a line now and then.
fn ledger() -> io::Result<ExitCode> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut out = io::stdout();
    writeln!(out, "ledger: listening on {}", listener.local_addr()?)?;
    for name in ["ledger-writer", "ledger-compact"] {
        thread::Builder::new().name(name.to_owned()).spawn(thread::park)?;
    }
    thread::Builder::new().name("ledger-accept".to_owned()).spawn(move || {
        for stream in listener.incoming() {
            // A client of the sample says nothing that matters.
            let _closed = stream.and_then(|mut s| s.read(&mut [0; 64]));
        }
    })?;
    let mut entries = 0_u64;
    loop {
        thread::sleep(Duration::from_secs(5));
        entries += 17;
        writeln!(out, "ledger: {entries} entries booked")?;
    }
}

/// Says what is wrong and fails.
fn billing() -> io::Result<ExitCode> {
    let mut out = io::stdout();
    writeln!(out, "billing: starting, version 2.7.1")?;
    writeln!(out, "billing: reading /etc/billing/tariffs.yaml")?;
    writeln!(out, "billing: fatal: tariffs.yaml: line 14: unknown currency \"EURO\"")?;
    Ok(ExitCode::FAILURE)
}

/// Compiles `checkout` below `directory`; fails where there is no JDK, in words for the pod's status.
pub(super) async fn compile_checkout(directory: &Path) -> io::Result<PathBuf> {
    let (Some(_), Some(javac)) = (image::find_program("java"), image::find_program("javac")) else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no java on this machine"));
    };
    let classes = directory.join("checkout");
    std::fs::create_dir_all(&classes)?;
    let source = classes.join("Checkout.java");
    std::fs::write(&source, CHECKOUT)?;
    let compiled = tokio::process::Command::new(javac)
        .args(["-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC", "-d"])
        .arg(&classes)
        .arg(&source)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    if compiled.status.success() {
        Ok(classes)
    } else {
        Err(io::Error::other(format!(
            "javac: {}",
            String::from_utf8_lossy(&compiled.stderr).trim()
        )))
    }
}
