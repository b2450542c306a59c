//! The record: a story's entries are in the log and in the store, anchored, and `diagbot audit verify` tells tampering.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use diagbot::{
    record::{Entry, Event, Line},
    runs::resource::DiagnosticRun,
};
use diagbot_sandbox::{
    installation::Plan,
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
