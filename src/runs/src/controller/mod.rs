//! The controller of runs: while this process leads, looks at every run that changed and does what the plan says.
//!
//! `work_queue` owns which run is looked at when, `reconciler` what a look does. Wake-ups carry no data; a run is looked at by one
//! task at a time.

mod reconciler;
mod work_queue;

use std::sync::Arc;

use diagbot_api::capture::DiagnosticCapture;
use diagbot_base::telemetry::metrics::Metrics;
use kube::Api;
use tokio_util::sync::CancellationToken;

use self::{reconciler::Reconciler, work_queue::WorkQueue};
use crate::{admission::BudgetConfig, object_cache::reflector, service::RunService};

/// What the controller is made from.
#[derive(Debug, Clone)]
pub struct RunsContext {
    /// The service.
    pub service: RunService,
    /// Image of captures whose diagnostic names none.
    pub agent_image: String,
    /// How much may be captured at a time and in an hour.
    pub budgets: BudgetConfig,
    /// Captures under way at once in one cluster.
    pub concurrency: usize,
    /// What is counted.
    pub metrics: Metrics,
}

/// Reconciles runs while this process leads, until `stop`.
pub async fn run(ctx: RunsContext, stop: CancellationToken) {
    let clusters = ctx.service.clusters().clone();
    let home = clusters.home();
    let namespace = clusters.namespace();
    let (cache, watch) = reflector::<DiagnosticCapture>();
    let watching = watch.run(
        Api::namespaced(home.stream_client.clone(), namespace),
        stop.child_token(),
    );
    let reconciler = Arc::new(Reconciler::new(ctx, cache));
    let switching = {
        let (reconciler, stop) = (Arc::clone(&reconciler), stop.clone());
        async move { reconciler.switch.follow(&reconciler.ctx.service, stop).await }
    };
    let looking = WorkQueue::new(reconciler).run(stop);
    tokio::join!(watching, switching, looking);
}
