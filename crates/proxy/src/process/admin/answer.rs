//! The answer to each admin request.

use super::{State, env, explain, guard::reason};
use crate::{config, error::ProxyError, inbound::connected::Connected};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use std::{io::Write, net::SocketAddr, time::Duration};
use weft_telemetry::logs::LogError;

/// The longest filter that is read.
const MAX_BODY: usize = 16 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn answer<B>(state: &State, client: SocketAddr, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body<Data: Send, Error: std::error::Error + Send + Sync + 'static>,
{
    let local = client.ip().to_canonical().is_loopback();
    match request.uri().path() {
        "/live" => text(StatusCode::OK, "live\n"),
        "/ready" if state.readiness.is_ready() => text(StatusCode::OK, "ready\n"),
        "/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        "/metrics" => metrics(state, request.headers()).await,
        "/env.json" if !local => only_loopback(),
        "/env.json" => environment(&request),
        "/shutdown" => shutdown(state, local, request.method()),
        "/proxy-log-level" => log_level(state, local, request).await,
        "/explain" => explain::answer(&state.readers, local, request.method(), request.uri().query()).await,
        _ => text(StatusCode::NOT_FOUND, ""),
    }
}

/// What a refused client is told; its reason only if it is of the mesh.
pub(super) fn refusal(connected: &Connected, error: &ProxyError) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = text(status, "");
    if let Some((name, value)) = reason(connected, error) {
        response.headers_mut().insert(name, value);
    }
    response
}

async fn metrics(state: &State, asked: &HeaderMap) -> Response<Full<Bytes>> {
    let others = match &state.elder {
        Some(elder) => elder.gauges().await,
        None => String::new(),
    };
    let plain = state.registry.encode_adding(&others);
    let zipped = takes_gzip(asked).then(|| gzip(plain.as_bytes())).flatten();
    let encoded = zipped.is_some();
    let mut response = text(StatusCode::OK, zipped.unwrap_or_else(|| plain.into()));
    let headers = response.headers_mut();
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, format);
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if encoded {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn takes_gzip(asked: &HeaderMap) -> bool {
    let values = asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.parse().is_ok_and(|q: f32| q <= 0.0));
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

fn gzip(plain: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 8), Compression::fast());
    encoder.write_all(plain).ok()?;
    Some(encoder.finish().ok()?.into())
}

fn environment<B>(request: &Request<B>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return not_allowed("GET");
    }
    let accept: Vec<&str> =
        request.headers().get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    match env::json(config::environment(), request.uri().query(), &accept) {
        Ok(json) => {
            let mut response = text(StatusCode::OK, json);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(env::Refused::Query) => text(StatusCode::BAD_REQUEST, "name variables as /env.json?NAME&NAME\n"),
        Err(env::Refused::NotAcceptable) => text(StatusCode::NOT_ACCEPTABLE, "there is application/json\n"),
    }
}

fn shutdown(state: &State, local: bool, method: &Method) -> Response<Full<Bytes>> {
    if !state.shutdown_enabled {
        return text(StatusCode::NOT_FOUND, "disabled: set LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED=true\n");
    }
    match *method {
        Method::POST if local => {
            state.shutdown.pull("POST /shutdown");
            text(StatusCode::OK, "shutdown\n")
        }
        Method::POST => only_loopback(),
        _ => not_allowed("POST"),
    }
}

async fn log_level<B>(state: &State, local: bool, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body<Data: Send, Error: std::error::Error + Send + Sync + 'static>,
{
    if !local {
        return only_loopback();
    }
    let Some(filter) = state.logs.filter() else {
        return text(StatusCode::NOT_FOUND, "logging is off\n");
    };
    match *request.method() {
        Method::GET => text(StatusCode::OK, filter),
        Method::PUT => {
            let body = Limited::new(request.into_body(), MAX_BODY).collect();
            let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
                Ok(Ok(body)) => body.to_bytes(),
                Ok(Err(e)) => return text(StatusCode::BAD_REQUEST, format!("{e}\n")),
                Err(_) => return text(StatusCode::REQUEST_TIMEOUT, ""),
            };
            match std::str::from_utf8(&body).map(|filter| state.logs.set(filter)) {
                Ok(Ok(())) => text(StatusCode::NO_CONTENT, ""),
                Ok(Err(e @ LogError::Off)) => text(StatusCode::NOT_FOUND, format!("{e}\n")),
                Ok(Err(e)) => text(StatusCode::BAD_REQUEST, format!("{e}\n")),
                Err(e) => text(StatusCode::BAD_REQUEST, format!("{e}\n")),
            }
        }
        _ => not_allowed("GET, PUT"),
    }
}

