//! Copies of requests: what a mirror sees of them, and that the originals do not notice, whatever the mirror does.

use crate::{
    harness::{Proxy, eventually, nobody, soon},
    mesh::{Mesh, Service},
};
use http::Request;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use weft_model::{
    ClientPolicy, Endpoint, ProtocolHint,
    policy::{
        outbound::ClientProtocol,
        route::{Filter, HeaderEdits, Mirror, PathReplacement, Ratio, Rewrite},
    },
};
use weft_testkit::{
    http1, http2,
    policy::{balance, detect, service},
};

const ALL: Ratio = Ratio::ALWAYS;

/// The policy of a service whose rule has these filters, for both versions of HTTP.
fn policy(known: &Service, filters: &[Filter]) -> ClientPolicy {
    let meta = service("ns", "app", 80);
    let mut policy = detect(meta.clone(), balance(meta, known.target.parse().unwrap()));
    if let ClientProtocol::Detect { http1, http2, .. } = &mut policy.protocol {
        for routes in [http1, http2] {
            routes.routes[0].rules[0].filters = filters.to_vec();
        }
    }
    policy
}

/// A mirror is known by its name alone.
fn mirror(to: &Service, share: Ratio) -> Filter {
    Filter::Mirror(Mirror { meta: service("ns", "copy", 80), target: to.target.parse().unwrap(), share })
}

