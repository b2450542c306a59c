//! The sandbox's own endpoints, beside the Kubernetes API: faults, and what an operator could do to pods.
//!
//! ```text
//! GET|POST|DELETE /sandbox/faults                     what is armed; arm one (a Fault as JSON); disarm all
//! POST /sandbox/restart?millis=<n>                     the API server is away so long; every connection breaks
//! POST /sandbox/compact                               forget old revisions: watches that resume get 410
//! POST /sandbox/pods/<namespace>/<name>/delete        delete, with grace
//! POST /sandbox/pods/<namespace>/<name>/replace       delete at once; its replica set makes another
//! POST /sandbox/pods/<namespace>/<name>/evict         end as the kubelet evicts
//! POST /sandbox/pods/<namespace>/<name>/restart[?container=<name>]  kill the container; the node restarts it
//! ```
//!
//! Owns these paths; never checks a token: they listen on loopback only and exist for tests and demos.

use std::{sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;

use super::{
    answer::ApiError,
    cluster::Cluster,
    faults::Fault,
    http::{Body, json as reply, refuse},
    kind,
    node::Disturbance,
    store::Key,
};

/// Answers a request below `/sandbox/`.
pub(super) async fn answer(cluster: &Arc<Cluster>, path: &str, request: Request<Incoming>) -> Response<Body> {
    match route(cluster, path, request).await {
        Ok(response) => response,
        Err(error) => refuse(&error),
    }
}

async fn route(cluster: &Arc<Cluster>, path: &str, request: Request<Incoming>) -> Result<Response<Body>, ApiError> {
    let parts: Vec<&str> = path.split('/').collect();
    match (request.method().clone(), parts.as_slice()) {
        (Method::GET, ["faults"]) => Ok(reply(StatusCode::OK, &json!({ "faults": cluster.faults.list() }))),
        (Method::DELETE, ["faults"]) => {
            cluster.faults.clear();
            Ok(reply(StatusCode::OK, &json!({ "faults": [] })))
        }
        (Method::POST, ["faults"]) => {
            let bytes = request
                .into_body()
                .collect()
                .await
                .map_err(|e| ApiError::bad_request(e.to_string()))?
                .to_bytes();
            let fault: Fault =
                serde_json::from_slice(&bytes).map_err(|e| ApiError::bad_request(format!("this is no fault: {e}")))?;
            cluster.faults.arm(fault);
            Ok(reply(StatusCode::OK, &json!({ "faults": cluster.faults.list() })))
        }
        (Method::POST, ["restart"]) => {
            let query = request.uri().query().unwrap_or_default();
            let millis = url::form_urlencoded::parse(query.as_bytes())
                .find(|(key, _)| key == "millis")
                .and_then(|(_, value)| value.parse().ok())
                .ok_or_else(|| ApiError::bad_request("millis is missing"))?;
            cluster.store.compact();
            cluster.outage.begin(Duration::from_millis(millis));
            Ok(reply(StatusCode::OK, &json!({})))
        }
        (Method::POST, ["compact"]) => {
            cluster.store.compact();
            Ok(reply(
                StatusCode::OK,
                &json!({ "resourceVersion": cluster.store.revision().to_string() }),
            ))
        }
        (Method::POST, ["pods", namespace, name, action]) => {
            let query = request.uri().query().unwrap_or_default();
            let container = url::form_urlencoded::parse(query.as_bytes())
                .find(|(key, _)| key == "container")
                .map(|(_, value)| value.into_owned());
            let disturbance = match *action {
                "delete" => Disturbance::Delete,
                "replace" => Disturbance::Replace,
                "evict" => Disturbance::Evict,
                "restart" => Disturbance::Restart { container },
                _ => return Err(ApiError::no_such_path()),
            };
            cluster
                .node
                .disturb(cluster, &Key::new(&kind::POD, namespace, name), disturbance)?;
            Ok(reply(StatusCode::OK, &json!({})))
        }
        _ => Err(ApiError::no_such_path()),
    }
}
