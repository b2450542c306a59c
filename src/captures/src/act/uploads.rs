//! Uploads of a capture: opened and recorded before anything is sent, found again where that was cut off, aborted where they will
//! not be completed. Never signs a URL and never completes one.

use diagbot_api::capture::{StepSpec, UploadRecord};
use diagbot_artifacts::{ArtifactKey, UploadId};
use diagbot_wire::upload::part_size_bytes;
use futures::future::{Either, try_join_all};

use super::{ActError, Outcome, TaskContext};
use crate::{
    explain::{self, Refusal},
    plan::{Facts, Fault},
};

/// Opens an upload for each step that has none, and records them. What a crash left unrecorded is taken over: no URL of it
/// was ever signed. (What nobody takes over is found when the capture ends, or by the sweep.)
pub(super) async fn open(scene: &TaskContext, f: &Facts) -> Result<Outcome, ActError> {
    let left = orphans(scene, f, Fault::Uploads).await?;
    let missing = f.steps().filter(|step| f.upload(*step).is_none());
    let opened = try_join_all(missing.map(|step| {
        let key = upload_key(scene, f, f.attempt_number(), step);
        match left.iter().find(|(left, _)| *left == key) {
            Some((_, id)) => Either::Left(std::future::ready(Ok(entry(f, step, &key, id)))),
            None => Either::Right(open_one(scene, f, step)),
        }
    }))
    .await?;
    record(scene, f, &opened).await?;
    Ok(Outcome::Recorded)
}

/// Puts them on record.
pub(crate) async fn record(scene: &TaskContext, f: &Facts, opened: &[UploadRecord]) -> Result<(), ActError> {
    scene
        .write(f, |status| {
            for upload in opened {
                if !status.uploads.iter().any(|u| u.upload_id == upload.upload_id) {
                    status.uploads.push(upload.clone());
                }
            }
        })
        .await?;
    Ok(())
}

/// Opens an upload for a step; it is on no record yet.
pub(crate) async fn open_one(scene: &TaskContext, f: &Facts, step: u16) -> Result<UploadRecord, ActError> {
    let spec = &f.spec().steps[usize::from(step)];
    let key = upload_key(scene, f, f.attempt_number(), step);
    let tags = [
        ("diagbot-run".to_owned(), f.spec().run.clone()),
        ("diagbot-sensitive".to_owned(), spec.sensitive.to_string()),
    ];
    let upload = scene
        .context
        .store
        .open_upload(&key, &spec.media_type, &tags)
        .await
        .map_err(|error| ActError::of_store(Fault::Uploads, &error))?;
    Ok(entry(f, step, &key, &upload))
}

/// Aborts what was opened and will not be completed, and what may have been opened and never recorded; `fault` is what can't
/// be done where the store refuses that for good.
pub(crate) async fn abort(scene: &TaskContext, f: &Facts, fault: Fault) -> Result<Outcome, ActError> {
    let store = &scene.context.store;
    let recorded = f.recorded(|s| s.uploads.clone());
    let unclosed = recorded.iter().filter(|upload| !upload.closed).map(names);
    let unclosed: Vec<_> = unclosed.collect::<Result<_, _>>()?;
    let orphans = orphans(scene, f, fault).await?;
    for (key, id) in unclosed.iter().chain(&orphans) {
        let aborted = store.abort(key, id).await;
        aborted.map_err(|error| ActError::of_store(fault, &error))?;
    }
    if unclosed.is_empty() {
        return Ok(Outcome::Recorded);
    }
    scene
        .write(f, |status| {
            for upload in &mut status.uploads {
                upload.closed = true;
            }
        })
        .await?;
    Ok(Outcome::Recorded)
}

/// Uploads of this capture that are open at the store and on no record, whichever attempt they were opened for.
async fn orphans(scene: &TaskContext, f: &Facts, fault: Fault) -> Result<Vec<(ArtifactKey, UploadId)>, ActError> {
    if !f.may_hold_strays {
        return Ok(Vec::new());
    }
    let open = scene.context.store.open_uploads().await;
    let open = open.map_err(|error| ActError::of_store(fault, &error))?;
    let ours: Vec<ArtifactKey> = (1..=f.attempt_number())
        .flat_map(|attempt| f.steps().map(move |step| upload_key(scene, f, attempt, step)))
        .collect();
    let is_stray = |key: &ArtifactKey, id: &UploadId| {
        let recorded = f.recorded(|s| s.uploads.iter().any(|upload| upload.upload_id == id.as_str()));
        ours.contains(key) && !recorded
    };
    let open = open.into_iter().map(|(key, id, _)| (key, id));
    Ok(open.filter(|(key, id)| is_stray(key, id)).collect())
}

/// The recorded upload as the store's types.
pub(crate) fn names(upload: &UploadRecord) -> Result<(ArtifactKey, UploadId), ActError> {
    let key = ArtifactKey::try_from(upload.key.clone()).map_err(|_| {
        ActError::Never(
            Fault::Artifact(upload.step),
            explain::refusal(Refusal::Invalid, "the recorded key is none of ours"),
        )
    })?;
    Ok((key, UploadId(upload.upload_id.clone())))
}

/// Where a step's artifact goes, of that attempt.
fn upload_key(scene: &TaskContext, f: &Facts, attempt: u32, step: u16) -> ArtifactKey {
    scene.key(attempt, &object_name(&f.spec().steps, step))
}

fn entry(f: &Facts, step: u16, key: &ArtifactKey, upload: &UploadId) -> UploadRecord {
    UploadRecord {
        step,
        attempt: f.attempt_number(),
        key: key.as_str().to_owned(),
        upload_id: upload.as_str().to_owned(),
        part_size_bytes: part_size_bytes(f.spec().steps[usize::from(step)].limit_bytes),
        closed: false,
    }
}

/// The step's file name; numbered where two steps make files of one name.
pub(super) fn object_name(steps: &[StepSpec], step: u16) -> String {
    let name = &steps[usize::from(step)].artifact;
    if steps.iter().filter(|s| s.artifact == *name).count() > 1 {
        format!("{}-{name}", step + 1)
    } else {
        name.clone()
    }
}
