//! The listener: connections, who asks, and which part answers.
//!
//! Owns the HTTP server and the order of checks (token, impersonation, faults, authorization, verb). Never touches an object.

use std::{convert::Infallible, io, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use super::{
    answer::ApiError,
    cluster::Cluster,
    control, discovery,
    faults::{FaultKind, Occasion},
    identity::{self, User},
    kind::NAMESPACE,
    log, rbac, review, stream,
    target::{Target, Verb},
    verbs, watch,
};

/// Body of an answer; an error in it drops the connection.
pub(super) type Body = BoxBody<Bytes, io::Error>;

/// Longest body that the real server takes (3 MiB for requests to etcd).
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;

/// One request to a resource, past authentication.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) user: User,
    pub(super) target: Target,
    pub(super) verb: Verb,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Query parameters.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    fn parse(query: &str) -> Self {
        Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// A parameter's first value; empty where absent.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.as_str())
    }

    /// All values of a parameter.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, v)| v.clone())
            .collect()
    }

    /// Whether a parameter is set to a true word.
    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), "1" | "true" | "True")
    }

    /// A parameter as a number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.get(name).parse().ok()
    }
}

/// Why there is no answer at all.
#[derive(Debug, thiserror::Error)]
#[error("the connection is dropped, as a fault asks")]
struct Dropped;

/// Accepts connections until the server stops.
pub(super) async fn listen(cluster: Arc<Cluster>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            () = cluster.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            // As from a port that nobody listens on.
            Ok(_) if cluster.outage.is_on() => {}
            Ok((stream, _)) => {
                let serving = serve(Arc::clone(&cluster), stream);
                cluster.tasks.spawn(serving);
            }
            Err(error) => tracing::warn!(%error, "the sandbox's API can't accept a connection"),
        }
    }
}

async fn serve(cluster: Arc<Cluster>, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let state = Arc::clone(&cluster);
    let service = service_fn(move |request| answer(Arc::clone(&state), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        () = cluster.stop.cancelled() => {}
        () = cluster.outage.strikes() => {}
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to the sandbox's API ended");
            }
        }
    }
}

async fn answer(cluster: Arc<Cluster>, request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
    let uri_path = request.uri().path().to_owned();
    if let Some(rest) = uri_path.strip_prefix("/sandbox/") {
        return Ok(control::answer(&cluster, rest, request).await);
    }
    match route(&cluster, request).await {
        Ok(response) => Ok(response),
        Err(Failure::Api(error)) => Ok(refuse(&error)),
        Err(Failure::Dropped) => Err(Dropped),
        Err(Failure::Silent) => {
            cluster.stop.cancelled().await;
            Err(Dropped)
        }
    }
}

enum Failure {
    Api(ApiError),
    Dropped,
    Silent,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

async fn route(cluster: &Arc<Cluster>, mut request: Request<Incoming>) -> Result<Response<Body>, Failure> {
    let (token, path) = identity::split_path(request.uri().path());
    let (token, path) = (token.map(str::to_owned), path.to_owned());
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let user = who(cluster, token.as_deref(), request.headers())?;
    if let Some(resource) = review::resource(&path) {
        return review(cluster, &user, &path, resource, request).await;
    }
    let Some(target) = Target::parse(&path)? else {
        return outside_resources(cluster, &user, request.method(), &path);
    };
    let watching = query.flag("watch") && request.method() == Method::GET;
    let verb = target
        .verb(request.method(), watching)
        .ok_or_else(ApiError::method_not_allowed)?;
    let resource = resource_words(&target);
    let occasion = Occasion {
        verb: verb.as_str(),
        resource: &resource,
        name: &target.name,
    };
    authorize(cluster, &user, &target, verb)?;
    let struck = cluster.faults.take(occasion, FaultKind::is_of_a_request);
    if let Some(failure) = struck.and_then(|kind| failure_of(kind, &target)) {
        return Err(failure);
    }
    let upgrade = matches!(&*target.subresource, "exec" | "attach").then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES)
        .collect()
        .await
        .map_err(|e| ApiError::bad_request(format!("the body can't be read: {e}")))?
        .to_bytes();
    let call = Call {
        user,
        target,
        verb,
        query,
        headers: parts.headers,
        body,
    };
    let response = match (upgrade, &*call.target.subresource) {
        (Some(upgrade), _) => stream::answer(cluster, &call, upgrade)?,
        (None, "log") => log::answer(cluster, &call)?,
        (None, _) if call.verb == Verb::Watch => watch::answer(cluster, &call)?,
        (None, _) => verbs::answer(cluster, &call)?,
    };
    if struck == Some(FaultKind::LostAnswer) {
        return Err(Failure::Dropped);
    }
    Ok(response)
}

/// A review is a request like any other: faults strike it too.
async fn review(
    cluster: &Cluster,
    user: &User,
    path: &str,
    resource: &str,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    review::authorize(cluster, user, resource)?;
    let occasion = Occasion {
        verb: "create",
        resource,
        name: "",
    };
    let struck = cluster.faults.take(occasion, FaultKind::is_of_any_request);
    if let Some(failure) = struck.and_then(failure_of_any) {
        return Err(failure);
    }
    let answered = review::answer(cluster, user, path, &mut request).await?;
    if struck == Some(FaultKind::LostAnswer) {
        return Err(Failure::Dropped);
    }
    Ok(json(StatusCode::CREATED, &answered))
}

