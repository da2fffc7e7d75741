//! Requests that go on with another path or host: what the server sees of them in every framing, and who refuses them.

use crate::{
    harness::soon,
    mesh::{Mesh, Service, get, naming},
};
use http::Request;
use weft_model::{
    ClientPolicy, Endpoint, ProtocolHint,
    policy::{
        outbound::{ClientProtocol, Distribution, OutboundRule},
        route::{Filter, HttpMatch, PathMatch, PathReplacement, Rewrite, Rule},
    },
};
use weft_testkit::{
    control::Service as Asked,
    http1, http2,
    policy::{balance, detect, service},
};

/// The policy of a service whose rule for `/old` is changed, for both versions of HTTP.
fn policy(known: &Service, change: impl Fn(&mut Rule<HttpMatch, OutboundRule>)) -> ClientPolicy {
    let meta = service("ns", "app", 80);
    let mut policy = detect(meta.clone(), balance(meta, known.target.parse().unwrap()));
    if let ClientProtocol::Detect { http1, http2, .. } = &mut policy.protocol {
        for routes in [http1, http2] {
            let rule = &mut routes.routes[0].rules[0];
            let prefix = Some(PathMatch::Prefix("/old".to_owned()));
            rule.matches = vec![HttpMatch { path: prefix, ..HttpMatch::default() }];
            change(rule);
        }
    }
    policy
}

fn to(host: Option<&str>, path: Option<PathReplacement>) -> Filter {
    Filter::Rewrite(Rewrite { host: host.map(str::to_owned), path })
}

fn prefix(path: &str) -> Option<PathReplacement> {
    Some(PathReplacement::Prefix(path.to_owned()))
}

fn full(path: &str) -> Option<PathReplacement> {
    Some(PathReplacement::Full(path.to_owned()))
}

async fn origin() -> http1::Origin {
    http1::Origin::start(|_| http1::Reply::ok("ok")).await.unwrap()
}

fn last(origin: &http1::Origin) -> (String, Vec<String>) {
    let seen = origin.seen();
    let request = seen.requests.last().unwrap();
    (request.first_line(), request.headers("host"))
}

