//! The state of one sandbox cluster, shared by the API and the node.

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{faults::Faults, identity::Tokens, node::Node, outage::Outage, schema::Schemas, store::Store};

/// Everything that a running server owns.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) store: Store,
    pub(super) tokens: Tokens,
    pub(super) faults: Faults,
    pub(super) outage: Outage,
    pub(super) schemas: Schemas,
    pub(super) node: Node,
    /// Every task of this server; joined when it stops.
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}
