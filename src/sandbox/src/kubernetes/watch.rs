//! Watches: the log of changes as a stream of JSON lines, with bookmarks and resumption.
//!
//! Owns one watch's view (selector, form, revision reached). Never writes.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    answer::ApiError,
    cluster::Cluster,
    faults::{FaultKind, Occasion},
    form::Form,
    http::{Body, Call},
    kind::Kind,
    selector::Selector,
    store::{Change, Entry},
    verbs,
};

/// The real server sends one about every minute; sooner here, so that a client's handling is met in short runs.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(10);
/// Lines on their way to one client before the watch waits for it.
const LINES_IN_FLIGHT: usize = 64;

struct Watch {
    cluster: Arc<Cluster>,
    kind: &'static Kind,
    namespace: Option<String>,
    selector: Selector,
    form: Form,
    revision: u64,
    bookmarks: bool,
    lines: mpsc::Sender<Result<Frame<Bytes>, io::Error>>,
}

/// The client is gone, or the watch is over.
struct Ended;

/// Starts a watch and answers with its stream.
pub(super) fn answer(cluster: &Arc<Cluster>, call: &Call) -> Result<Response<Body>, ApiError> {
    let (lines, receiver) = mpsc::channel(LINES_IN_FLIGHT);
    let asked = call.query.get("resourceVersion");
    let asked: u64 = if asked.is_empty() {
        0
    } else {
        asked
            .parse()
            .map_err(|_| ApiError::bad_request(format!("invalid resource version {asked:?}")))?
    };
    let watch = Watch {
        cluster: Arc::clone(cluster),
        kind: call.target.kind,
        namespace: verbs::namespace(call).map(str::to_owned),
        selector: verbs::selector(call)?,
        form: Form::of_accept(&call.headers),
        revision: asked,
        bookmarks: call.query.flag("allowWatchBookmarks"),
        lines,
    };
    let initial_events = call.query.flag("sendInitialEvents");
    let until = call
        .query
        .number("timeoutSeconds")
        .map(|s| Instant::now() + Duration::from_secs(s));
    cluster.tasks.spawn(async move {
        // Both ends are ordinary: the client went, or the watch is over. The channel's end closes the answer.
        let _ended = watch.run(initial_events, until).await;
    });
    let stream = StreamBody::new(ReceiverStream::new(receiver));
    let mut response = Response::new(BodyExt::boxed(stream));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

impl Watch {
    async fn run(mut self, initial_events: bool, until: Option<Instant>) -> Result<(), Ended> {
        let mut changes = self.cluster.store.subscribe();
        let mut faults = self.cluster.faults.subscribe();
        if self.revision == 0 || initial_events {
            self.send_current(initial_events).await?;
        }
        let mut bookmark = Instant::now() + BOOKMARK_INTERVAL;
        loop {
            changes.mark_unchanged();
            faults.mark_unchanged();
            self.suffer_faults().await?;
            self.send_changes().await?;
            tokio::select! {
                () = self.cluster.stop.cancelled() => return Err(Ended),
                () = self.lines.closed() => return Err(Ended),
                () = sleep_until(until.unwrap_or(bookmark)), if until.is_some() => return Ok(()),
                () = sleep_until(bookmark) => {
                    bookmark = Instant::now() + BOOKMARK_INTERVAL;
                    if self.bookmarks {
                        self.send_bookmark(false).await?;
                    }
                }
                changed = changes.changed() => changed.map_err(|_| Ended)?,
                armed = faults.changed() => armed.map_err(|_| Ended)?,
            }
        }
    }

    async fn suffer_faults(&self) -> Result<(), Ended> {
        let occasion = Occasion {
            verb: "watch",
            resource: self.kind.plural,
            name: "",
        };
        let relevant = |kind| matches!(kind, FaultKind::WatchCloses | FaultKind::WatchQuiet);
        match self.cluster.faults.take(occasion, relevant) {
            Some(FaultKind::WatchQuiet) => {
                tokio::select! {
                    () = self.cluster.stop.cancelled() => {}
                    () = self.lines.closed() => {}
                }
                Err(Ended)
            }
            Some(_) => Err(Ended),
            None => Ok(()),
        }
    }

    async fn send_current(&mut self, initial_events: bool) -> Result<(), Ended> {
        let (revision, objects) = self.cluster.store.list(self.kind.stored(), self.namespace.as_deref());
        for object in objects.iter().filter(|o| self.selector.matches(o)) {
            self.send("ADDED", object).await?;
        }
        self.revision = revision;
        if initial_events {
            self.send_bookmark(true).await?;
        }
        Ok(())
    }

    async fn send_changes(&mut self) -> Result<(), Ended> {
        let store = &self.cluster.store;
        match store.changes_since(self.kind.stored(), self.namespace.as_deref(), self.revision) {
            Ok((revision, entries)) => {
                for entry in entries {
                    if let Some(word) = self.word(&entry) {
                        self.send(word, &entry.object).await?;
                    }
                    self.revision = entry.revision;
                }
                self.revision = self.revision.max(revision);
                Ok(())
            }
            Err(error) => {
                self.send_line(&json!({ "type": "ERROR", "object": error.to_status() }))
                    .await?;
                Err(Ended)
            }
        }
    }

    /// An object that enters the selected set is ADDED to this watch, one that leaves it DELETED from it.
    fn word(&self, entry: &Entry) -> Option<&'static str> {
        let now = self.selector.matches(&entry.object);
        let before = entry.previous.as_ref().is_some_and(|p| self.selector.matches(p));
        match entry.change {
            Change::Deleted => (now || before).then_some("DELETED"),
            Change::Added => now.then_some("ADDED"),
            Change::Modified => match (before, now) {
                (true, true) => Some("MODIFIED"),
                (false, true) => Some("ADDED"),
                (true, false) => Some("DELETED"),
                (false, false) => None,
            },
        }
    }

    async fn send(&self, word: &str, object: &Value) -> Result<(), Ended> {
        let object = self.form.object(self.kind, object);
        self.send_line(&json!({ "type": word, "object": object })).await
    }

    async fn send_bookmark(&self, end_of_initial: bool) -> Result<(), Ended> {
        let mut metadata = json!({ "resourceVersion": self.revision.to_string(), "creationTimestamp": null });
        if end_of_initial {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = json!({ "kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata });
        self.send_line(&json!({ "type": "BOOKMARK", "object": object })).await
    }

    async fn send_line(&self, line: &Value) -> Result<(), Ended> {
        let bytes = Bytes::from(format!("{line}\n"));
        self.lines.send(Ok(Frame::data(bytes))).await.map_err(|_| Ended)
    }
}