#[tokio::test]
async fn http1_asks_for_the_new_path_and_host_on_every_hop() {
    let mesh = Mesh::start().await;
    let origin = origin().await;
    let hops = [
        Endpoint::plain(origin.addr()),
        mesh.endpoint(origin.addr(), ProtocolHint::Unknown),
        mesh.endpoint(origin.addr(), ProtocolHint::H2),
    ];
    for endpoint in hops {
        let known = mesh.service(std::slice::from_ref(&endpoint));
        let rewrite = to(Some("other.example"), prefix("/new/"));
        mesh.control.set_outbound(known.addr, policy(&known, |rule| rule.filters = vec![rewrite.clone()]));
        let mut client = http1::Client::over(mesh.connect(&known).await);
        for (asked, seen) in [
            ("GET /old/a%2Fb//c;d?q=1?2&x HTTP/1.1", "GET /new/a%2Fb//c;d?q=1?2&x HTTP/1.1"),
            ("GET /old HTTP/1.1", "GET /new/ HTTP/1.1"),
            ("GET /old? HTTP/1.1", "GET /new/? HTTP/1.1"),
            ("GET http://app.ns:8080/old/a?b HTTP/1.1", "GET http://other.example/new/a?b HTTP/1.1"),
        ] {
            let response = soon(client.call(format!("{asked}\r\nHost: app.ns:8080\r\nX: 1\r\n\r\n"))).await.unwrap();
            assert_eq!(response.status(), Some(200), "{asked} {endpoint:?}");
            assert_eq!(last(&origin), (seen.to_owned(), vec!["other.example".to_owned()]), "{asked} {endpoint:?}");
        }
        // A prefix is of whole segments.
        let other = soon(client.call("GET /older HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
        assert_eq!(other.status(), Some(404));
    }
}

#[tokio::test]
async fn http2_asks_for_the_new_path_and_host() {
    let mesh = Mesh::start().await;
    let origin = http2::Origin::start(|request| async move {
        http2::complete((), request.into_body()).await?;
        Ok(http::Response::new(http2::full("ok")))
    });
    let origin = origin.await.unwrap();
    for endpoint in [Endpoint::plain(origin.addr()), mesh.endpoint(origin.addr(), ProtocolHint::H2)] {
        let known = mesh.service(std::slice::from_ref(&endpoint));
        let rewrite = to(Some("other.example"), full("/new"));
        mesh.control.set_outbound(known.addr, policy(&known, |rule| rule.filters = vec![rewrite.clone()]));
        let request = Request::post("http://app.ns/old/a?q=1").body(http2::full("body")).unwrap();
        assert_eq!(soon(mesh.http2(&known).await.call(request)).await.unwrap().head.status, 200);
        assert_eq!(origin.seen().requests.last().unwrap().uri, "http://other.example/new?q=1", "{endpoint:?}");
    }
    // To a server of HTTP/1 it is one of HTTP/1.
    let old = self::origin().await;
    let known = mesh.service(&[Endpoint::plain(old.addr())]);
    mesh.control.set_outbound(known.addr, policy(&known, |rule| rule.filters = vec![to(None, prefix(""))]));
    let mut client = http1::Client::over(mesh.connect(&known).await);
    soon(client.call("GET /old/a?b HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
    assert_eq!(last(&old), ("GET /a?b HTTP/1.1".to_owned(), vec!["app.ns".to_owned()]));
}

#[tokio::test]
async fn a_backend_has_the_last_word_on_what_it_rewrites() {
    let mesh = Mesh::start().await;
    let origin = origin().await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let policy = policy(&known, |rule| {
        rule.filters = vec![to(Some("rule.example"), full("/rule"))];
        let Distribution::FirstAvailable(backends) = &mut rule.does.backends else { panic!() };
        backends[0].filters = vec![to(None, prefix("/backend"))];
    });
    mesh.control.set_outbound(known.addr, policy);
    let mut client = http1::Client::over(mesh.connect(&known).await);
    soon(client.call("GET /old/a HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
    assert_eq!(last(&origin), ("GET /backend/a HTTP/1.1".to_owned(), vec!["rule.example".to_owned()]));
}

/// Policy and extension come in two streams: no request is refused while one is ahead of the other, and none follows half of each.
#[tokio::test]
async fn changes_of_what_is_rewritten_cost_no_request() {
    let mesh = Mesh::start().await;
    let origin = origin().await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let set = |n: usize| {
        let rewrite = to(Some(&format!("h{n}")), full(&format!("/p{n}")));
        mesh.control.set_outbound(known.addr, policy(&known, |rule| rule.filters = vec![rewrite.clone()]));
    };
    set(0);
    let mut client = http1::Client::over(mesh.connect(&known).await);
    for n in 1..20 {
        set(n);
        loop {
            let response = soon(client.call("GET /old HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
            assert_eq!(response.status(), Some(200), "{}", response.head_text());
            let (line, host) = last(&origin);
            let seen = line.strip_prefix("GET /p").unwrap().strip_suffix(" HTTP/1.1").unwrap();
            assert_eq!(host, [format!("h{seen}")]);
            if seen == n.to_string() {
                break;
            }
        }
    }
    assert_eq!(mesh.control.open(Asked::Extensions), 1);
    // Who wants nothing of the sort is asked for no more.
    mesh.control.set_outbound(known.addr, policy(&known, |_| {}));
    mesh.control.opened(Asked::Extensions, 0).await.unwrap();
    while last(&origin).0 != "GET /old HTTP/1.1" {
        soon(client.call("GET /old HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
    }
}

#[tokio::test]
async fn where_nobody_says_what_is_rewritten_requests_are_refused() {
    let mesh = Mesh::start().await;
    mesh.control.set_extends(false);
    let origin = naming("app").await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let mut other = mesh.http2(&known).await;
    assert_eq!(soon(other.call(get())).await.unwrap().head.status, 200);
    let asked = mesh.control.calls().iter().filter(|call| call.service() == Asked::Extensions).count();
    assert_eq!(asked, 0, "a policy that says everything itself");

    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    mesh.control.set_outbound(known.addr, policy(&known, |rule| rule.filters = vec![to(Some("other.ns"), None)]));
    let mut client = http1::Client::over(mesh.connect(&known).await);
    let response = soon(client.call("GET /old HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
    let error = "the route wants a URLRewrite, and this proxy was not told which [POLICY_UNSUPPORTED]";
    assert_eq!((response.status(), response.header("l5d-proxy-error").as_deref()), (Some(500), Some(error)));
    assert_eq!(origin.seen().requests.len(), 1, "the one that nothing is rewritten of");
}

/// `OPTIONS *` and CONNECT have none, and without it they would go on as if the route had not been there.
#[tokio::test]
async fn a_request_without_a_path_is_refused_where_paths_are_rewritten() {
    let mesh = Mesh::start().await;
    let origin = origin().await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let policy = policy(&known, |rule| {
        rule.matches = vec![];
        rule.filters = vec![to(None, full("/new"))];
    });
    mesh.control.set_outbound(known.addr, policy);
    for request in
        ["OPTIONS * HTTP/1.1\r\nHost: app.ns\r\n\r\n", "CONNECT app.ns:80 HTTP/1.1\r\nHost: app.ns:80\r\n\r\n"]
    {
        let mut client = http1::Client::over(mesh.connect(&known).await);
        let response = soon(client.call(request)).await.unwrap();
        assert_eq!(response.status(), Some(500), "{request}");
        assert!(response.header("l5d-proxy-error").unwrap().ends_with("[POLICY_UNSUPPORTED]"), "{request}");
    }
    assert_eq!(origin.seen().requests.len(), 0);
}

/// A request that is refused for what cannot be rewritten of it takes no connection, and costs none that is kept.
#[tokio::test]
async fn what_is_refused_leaves_kept_connections_to_others() {
    let mesh = Mesh::start().await;
    let origin = origin().await;
    let known = mesh.service(&[Endpoint::plain(origin.addr())]);
    let policy = policy(&known, |rule| {
        rule.matches = vec![];
        rule.filters = vec![to(None, full("/new"))];
    });
    mesh.control.set_outbound(known.addr, policy);
    let get = "GET /old HTTP/1.1\r\nHost: app.ns\r\n\r\n";
    let mut client = http1::Client::over(mesh.connect(&known).await);
    assert_eq!(soon(client.call(get)).await.unwrap().status(), Some(200));
    for _ in 0..3 {
        let mut refused = http1::Client::over(mesh.connect(&known).await);
        let response = soon(refused.call("OPTIONS * HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
        assert_eq!(response.status(), Some(500));
    }
    assert_eq!(soon(client.call(get)).await.unwrap().status(), Some(200));
    assert_eq!((origin.seen().requests.len(), origin.seen().connections.len()), (2, 1));
}
