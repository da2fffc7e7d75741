//! ServiceProfiles on the client's side: when they take precedence over the policy, where requests go, and what is counted.

use crate::{
    harness::{LONG, eventually, soon},
    mesh::{Mesh, Service, get, naming, shouting},
};
use http::{Request, Response};
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_model::{
    Endpoint, Profile, ProtocolHint,
    policy::route::{Filter, Pattern},
    profile::{ProfileRoute, RequestMatch, ResponseClass, ResponseMatch, WeightedTarget},
};
use weft_testkit::{
    control::Call,
    http1, http2,
    policy::{balance, opaque, service},
};

/// A profile of `known` with these routes: label, path, statuses that are failures.
fn profile(known: &Service, routes: &[(&str, &str, &[u16])]) -> Profile {
    let (name, _) = known.target.split_once(':').unwrap();
    let routes = routes.iter().map(|(label, path, failures)| ProfileRoute {
        matches: RequestMatch::All(vec![RequestMatch::Path(Pattern::new(path).unwrap())]),
        response_classes: failures
            .iter()
            .map(|status| ResponseClass { matches: ResponseMatch::Status(*status..=*status), failure: true })
            .collect(),
        labels: [("route".to_owned(), (*label).to_owned())].into(),
        retryable: false,
        timeout: None,
    });
    Profile { name: Some(name.parse().unwrap()), routes: routes.collect(), ..Profile::default() }
}

fn target(known: &Service, weight: u32) -> WeightedTarget {
    WeightedTarget { target: known.target.parse().unwrap(), weight }
}

fn request(path: &str) -> Request<http2::Body> {
    Request::get(format!("http://app.ns{path}")).body(http2::full("")).unwrap()
}

