//! Ask: asks what it is told to and says what it got, and asks the same on and on besides, and counts that.
//!
//! ```text
//! POST /ask ─► each request, on a connection of its own, at the same time ─► its answers
//! GET /load ◄─ how often there was which outcome ◄─ lanes, which each ask again and again over one connection, of HTTP/1 or HTTP/2
//! ```

use crate::{
    client::Client,
    serve::{self, Leave},
    web::json_reply,
};
use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

/// Bytes of what it is told.
const MAX_TOLD_BYTES: usize = 1024 * 1024;
/// Requests that it is told at once, …
const MAX_ASKS: usize = 64;
/// … how often each, …
const MAX_TIMES: u32 = 1000;
/// … and the bytes of its body.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lanes of one target.
const LANES: u32 = 4;
/// Outcomes that are told apart; others are counted together.
const MAX_OUTCOMES: usize = 64;

/// A request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    /// host:port.
    to: String,
    method: String,
    path: String,
    /// With `host`.
    headers: Vec<(String, String)>,
    /// Bytes.
    body: usize,
    http2: bool,
    times: u32,
}

#[derive(Serialize)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

type Outcomes = Arc<Mutex<BTreeMap<String, u64>>>;

/// Serves until `leave`, and loads each of these host:port/path with `rate` requests a second.
pub(crate) async fn serve(listener: TcpListener, load: &[String], rate: f64, leave: Leave) -> anyhow::Result<()> {
    let outcomes = Outcomes::default();
    let mut lanes = JoinSet::new();
    for target in load {
        let (host, path) = target.split_once('/').with_context(|| format!("{target:?} is no host:port/path"))?;
        let (pace, start) = (Duration::from_secs_f64(f64::from(LANES) / rate), Instant::now());
        for lane in 0..LANES {
            let first = start + pace * lane / LANES;
            let client = if lane % 2 == 0 { Client::new(host) } else { Client::http2(host) };
            lanes.spawn(asks_on(client, format!("/{path}"), first, pace, outcomes.clone()));
        }
    }
    let service = service_fn(move |request| {
        let outcomes = outcomes.clone();
        async move { Ok::<_, Infallible>(told(request, &outcomes).await) }
    });
    serve::serve(listener, service, leave).await
}

async fn asks_on(mut client: Client, path: String, first: Instant, pace: Duration, outcomes: Outcomes) {
    let mut ticks = interval_at(first, pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let outcome = match timeout(PATIENCE, client.send(Method::GET, &path, Bytes::new())).await {
            Ok(Ok(answer)) => outcome(&answer),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        let mut outcomes = outcomes.lock();
        let is_told_apart = outcomes.len() < MAX_OUTCOMES || outcomes.contains_key(&outcome);
        let outcome = if is_told_apart { outcome } else { "another".to_owned() };
        *outcomes.entry(outcome).or_default() += 1;
    }
}

/// The status, and the code of the mesh if the failure is its own.
fn outcome(answer: &Response<Bytes>) -> String {
    let status = answer.status().as_u16();
    let text = answer.headers().get("l5d-proxy-error").and_then(|text| text.to_str().ok());
    let code = text.and_then(|text| text.strip_suffix(']')?.rsplit_once('[')).map(|(_, code)| code);
    code.map_or_else(|| status.to_string(), |code| format!("{status} {code}"))
}

async fn told(request: Request<Incoming>, outcomes: &Outcomes) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/ask") => match asked(request.into_body()).await {
            Ok(answers) => json_reply(StatusCode::OK, &answers),
            Err(error) => json_reply(StatusCode::BAD_REQUEST, &json!({"error": format!("{error:#}")})),
        },
        (&Method::GET, "/load") => json_reply(StatusCode::OK, &json!(*outcomes.lock())),
        _ => json_reply(StatusCode::NOT_FOUND, &json!({"error": "use POST /ask or GET /load"})),
    }
}

