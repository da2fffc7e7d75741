//! The admin server: `/live`, `/ready`, `/metrics`, in plaintext. `/ping` is what Linkerd's probes call `/live`.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header::CONTENT_TYPE, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use weft_telemetry::{Readiness, Registry};

const MAX_CONNECTIONS: usize = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn serve(listener: TcpListener, registry: Registry, readiness: Readiness, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let tcp = match stop.run_until_cancelled(listener.accept()).await {
            None => return,
            Some(Err(_)) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Some(Ok((tcp, _))) => tcp,
        };
        let (registry, readiness) = (registry.clone(), readiness.clone());
        connections.spawn(async move {
            let _slot = slot;
            let service = service_fn(move |request| {
                let response = answer(&request, &registry, &readiness);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            // Who breaks off has no answer to get.
            let _ = server.serve_connection(TokioIo::new(tcp), service).await;
        });
    }
}

fn answer(request: &Request<Incoming>, registry: &Registry, readiness: &Readiness) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned());
    }
    match request.uri().path() {
        "/live" => response(StatusCode::OK, TEXT, "live\n".to_owned()),
        "/ping" => response(StatusCode::OK, TEXT, "pong\n".to_owned()),
        "/ready" if readiness.is_ready() => response(StatusCode::OK, TEXT, "ready\n".to_owned()),
        "/ready" => {
            let outstanding = readiness.outstanding().join(", ");
            response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {outstanding}\n"))
        }
        "/metrics" => {
            response(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", registry.encode())
        }
        _ => response(StatusCode::NOT_FOUND, TEXT, "there is /live, /ping, /ready and /metrics\n".to_owned()),
    }
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}