/// The lines of the families of routes, without buckets and sums, each with its value.
fn routes(metrics: &str, target: &str) -> Vec<String> {
    let of_routes = |line: &&str| line.starts_with("route_") && !line.contains("_bucket{") && !line.contains("_sum{");
    let mut lines: Vec<_> = metrics.lines().filter(of_routes).map(|line| line.replace(target, "TARGET")).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn routes_are_counted_with_their_labels_and_classes() {
    let mesh = Mesh::start().await;
    let origin = http2::Origin::start(|request| async move {
        let missing = request.uri().path().ends_with("missing");
        http2::complete((), request.into_body()).await?;
        Ok(Response::builder().status(if missing { 404 } else { 200 }).body(http2::full("x"))?)
    })
    .await
    .unwrap();
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    mesh.control.set_profile(known.addr, profile(&known, &[("books", "/books(/.*)?", &[404]), ("a", "/a", &[])]));
    let mut client = mesh.http2(&known).await;
    for path in ["/books", "/books/missing", "/a", "/other/missing"] {
        let mut request = request(path);
        request.headers_mut().insert("l5d-dst-canonical", "forged:1".parse().unwrap());
        soon(client.call(request)).await.unwrap();
    }
    let expected = [
        r#"route_actual_request_total{direction="outbound",dst="TARGET",rt_route="a"} 1"#,
        r#"route_actual_request_total{direction="outbound",dst="TARGET",rt_route="books"} 2"#,
        r#"route_actual_request_total{direction="outbound",dst="TARGET"} 1"#,
        r#"route_actual_response_total{direction="outbound",dst="TARGET",rt_route="a",status_code="200",classification="success"} 1"#,
        r#"route_actual_response_total{direction="outbound",dst="TARGET",rt_route="books",status_code="200",classification="success"} 1"#,
        r#"route_actual_response_total{direction="outbound",dst="TARGET",rt_route="books",status_code="404",classification="failure"} 1"#,
        r#"route_actual_response_total{direction="outbound",dst="TARGET",status_code="404",classification="success"} 1"#,
        r#"route_request_total{direction="outbound",dst="TARGET",rt_route="a"} 1"#,
        r#"route_request_total{direction="outbound",dst="TARGET",rt_route="books"} 2"#,
        r#"route_request_total{direction="outbound",dst="TARGET"} 1"#,
        r#"route_response_latency_ms_count{direction="outbound",dst="TARGET",rt_route="a",status_code="200"} 1"#,
        r#"route_response_latency_ms_count{direction="outbound",dst="TARGET",rt_route="books",status_code="200"} 1"#,
        r#"route_response_latency_ms_count{direction="outbound",dst="TARGET",rt_route="books",status_code="404"} 1"#,
        r#"route_response_latency_ms_count{direction="outbound",dst="TARGET",status_code="404"} 1"#,
        r#"route_response_total{direction="outbound",dst="TARGET",rt_route="a",status_code="200",classification="success"} 1"#,
        r#"route_response_total{direction="outbound",dst="TARGET",rt_route="books",status_code="200",classification="success"} 1"#,
        r#"route_response_total{direction="outbound",dst="TARGET",rt_route="books",status_code="404",classification="failure"} 1"#,
        r#"route_response_total{direction="outbound",dst="TARGET",status_code="404",classification="success"} 1"#,
    ];
    eventually("all have ended", || mesh.web.metric("route_response_total{") == 4.0).await;
    assert_eq!(routes(&mesh.web.handle().metrics(), &known.target), expected);
    let metrics = mesh.web.handle().metrics();
    let classified = |class: &str| {
        let lines = metrics.lines().filter(|l| l.starts_with("response_total{") && l.contains("\"404\""));
        lines.filter(|l| l.contains(class)).filter_map(|l| l.rsplit(' ').next()?.parse::<u32>().ok()).sum::<u32>()
    };
    assert_eq!((classified("failure"), classified("success")), (1, 1), "the endpoint's metrics follow the classes too");
    for seen in origin.seen().requests {
        let names: Vec<_> = seen.headers.get_all("l5d-dst-canonical").iter().collect();
        assert_eq!(names, [known.target.as_str()]);
    }
}

#[tokio::test]
async fn http1_follows_the_profile_too() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|_| http1::Reply::ok("x")).await.unwrap();
    for (hint, route) in [(ProtocolHint::Unknown, "one"), (ProtocolHint::H2, "two")] {
        let known = mesh.service(&[mesh.endpoint(origin.addr(), hint)]);
        mesh.control.set_profile(known.addr, profile(&known, &[(route, "/a", &[200])]));
        let mut client = http1::Client::over(mesh.connect(&known).await);
        let forged = "GET /a?b HTTP/1.1\r\nHost: app.ns\r\nL5d-Dst-Canonical: forged:1\r\n\r\n";
        assert_eq!(soon(client.call(forged)).await.unwrap().status(), Some(200));
        assert_eq!(origin.seen().requests.last().unwrap().headers("l5d-dst-canonical"), [known.target.as_str()]);
        let failed = format!(
            "route_response_total{{direction=\"outbound\",dst=\"{}\",rt_route=\"{route}\",status_code=\"200\",classification=\"failure\"}}",
            known.target
        );
        eventually("it counts as a failure", || mesh.web.metric(&failed) == 1.0).await;
    }
}

