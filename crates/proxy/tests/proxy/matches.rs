//! Which request follows which rule, as a control plane pushes rules to either direction: hosts, paths, headers, parameters and
//! methods of HTTP; services, methods and headers of gRPC. Outbound each rule has a server of its own; inbound each tells the one
//! server its name. Who answers is what is asked, and each answer is counted under its route.

use crate::{
    harness::{LONG, soon},
    mesh::{Mesh, Service},
};
use http::{Method, Request, Response};
use std::{collections::BTreeMap, net::SocketAddr, time::Instant};
use tokio::net::TcpStream;
use weft_model::{
    ClientPolicy, Endpoint, Meta, ServerPolicy,
    meta::Resource,
    policy::{
        inbound::{DefaultPolicy, InboundRule, ServerProtocol},
        outbound::{ClientProtocol, HttpRoutes, OutboundRule},
        route::{
            Filter, GrpcMatch, GrpcRoute, HeaderEdits, HeaderMatch, HostMatch, HttpMatch, HttpRoute, PathMatch,
            Pattern, QueryMatch, Rule, ValueMatch,
        },
    },
};
use weft_testkit::{
    http1, http2,
    policy::{forward, inbound, outbound_rule},
};

/// A rule that is not counted, by which it is known that the rules are in force.
const READY: &str = "ready";
/// Of requests that follow no rule.
const NONE: &str = "";
const APP: &str = "app.ns";

/// A route with one rule.
struct Known<M> {
    name: &'static str,
    hosts: Vec<HostMatch>,
    matches: M,
}

/// A request, and the rule that it follows.
struct Ask {
    rule: &'static str,
    method: &'static str,
    host: &'static str,
    target: &'static str,
    fields: &'static [(&'static str, &'static str)],
}

/// Who answered: the body names the rule.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    grpc: Option<String>,
    body: String,
}

fn meta(kind: &str, name: &str, port: u16, section: &str) -> Meta {
    let group = if kind == "Service" { "core" } else { "gateway.networking.k8s.io" };
    let [group, kind, namespace, name, section] = [group, kind, "ns", name, section].map(str::to_owned);
    Meta::Resource(Resource { group, kind, namespace, name, section, port })
}

/// The labels of such metadata; a route has neither port nor section.
fn labels(of: &str, kind: &str, name: &str) -> String {
    let group = if kind == "Service" { "core" } else { "gateway.networking.k8s.io" };
    format!("{of}_group=\"{group}\",{of}_kind=\"{kind}\",{of}_namespace=\"ns\",{of}_name=\"{name}\"")
}

fn exact(text: &str) -> ValueMatch {
    ValueMatch::Exact(text.as_bytes().to_vec())
}

fn regex(text: &str) -> ValueMatch {
    ValueMatch::Regex(Pattern::new(text).unwrap())
}

fn header(name: &str, value: ValueMatch) -> HeaderMatch {
    HeaderMatch { name: name.to_owned(), value }
}

fn query(name: &str, value: ValueMatch) -> QueryMatch {
    QueryMatch { name: name.to_owned(), value }
}

fn host(name: &str) -> Vec<HostMatch> {
    vec![HostMatch::Exact(name.to_owned())]
}

fn http_rules() -> Vec<Known<HttpMatch>> {
    let any = HttpMatch::default;
    let known = |name, matches| Known { name, hosts: vec![], matches };
    let path = |path| HttpMatch { path: Some(path), ..any() };
    let headers = |headers: &[HeaderMatch]| HttpMatch { headers: headers.to_vec(), ..any() };
    let parameter = |value| HttpMatch { query: vec![query("q", value)], ..any() };
    let method = |method: &str| HttpMatch { method: Some(method.to_owned()), ..any() };
    let blue = || header("x-kind", exact("blue"));
    let suffix = HostMatch::Suffix(["example", "sub"].map(str::to_owned).to_vec());
    vec![
        known(READY, path(PathMatch::Exact("/is/it/ready".to_owned()))),
        Known { name: "host", hosts: host("exact.example"), matches: any() },
        Known { name: "suffix", hosts: vec![suffix], matches: any() },
        known("exact", path(PathMatch::Exact("/exact".to_owned()))),
        known("prefix", path(PathMatch::Prefix("/pre/fix".to_owned()))),
        known("regex", path(PathMatch::Regex(Pattern::new("/re/[0-9]+").unwrap()))),
        known("header", headers(&[blue()])),
        known("header-regex", headers(&[header("x-kind", regex("gr[ae]y"))])),
        known("headers", headers(&[blue(), header("x-other", exact("yes"))])),
        known("query", parameter(exact("a b"))),
        known("query-regex", parameter(regex("[0-9]{2}"))),
        known("method", method("DELETE")),
        known("own-method", method("BREW")),
        known(
            "all",
            HttpMatch {
                path: Some(PathMatch::Prefix("/all".to_owned())),
                headers: vec![blue()],
                query: vec![query("q", exact("1"))],
                method: Some("PATCH".to_owned()),
            },
        ),
    ]
}

