//! A request that no server has answered is sent again at once: what is counted and told of it is one request.

use crate::{
    explain::explained,
    harness::soon,
    mesh::Mesh,
    tap::{TAP, everything, next, observe},
    traces::collector,
};
use http::{Request, Response};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use weft_model::{Endpoint, tap::Step, trace::Value};
use weft_testkit::{collector::Collector, http1, http2};

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// An application that closes its first connection when the second request comes over it, without a word, and answers that one on
/// the next: with 200 and 201. Its task ends with that connection.
pub(crate) async fn leaving() -> (SocketAddr, JoinHandle<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let head = async |tcp: &mut TcpStream| {
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(tcp.read_u8()).await.unwrap());
        }
    };
    let task = tokio::spawn(async move {
        let (mut kept, _) = soon(listener.accept()).await.unwrap();
        head(&mut kept).await;
        kept.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        head(&mut kept).await;
        drop(kept);
        let (mut other, _) = soon(listener.accept()).await.unwrap();
        head(&mut other).await;
        other.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        other
    });
    (addr, task)
}

/// The same in HTTP/2, which does not end by itself.
async fn leaving_http2() -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        for status in [200, 201] {
            let (tcp, _) = soon(listener.accept()).await.unwrap();
            let mut connection = soon(h2::server::handshake(tcp)).await.unwrap();
            let (_, mut answer) = soon(connection.accept()).await.unwrap().unwrap();
            answer.send_response(Response::builder().status(status).body(()).unwrap(), true).unwrap();
            // The answer goes out while the next request is waited for.
            drop(connection.accept().await);
        }
    });
    (addr, task)
}

/// Two requests of an application, in either version, to a server without a proxy.
async fn statuses(mesh: &Mesh, over_http2: bool) -> Vec<u16> {
    let mut statuses = vec![];
    if over_http2 {
        let (addr, app) = leaving_http2().await;
        let mut client = mesh.http2(&mesh.service(&[Endpoint::plain(addr)])).await;
        for _ in 0..2 {
            let request = Request::get("http://app.ns/").header("traceparent", TRACEPARENT).body(http2::full(""));
            statuses.push(soon(client.call(request.unwrap())).await.unwrap().head.status.as_u16());
        }
        app.abort();
    } else {
        let (addr, app) = leaving().await;
        let mut client = http1::Client::over(mesh.connect(&mesh.service(&[Endpoint::plain(addr)])).await);
        let request = format!("GET / HTTP/1.1\r\nhost: app.ns\r\ntraceparent: {TRACEPARENT}\r\n\r\n");
        for _ in 0..2 {
            statuses.push(soon(client.call(&request)).await.unwrap().status().unwrap());
        }
        drop(soon(app).await.unwrap());
    }
    statuses
}

#[tokio::test]
async fn what_no_server_has_answered_is_told_and_counted_once() {
    let collected = Collector::start().await.unwrap();
    let collector = collector(collected.addr());
    let env: Vec<_> = collector.iter().map(|(name, value)| (*name, value.as_str())).chain(TAP).collect();
    let mesh = Mesh::with(&env, &[]).await;
    for (done, over_http2) in [(0, false), (1, true)] {
        // The second is shown, though an attempt of it was shown before.
        let mut events = observe(&mesh.web, 2, everything()).await;
        assert_eq!(statuses(&mesh, over_http2).await, [200, 201]);
        let (mut answers, mut ends) = (vec![], vec![]);
        while let Some(event) = next(&mut events).await {
            match event.step {
                Step::Request { .. } => {}
                Step::Response { status, .. } => answers.push(status),
                Step::End { end, .. } => ends.push(end),
            }
        }
        assert_eq!((answers, ends), (vec![200, 201], vec![None, None]), "over HTTP/2: {over_http2}");

        let spans = collected.saw(4 * (done + 1)).await.unwrap();
        let failed = spans.iter().find(|span| span.failure.is_some());
        assert!(failed.is_none() && spans.len() == 4 * (done + 1), "over HTTP/2: {over_http2}: {spans:#?}");
        let created = ("http.response.status_code".to_owned(), Value::Number(201));
        assert_eq!(spans.iter().filter(|span| span.attributes.contains(&created)).count(), 2 * (done + 1));

        let records = explained(&mesh.web, "kind=request&direction=outbound", 3 * (done + 1)).await;
        let records = records["records"].as_array().unwrap();
        let of = |outcome: &str| records.iter().filter(|record| record["outcome"] == outcome).count();
        assert_eq!((of("repeated"), of("ended")), (done + 1, 2 * (done + 1)), "{records:#?}");
        for family in ["request_total{direction=\"outbound\"", "response_total{direction=\"outbound\""] {
            mesh.web.reaches(family, 2.0 * (done + 1) as f64).await;
        }
    }
}
