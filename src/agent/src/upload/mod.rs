//! Parts go straight from here to the store, over presigned URLs. Owns the digests, the retries and the grants; memory does
//! not depend on the artifact's size, since every part is read from the file again.

mod body;
mod connection;
mod error;
mod hashing;

use std::{cell::Cell, collections::VecDeque, fs::File, sync::Arc, time::Duration};

pub(crate) use connection::Store;
use diagbot_wire::{
    digest::{Digests, PartMd5},
    journal::Event,
    upload::{Grant, part_size_bytes},
};
pub(crate) use error::UploadError;
pub(crate) use hashing::{Hashing, PartPlan};
use tokio::{task::JoinSet, time::Instant};

use crate::{clock::now_ms, inbox::Inbox, journal::Journal};

/// Parts under way at once: a store takes longer for the end of a part (its disk) than for the way there.
const IN_FLIGHT: usize = 4;
/// Tries of one part.
const TRIES: u32 = 4;
/// First pause between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// How often a URL is renewed without a part that arrives in between: the clocks of bot and store may disagree.
const RENEWALS: u32 = 3;

/// A finished upload.
#[derive(Debug)]
pub(crate) struct Uploaded {
    /// Of exactly the uploaded bytes.
    pub(crate) digests: Digests,
    /// Number of parts.
    pub(crate) parts: u32,
    /// The multipart ETag that follows from the parts' MD5s.
    pub(crate) etag: String,
}

impl Uploaded {
    /// Refuses a file whose bytes are not those that were written into it.
    pub(crate) fn must_match(self, written: Option<&Digests>) -> Result<Self, UploadError> {
        match written {
            Some(written) if *written != self.digests => Err(UploadError::Changed),
            _ => Ok(self),
        }
    }
}

/// Hands out the URL of each part; asks for more when they end or have died.
struct Urls<'a> {
    step: u16,
    journal: &'a Journal,
    inbox: &'a Inbox,
    at_hand: VecDeque<(u32, PartUrl)>,
    asked_from: Cell<u32>,
    renewals: u32,
}

/// Where a part goes. A bearer secret.
#[derive(Clone)]
struct PartUrl {
    url: String,
    /// Headers that are part of the signature.
    headers: Vec<(String, String)>,
    expires_at_ms: u64,
}

/// A part on its way.
#[derive(Clone, Copy)]
struct Part {
    number: u32,
    md5: PartMd5,
    /// Offset and length.
    range: (u64, u64),
}

/// Begins to hash a file that grows, in parts as the step's limit wants them.
pub(crate) fn hash(limit_bytes: u64, file: &Arc<File>) -> Hashing {
    Hashing::follow(file, part_size_bytes(limit_bytes))
}

/// Uploads a file that is being hashed as the artifact of a step.
pub(crate) async fn upload(
    step: u16,
    hashing: &Hashing,
    file: &Arc<File>,
    store: &Arc<Store>,
    inbox: &Inbox,
    journal: &Journal,
) -> Result<(), UploadError> {
    let plan = hashing.plan();
    let mut urls = Urls {
        step,
        journal,
        inbox,
        at_hand: VecDeque::new(),
        asked_from: Cell::new(0),
        renewals: 0,
    };
    let mut sending = Sending::new();
    let mut uploaded_bytes = 0;
    for number in 1..=plan.parts {
        let md5 = hashing.md5(number).await?;
        while sending.len() >= IN_FLIGHT {
            uploaded_bytes += settle(&mut sending, &mut urls, file, store).await?;
            journal.progress(step, plan.size_bytes, uploaded_bytes, Some(plan.size_bytes));
        }
        let url = urls.of(number).await;
        let range = part_range(plan, number);
        let part = Part { number, md5, range };
        send(&mut sending, part, url, Arc::clone(file), Arc::clone(store));
    }
    while !sending.is_empty() {
        uploaded_bytes += settle(&mut sending, &mut urls, file, store).await?;
        journal.progress(step, plan.size_bytes, uploaded_bytes, Some(plan.size_bytes));
    }
    Ok(())
}

/// Finds out whether the store can be reached, with the tries of a part; a connection stays open for the first of them.
pub(crate) async fn reach(store: &Store, url: &str) -> Result<(), UploadError> {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut tried = 1;
    loop {
        match store.reach(url).await {
            Err(error) if error.is_passing(started.elapsed()) && tried < TRIES => {
                tokio::time::sleep(pause).await;
                pause *= 2;
                tried += 1;
            }
            outcome => return outcome,
        }
    }
}