fn http_asks() -> Vec<Ask> {
    let ask = |rule, host, target| Ask { rule, method: "GET", host, target, fields: &[] };
    let with = |rule, fields| Ask { rule, method: "GET", host: APP, target: "/", fields };
    let by = |rule, method, target, fields| Ask { rule, method, host: APP, target, fields };
    vec![
        ask("host", "exact.example", "/"),
        ask("host", "EXACT.example:8080", "/"),
        // Hosts come before everything else.
        ask("host", "exact.example", "/exact"),
        ask("suffix", "a.sub.example", "/"),
        ask("suffix", "a.b.sub.example", "/pre/fix"),
        ask(NONE, "sub.example", "/"),
        ask(NONE, APP, "/"),
        ask("exact", APP, "/exact"),
        ask("exact", APP, "/exact?q=42"),
        ask(NONE, APP, "/exact/"),
        ask(NONE, APP, "/Exact"),
        ask("prefix", APP, "/pre/fix"),
        ask("prefix", APP, "/pre/fix/x"),
        ask(NONE, APP, "/pre/fixes"),
        ask("regex", APP, "/re/42"),
        ask(NONE, APP, "/re/42/x"),
        ask(NONE, APP, "/x/re/42"),
        with("header", &[("x-kind", "blue")]),
        with("header", &[("x-kind", "red"), ("x-kind", "blue")]),
        with(NONE, &[("x-kind", "bluer")]),
        with(NONE, &[("x-kind", "Blue")]),
        with(NONE, &[("x-kinds", "blue")]),
        with("header-regex", &[("x-kind", "grey")]),
        with("header-regex", &[("x-kind", "gray")]),
        with(NONE, &[("x-kind", "greyish")]),
        with("headers", &[("x-kind", "blue"), ("x-other", "yes")]),
        with("header", &[("x-kind", "blue"), ("x-other", "no")]),
        ask("query", APP, "/?q=a+b"),
        ask("query", APP, "/?x=1&%71=a%20b"),
        ask(NONE, APP, "/?q=ab"),
        ask("query-regex", APP, "/?q=42"),
        ask(NONE, APP, "/?q=421"),
        ask(NONE, APP, "/?Q=42"),
        by("method", "DELETE", "/", &[]),
        by("own-method", "BREW", "/", &[]),
        by(NONE, "PUT", "/", &[]),
        by("all", "PATCH", "/all/x?q=1", &[("x-kind", "blue")]),
        by(NONE, "PATCH", "/all/x?q=1", &[]),
        by("header", "POST", "/all/x?q=1", &[("x-kind", "blue")]),
        by("header", "PATCH", "/all/x?q=2", &[("x-kind", "blue")]),
    ]
}

fn grpc_rules() -> Vec<Known<GrpcMatch>> {
    let known = |name, service: &str, method: &str, headers| {
        let (service, method) = (service.to_owned(), method.to_owned());
        Known { name, hosts: vec![], matches: GrpcMatch { service, method, headers } }
    };
    vec![
        known(READY, "is.It", "Ready", vec![]),
        Known { hosts: host("exact.example"), ..known("host", "", "", vec![]) },
        known("method", "a.B", "C", vec![]),
        known("service", "a.B", "", vec![]),
        known("any-service", "", "Only", vec![]),
        known("header", "h.H", "", vec![header("x-kind", exact("blue"))]),
        known("header-regex", "h.H", "", vec![header("x-kind", regex("gr[ae]y"))]),
    ]
}

