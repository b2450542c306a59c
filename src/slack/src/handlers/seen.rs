//! Deliveries that this process has seen: an optimisation that spares repeated answers. Never what makes a run one run.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

/// Ids that are remembered; an hour of a busy workspace.
const MOST: usize = 8_192;

/// The ids, oldest forgotten first.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Ids>);

#[derive(Debug, Default)]
struct Ids {
    known: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    /// Remembers an id; true where it was known.
    pub(super) fn insert(&self, id: &str) -> bool {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !ids.known.insert(id.to_owned()) {
            return true;
        }
        ids.order.push_back(id.to_owned());
        if ids.order.len() > MOST
            && let Some(oldest) = ids.order.pop_front()
        {
            ids.known.remove(&oldest);
        }
        false
    }
}