/// For each request the list of its answers.
async fn asked(body: Incoming) -> anyhow::Result<Value> {
    let body = Limited::new(body, MAX_TOLD_BYTES).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!(error)).context("reading what to ask")?.to_bytes();
    let asks: Vec<Ask> = serde_json::from_slice(&body).context("reading what to ask")?;
    ensure!(asks.len() <= MAX_ASKS, "{} requests at once are too many: {MAX_ASKS} are the most", asks.len());
    for ask in &asks {
        ensure!(ask.times <= MAX_TIMES, "times: {} is too much: {MAX_TIMES} is the most", ask.times);
        ensure!(ask.body <= MAX_BODY_BYTES, "body: {} bytes are too many: {MAX_BODY_BYTES} are the most", ask.body);
    }
    Ok(Value::Array(join_all(asks.iter().map(again)).await))
}

async fn again(ask: &Ask) -> Value {
    let mut client = if ask.http2 { Client::http2(&ask.to) } else { Client::new(&ask.to) };
    let mut answers = vec![];
    for _ in 0..ask.times {
        answers.push(match timeout(PATIENCE, once(ask, &mut client)).await {
            Ok(Ok(answer)) => json!(answer),
            Ok(Err(error)) => json!({"error": format!("{error:#}")}),
            Err(_) => json!({"error": format!("no answer within {PATIENCE:?}")}),
        });
    }
    Value::Array(answers)
}

async fn once(ask: &Ask, client: &mut Client) -> anyhow::Result<Answer> {
    let request = Request::builder().method(ask.method.as_str()).uri(ask.path.as_str());
    let request = ask.headers.iter().fold(request, |request, (name, value)| request.header(name, value));
    let request = request.body(Full::new(vec![b'b'; ask.body].into())).context("making the request")?;
    let (head, body) = client.request(request).await?.into_parts();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    Ok(Answer { status: head.status.as_u16(), headers, body: String::from_utf8_lossy(&body).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo;

    #[tokio::test]
    async fn it_asks_what_it_is_told_and_counts_what_it_asks_besides() {
        let bind = async || {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let host = listener.local_addr().unwrap().to_string();
            (listener, host)
        };
        let ((_tell, leave), (server, to), (listener, host)) = (Leave::new(Duration::ZERO), bind().await, bind().await);
        tokio::spawn(echo::serve(server, "one".to_owned(), leave.clone()));
        let load = vec![format!("{to}/load")];
        tokio::spawn(async move { serve(listener, &load, 1000.0, leave).await });
        let mut client = Client::new(&host);
        let asks = |times: u32| {
            let ask = json!({"to": to, "method": "POST", "path": "/a", "headers": [["host", "web"], ["echo-status", "418"]], "body": 3, "http2": times == 2, "times": times});
            let gone = json!({"to": "127.0.0.1:1", "method": "GET", "path": "/", "headers": [], "body": 0, "http2": false, "times": 1});
            Bytes::from(json!([ask, gone]).to_string())
        };
        let answer = client.send(Method::POST, "/ask", asks(2)).await.unwrap();
        let told: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!((told[0][1]["status"].as_u64(), told[0].as_array().unwrap().len()), (Some(418), 2), "{told}");
        assert!(told[0][0]["body"].as_str().unwrap().contains("\"body\":3"), "{told}");
        assert!(told[1][0]["error"].as_str().unwrap().starts_with("connecting to 127.0.0.1:1"), "{told}");
        let answer = client.send(Method::POST, "/ask", asks(MAX_TIMES + 1)).await.unwrap();
        assert_eq!(answer.status(), 400);
        assert!(String::from_utf8_lossy(answer.body()).contains("times: 1001 is too much"), "{answer:?}");
        let counted = async |client: &mut Client| {
            let answer = client.send(Method::GET, "/load", Bytes::new()).await.unwrap();
            serde_json::from_slice::<BTreeMap<String, u64>>(answer.body()).unwrap()
        };
        while counted(&mut client).await.get("200").is_none_or(|count| *count < 10) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn failures_of_the_mesh_are_told_by_their_code() {
        let of = |text: &str| outcome(&Response::builder().header("l5d-proxy-error", text).body(Bytes::new()).unwrap());
        assert_eq!(of("no endpoint [FAILFAST]"), "200 FAILFAST");
        assert_eq!(of("no code"), "200");
    }
}
