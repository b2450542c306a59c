use std::convert::Infallible;

use http_body_util::Full;

use super::*;
use crate::SeededFaults;

/// A server that answers with the length of what it got, and the first byte.
async fn echo() -> (SocketAddr, TaskTracker, CancellationToken) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let stopped = stop.clone();
    tasks.spawn(async move {
        while let Some(Ok((stream, _))) = stopped.run_until_cancelled(listener.accept()).await {
            let service = service_fn(|request: Request<Incoming>| async {
                let body = request.into_body().collect().await.map(Collected::to_bytes);
                let text = body.map(|b| format!("{} {:?}", b.len(), b.first()));
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text.unwrap_or_default()))))
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // A connection that a fault breaks is what is tested.
            let _broken = connection.await;
        }
    });
    (address, tasks, stop)
}

#[tokio::test]
async fn a_request_passes_unless_a_fault_strikes_and_as_often_as_it_says() {
    let (store, tasks, stop) = echo().await;
    let proxy = StoreProxy::start(store, Vec::new()).await.expect("a proxy");
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let base = format!("http://{}", proxy.address());
    let put = |path: &str| {
        let request = Request::put(format!("{base}{path}")).body(Full::from(vec![7_u8; 100_000]));
        let sent = client.request(request.expect("a request"));
        async move {
            let answer = sent.await.ok()?;
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.ok()?.to_bytes();
            Some((status, String::from_utf8_lossy(&body).into_owned()))
        }
    };
    let part = "/b/k?partNumber=1&uploadId=u";
    assert_eq!(put(part).await, Some((200, "100000 Some(7)".to_owned())));
    let arm = |kind| proxy.arm(Fault::of(kind).on(Operation::UploadPart));
    arm(FaultKind::SlowDown);
    assert_eq!(
        put("/b/k").await.map(|(status, _)| status),
        Some(200),
        "another operation"
    );
    let (status, body) = put(part).await.expect("an answer");
    assert!(
        status == 503 && body.contains("<Code>SlowDown</Code>"),
        "{status} {body}"
    );
    arm(FaultKind::Cut { after_bytes: 1_000 });
    assert_eq!(put(part).await, None);
    arm(FaultKind::LostAnswer);
    assert_eq!(put(part).await, None);
    arm(FaultKind::Corrupt);
    assert_eq!(put(part).await, Some((200, "100000 Some(6)".to_owned())));
    assert!(proxy.armed().is_empty());
    proxy.arm(Fault::of(FaultKind::SlowDown).with(SeededFaults::new(0, 1)));
    assert_eq!(put(part).await.map(|(status, _)| status), Some(200), "no chance");
    proxy.disarm();
    proxy.stop().await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}
