//! Faults of the store: whatever it does, an artifact arrives whole or its loss is explained, and no upload stays open.

use std::{fs, time::Duration};

use diagbot_api::run::Phase;
use diagbot_sandbox::{
    installation::Plan,
    store::{Fault, FaultKind, Operation},
    wait,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::product::{LEDGER, Product, Told, json_of};

/// A plan whose store can be disturbed.
fn disturbed(config: serde_json::Value) -> Plan {
    let mut plan = Plan {
        store_faults: Some(Vec::new()),
        config,
        ..Plan::default()
    };
    // One run after the other in one channel: Slack's own pace is another story's.
    plan.slack.rate_limited = false;
    plan
}

impl Product {
    fn disturb(&self, faults: &[Fault]) {
        let proxy = self.installation.store_proxy().unwrap();
        proxy.disarm();
        for fault in faults {
            proxy.arm(fault.clone());
        }
    }

    /// Every armed fault has struck.
    fn assert_struck(&self, what: &str) {
        let armed = self.installation.store_proxy().unwrap().armed();
        assert!(armed.is_empty(), "{what}: never struck: {armed:?}");
    }

    async fn assert_whole(&self, told: &Told, what: &str) {
        assert_eq!(told.run.phase(), Phase::Succeeded, "{what}: {}", told.text());
        told.downloads().await;
        assert!(self.open_uploads().is_empty(), "{what}: {:?}", self.open_uploads());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_passes_at_the_store_costs_time_and_nothing_else() {
    use FaultKind::{Broken, Corrupt, Cut, ExpiredCredentials, ExpiredUrl, InternalError, LostAnswer, Slow, SlowDown};
    use Operation::{CompleteUpload, ListParts, OpenUpload, Put, UploadPart};
    let product = Product::with(disturbed(json!({}))).await;
    let cut = Cut { after_bytes: 100 };
    let rounds = [
        vec![
            (Slow { millis: 700 }, UploadPart),
            (Slow { millis: 700 }, CompleteUpload),
        ],
        vec![
            (SlowDown, OpenUpload),
            (SlowDown, UploadPart),
            (SlowDown, CompleteUpload),
        ],
        vec![
            (InternalError, UploadPart),
            (InternalError, ListParts),
            (InternalError, Put),
        ],
        vec![(ExpiredUrl, UploadPart), (ExpiredCredentials, CompleteUpload)],
        vec![(ExpiredCredentials, UploadPart), (ExpiredCredentials, ListParts)],
        vec![(cut, UploadPart), (cut, Put), (Broken, ListParts)],
        vec![
            (LostAnswer, UploadPart),
            (LostAnswer, CompleteUpload),
            (LostAnswer, Put),
        ],
        vec![(Corrupt, UploadPart), (Broken, OpenUpload), (Broken, CompleteUpload)],
    ];
    for (before, round) in rounds.iter().enumerate() {
        let faults: Vec<Fault> = round.iter().map(|(kind, at)| Fault::of(*kind).on(*at)).collect();
        product.disturb(&faults);
        let what = format!("{round:?}");
        let told = product.runs("process ledger").await;
        product.assert_whole(&told, &what).await;
        product.assert_struck(&what);
        assert_eq!(product.ephemeral(LEDGER).await.len(), before + 1, "{what}");
        assert_eq!(
            product.objects().len(),
            3 * (before + 1),
            "{what}: one artifact, two records"
        );
    }
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lasts_at_the_store_is_named_and_nothing_is_called_done() {
    use Operation::{CompleteUpload, OpenUpload, UploadPart};
    let product = Product::with(disturbed(json!({}))).await;
    let cases = [
        (FaultKind::AccessDenied, UploadPart, "AccessDenied"),
        (FaultKind::DiskFull, UploadPart, "no room left"),
        (FaultKind::DiskFull, OpenUpload, "no room left"),
        (FaultKind::WrongRegion, OpenUpload, "another region"),
        (FaultKind::AccessDenied, CompleteUpload, "refused it"),
        // A part that arrived changed without the store's notice: the digests tell.
        (FaultKind::Forged, UploadPart, "not what was captured"),
    ];
    for (kind, operation, cause) in cases {
        product.disturb(&[Fault::of(kind).on(operation).times(u32::MAX)]);
        let told = product.runs("process ledger").await;
        assert_eq!(told.run.phase(), Phase::Failed, "{kind:?}: {}", told.text());
        told.explains(cause);
        assert!(told.run.status.as_ref().unwrap().captures[0].artifacts.is_empty());
        assert!(
            product.open_uploads().is_empty(),
            "{kind:?}: {:?}",
            product.open_uploads()
        );
    }
    // What remains tells of the attempts, and is no artifact.
    assert!(product.objects().iter().all(|key| !key.ends_with("process.txt")));
    assert_eq!(product.public().await.len(), cases.len(), "one message each");
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_survives_both_of_its_sides() {
    use FaultKind::{Broken, Corrupt, Cut, ExpiredCredentials, LostAnswer, SlowDown};
    use Operation::{CompleteUpload, UploadPart};
    use diagbot_sandbox::kubernetes::{self, FaultKind as Stream};
    let plan = disturbed(json!({ "store": { "endpointForPods": "http://127.0.0.1:1" } }));
    let product = Product::with(plan).await;
    let cut = Cut { after_bytes: 100 };
    let rounds = [
        (
            vec![(cut, UploadPart), (SlowDown, CompleteUpload)],
            Stream::StreamEndsEarly { after_bytes: 300 },
        ),
        (
            vec![(Corrupt, UploadPart), (LostAnswer, CompleteUpload)],
            Stream::StreamReset { after_bytes: 300 },
        ),
        (
            vec![(LostAnswer, UploadPart), (ExpiredCredentials, CompleteUpload)],
            Stream::KubeletGone,
        ),
        (vec![(Broken, UploadPart)], Stream::StreamSilent { after_bytes: 300 }),
    ];
    for (round, stream) in &rounds {
        let faults: Vec<Fault> = round.iter().map(|(kind, at)| Fault::of(*kind).on(*at)).collect();
        product.disturb(&faults);
        let exec = kubernetes::Fault::of(*stream).on("get", "pods/exec");
        product.installation.kubernetes().arm(exec);
        let what = format!("{round:?} {stream:?}");
        let told = product.runs("process ledger").await;
        product.assert_whole(&told, &what).await;
        product.assert_struck(&what);
        told.says(&["through the bot"]);
    }
    assert_eq!(product.ephemeral(LEDGER).await.len(), rounds.len());
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_a_crash_left_behind_are_taken_up_or_aborted() {
    let mut product = Product::with(disturbed(json!({}))).await;
    // The store opens an upload and its answer is lost; nor can the bot look for it before it is killed.
    let lost = Fault::of(FaultKind::LostAnswer).on(Operation::OpenUpload);
    let unlisted = Fault::of(FaultKind::Broken).on(Operation::ListUploads).times(u32::MAX);
    product.disturb(&[lost, unlisted]);
    let id = product.asks("process ledger").await;
    let opened = wait::until(Duration::from_secs(20), "an upload nobody knows of", || async {
        Ok((product.open_uploads().len() == 1).then_some(()))
    });
    opened.await.unwrap();
    product.installation.kill_bot(0).await.unwrap();
    product.disturb(&[]);
    product.installation.start_bot(0).unwrap();
    let told = product.ended(&id).await;
    product.assert_whole(&told, "after the crash").await;

    // The clock is compressed by the store's own record: an upload of a capture that nobody remembers, opened an hour ago.
    let key = told.run.status.as_ref().unwrap().captures[0].artifacts[0]
        .key
        .replace("/d-", "/d-0");
    let folder = product
        .installation
        .store_folder()
        .join("evidence/uploads/0123456789abcdef0123456789abcdef");
    fs::create_dir_all(&folder).unwrap();
    let opened = Timestamp::now() - SignedDuration::from_hours(1);
    let record = json!({ "key": key, "openedAt": opened, "checksumAlgorithm": null, "shown": {}, "tags": [] });
    fs::write(folder.join("upload.json"), record.to_string()).unwrap();
    assert_eq!(json_of(&fs::read(folder.join("upload.json")).unwrap())["key"], key);
    product.installation.restart_bot(0).await.unwrap();
    let swept = wait::until(Duration::from_secs(40), "the orphan is aborted", || async {
        Ok(product.open_uploads().is_empty().then_some(()))
    });
    swept.await.unwrap();
    product.stop().await;
}
