//! `pods/log`: the log of a container's current or previous run.
//!
//! Owns the options of the request and which run they mean, as the kubelet chooses it. Never cuts lines itself.

use std::{io, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    answer::ApiError,
    cluster::Cluster,
    faults::{FaultKind, Occasion},
    http::{Body, Call, plain},
    node::{Run, Segment},
    pod,
    store::{Key, text},
};

/// Pieces of log on their way to one client.
const PIECES_IN_FLIGHT: usize = 16;

#[derive(Debug)]
struct Options {
    follow: bool,
    timestamps: bool,
    since: Option<Timestamp>,
    tail_lines: Option<u64>,
    limit_bytes: Option<u64>,
    fault: Option<FaultKind>,
}

/// Answers a request for a log.
pub(super) fn answer(cluster: &Arc<Cluster>, call: &Call) -> Result<Response<Body>, ApiError> {
    let target = &call.target;
    let found = cluster
        .store
        .get(&Key::new(target.kind, &target.namespace, &target.name))?;
    let container = pod::choose_container(&found, call.query.get("container"))?;
    if text(&found["spec"]["nodeName"]).is_empty() {
        return Ok(plain(""));
    }
    let id = choose_run(&found, &container, call.query.flag("previous")).map_err(ApiError::bad_request)?;
    let Some(run) = cluster.node.run_of(&id) else {
        return Ok(plain(""));
    };
    let options = options(cluster, call)?;
    let (pieces, receiver) = mpsc::channel(PIECES_IN_FLIGHT);
    let state = Arc::clone(cluster);
    cluster.tasks.spawn(async move {
        let sending = send(&run, &options, &pieces);
        tokio::select! {
            () = state.stop.cancelled() => {}
            () = pieces.closed() => {}
            () = sending => {}
        }
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(ReceiverStream::new(receiver))));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn options(cluster: &Cluster, call: &Call) -> Result<Options, ApiError> {
    let query = &call.query;
    let occasion = Occasion {
        verb: "get",
        resource: "pods/log",
        name: &call.target.name,
    };
    let fault = cluster.faults.take(occasion, |kind| {
        matches!(kind, FaultKind::LogCut { .. } | FaultKind::LogSilent { .. })
    });
    let since = match (query.get("sinceTime"), query.number("sinceSeconds")) {
        ("", None) => None,
        ("", Some(seconds)) => {
            Some(Timestamp::now() - jiff::SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)))
        }
        (time, _) => {
            let time: Timestamp = time
                .parse()
                .map_err(|_| ApiError::bad_request(format!("unable to parse time {time:?}")))?;
            // The API server hands it to the kubelet in whole seconds.
            Timestamp::from_second(time.as_second()).ok()
        }
    };
    Ok(Options {
        follow: query.flag("follow"),
        timestamps: query.flag("timestamps"),
        since,
        tail_lines: query.number("tailLines"),
        limit_bytes: query.number("limitBytes"),
        fault,
    })
}

/// The ID of the run that is meant, or the kubelet's words for why there is none.
fn choose_run(pod: &Value, container: &str, previous: bool) -> Result<String, String> {
    let name = text(&pod["metadata"]["name"]);
    let entry = [
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ]
    .into_iter()
    .flat_map(|field| pod::list(&pod["status"][field]))
    .find(|entry| entry["name"] == container)
    .ok_or_else(|| format!("container {container:?} in pod {name:?} is not available"))?;
    let last = text(&entry["lastState"]["terminated"]["containerID"]);
    let (state, own) = (&entry["state"], text(&entry["containerID"]));
    if previous {
        return (!last.is_empty())
            .then(|| last.to_owned())
            .ok_or_else(|| format!("previous terminated container {container:?} in pod {name:?} not found"));
    }
    if !state["running"].is_null() {
        return Ok(own.to_owned());
    }
    if !state["terminated"].is_null() {
        return Ok(text(&state["terminated"]["containerID"]).to_owned());
    }
    if !last.is_empty() {
        return Ok(last.to_owned());
    }
    let why = match text(&state["waiting"]["reason"]) {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        reason => reason,
    };
    Err(format!(
        "container {container:?} in pod {name:?} is waiting to start: {why}"
    ))
}

type Pieces = mpsc::Sender<Result<Frame<Bytes>, io::Error>>;