fn grpc_asks() -> Vec<Ask> {
    let with = |rule, host, target, fields| Ask { rule, method: "POST", host, target, fields };
    let ask = |rule, target| with(rule, APP, target, &[]);
    vec![
        with("host", "exact.example", "/a.B/C", &[]),
        ask("method", "/a.B/C"),
        ask("service", "/a.B/D"),
        ask("any-service", "/x.Y/Only"),
        ask("service", "/a.B/Only"),
        ask(NONE, "/a.Bb/D"),
        ask(NONE, "/A.b/D"),
        with("header", APP, "/h.H/M", &[("x-kind", "blue")]),
        with("header-regex", APP, "/h.H/M", &[("x-kind", "grey")]),
        with(NONE, APP, "/h.H/M", &[("x-kind", "greyish")]),
        ask(NONE, "/h.H/M"),
    ]
}

/// How many requests follow each rule.
fn followed(asks: &[Ask]) -> BTreeMap<&'static str, f64> {
    let mut all = BTreeMap::new();
    for ask in asks {
        *all.entry(ask.rule).or_insert(0.0) += 1.0;
    }
    all
}

/// The rules as routes, each of which does what `does` says of its name.
fn http_routes<D>(does: impl Fn(&str) -> (Vec<Filter>, D)) -> Vec<HttpRoute<D>> {
    let route = |Known { name, hosts, matches }: Known<HttpMatch>| {
        let (filters, does) = does(name);
        HttpRoute {
            meta: meta("HTTPRoute", name, 0, ""),
            hosts,
            rules: vec![Rule { matches: vec![matches], filters, does }],
        }
    };
    http_rules().into_iter().map(route).collect()
}

fn grpc_routes<D>(does: impl Fn(&str) -> (Vec<Filter>, D)) -> Vec<GrpcRoute<D>> {
    let route = |Known { name, hosts, matches }: Known<GrpcMatch>| {
        let (filters, does) = does(name);
        GrpcRoute {
            meta: meta("GRPCRoute", name, 0, ""),
            hosts,
            rules: vec![Rule { matches: vec![matches], filters, does }],
        }
    };
    grpc_rules().into_iter().map(route).collect()
}

/// Sends it to this server.
fn to(servers: &BTreeMap<&'static str, SocketAddr>) -> impl Fn(&str) -> (Vec<Filter>, OutboundRule) {
    |name| (vec![], outbound_rule(forward(Endpoint::plain(servers[name]))))
}

/// Tells the server the name.
fn telling(name: &str) -> (Vec<Filter>, InboundRule) {
    let set = vec![("x-rule".to_owned(), name.as_bytes().to_vec())];
    let filter = Filter::RequestHeaders(HeaderEdits { set, ..HeaderEdits::default() });
    (vec![filter], InboundRule::default())
}

/// Answers with that name, or with the one that it is told.
async fn http1_server(name: Option<&'static str>) -> http1::Origin {
    http1::Origin::start(move |request| {
        let told = request.header("x-rule").unwrap_or_default();
        http1::Reply::ok(name.map_or(told, str::to_owned))
    })
    .await
    .unwrap()
}

async fn http2_server(name: Option<&'static str>) -> http2::Origin {
    http2::Origin::start(move |request| async move {
        let told = request.headers().get("x-rule").map(|value| value.as_bytes().to_vec()).unwrap_or_default();
        http2::complete((), request.into_body()).await?;
        let body = name.map_or(told, |name| name.as_bytes().to_vec());
        let trailers = [("grpc-status".parse()?, "0".parse()?)].into_iter().collect();
        Ok(Response::new(http2::with_trailers(body, trailers)))
    })
    .await
    .unwrap()
}

/// A client of one framing.
enum Client {
    Http1(http1::Client<TcpStream>),
    Http2(http2::Client),
    Grpc(http2::Client),
}