pub(super) fn only_loopback() -> Response<Full<Bytes>> {
    text(StatusCode::FORBIDDEN, "only from loopback\n")
}

pub(super) fn not_allowed(allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{process::shutdown, records::Readers};
    use weft_telemetry::{LogHandle, Readiness, Registry};

    fn state(shutdown_enabled: bool) -> (State, shutdown::Pulled) {
        let (trigger, pulled) = shutdown::channel();
        let (registry, readiness, logs) = (Registry::new(1, 10), Readiness::new(), LogHandle::off());
        let readers = Readers::default();
        (State { registry, readiness, logs, shutdown: trigger, shutdown_enabled, readers, elder: None }, pulled)
    }

    async fn ask(state: &State, client: &str, method: Method, path: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(path).body(Full::new(Bytes::new())).unwrap();
        let response = answer(state, SocketAddr::new(client.parse().unwrap(), 1), request).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn probes_follow_readiness() {
        let (state, _pulled) = state(false);
        let task = state.readiness.task("identity");
        assert_eq!(ask(&state, "10.0.0.1", Method::GET, "/live").await, (200, "live\n".into()));
        assert_eq!(ask(&state, "10.0.0.1", Method::GET, "/ready").await, (503, "not ready\n".into()));
        drop(task);
        assert_eq!(ask(&state, "10.0.0.1", Method::GET, "/ready").await, (200, "ready\n".into()));
        assert!(ask(&state, "10.0.0.1", Method::GET, "/metrics").await.1.ends_with("# EOF\n"));
        assert_eq!(ask(&state, "10.0.0.1", Method::GET, "/tasks").await.0, 404);
    }

    #[test]
    fn gzip_is_for_whoever_asks() {
        let asked = |value: &'static str| {
            takes_gzip(&[(header::ACCEPT_ENCODING, HeaderValue::from_static(value))].into_iter().collect())
        };
        assert!(asked("gzip") && asked("br;q=1, GZIP;q=0.5"));
        assert!(!asked("identity") && !asked("gzip;q=0") && !asked("xgzip") && !takes_gzip(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn the_environment_is_for_loopback() {
        let (state, _pulled) = state(false);
        assert_eq!(ask(&state, "10.0.0.1", Method::GET, "/env.json").await.0, 403);
        assert_eq!(ask(&state, "127.0.0.1", Method::POST, "/env.json").await.0, 405);
        assert_eq!(ask(&state, "127.0.0.1", Method::GET, "/env.json?a=b").await.0, 400);
        assert_eq!(
            ask(&state, "127.0.0.1", Method::GET, "/env.json?NOT_SET_ANYWHERE").await.1,
            r#"{"NOT_SET_ANYWHERE":null}"#
        );
    }

    #[tokio::test]
    async fn shutdown_is_for_loopback_and_where_enabled() {
        let (off, _pulled) = state(false);
        assert_eq!(ask(&off, "127.0.0.1", Method::POST, "/shutdown").await.0, 404);
        let (on, pulled) = state(true);
        assert_eq!(ask(&on, "127.0.0.1", Method::GET, "/shutdown").await.0, 405);
        assert_eq!(ask(&on, "10.0.0.1", Method::POST, "/shutdown").await.0, 403);
        assert!(!pulled.is_pulled());
        assert_eq!(ask(&on, "::ffff:127.0.0.1", Method::POST, "/shutdown").await.0, 200);
        pulled.wait().await;
    }

    #[tokio::test]
    async fn the_log_level_is_for_loopback_and_where_there_are_logs() {
        let (state, _pulled) = state(false);
        assert_eq!(ask(&state, "10.0.0.1", Method::GET, "/proxy-log-level").await.0, 403);
        assert_eq!(ask(&state, "127.0.0.1", Method::GET, "/proxy-log-level").await.0, 404);
    }

    #[tokio::test]
    async fn decision_records_are_for_loopback() {
        let (state, _pulled) = state(false);
        assert_eq!(ask(&state, "10.0.0.1", Method::GET, "/explain").await.0, 403);
        assert_eq!(ask(&state, "127.0.0.1", Method::GET, "/explain").await.0, 200);
    }
}