#[tokio::test]
async fn only_a_profile_with_routes_or_targets_takes_precedence() {
    let mesh = Mesh::start().await;
    let (one, two, three) = (naming("one").await, naming("two").await, naming("three").await);
    let known = mesh.service(&[mesh.endpoint(one.addr(), ProtocolHint::H2)]);
    let second = mesh.service(&[mesh.endpoint(two.addr(), ProtocolHint::H2)]);
    let third = mesh.service(&[mesh.endpoint(three.addr(), ProtocolHint::H2)]);
    // The policy leads to the first.
    mesh.control.set_profile(known.addr, Profile { routes: vec![], ..profile(&second, &[]) });
    let mut client = mesh.http2(&known).await;
    assert_eq!(&soon(client.call(get())).await.unwrap().body[..], b"one");
    assert_eq!(mesh.web.metric("route_request_total{"), 0.0);
    assert!(!one.seen().requests[0].headers.contains_key("l5d-dst-canonical"));

    // Its routes lead to the endpoints of its own name; an open connection follows.
    let start = Instant::now();
    mesh.control.set_profile(known.addr, profile(&second, &[("a", "/a", &[])]));
    while soon(client.call(get())).await.unwrap().body != "two" {
        assert!(start.elapsed() < LONG);
    }

    // Its targets lead to theirs, by weight.
    let targets = vec![target(&known, 1), target(&third, 3)];
    mesh.control.set_profile(known.addr, Profile { targets, ..profile(&second, &[("a", "/a", &[])]) });
    while soon(client.call(get())).await.unwrap().body == "two" {
        assert!(start.elapsed() < LONG);
    }
    let mut counts = [0; 2];
    for _ in 0..400 {
        let body = soon(client.call(get())).await.unwrap().body;
        counts[usize::from(body == "three")] += 1;
        assert!(body == "one" || body == "three");
    }
    assert!((50..150).contains(&counts[0]), "{counts:?}");
    let authority = format!("request_total{{direction=\"outbound\",authority=\"{}\"", third.target);
    mesh.web.at_least(&authority, 250.0).await;
    assert_eq!(mesh.web.metric(&format!("route_request_total{{direction=\"outbound\",dst=\"{}\"", third.target)), 0.0);

    // And back.
    mesh.control.set_profile(known.addr, Profile { routes: vec![], ..profile(&second, &[]) });
    let start = Instant::now();
    loop {
        let before = mesh.web.metric("route_request_total{");
        assert!(soon(client.call(get())).await.unwrap().head.status == 200 && start.elapsed() < LONG);
        if mesh.web.metric("route_request_total{") == before {
            break;
        }
    }
}