impl Client {
    /// `None` where the connection has ended, as it may when another policy comes.
    async fn ask(&mut self, ask: &Ask) -> Option<Answer> {
        let Ask { method, host, target, fields, .. } = ask;
        let grpc = matches!(self, Self::Grpc(_));
        let client = match self {
            Self::Http1(client) => {
                let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                let request = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
                let answer = soon(client.call(request)).await.ok()?;
                let body = String::from_utf8(answer.body.clone()).unwrap();
                return Some(Answer { status: answer.status().unwrap(), grpc: None, body });
            }
            Self::Http2(client) | Self::Grpc(client) => client,
        };
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = Request::builder().method(method).uri(format!("http://{host}{target}"));
        for (name, value) in *fields {
            request = request.header(*name, *value);
        }
        if grpc {
            request = request.header("content-type", "application/grpc").header("te", "trailers");
        }
        let answer = soon(client.call(request.body(http2::full("")).unwrap())).await.ok()?;
        let told = answer.trailers.as_ref().unwrap_or(&answer.head.headers).get("grpc-status").cloned();
        let told = told.map(|value| value.to_str().unwrap().to_owned());
        Some(Answer {
            status: answer.head.status.as_u16(),
            grpc: told.filter(|_| grpc),
            body: String::from_utf8(answer.body.to_vec()).unwrap(),
        })
    }

    /// Asks for everything; whoever answers must be the one of the rule.
    async fn ask_all(&mut self, asks: &[Ask]) {
        let is_grpc = matches!(self, Self::Grpc(_));
        for ask in asks {
            let answer = self.ask(ask).await;
            let what = format!("{} {}{} {:?}", ask.method, ask.host, ask.target, ask.fields);
            let (status, grpc) = match (ask.rule, is_grpc) {
                (NONE, true) => (200, Some("5")),
                (_, true) => (200, Some("0")),
                (NONE, false) => (404, None),
                (_, false) => (200, None),
            };
            let right = Answer { status, grpc: grpc.map(str::to_owned), body: ask.rule.to_owned() };
            assert_eq!(answer, Some(right), "{what}");
        }
    }
}

/// Publishes the policy of a service that nobody has asked for yet.
fn publish(mesh: &Mesh, protocol: ClientProtocol) -> Service {
    let service = Service::new();
    mesh.control.set_outbound(service.addr, ClientPolicy { meta: meta("Service", "app", 80, "web"), protocol });
    service
}

/// What the client's proxy counts of each rule, and of requests without one.
async fn counted_outbound(mesh: &Mesh, kind: &str, times: f64, asks: &[Ask]) {
    let (route_kind, ok) =
        if kind == "grpc" { ("GRPCRoute", "grpc_status=\"OK\"") } else { ("HTTPRoute", "http_status=\"200\"") };
    for (rule, count) in followed(asks) {
        let series = if rule == NONE {
            "weft_proxy_errors_total{direction=\"outbound\",code=\"ROUTE_NOT_FOUND\"}".to_owned()
        } else {
            let parent = labels("parent", "Service", "app");
            let route = labels("route", route_kind, rule);
            format!(
                "outbound_{kind}_route_request_statuses_total{{{parent},parent_port=\"80\",parent_section_name=\"web\",{route},\
                 hostname=\"\",{ok},error=\"\"}}"
            )
        };
        mesh.web.reaches(&series, times * count).await;
    }
}

#[tokio::test]
async fn requests_go_to_the_server_of_the_rule_that_they_match() {
    let mesh = Mesh::start().await;
    let asks = http_asks();
    let (mut one, mut two) = (vec![], vec![]);
    let (mut http1_servers, mut http2_servers) = (BTreeMap::new(), BTreeMap::new());
    for Known { name, .. } in http_rules() {
        one.push(http1_server(Some(name)).await);
        two.push(http2_server(Some(name)).await);
        http1_servers.insert(name, one.last().unwrap().addr());
        http2_servers.insert(name, two.last().unwrap().addr());
    }
    let protocol = ClientProtocol::Detect {
        timeout: LONG,
        http1: HttpRoutes { routes: http_routes(to(&http1_servers)), breaker: None },
        http2: HttpRoutes { routes: http_routes(to(&http2_servers)), breaker: None },
        opaque: None,
    };
    let service = publish(&mesh, protocol);
    Client::Http1(http1::Client::over(mesh.connect(&service).await)).ask_all(&asks).await;
    Client::Http2(mesh.http2(&service).await).ask_all(&asks).await;
    counted_outbound(&mesh, "http", 2.0, &asks).await;
    let seen: usize = one.iter().map(|s| s.seen().requests.len()).sum::<usize>()
        + two.iter().map(|s| s.seen().requests.len()).sum::<usize>();
    let answered = asks.iter().filter(|ask| ask.rule != NONE).count();
    assert_eq!(seen, 2 * answered, "what follows no rule reaches no server");
}

