//! The record: a story's entries are in the log and in the store, anchored, and `diagbot audit verify` tells tampering.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use bytes::Bytes;
use diagbot::config::Config;
use diagbot_api::run::DiagnosticRun;
use diagbot_artifacts::Store;
use diagbot_audit::{Entry, Event, Line};
use diagbot_base::clock::Clock;
use diagbot_sandbox::{
    installation::Plan,
    people::fetch,
    store::{Fault, FaultKind},
    wait,
};

use crate::product::{LEDGER, Product, files};

const LONGEST: Duration = Duration::from_secs(45);

/// Runs `diagbot audit verify` and gives its exit and output.
fn verify(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sandbox-under-test"))
        .args(["bot", "audit", "verify"])
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// The entries in a text of lines.
pub(crate) fn entries(text: &str) -> Vec<Entry> {
    let lines = text.lines().filter_map(Line::parse);
    lines.map(|line| serde_json::from_str(&line.entry).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_story_is_on_record_and_each_way_of_tampering_is_told() {
    let mut product = Product::start().await;
    let told = product.runs("process ledger").await;
    told.downloads().await;
    let run = told.run.metadata.name.clone().unwrap();
    let config = product.installation.file("bot-0.yaml").to_string_lossy().into_owned();
    let whole = wait::until(LONGEST, "the record is stored and anchored", || async {
        let (good, said) = verify(&["--config", &config]);
        Ok((good && said.contains("anchored up to")).then_some(said))
    })
    .await
    .unwrap();
    assert!(whole.contains("0 with faults"), "{whole}");
    product.installation.stop_bot(0).await.unwrap();
    let (good, said) = verify(&["--config", &config]);
    assert!(good && said.contains("stopped in order"), "{said}");

    // Log and store hold the same entries, which tell the whole story.
    let log = fs::read_to_string(product.installation.file("bot-0.record")).unwrap();
    let logged = entries(&log);
    let folder = product.installation.store_folder();
    let stored: String = files(&folder)
        .iter()
        .filter(|file| file.to_string_lossy().contains("/record/") && !file.ends_with("object.json"))
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let mut kept = entries(&stored);
    kept.sort_by_key(|entry| entry.seq);
    assert_eq!(kept, logged);
    let person = "slack:T0DIAG0001:U0ADA00001";
    let of_run: Vec<&Event> = logged
        .iter()
        .map(|e| &e.event)
        .filter(|e| e.run() == Some(&run))
        .collect();
    let has = |fits: &dyn Fn(&Event) -> bool| assert!(of_run.iter().any(|e| fits(e)), "{of_run:#?}");
    has(&|e| matches!(e, Event::Request { person: p, diagnostic, .. } if p == person && diagnostic == "process"));
    has(&|e| matches!(e, Event::Decision { person: p, allowed: true, .. } if p == person));
    has(&|e| matches!(e, Event::Container { pod, spec, .. } if pod["pod"] == LEDGER && spec["args"][0] == "run"));
    has(&|e| matches!(e, Event::Artifact { sha256, .. } if sha256.len() == 64));
    has(&|e| matches!(e, Event::Link { person: p, .. } if p == person));
    has(&|e| matches!(e, Event::Ended { phase, .. } if phase == "Succeeded"));

    tampering(
        product.installation.file("tampered").as_path(),
        &log,
        logged.last().unwrap(),
    );
    product.stop().await;
}

/// What somebody does to the lines of a log.
type Tamper<'a> = &'a dyn Fn(&mut Vec<String>);

/// Five tampered copies of a log, each told for what it is.
fn tampering(folder: &Path, log: &str, last: &Entry) {
    fs::create_dir_all(folder).unwrap();
    let heads = folder.join("heads.json");
    let lines: Vec<String> = log
        .lines()
        .filter(|line| Line::parse(line).is_some())
        .map(str::to_owned)
        .collect();
    let head = Line::parse(lines.last().unwrap()).unwrap().sha256;
    let head = serde_json::json!({ &last.writer: { "seq": last.seq, "sha256": head, "at": last.at } });
    fs::write(&heads, head.to_string()).unwrap();
    let told = |name: &str, change: Tamper<'_>| {
        let mut lines = lines.clone();
        change(&mut lines);
        let file = folder.join(name);
        fs::write(&file, lines.join("\n")).unwrap();
        verify(&["--lines", &file.to_string_lossy(), "--heads", &heads.to_string_lossy()])
    };
    let (good, said) = told("good", &|_| {});
    assert!(
        good && said.contains(&format!("whole up to entry {}", last.seq)) && !said.contains("NOT PROVEN"),
        "{said}"
    );
    let tampered: [(&str, Tamper<'_>, &str); 5] = [
        ("removed", &|lines| drop(lines.remove(3)), "entry 4 was removed"),
        (
            "changed",
            &|lines| lines[1] = lines[1].replace("U0ADA00001", "U0BOB00001"),
            "entry 2 was changed",
        ),
        (
            "reordered",
            &|lines| lines.swap(2, 3),
            "entry 4 stands in the place of entry 3",
        ),
        ("cut", &|lines| lines.truncate(5), "cut: ends at entry 5"),
        (
            "changed-and-hashed-anew",
            &|lines| {
                let line = Line::parse(&lines[1]).unwrap();
                let entry = line.entry.replace("U0ADA00001", "U0BOB00001");
                let sha256 = diagbot_wire::digest::sha256_hex(entry.as_bytes());
                Line { sha256, entry }.render().trim_end().clone_into(&mut lines[1]);
            },
            "entry 2 was changed",
        ),
    ];
    for (name, change, words) in tampered {
        let (good, said) = told(name, change);
        assert!(!good && said.contains(words), "{name}: {said}");
        assert!(said.contains("whole up to entry "), "{name}: {said}");
    }
    // What was appended after the anchor can't be told from what a killed bot left: it is no fault, and called not proven.
    let (good, said) = told("appended", &|lines| {
        let former = Line::parse(lines.last().unwrap()).unwrap();
        let mut entry: serde_json::Value = serde_json::from_str(&former.entry).unwrap();
        entry["seq"] = (last.seq + 1).into();
        entry["former"] = former.sha256.into();
        let entry = entry.to_string();
        let sha256 = diagbot_wire::digest::sha256_hex(entry.as_bytes());
        lines.push(Line { sha256, entry }.render().trim_end().to_owned());
    });
    let plainly = "NOT PROVEN  1 entry after the last anchor: anybody who can write the record could have appended it";
    assert!(
        good && said.contains(plainly) && said.contains("0 with faults; entries not proven: 1"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_records_store_is_away_sensitive_evidence_is_refused_and_the_rest_is_on_record_later() {
    let plan = Plan {
        store_faults: Some(Vec::new()),
        ..Plan::default()
    };
    let mut product = Product::with(plan).await;
    let proxy = product.installation.store_proxy().unwrap();
    proxy.arm(Fault::of(FaultKind::AccessDenied).of_key("/record/").times(u32::MAX));
    product.runs("process ledger").await;
    wait::until(LONGEST, "the bot knows that the record's store is away", || async {
        let logs = product.installation.logs()?;
        Ok(logs
            .iter()
            .any(|(_, log)| log.contains("the record could not be stored yet"))
            .then_some(()))
    })
    .await
    .unwrap();
    let refused = product.runs(&format!("heap-dump {LEDGER} -n shop")).await;
    refused.explains("can't be recorded now");
    refused.says(&["RecordAway"]);
    let told = product.runs("process ledger").await;
    told.says(&["State: *done*"]);
    let held = &told.run.status.as_ref().unwrap().unrecorded;
    assert!(held.iter().any(|line| line.contains("container")), "{held:?}");

    // The bot dies before the store is back: the next one finds what is on the run.
    product.installation.restart_bot(0).await.unwrap();
    product.installation.store_proxy().unwrap().disarm();
    let run = told.run.metadata.name.clone().unwrap();
    let folder = product.installation.store_folder();
    wait::until(LONGEST, "what was done meanwhile is on record", || async {
        let of_run = |file: &PathBuf| fs::read_to_string(file).is_ok_and(|text| text.contains(&run));
        let kept = files(&folder);
        Ok(kept
            .iter()
            .any(|file| file.to_string_lossy().contains("/record/") && of_run(file))
            .then_some(()))
    })
    .await
    .unwrap();
    let settled = |run: &DiagnosticRun| run.status.as_ref().is_some_and(|status| status.unrecorded.is_empty());
    product
        .run(&told.id, "nothing waits on the run any more", settled)
        .await;
    let config = product.installation.file("bot-0.yaml").to_string_lossy().into_owned();
    wait::until(LONGEST, "the record is whole", || async {
        Ok(verify(&["--config", &config]).0.then_some(()))
    })
    .await
    .unwrap();
    product.stop().await;
}

/// What is on record, by what is in the store's folder, of writers whose name begins so.
fn kept(folder: &Path, writer: &str) -> Vec<Entry> {
    let objects = files(folder)
        .into_iter()
        .filter(|file| file.to_string_lossy().contains("/record/") && !file.ends_with("object.json"));
    let texts: Vec<String> = objects.filter_map(|file| fs::read_to_string(file).ok()).collect();
    // Objects of others need not end in a line break.
    let mut kept = entries(&texts.join("\n"));
    kept.retain(|entry| entry.writer.starts_with(writer));
    kept.sort_by_key(|entry| entry.seq);
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn squatted_names_neither_lose_nor_hide_what_was_done() {
    let mut product = Product::start().await;
    let folder = product.installation.store_folder();
    let config = product.installation.file("bot-0.yaml");
    let first = wait::until(LONGEST, "the record begins", || async {
        Ok(kept(&folder, "").into_iter().next())
    })
    .await
    .unwrap();
    // Whoever has the store's key can tell the names that come next.
    let store = Store::connect(&Config::load(&config).unwrap().store, Clock::System)
        .await
        .unwrap();
    for number in 2..=120 {
        let key = store.key(&["record", &first.writer, &format!("{number:012}.jsonl")]);
        store
            .create(&key, Bytes::from_static(b"x"), "application/jsonl", None)
            .await
            .unwrap();
    }
    let told = product.runs("process ledger").await;
    told.says(&["State: *done*"]);
    let run = told.run.metadata.name.clone().unwrap();
    let next = format!("{}-next-", first.writer);
    let of_run = wait::until(LONGEST, "the run is on record in a new chain", || async {
        let kept = kept(&folder, &next);
        let ended = |entry: &Entry| matches!(&entry.event, Event::Ended { run: r, .. } if *r == run);
        // The folder is read while it is written: an object may be missed.
        let is_whole = (1..).zip(&kept).all(|(seq, entry)| entry.seq == seq);
        Ok((is_whole && kept.iter().any(ended)).then_some(kept))
    })
    .await
    .unwrap();
    assert!(
        matches!(&of_run[0].event, Event::Displaced { chain, .. } if *chain == first.writer),
        "{of_run:#?}"
    );
    let has = |fits: &dyn Fn(&Event) -> bool| {
        let fitting = |entry: &&Entry| entry.event.run() == Some(&run) && fits(&entry.event);
        assert_eq!(of_run.iter().filter(fitting).count(), 1, "{of_run:#?}");
    };
    has(&|e| matches!(e, Event::Request { .. }));
    has(&|e| matches!(e, Event::Container { .. }));
    has(&|e| matches!(e, Event::Artifact { .. }));
    let bot = product.installation.addresses().bots[0].clone();
    let read = async |path: &str| {
        let (_, body) = fetch(&format!("{bot}{path}")).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    };
    let metrics = read("/metrics").await;
    assert!(
        metrics.contains("diagbot_record_writes_total{outcome=\"displaced\"} 1"),
        "{metrics}"
    );
    let ready = read("/readyz").await;
    assert!(
        ready.contains("another's object stood in the record's place"),
        "{ready}"
    );
    product.installation.stop_bot(0).await.unwrap();

    // What was put there is told of the chain in whose place it stands, and of no other.
    let (good, said) = verify(&["--config", &config.to_string_lossy()]);
    assert!(!good && said.contains("2 chains, 1 with faults"), "{said}");
    let line = said.lines().find(|line| line.starts_with(&next)).unwrap();
    assert!(
        line.contains("whole up to") && !line.contains("not anchored") && line.contains("stopped in order"),
        "{said}"
    );
    product.stop().await;
}
