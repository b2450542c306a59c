//! The durable runs as this process sees them: a cache of the home cluster, a moment late. Owns the watch; never
//! writes. Decisions that must not be made on a late view are made by writes with a resourceVersion.

use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use tokio_util::sync::CancellationToken;

/// A watch is made anew after this time, in seconds: one that went quiet is noticed a little later.
const WATCH_S: u32 = 15;
/// Changes that a slow reader may be behind before it is shown everything again.
const BACKLOG: usize = 256;

/// A cache of all objects of one kind in the bot's namespace. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ObjectCache<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    reader: Store<K>,
    changes: broadcast::Sender<Arc<K>>,
}

/// The watch that feeds [`ObjectCache`].
pub(crate) struct Reflector<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    writer: reflector::store::Writer<K>,
    cache: ObjectCache<K>,
}

/// A cache, empty until [`Reflector::run`] has read once.
pub(crate) fn reflector<K>() -> (ObjectCache<K>, Reflector<K>)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let (reader, writer) = reflector::store();
    let (changes, _) = broadcast::channel(BACKLOG);
    let cache = ObjectCache { reader, changes };
    (cache.clone(), Reflector { writer, cache })
}

impl<K> ObjectCache<K>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    /// The object of that name.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.reader.get(&ObjectRef::new(name).within(namespace))
    }

    /// Every object.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.reader.state()
    }

    /// Objects that changed, were deleted, or may have changed; a reader that falls behind is shown all of them again.
    pub(crate) fn changes(&self) -> impl Stream<Item = Arc<K>> + Send + use<K> {
        let reader = self.reader.clone();
        BroadcastStream::new(self.changes.subscribe()).flat_map(move |change| {
            stream::iter(match change {
                Ok(object) => vec![object],
                Err(BroadcastStreamRecvError::Lagged(_)) => reader.state(),
            })
        })
    }

    /// Whether everything was read at least once.
    pub(crate) fn ready(&self) -> bool {
        futures::FutureExt::now_or_never(self.reader.wait_until_ready()).is_some_and(|ready| ready.is_ok())
    }

    fn tell(&self, object: Arc<K>) {
        // Nobody may be listening.
        let _ = self.changes.send(object);
    }
}

impl<K> Reflector<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    /// Watches until `stop`. Broken watches are begun again, with a growing wait.
    pub(crate) async fn run(self, api: Api<K>, stop: CancellationToken) {
        let Self { writer, cache } = self;
        let events = watcher(api, watcher::Config::default().timeout(WATCH_S))
            .default_backoff()
            .modify(|object| object.meta_mut().managed_fields = None)
            .reflect(writer);
        let mut events = std::pin::pin!(events);
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok(watcher::Event::Apply(object) | watcher::Event::Delete(object))) => {
                    cache.tell(Arc::new(object));
                }
                Some(Ok(watcher::Event::InitDone)) => cache.all().into_iter().for_each(|object| cache.tell(object)),
                Some(Ok(watcher::Event::Init | watcher::Event::InitApply(_))) => {}
                Some(Err(error)) => tracing::warn!(
                    error = %diagbot_base::telemetry::Chain(&error),
                    kind = %K::kind(&()),
                    "the watch broke and is begun again"
                ),
                None => return,
            }
        }
    }
}