async fn send(run: &Run, options: &Options, pieces: &Pieces) {
    let mut changes = run.journal.subscribe();
    let mut sent = 0_u64;
    let mut next = 0;
    let mut first = true;
    let cut_after = match options.fault {
        Some(FaultKind::LogCut { after_bytes } | FaultKind::LogSilent { after_bytes }) => Some(after_bytes),
        _ => None,
    };
    loop {
        changes.mark_unchanged();
        let (mut segments, reached, closed) = run.journal.read(next);
        next = reached;
        if first {
            segments.retain(|s| options.since.is_none_or(|since| s.time >= since));
            if let Some(lines) = options.tail_lines {
                segments = tail(segments, lines);
            }
            first = false;
        }
        let mut bytes = render(&segments, options.timestamps);
        let room = options.limit_bytes.map_or(u64::MAX, |limit| limit - sent);
        bytes.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        let cut = cut_after.filter(|cut| sent + bytes.len() as u64 >= *cut);
        if let Some(cut) = cut {
            bytes.truncate(usize::try_from(cut - sent).unwrap_or(usize::MAX));
        }
        sent += bytes.len() as u64;
        if !bytes.is_empty() && pieces.send(Ok(Frame::data(bytes))).await.is_err() {
            return;
        }
        if cut.is_some() && matches!(options.fault, Some(FaultKind::LogSilent { .. })) {
            return pieces.closed().await;
        }
        if cut.is_some() {
            // The client may have gone; then it is cut off already.
            let _gone = pieces.send(Err(io::Error::other("cut, as a fault asks"))).await;
            return;
        }
        if closed || !options.follow || options.limit_bytes == Some(sent) || changes.changed().await.is_err() {
            return;
        }
    }
}

fn tail(mut segments: Vec<Segment>, lines: u64) -> Vec<Segment> {
    let mut seen = 0;
    let mut from = segments.len();
    for (index, segment) in segments.iter().enumerate().rev() {
        if !segment.partial || index + 1 == segments.len() {
            seen += 1;
        }
        if seen > lines {
            break;
        }
        from = index;
    }
    segments.split_off(from)
}

fn render(segments: &[Segment], timestamps: bool) -> Bytes {
    let mut bytes = BytesMut::new();
    for segment in segments {
        if timestamps {
            bytes.put_slice(segment.time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ ").to_string().as_bytes());
        }
        bytes.put_slice(&segment.text);
        if !segment.partial {
            bytes.put_u8(b'\n');
        }
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;
    use serde_json::json;

    use super::{Segment, choose_run, render, tail};

    fn segment(text: &'static str, partial: bool) -> Segment {
        Segment {
            time: Timestamp::UNIX_EPOCH,
            text: Bytes::from_static(text.as_bytes()),
            partial,
        }
    }

    #[test]
    fn the_tail_counts_lines_not_pieces() {
        let all = vec![
            segment("a", false),
            segment("b1", true),
            segment("b2", false),
            segment("c", false),
        ];
        assert_eq!(render(&tail(all.clone(), 2), false), "b1b2\nc\n");
        assert_eq!(render(&tail(all.clone(), 9), false), "a\nb1b2\nc\n");
        assert_eq!(render(&tail(all, 0), false), "");
    }

    #[test]
    fn the_run_is_chosen_as_the_kubelet_chooses_it() {
        let pod = |entry: serde_json::Value| json!({ "metadata": { "name": "p" }, "status": { "containerStatuses": [entry] } });
        let looping = pod(
            json!({ "name": "c", "containerID": "sandbox://2", "state": { "waiting": { "reason": "CrashLoopBackOff" } },
            "lastState": { "terminated": { "containerID": "sandbox://1" } } }),
        );
        assert_eq!(choose_run(&looping, "c", false), Ok("sandbox://1".to_owned()));
        assert_eq!(choose_run(&looping, "c", true), Ok("sandbox://1".to_owned()));
        let pulling = pod(json!({ "name": "c", "state": { "waiting": { "reason": "ImagePullBackOff" } } }));
        let refused = choose_run(&pulling, "c", false).expect_err("no log");
        assert_eq!(
            refused,
            r#"container "c" in pod "p" is waiting to start: trying and failing to pull image"#
        );
        assert_eq!(
            choose_run(&pulling, "c", true).expect_err("no previous run"),
            r#"previous terminated container "c" in pod "p" not found"#
        );
        assert_eq!(
            choose_run(&pulling, "gone", false).expect_err("no status"),
            r#"container "gone" in pod "p" is not available"#
        );
    }
}