fn copies(proxy: &Proxy, result: &str) -> f64 {
    let lines = proxy.metrics();
    let lines = lines.lines().filter(|line| line.starts_with("weft_outbound_mirrored_requests_total{"));
    let of_result = lines.filter(|line| line.contains(&format!("result=\"{result}\"")));
    of_result.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

async fn reached(proxy: &Proxy, result: &str, count: f64) {
    eventually(&format!("{count} copies to be {result}"), || copies(proxy, result) == count).await;
}

async fn origin() -> http1::Origin {
    http1::Origin::start(|_| http1::Reply::ok("original")).await.unwrap()
}

#[tokio::test]
async fn a_mirror_gets_a_copy_of_each_request_on_every_hop() {
    let mesh = Mesh::start().await;
    let (origin, copied) = (origin().await, http1::Origin::start(|_| http1::Reply::status(500, "No", "mirror")));
    let copied = copied.await.unwrap();
    let endpoints = |addr| {
        [Endpoint::plain(addr), mesh.endpoint(addr, ProtocolHint::Unknown), mesh.endpoint(addr, ProtocolHint::H2)]
    };
    let mut sent = 0.0;
    for (to, beside) in endpoints(origin.addr()).into_iter().zip(endpoints(copied.addr()).into_iter().rev()) {
        let (known, mirrored) = (mesh.service(std::slice::from_ref(&to)), mesh.service(std::slice::from_ref(&beside)));
        let edits = HeaderEdits { set: vec![("x-set".to_owned(), b"s".to_vec())], ..HeaderEdits::default() };
        let path = Some(PathReplacement::Full("/new".to_owned()));
        let rewrite = Filter::Rewrite(Rewrite { host: None, path });
        let filters = [rewrite, mirror(&mirrored, ALL), Filter::RequestHeaders(edits)];
        mesh.control.set_outbound(known.addr, policy(&known, &filters));
        let mut client = http1::Client::over(mesh.connect(&known).await);
        for (request, body) in [
            ("GET /a?b=c HTTP/1.1\r\nHost: app.ns\r\nX-Own: o\r\n\r\n".to_owned(), String::new()),
            ("POST /a?b=c HTTP/1.1\r\nHost: app.ns\r\nContent-Length: 4\r\n\r\nbody".to_owned(), "body".to_owned()),
            (
                format!("POST /a?b=c HTTP/1.1\r\nHost: app.ns\r\nContent-Length: 30000\r\n\r\n{}", "x".repeat(30_000)),
                "x".repeat(30_000),
            ),
            (
                "POST /a?b=c HTTP/1.1\r\nHost: app.ns\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n".to_owned(),
                "body".to_owned(),
            ),
        ] {
            let answer = soon(client.call(&request)).await.unwrap();
            assert_eq!((answer.status(), &answer.body[..]), (Some(200), &b"original"[..]), "{to:?}");
            sent += 1.0;
            reached(&mesh.web, "sent", sent).await;
            let (original, copy) = (origin.seen().requests.pop().unwrap(), copied.seen().requests.pop().unwrap());
            for seen in [&original, &copy] {
                let method = request.split(' ').next().unwrap();
                assert_eq!(seen.first_line(), format!("{method} /new?b=c HTTP/1.1"), "{to:?} {beside:?}");
                assert_eq!((seen.headers("host"), seen.headers("x-set")), (vec!["app.ns".to_owned()], vec!["s".to_owned()]));
                assert_eq!(seen.body, body.as_bytes(), "{to:?} {beside:?}");
            }
            assert_eq!(original.headers("x-own"), copy.headers("x-own"));
        }
    }
    // What is counted of requests counts the originals alone.
    mesh.web.reaches("outbound_http_route_request_statuses_total{", sent).await;
}

#[tokio::test]
async fn a_mirror_of_http2_gets_copies_of_http2() {
    let mesh = Mesh::start().await;
    let start = || {
        http2::Origin::start(|request| async move {
            let body = http2::complete((), request.into_body()).await?.body;
            Ok(http::Response::new(http2::full(body)))
        })
    };
    let (origin, copied) = (start().await.unwrap(), start().await.unwrap());
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let mirrored = mesh.service(&[Endpoint::plain(copied.addr())]);
    mesh.control.set_outbound(known.addr, policy(&known, &[mirror(&mirrored, ALL)]));
    let client = mesh.http2(&known).await;
    let mut sent = 0.0;
    for body in ["", "body", &"x".repeat(40_000)] {
        let request = Request::post("http://app.ns/a.B/C").header("te", "trailers").header("l5d-client-id", "forged");
        let request = request.body(http2::full(body.to_owned())).unwrap();
        let answer = soon(client.clone().call(request)).await.unwrap();
        assert!(answer.head.status == 200 && answer.body == body.as_bytes());
        sent += 1.0;
        reached(&mesh.web, "sent", sent).await;
        let copy = copied.seen().requests.last().unwrap().clone();
        assert_eq!((copy.method.as_str(), copy.uri.to_string()), ("POST", "http://app.ns/a.B/C".to_owned()));
        assert_eq!(copy.headers["te"], "trailers");
        assert!(!copy.headers.contains_key("l5d-client-id"));
    }
    assert_eq!(copied.seen().requests.len(), 3);
}

/// One that is not there, one that never answers: the originals take no longer, and the copies are bounded.
#[tokio::test]
async fn a_mirror_that_hangs_or_is_dead_is_not_noticed() {
    let mesh = Mesh::start().await;
    let origin = origin().await;
    let hanging = http1::Origin::start(|_| http1::Reply::Hang).await.unwrap();
    let dead = mesh.service(&[Endpoint::plain(nobody())]);
    let hangs = mesh.service(&[Endpoint::plain(hanging.addr())]);
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    mesh.control.set_outbound(known.addr, policy(&known, &[mirror(&dead, ALL), mirror(&hangs, ALL)]));
    let mut client = http1::Client::over(mesh.connect(&known).await);
    let began = Instant::now();
    for _ in 0..300 {
        let answer = soon(client.call("POST / HTTP/1.1\r\nHost: app.ns\r\nContent-Length: 1\r\n\r\nx")).await.unwrap();
        assert_eq!((answer.status(), &answer.body[..]), (Some(200), &b"original"[..]));
    }
    // Had one of them waited for a copy, it would have taken its 10 s, or the failfast timeout.
    assert!(began.elapsed() < Duration::from_secs(60));
    assert_eq!(origin.seen().requests.len(), 300);
    assert!(copies(&mesh.web, "full") > 0.0, "600 copies found places");
    assert_eq!(copies(&mesh.web, "sent"), 0.0);
    eventually("copies to be given up", || copies(&mesh.web, "failed") + copies(&mesh.web, "full") == 600.0).await;
    // Places are given back.
    let well = self::origin().await;
    let well_known = mesh.service(&[Endpoint::plain(well.addr())]);
    mesh.control.set_outbound(known.addr, policy(&known, &[mirror(&well_known, ALL)]));
    while copies(&mesh.web, "sent") < 1.0 {
        soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
    }
}

#[tokio::test]
async fn a_body_that_outgrows_its_bound_is_not_copied() {
    let mesh = Mesh::start().await;
    let (origin, copied) = (origin().await, origin_of_copies().await);
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let mirrored = mesh.service(&[Endpoint::plain(copied.addr())]);
    mesh.control.set_outbound(known.addr, policy(&known, &[mirror(&mirrored, ALL)]));
    let mut client = http1::Client::over(mesh.connect(&known).await);
    for (n, result) in [(64 * 1024, "sent"), (64 * 1024 + 1, "too_large")] {
        let body = "x".repeat(n);
        let request = format!("POST / HTTP/1.1\r\nHost: app.ns\r\nContent-Length: {n}\r\n\r\n{body}");
        assert_eq!(soon(client.call(request)).await.unwrap().status(), Some(200));
        reached(&mesh.web, result, 1.0).await;
        assert_eq!(origin.seen().requests.last().unwrap().body.len(), n);
    }
    assert_eq!(copied.seen().requests.iter().map(|request| request.body.len()).collect::<Vec<_>>(), [64 * 1024]);
}

/// What a mirror answers is read to its end only if that is cheaper than another connection: none makes the proxy read on and on.
#[tokio::test]
async fn an_answer_without_an_end_is_not_read_on() {
    let mesh = Mesh::start().await;
    let origin = origin().await;
    let passed = Arc::new(AtomicUsize::new(0));
    let over_http1 = {
        let (listener, passed) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), passed.clone());
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let passed = passed.clone();
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    let _ = stream.read(&mut request).await;
                    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4294967296\r\n\r\n";
                    let _ = stream.write_all(head).await;
                    while stream.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
                    passed.fetch_add(1, Relaxed);
                });
            }
        });
        addr
    };
    let endless = || async { Ok(http::Response::new(http2::endless(vec![b'x'; 16 * 1024]))) };
    let over_http2 = http2::Origin::start(move |_| endless()).await.unwrap();
    for (addr, hint, sent) in [(over_http1, ProtocolHint::Unknown, 1.0), (over_http2.addr(), ProtocolHint::H2, 2.0)] {
        let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
        let to = if hint == ProtocolHint::H2 { mesh.endpoint(addr, hint) } else { Endpoint::plain(addr) };
        mesh.control.set_outbound(known.addr, policy(&known, &[mirror(&mesh.service(&[to]), ALL)]));
        let mut client = http1::Client::over(mesh.connect(&known).await);
        let answer = soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
        assert_eq!(&answer.body[..], b"original");
        reached(&mesh.web, "sent", sent).await;
    }
    eventually("the connection to be given up", || passed.load(Relaxed) == 1).await;
    assert_eq!(copies(&mesh.web, "failed"), 0.0, "it did not take their whole time");
}

async fn origin_of_copies() -> http1::Origin {
    http1::Origin::start(|_| http1::Reply::ok("copy")).await.unwrap()
}

#[tokio::test]
async fn a_share_of_the_requests_is_copied() {
    let mesh = Mesh::start().await;
    let (origin, copied) = (origin().await, origin_of_copies().await);
    let mirrored = mesh.service(&[Endpoint::plain(copied.addr())]);
    for (numerator, least, most) in [(0, 0.0, 0.0), (50, 60.0, 140.0)] {
        let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
        let share = Ratio { numerator, denominator: 100 };
        mesh.control.set_outbound(known.addr, policy(&known, &[mirror(&mirrored, share)]));
        let mut client = http1::Client::over(mesh.connect(&known).await);
        for _ in 0..200 {
            soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
        }
        let sent = || copies(&mesh.web, "sent");
        eventually("the last copies", || sent() >= least).await;
        assert!(sent() <= most, "{}", sent());
    }
}