#[tokio::test]
async fn calls_go_to_the_server_of_the_rule_that_they_match() {
    let mesh = Mesh::start().await;
    let asks = grpc_asks();
    let mut all = vec![];
    let mut servers = BTreeMap::new();
    for Known { name, .. } in grpc_rules() {
        all.push(http2_server(Some(name)).await);
        servers.insert(name, all.last().unwrap().addr());
    }
    let service = publish(&mesh, ClientProtocol::Grpc { routes: grpc_routes(to(&servers)), breaker: None });
    Client::Grpc(mesh.http2(&service).await).ask_all(&asks).await;
    counted_outbound(&mesh, "grpc", 1.0, &asks).await;
}

/// Publishes a port's policy, and waits until it is served by.
async fn serving(mesh: &Mesh, addr: SocketAddr, protocol: ServerProtocol, ready: &Ask) -> Client {
    let meta = meta("Server", "app", 0, "");
    mesh.control.set_inbound(
        addr.port(),
        ServerPolicy { meta, protocol: protocol.clone(), ..inbound(DefaultPolicy::AllUnauthenticated) },
    );
    let start = Instant::now();
    loop {
        let tcp = mesh.app.connect_inbound(addr).await;
        let client = match protocol {
            ServerProtocol::Http1 { .. } => Some(Client::Http1(http1::Client::over(tcp))),
            ServerProtocol::Grpc { .. } => http2::Client::over(tcp).await.ok().map(Client::Grpc),
            _ => http2::Client::over(tcp).await.ok().map(Client::Http2),
        };
        if let Some(mut client) = client
            && client.ask(ready).await.is_some_and(|answer| answer.body == READY)
        {
            return client;
        }
        assert!(start.elapsed() < LONG, "the policy never comes");
    }
}

/// What the server's proxy counts of each rule, and of requests without one.
async fn counted_inbound(mesh: &Mesh, kind: &str, addr: SocketAddr, asks: &[Ask]) {
    let route_kind = if kind == "grpc" { "GRPCRoute" } else { "HTTPRoute" };
    let group = "group=\"gateway.networking.k8s.io\"";
    for (rule, count) in followed(asks) {
        let series = if rule == NONE {
            format!("inbound_http_route_not_found_total{{target_addr=\"{addr}\"")
        } else {
            format!(
                "inbound_{kind}_requests_total{{parent_{group},parent_kind=\"Server\",parent_name=\"app\",parent_port=\"{}\",\
                 route_{group},route_kind=\"{route_kind}\",route_name=\"{rule}\"}}",
                addr.port()
            )
        };
        mesh.app.reaches(&series, count).await;
    }
}

#[tokio::test]
async fn a_server_is_told_the_rule_that_a_request_matches() {
    let mesh = Mesh::start().await;
    let asks = http_asks();
    let ready = Ask { rule: READY, method: "GET", host: APP, target: "/is/it/ready", fields: &[] };
    let (one, two) = (http1_server(None).await, http2_server(None).await);
    let protocols = [
        (one.addr(), ServerProtocol::Http1 { routes: http_routes(telling), rate_limit: None }),
        (two.addr(), ServerProtocol::Detect { timeout: LONG, routes: http_routes(telling), rate_limit: None }),
    ];
    for (addr, protocol) in protocols {
        serving(&mesh, addr, protocol, &ready).await.ask_all(&asks).await;
        counted_inbound(&mesh, "http", addr, &asks).await;
    }
    let missing = asks.iter().filter(|ask| ask.rule == NONE).count();
    mesh.app
        .reaches("weft_proxy_errors_total{direction=\"inbound\",code=\"ROUTE_NOT_FOUND\"}", 2.0 * missing as f64)
        .await;
}

#[tokio::test]
async fn a_server_is_told_the_rule_that_a_call_matches() {
    let mesh = Mesh::start().await;
    let asks = grpc_asks();
    let ready = Ask { rule: READY, method: "POST", host: APP, target: "/is.It/Ready", fields: &[] };
    let server = http2_server(None).await;
    let protocol = ServerProtocol::Grpc { routes: grpc_routes(telling) };
    serving(&mesh, server.addr(), protocol, &ready).await.ask_all(&asks).await;
    counted_inbound(&mesh, "grpc", server.addr(), &asks).await;
}