/// What a fault answers instead, whatever is asked for; none where the request is performed first.
fn failure_of_any(kind: FaultKind) -> Option<Failure> {
    let error = match kind {
        FaultKind::TooManyRequests => ApiError::too_many_requests(),
        FaultKind::InternalError => ApiError::internal("a fault of the sandbox"),
        FaultKind::Unavailable => ApiError::unavailable(),
        FaultKind::Timeout => return Some(Failure::Silent),
        _ => return None,
    };
    Some(Failure::Api(error))
}

/// What a fault answers instead; none where the request is performed first.
fn failure_of(kind: FaultKind, target: &Target) -> Option<Failure> {
    let (of, name) = (target.kind, &*target.name);
    let error = match kind {
        FaultKind::Conflict => ApiError::modified(of, name),
        FaultKind::Gone => ApiError::expired(1, 2),
        FaultKind::PolicyDenies => ApiError::policy_denied(of, name),
        FaultKind::PodSecurityDenies => {
            let text = "violates PodSecurity \"restricted:latest\": runAsUser=0 (container must not set runAsUser=0)";
            ApiError::forbidden(of, name, text)
        }
        FaultKind::KubeletGone => ApiError::internal("dial tcp 10.0.0.7:10250: connect: connection refused"),
        _ => return failure_of_any(kind),
    };
    Some(Failure::Api(error))
}

/// `pods` or `pods/exec`, as faults name it.
pub(super) fn resource_words(target: &Target) -> String {
    if target.subresource.is_empty() {
        target.kind.plural.to_owned()
    } else {
        format!("{}/{}", target.kind.plural, target.subresource)
    }
}

fn who(cluster: &Cluster, token: Option<&str>, headers: &HeaderMap) -> Result<User, ApiError> {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let bearer = header("authorization").and_then(|v| v.strip_prefix("Bearer "));
    let user = match bearer.or(token) {
        Some(token) => cluster.tokens.user(token).ok_or_else(ApiError::unauthorized)?,
        None => User::anonymous(),
    };
    let Some(name) = header("impersonate-user") else {
        return Ok(user);
    };
    let access = rbac::Access {
        verb: "impersonate".to_owned(),
        resource: "users".to_owned(),
        name: name.to_owned(),
        ..rbac::Access::default()
    };
    if rbac::allowed(&cluster.store, &user, &access).is_none() {
        let message = format!(
            "users {name:?} is forbidden: User {:?} cannot impersonate resource \"users\"",
            user.name
        );
        return Err(ApiError {
            code: StatusCode::FORBIDDEN,
            reason: "Forbidden",
            message,
            details: Value::Null,
        });
    }
    let mut impersonated = User::named(name);
    let groups = headers
        .get_all("impersonate-group")
        .iter()
        .filter_map(|v| v.to_str().ok());
    impersonated.groups.extend(groups.map(str::to_owned));
    Ok(impersonated)
}

fn authorize(cluster: &Cluster, user: &User, target: &Target, verb: Verb) -> Result<(), ApiError> {
    let access = rbac::Access {
        verb: verb.as_str().to_owned(),
        group: target.kind.group.to_owned(),
        resource: target.kind.plural.to_owned(),
        subresource: target.subresource.clone(),
        name: target.name.clone(),
        // As the real server reads a path below /api/v1/namespaces: a namespace is in itself.
        namespace: if target.kind == &NAMESPACE {
            target.name.clone()
        } else {
            target.namespace.clone()
        },
        path: None,
    };
    let check = |access: &rbac::Access| {
        rbac::allowed(&cluster.store, user, access)
            .map(|_| ())
            .ok_or_else(|| access.refusal(user, target.kind))
    };
    check(&access)?;
    // From 1.35 a stream over GET needs `create` too (kubernetes/kubernetes#134577).
    if matches!(&*target.subresource, "exec" | "attach") && verb == Verb::Get {
        check(&rbac::Access {
            verb: "create".to_owned(),
            ..access
        })?;
    }
    Ok(())
}

fn outside_resources(cluster: &Cluster, user: &User, method: &Method, path: &str) -> Result<Response<Body>, Failure> {
    let access = rbac::Access {
        verb: "get".to_owned(),
        path: Some(path.to_owned()),
        ..rbac::Access::default()
    };
    if rbac::allowed(&cluster.store, user, &access).is_none() {
        return Err(ApiError::forbidden_path(&user.name, "get", path).into());
    }
    if method != Method::GET {
        return Err(ApiError::method_not_allowed().into());
    }
    match path {
        "/readyz" | "/livez" | "/healthz" => Ok(plain("ok")),
        _ => Ok(json(
            StatusCode::OK,
            &discovery::document(path).ok_or_else(ApiError::no_such_path)?,
        )),
    }
}

/// A JSON answer.
pub(super) fn json(code: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A text answer.
pub(super) fn plain(text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// A `Status` answer.
pub(super) fn refuse(error: &ApiError) -> Response<Body> {
    let mut response = json(error.code, &error.to_status());
    if error.code == StatusCode::TOO_MANY_REQUESTS {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// A body that is there as a whole.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed()
}