#[tokio::test]
async fn bytes_follow_the_targets() {
    let mesh = Mesh::start().await;
    let (good, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let known = mesh.opaque(&[]);
    let split = mesh.opaque(&[mesh.endpoint(good, ProtocolHint::Opaque)]);
    let targets = vec![target(&split, 1)];
    let profile = Profile { opaque: true, targets, ..profile(&known, &[]) };
    mesh.control.set_profile(known.addr, profile.clone());
    let mut tcp = mesh.connect(&known).await;
    let mut greeting = [0; 6];
    soon(tcp.read_exact(&mut greeting)).await.unwrap();
    tcp.write_all(b"abc").await.unwrap();
    tcp.shutdown().await.unwrap();
    let mut rest = String::new();
    soon(tcp.read_to_string(&mut rest)).await.unwrap();
    assert_eq!((&greeting, rest.as_str()), (b"hello\n", "ABCbye\n"));

    // Whom the policy keeps out a profile does not let in.
    let forbidden = mesh.opaque(&[mesh.endpoint(good, ProtocolHint::Opaque)]);
    let meta = service("ns", "app", 80);
    let mut policy = opaque(meta.clone(), balance(meta, forbidden.target.parse().unwrap()));
    if let weft_model::policy::outbound::ClientProtocol::Opaque(Some(route)) = &mut policy.protocol {
        route.filters = vec![Filter::Forbidden];
    }
    mesh.control.set_outbound(forbidden.addr, policy);
    mesh.control.set_profile(forbidden.addr, profile);
    let mut tcp = mesh.connect(&forbidden).await;
    assert!(soon(tcp.read_to_end(&mut vec![])).await.is_err(), "reset");
    let unauthorized = "weft_proxy_errors_total{direction=\"outbound\",code=\"UNAUTHORIZED\"}";
    eventually("it is counted", || mesh.web.metric(unauthorized) == 1.0).await;
    server.abort();
}

#[tokio::test]
async fn a_route_without_endpoints_counts_what_the_application_gets() {
    let failfast = ("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "100ms");
    let mesh = Mesh::with(&[failfast], &[]).await;
    let known = mesh.service(&[] as &[Endpoint]);
    mesh.control.set_profile(known.addr, profile(&known, &[("a", "/.*", &[])]));
    assert_eq!(soon(mesh.http2(&known).await.call(get())).await.unwrap().head.status, 504);
    let failed = |family: &str| {
        mesh.web.metric(&format!(
            "{family}{{direction=\"outbound\",dst=\"{}\",rt_route=\"a\",status_code=\"504\",classification=\"failure\",error=\"FAILFAST\"}}",
            known.target
        ))
    };
    assert_eq!((failed("route_response_total"), failed("route_actual_response_total")), (1.0, 1.0));
}

/// On the server's side a profile decides only what is counted and what is a failure.
#[tokio::test]
async fn a_server_counts_by_the_profile_of_the_name_that_clients_use() {
    let mesh = Mesh::start().await;
    let origin = naming("app").await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    mesh.control.set_profile(&known.target, profile(&known, &[("a", "/a", &[200])]));
    let mut client = mesh.http2(&known).await;
    let (name, _) = known.target.split_once(':').unwrap();
    for uri in [
        format!("http://{name}/a"),
        format!("http://{name}:80/a"),
        format!("http://{name}/b"),
        "http://elsewhere.ns/a".into(),
    ] {
        let request = Request::get(uri).body(http2::full("")).unwrap();
        assert_eq!(soon(client.call(request)).await.unwrap().head.status, 200);
    }
    let labels = format!("{{direction=\"inbound\",dst=\"{}\",rt_route=\"a\"", known.target);
    let counted = |family: &str, rest: &str| mesh.app.metric(&format!("{family}{labels}{rest}"));
    eventually("both have ended", || counted("route_response_total", "") == 2.0).await;
    assert_eq!(counted("route_response_total", ",status_code=\"200\",classification=\"failure\"} 2"), 2.0);
    assert_eq!(counted("route_request_total", "} 2"), 2.0);
    assert_eq!(counted("route_response_latency_ms_count", ",status_code=\"200\"}"), 2.0);
    mesh.app.reaches("route_request_total{", 2.0).await;
    assert_eq!(mesh.app.metric("route_actual_request_total{"), 0.0);
    let lookups = |wanted: &str| {
        let asked = |call: &Call| matches!(call, Call::Profile(lookup) if lookup.path.starts_with(wanted));
        mesh.control.calls().iter().filter(|call| asked(call)).count()
    };
    assert_eq!(
        (lookups(name), lookups("elsewhere")),
        (1, 0),
        "one stream for the name, and none outside of the suffixes"
    );

    // It is no reason to wait for long, nor to fail.
    mesh.control.stall(weft_testkit::control::Service::Profile, true);
    let other = "other.ns.svc.cluster.local";
    let request = Request::get(format!("http://{other}/a")).body(http2::full("")).unwrap();
    let start = Instant::now();
    assert_eq!(soon(client.call(request)).await.unwrap().head.status, 200);
    assert!(start.elapsed() < LONG / 2);
    assert_eq!(lookups(other), 1);
}

/// The time is counted from the first request for a name: behind it nobody waits any more, and an answer counts however late.
#[tokio::test]
async fn a_server_waits_for_a_profile_as_long_as_is_set() {
    const PATIENCE: Duration = Duration::from_secs(3);
    const MORE: u32 = 20;
    let mesh = Mesh::with(&[], &[("LINKERD2_PROXY_DESTINATION_PROFILE_INITIAL_TIMEOUT", "3s")]).await;
    let origin = naming("app").await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    mesh.control.set_profile(&known.target, profile(&known, &[("a", "/a", &[])]));
    let mut client = mesh.http2(&known).await;
    // The client's proxy has asked for its own before nothing is answered any more.
    assert_eq!(soon(client.call(request("/a"))).await.unwrap().head.status, 200);
    mesh.control.stall(weft_testkit::control::Service::Profile, true);

    let named = || Request::get(format!("http://{}/a", known.target)).body(http2::full("")).unwrap();
    let start = Instant::now();
    assert_eq!(soon(client.call(named())).await.unwrap().head.status, 200);
    assert!(start.elapsed() >= PATIENCE, "{:?}", start.elapsed());
    let start = Instant::now();
    for _ in 0..MORE {
        assert_eq!(soon(client.call(named())).await.unwrap().head.status, 200);
    }
    assert!(start.elapsed() < MORE * PATIENCE, "each has waited: {:?}", start.elapsed());
    let routes = format!("route_request_total{{direction=\"inbound\",dst=\"{}\",rt_route=\"a\"}}", known.target);
    assert_eq!(mesh.app.metric("route_request_total{"), 0.0, "their route was not known");

    mesh.control.stall(weft_testkit::control::Service::Profile, false);
    let start = Instant::now();
    while mesh.app.metric(&routes) == 0.0 {
        assert!(start.elapsed() < LONG, "{}", mesh.app.metrics());
        assert_eq!(soon(client.call(named())).await.unwrap().head.status, 200);
    }
}

/// Names come from clients. Those that are made up, and other spellings of one that is there, keep no other from being counted,
/// not even on a connection that was open all the time.
#[tokio::test]
async fn made_up_names_keep_no_other_from_being_counted() {
    /// As many as are watched.
    const NAMES: usize = 100;
    /// More than a worker keeps.
    const SPELLINGS: usize = 300;
    let mesh = Mesh::with(&[], &[("LINKERD2_PROXY_INBOUND_DISCOVERY_IDLE_TIMEOUT", "600s")]).await;
    let origin = naming("app").await;
    let known = [0; 3].map(|_| mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]));
    for known in &known {
        mesh.control.set_profile(&known.target, profile(known, &[("a", "/a", &[])]));
    }
    let [first, second, third] = known.each_ref().map(|known| known.target.split_once(':').unwrap().0);
    let mut client = mesh.http2(&known[0]).await;
    let mut ask = async |host: &str| {
        let request = Request::get(format!("http://{host}/a")).body(http2::full("")).unwrap();
        assert_eq!(soon(client.call(request)).await.unwrap().head.status, 200);
    };
    let counted = |name: &str| {
        mesh.app.metric(&format!("route_request_total{{direction=\"inbound\",dst=\"{name}:80\",rt_route=\"a\"}}"))
    };
    let spelled = |n: usize| {
        let letters = first.char_indices().filter(|(_, c)| c.is_ascii_alphabetic()).map(|(at, _)| at);
        let capital: Vec<_> = letters.enumerate().filter(|(bit, _)| n >> bit & 1 == 1).map(|(_, at)| at).collect();
        let letter = |(at, c): (usize, char)| if capital.contains(&at) { c.to_ascii_uppercase() } else { c };
        first.char_indices().map(letter).collect::<String>()
    };
    for n in 0..SPELLINGS {
        ask(&spelled(n)).await;
    }
    assert!(counted(first) > 1.0, "one name, however it is spelled");
    let start = Instant::now();
    while counted(second) == 0.0 {
        assert!(start.elapsed() < LONG, "{}", mesh.app.metrics());
        ask(second).await;
    }

    for n in 0..NAMES {
        ask(&format!("n{n}.made-up.svc.cluster.local")).await;
    }
    let start = Instant::now();
    while counted(third) == 0.0 {
        assert!(start.elapsed() < LONG, "{}", mesh.app.metrics());
        ask(third).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let watched = mesh.app.metric("weft_discovery_watches{kind=\"profiles\"}");
    assert_eq!(watched, NAMES as f64);
    mesh.app.at_least("weft_discovery_full_total{kind=\"profiles\"}", 1.0).await;

    // Those that have routes have not been asked for again.
    for name in [first, second, third] {
        let before = counted(name);
        ask(name).await;
        assert_eq!(counted(name), before + 1.0, "{name}");
        let asked = |call: &Call| matches!(call, Call::Profile(lookup) if lookup.path.starts_with(name));
        assert_eq!(mesh.control.calls().iter().filter(|call| asked(call)).count(), 1, "{name}");
    }
}
