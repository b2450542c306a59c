//! The socket report: the pod's network as `/proc/net` shows it, with queues and owners.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, Ipv6Addr},
};

use crate::process::ProcFs;

/// Most sockets that are listed of each table; all are counted. Those with something in a queue come first.
const MAX_ROWS: usize = 5_000;
/// States of TCP sockets, by their number (include/net/tcp_states.h).
const STATES: [&str; 13] = [
    "?",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
];

/// One line of a table.
struct Row {
    local: String,
    remote: String,
    state: &'static str,
    send_queue: u64,
    receive_queue: u64,
    inode: u64,
    uid: String,
}

/// The report.
pub(crate) fn sockets(proc_fs: &ProcFs) -> String {
    let owners = owners(proc_fs);
    let mut out = String::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let mut read = Table::default();
        proc_fs.root_lines(&format!("net/{table}"), |line| read.take(line));
        read.write(&mut out, table, &owners);
    }
    let mut lines = 0_usize;
    proc_fs.root_lines("net/unix", |_| lines += 1);
    let _infallible = writeln!(out, "== unix ==\n{} sockets\n", lines.saturating_sub(1));
    counters(&mut out, proc_fs);
    out
}

/// A table, read line by line: a busy pod has more sockets than fit our memory as text.
#[derive(Default)]
struct Table {
    count: usize,
    states: BTreeMap<&'static str, usize>,
    rows: Vec<Row>,
}

impl Table {
    /// Takes a line; the one with the columns' names is none of a socket.
    fn take(&mut self, line: &str) {
        let Some(row) = parse(line) else { return };
        self.count += 1;
        *self.states.entry(row.state).or_default() += 1;
        self.rows.push(row);
        if self.rows.len() >= 2 * MAX_ROWS {
            self.keep_first();
        }
    }

    /// Full queues first: that is where it hurts. Then those that wait for connections.
    fn keep_first(&mut self) {
        self.rows
            .sort_by_key(|row| std::cmp::Reverse((row.send_queue + row.receive_queue, row.state == "LISTEN")));
        self.rows.truncate(MAX_ROWS);
    }

    fn write(mut self, out: &mut String, name: &str, owners: &HashMap<u64, String>) {
        self.keep_first();
        let counted: Vec<_> = self
            .states
            .iter()
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        let _infallible = writeln!(out, "== {name} ==\n{} sockets: {}", self.count, counted.join(", "));
        if !self.rows.is_empty() {
            let _infallible = writeln!(
                out,
                "{:<12} {:>8} {:>8}  {:<46} {:<46} uid  process",
                "state", "recv-q", "send-q", "local", "remote"
            );
        }
        for row in &self.rows {
            let owner = owners.get(&row.inode).map_or("-", String::as_str);
            let _infallible = writeln!(
                out,
                "{:<12} {:>8} {:>8}  {:<46} {:<46} {}  {owner}",
                row.state, row.receive_queue, row.send_queue, row.local, row.remote, row.uid
            );
        }
        if self.count > self.rows.len() {
            let _infallible = writeln!(out, "… and {} more", self.count - self.rows.len());
        }
        out.push('\n');
    }
}

fn parse(line: &str) -> Option<Row> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (send, receive) = words.get(4)?.split_once(':')?;
    let state = usize::from_str_radix(words.get(3)?, 16).ok()?;
    Some(Row {
        local: address(words.get(1)?)?,
        remote: address(words.get(2)?)?,
        state: STATES.get(state).copied().unwrap_or("?"),
        send_queue: u64::from_str_radix(send, 16).ok()?,
        receive_queue: u64::from_str_radix(receive, 16).ok()?,
        inode: words.get(9)?.parse().ok()?,
        uid: (*words.get(7)?).to_owned(),
    })
}

/// `0100007F:1F90`: the address in the machine's byte order, word by word, then the port.
fn address(text: &str) -> Option<String> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = hex::decode(host).ok()?;
    if cfg!(target_endian = "little") {
        bytes.chunks_mut(4).for_each(<[u8]>::reverse);
    }
    Some(match <[u8; 16]>::try_from(bytes.as_slice()) {
        Ok(six) => format!("[{}]:{port}", Ipv6Addr::from(six)),
        Err(_) => format!("{}:{port}", Ipv4Addr::from(<[u8; 4]>::try_from(bytes.as_slice()).ok()?)),
    })
}

/// Which process holds which socket, for the processes that we may look into.
fn owners(proc_fs: &ProcFs) -> HashMap<u64, String> {
    let mut owners = HashMap::new();
    for process in proc_fs.all() {
        let entries = fs::read_dir(proc_fs.folder(process.pid).join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        for link in entries.filter_map(|entry| fs::read_link(entry.path()).ok()) {
            let text = link.to_string_lossy();
            let inode = text
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode {
                owners.insert(inode, format!("{} ({})", process.pid, process.comm));
            }
        }
    }
    owners
}

/// The counters that tell of loss: resets, retransmissions, overflows.
fn counters(out: &mut String, proc_fs: &ProcFs) {
    const TOLD: [&str; 10] = [
        "ActiveOpens",
        "PassiveOpens",
        "AttemptFails",
        "EstabResets",
        "RetransSegs",
        "InErrs",
        "OutRsts",
        "ListenOverflows",
        "ListenDrops",
        "TCPTimeouts",
    ];
    out.push_str("== counters ==\n");
    for file in ["net/snmp", "net/netstat"] {
        let text = proc_fs.root_text(file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.chunks(2) {
            let [names, values] = pair else { continue };
            for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
                if TOLD.contains(&name) && names.starts_with("Tcp") {
                    let _infallible = writeln!(out, "{name:<24} {value}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_people_write_them() {
        assert_eq!(address("0100007F:1F90").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(
            address("00000000000000000000000001000000:0050").as_deref(),
            Some("[::1]:80")
        );
        assert_eq!(address("junk"), None);
    }

    #[test]
    fn all_are_counted_and_the_full_queues_are_listed() {
        let mut table = Table::default();
        table.take("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode");
        for index in 0..3 * MAX_ROWS {
            let queue = if index == 17 { "00000005" } else { "00000000" };
            table.take(&format!(
                "{index}: 0100007F:1F90 0100007F:A000 01 {queue}:00000000 00:00000000 00000000 1000 0 {index} 1 0 20 4 30 10 -1"
            ));
        }
        let mut out = String::new();
        table.write(&mut out, "tcp", &HashMap::new());
        assert!(out.contains("15000 sockets: 15000 ESTABLISHED"), "{out:.200}");
        assert!(
            out.lines()
                .nth(3)
                .is_some_and(|row| row.contains("       5  127.0.0.1:8080")),
            "{out:.400}"
        );
        assert!(out.contains("… and 10000 more"));
    }

    #[test]
    fn a_socket_of_ours_is_listed_with_its_owner() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a socket");
        let address = listener.local_addr().expect("its address").to_string();
        let text = sockets(&ProcFs::system());
        let row = text.lines().find(|line| line.contains(&address)).expect("the row");
        assert!(
            row.starts_with("LISTEN") && row.contains(&std::process::id().to_string()),
            "{row}"
        );
    }
}