/// PUTs a small file whole, with the tries of a part.
pub(crate) async fn put_small(
    store: &Arc<Store>,
    url: &str,
    headers: &[(String, String)],
    file: Arc<File>,
    md5: PartMd5,
    size_bytes: u64,
) -> Result<(), UploadError> {
    let mut sending = Sending::new();
    let part = Part {
        number: 1,
        md5,
        range: (0, size_bytes),
    };
    let to = PartUrl {
        url: url.to_owned(),
        headers: headers.to_vec(),
        expires_at_ms: u64::MAX,
    };
    send(&mut sending, part, to, file, Arc::clone(store));
    match sending.join_next().await {
        Some(Ok(Err((_, error)))) => Err(error),
        Some(Err(error)) => Err(UploadError::Internal(error.to_string())),
        Some(Ok(Ok(_))) | None => Ok(()),
    }
}

/// Parts under way: the bytes of one that arrived, or the part that did not.
type Sending = JoinSet<Result<u64, (Part, UploadError)>>;

fn send(sending: &mut Sending, part: Part, to: PartUrl, file: Arc<File>, store: Arc<Store>) {
    sending.spawn(async move {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut tried = 1;
        loop {
            match store.put(&to.url, &to.headers, &file, part.range, part.md5).await {
                Ok(()) => return Ok(part.range.1),
                // A store that refuses at the head and closes can make us miss its answer.
                Err(UploadError::Broken(_)) if to.expires_at_ms <= now_ms() => {
                    return Err((part, UploadError::Expired));
                }
                Err(error) if error.is_passing(started.elapsed()) && tried < TRIES => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    tried += 1;
                }
                Err(error) => return Err((part, error)),
            }
        }
    });
}

/// Waits for one part; a part whose URL has died is sent again with a new one.
async fn settle(
    sending: &mut Sending,
    urls: &mut Urls<'_>,
    file: &Arc<File>,
    store: &Arc<Store>,
) -> Result<u64, UploadError> {
    loop {
        match sending.join_next().await {
            Some(Ok(Ok(bytes))) => {
                urls.renewals = 0;
                return Ok(bytes);
            }
            Some(Ok(Err((part, UploadError::Expired)))) if urls.renewals < RENEWALS => {
                urls.renewals += 1;
                urls.at_hand.clear();
                let url = urls.of(part.number).await;
                send(sending, part, url, Arc::clone(file), Arc::clone(store));
            }
            Some(Ok(Err((_, error)))) => return Err(error),
            Some(Err(error)) => return Err(UploadError::Internal(error.to_string())),
            None => return Ok(0),
        }
    }
}

/// Offset and length of a part.
fn part_range(plan: PartPlan, number: u32) -> (u64, u64) {
    let offset = u64::from(number - 1) * plan.part_size_bytes;
    (offset, plan.part_size_bytes.min(plan.size_bytes - offset))
}

impl Urls<'_> {
    /// The URL of a part; waits for the bot where there is none at hand.
    async fn of(&mut self, number: u32) -> PartUrl {
        loop {
            if let Some(index) = self.at_hand.iter().position(|(n, _)| *n == number)
                && let Some((_, url)) = self.at_hand.remove(index)
            {
                return url;
            }
            let step = self.step;
            let waiting = self.inbox.wait(|contents| contents.take_grant(step));
            let grant = if let Ok(grant) = tokio::time::timeout(Duration::ZERO, waiting).await {
                grant
            } else {
                if self.asked_from.replace(number) != number {
                    self.journal.write(&Event::NeedUrls {
                        step,
                        from_part: number,
                    });
                }
                self.inbox.wait(|contents| contents.take_grant(step)).await
            };
            self.take(grant);
        }
    }

    fn take(&mut self, grant: Grant) {
        // A renewal replaces what is at hand.
        self.at_hand.retain(|(number, _)| *number < grant.first_part);
        let expires_at_ms = grant.expires_at_ms;
        let urls = grant.urls.into_iter().map(|url| PartUrl {
            url,
            headers: Vec::new(),
            expires_at_ms,
        });
        self.at_hand.extend((grant.first_part..).zip(urls));
        self.asked_from.set(0);
    }
}
