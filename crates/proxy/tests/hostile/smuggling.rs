//! Request smuggling: one request in is one request out, or a refusal, whoever is the server behind the proxies.
//!
//! What the server took for requests is read from its own log. Behind each case follow two ordinary requests of another client,
//! so that what a case left on a pooled connection would show in them.
//!
//! Budget: none, with the requests behind it, costs more than twelve requests that come on connections of their own the same way.

use crate::{
    corpus::{Case, Sees, corpus},
    cost::Cost,
    harness::{Dialler, LONG, http1, soon},
    measure::alone,
    mesh::Mesh,
    origins::{Kind, Server},
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_model::{
    Meta, ProtocolHint, ServerPolicy,
    policy::{
        inbound::{DefaultPolicy, InboundRule, ServerProtocol},
        route::{Filter, HttpMatch, HttpRoute, PathMatch, Ratio, Rule},
    },
};
use weft_testkit::{http1::Client, policy::inbound};

/// After so long without a byte a case waits for what it will not get.
const IDLE: Duration = Duration::from_millis(150);
/// What the requests ask for by which the others are measured. A server may tell of them late.
const PLAIN: &str = "/plain";

/// Everything goes on but what is below `/smuggled`, whoever asks.
fn policy() -> ServerPolicy {
    let mut policy = inbound(DefaultPolicy::AllUnauthenticated);
    let ServerProtocol::Detect { routes, .. } = &mut policy.protocol else { unreachable!() };
    let always = Ratio { numerator: 1, denominator: 1 };
    let shut = Filter::HttpFailure { status: 403, message: "smuggled".to_owned(), ratio: always };
    let route = |name: &str, prefix: &str, filters| {
        let matches = vec![HttpMatch { path: Some(PathMatch::Prefix(prefix.to_owned())), ..HttpMatch::default() }];
        let rules = vec![Rule { matches, filters, does: InboundRule::default() }];
        HttpRoute { meta: Meta::default_named(name), hosts: vec![], rules }
    };
    *routes = vec![route("open", "/", vec![]), route("shut", "/smuggled", vec![shut])];
    policy
}

/// What comes back for a case and, where its connection goes on, for a request for `end` behind it.
async fn exchange(dialler: &Dialler, bytes: &[u8], sees: Sees, end: &str) -> Vec<u8> {
    // A case that is in order is answered, and one that is refused closed. Of others it is not known what they wait for.
    let (wanted, patience) = match sees {
        Sees::Exactly(paths) => (paths.len(), LONG),
        Sees::AtMost(paths) => (paths.len(), IDLE),
        Sees::Nothing => (usize::MAX, LONG),
    };
    let mut tcp = dialler.connect().await;
    let mut answer = vec![];
    // Who is refused early may be closed early.
    let _ = tcp.write_all(bytes).await;
    if hear(&mut tcp, &mut answer, wanted, patience).await {
        return answer;
    }
    let _ = tcp.write_all(format!("GET {end} HTTP/1.1\r\nHost: app.ns\r\nConnection: close\r\n\r\n").as_bytes()).await;
    if !hear(&mut tcp, &mut answer, usize::MAX, patience).await {
        let _ = tcp.shutdown().await;
        assert!(hear(&mut tcp, &mut answer, usize::MAX, LONG).await, "it never closes");
    }
    answer
}

/// Reads until the connection has ended, which is true, or until there are so many responses, or nothing comes for a while.
async fn hear(tcp: &mut TcpStream, answer: &mut Vec<u8>, wanted: usize, patience: Duration) -> bool {
    loop {
        match tokio::time::timeout(patience, tcp.read_buf(answer)).await {
            Ok(Ok(1..)) if finals(answer) >= wanted => return false,
            Ok(Ok(1..)) => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
}

/// How many responses are there that are no interim ones. The bodies of the servers hold none.
fn finals(bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    text.matches("HTTP/1.").count() - text.matches("HTTP/1.1 1").count()
}

/// How many final responses with this status there are.
fn answered(bytes: &[u8], status: u16) -> usize {
    String::from_utf8_lossy(bytes).matches(&format!("HTTP/1.1 {status} ")).count()
        + String::from_utf8_lossy(bytes).matches(&format!("HTTP/1.0 {status} ")).count()
}

/// The target of a line of a server's log, without scheme and host.
fn path(line: &str) -> &str {
    // HAProxy and node do not say what they refused.
    if line.contains("<BADREQ>") || line.starts_with("400 - - -") {
        return "/case";
    }
    let target = line.split(' ').nth(2).unwrap_or_default();
    target.strip_prefix("http://app.ns").unwrap_or(target)
}

/// Waits until the server has told of a request for `path`; what it told of from line `from` on.
async fn told(server: &Server, from: usize, wanted: &str) -> Vec<String> {
    let start = std::time::Instant::now();
    loop {
        let new = server.log().split_off(from);
        if new.iter().any(|line| path(line) == wanted) {
            return new;
        }
        assert!(start.elapsed() < LONG, "{:?} never saw {wanted}: {new:?}", server.kind());
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// A mesh that keeps what it has connected to.
async fn run(kind: Kind) {
    let Some(server) = kind.start().await else { return };
    let mesh = Mesh::start().await;
    let endpoint = |hint| mesh.endpoint(server.addr(), hint);
    let services = [ProtocolHint::Unknown, ProtocolHint::H2].map(|hint| mesh.service(&[endpoint(hint)]));
    mesh.control.set_inbound(server.addr().port(), policy());
    let ways = [
        ("inbound", mesh.app.inbound(server.addr())),
        ("pair", mesh.web.outbound(services[0].addr)),
        ("pair over HTTP/2", mesh.web.outbound(services[1].addr)),
    ];
    for (_, dialler) in &ways {
        // As soon as the policy is known.
        let shut = "GET /smuggled HTTP/1.1\r\nHost: app.ns\r\nConnection: close\r\n\r\n";
        while http1(dialler.connect().await, shut).await.0 != 403 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let begun = server.log().len();
    let mut faults = vec![];
    for (way, dialler) in &ways {
        let plain = async || {
            let request = format!("GET {PLAIN} HTTP/1.1\r\nHost: app.ns\r\n\r\n");
            let reply = soon(Client::over(dialler.connect().await).call(request)).await.unwrap();
            assert_eq!(reply.status(), Some(kind.ok()));
        };
        let cost = Cost::begin(plain).await;
        for (n, case) in corpus().iter().enumerate() {
            let from = server.log().len();
            let ends = ["same", "first", "second"].map(|which| format!("/end-{from}-{n}-{which}"));
            let answer = exchange(dialler, &case.bytes, case.sees, &ends[0]).await;
            let mut client = Client::over(dialler.connect().await);
            for end in &ends[1..] {
                let reply = soon(client.call(format!("GET {end} HTTP/1.1\r\nHost: app.ns\r\n\r\n"))).await;
                let status = reply.ok().and_then(|reply| reply.status());
                if status != Some(kind.ok()) {
                    faults.push(format!("{way}, {}: another client got {status:?}", case.name));
                }
            }
            drop(client);
            let new = told(&server, from, &ends[2]).await;
            faults.extend(judge(kind, way, case, &new, &ends, &answer));
        }
        cost.end(&format!("{kind:?}, {way}"), corpus().len(), 12.0);
    }
    // What came late, on a connection that was already left.
    let late = server.log().split_off(begun);
    let late: Vec<_> = late.iter().filter(|line| path(line).contains("/smuggled")).collect();
    assert!(faults.is_empty() && late.is_empty(), "{kind:?}: {late:?}\n{}", faults.join("\n"));
}

/// What is wrong with what the server saw of a case.
fn judge(kind: Kind, way: &str, case: &Case, new: &[String], ends: &[String], answer: &[u8]) -> Vec<String> {
    let mut faults = vec![];
    let others = |path: &str| path == PLAIN || ends[1..].iter().any(|end| end == path);
    let seen: Vec<&str> = new.iter().map(|line| path(line)).filter(|path| !others(path) && *path != ends[0]).collect();
    let right = match case.sees {
        Sees::Exactly(paths) => seen == paths,
        Sees::AtMost(paths) => paths.starts_with(&seen),
        Sees::Nothing => seen.is_empty(),
    };
    if !right {
        let answer = String::from_utf8_lossy(answer);
        faults.push(format!(
            "{way}, {}: {:?}, but the server saw {new:?} and the client {answer:?}",
            case.name, case.sees
        ));
    }
    // Each request that the server understood is answered once.
    let asked = |line: &str| !others(path(line));
    let understood = |line: &&String| line.starts_with(&format!("{} ", kind.ok())) && asked(line);
    let (understood, answered) = (new.iter().filter(understood).count(), answered(answer, kind.ok()));
    if answered > understood || (answered < understood && matches!(case.sees, Sees::Exactly(_))) {
        faults.push(format!("{way}, {}: {answered} answers to {understood} requests", case.name));
    }
    faults
}

#[test]
fn one_request_in_is_one_request_out_at_nginx() {
    alone(module_path!(), "one_request_in_is_one_request_out_at_nginx", async || run(Kind::Nginx).await);
}

#[test]
fn one_request_in_is_one_request_out_at_haproxy() {
    alone(module_path!(), "one_request_in_is_one_request_out_at_haproxy", async || run(Kind::Haproxy).await);
}

#[test]
fn one_request_in_is_one_request_out_at_apache() {
    alone(module_path!(), "one_request_in_is_one_request_out_at_apache", async || run(Kind::Apache).await);
}

#[test]
fn one_request_in_is_one_request_out_at_node() {
    alone(module_path!(), "one_request_in_is_one_request_out_at_node", async || run(Kind::Node).await);
}

#[test]
fn one_request_in_is_one_request_out_at_python() {
    alone(module_path!(), "one_request_in_is_one_request_out_at_python", async || run(Kind::Python).await);
}
