//! Endpoints whose answers ask for less get less (data plane 4.6).

use crate::{
    harness::soon,
    mesh::{Mesh, Service},
};
use std::time::Duration;
use weft_model::{
    ProtocolHint,
    policy::outbound::{BackendKind, Load, Penalty},
};
use weft_testkit::{
    http1, http2,
    policy::{balance, detect, service},
};

const REQUESTS: usize = 40;

/// The service's load estimate penalises.
fn penalise(mesh: &Mesh, known: &Service, penalty: Option<Penalty>) {
    let meta = service("ns", "app", 80);
    let mut backend = balance(meta.clone(), known.target.parse().unwrap());
    let load = Load { default_rtt: Duration::from_millis(30), decay: Duration::from_secs(10), penalty };
    backend.kind = BackendKind::Balance { target: known.target.parse().unwrap(), load };
    mesh.control.set_outbound(known.addr, detect(meta, backend));
}

/// How many of the requests went to an endpoint that answers with `failure` at once, while the other one takes 5 ms.
async fn to_the_failing(failure: &'static str, penalty: Option<Penalty>) -> usize {
    let mesh = Mesh::start().await;
    let failing = http1::Origin::start(move |_| http1::Reply::Bytes(failure.as_bytes().to_vec())).await.unwrap();
    let slow = http1::Origin::start(|_| {
        std::thread::sleep(Duration::from_millis(5));
        http1::Reply::ok("ok")
    });
    let slow = slow.await.unwrap();
    let endpoints = [failing.addr(), slow.addr()].map(|addr| mesh.endpoint(addr, ProtocolHint::Unknown));
    let known = mesh.service(&endpoints);
    penalise(&mesh, &known, penalty);
    let mut client = http1::Client::over(mesh.connect(&known).await);
    for _ in 0..REQUESTS {
        soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
    }
    assert_eq!(failing.seen().requests.len() + slow.seen().requests.len(), REQUESTS);
    failing.seen().requests.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_count_as_slow() {
    let penalty = Some(Penalty { rtt: Duration::from_secs(500), max_retry_after: Duration::from_secs(500) });
    for head in [
        "HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n",
    ] {
        let penalised = to_the_failing(head, penalty).await;
        assert!(penalised <= 1, "{penalised}: {head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_says_for_how_long() {
    let penalty = Some(Penalty { rtt: Duration::from_micros(1), max_retry_after: Duration::from_secs(300) });
    let asks = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 300\r\ncontent-length: 0\r\n\r\n";
    let asked = to_the_failing(asks, penalty).await;
    assert!(asked <= 1, "{asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_says_it_in_heads_without_a_body() {
    let mesh = Mesh::start().await;
    let answering = |code: &'static str, pushback: &'static str| {
        http2::Origin::start(move |request| async move {
            http2::complete((), request.into_body()).await?;
            let reply = http::Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", code)
                .header("grpc-retry-pushback-ms", pushback);
            Ok(reply.body(http2::full(""))?)
        })
    };
    let (busy, fine) = (answering("8", "300000").await.unwrap(), answering("0", "300000").await.unwrap());
    let endpoints = [busy.addr(), fine.addr()].map(|addr| mesh.endpoint(addr, ProtocolHint::H2));
    let known = mesh.service(&endpoints);
    let cap = Duration::from_secs(300);
    penalise(&mesh, &known, Some(Penalty { rtt: Duration::from_micros(1), max_retry_after: cap }));
    let mut client = mesh.http2(&known).await;
    for _ in 0..REQUESTS {
        let call = http::Request::post("http://app.ns/svc/Method").header("content-type", "application/grpc");
        soon(client.call(call.body(http2::full("x")).unwrap())).await.unwrap();
    }
    let (busy, fine) = (busy.seen().requests.len(), fine.seen().requests.len());
    assert!(busy <= 1 && busy + fine == REQUESTS, "{busy} of {REQUESTS}");
}
