//! Every family of data plane 6: its name, its type, its buckets and labels, and where it is.

use crate::{
    faults::is_a_test,
    harness::{elsewhere, eventually, soon},
    mesh::{Mesh, Service, get, naming, shouting},
};
use http::Request;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
};
use tokio::io::AsyncWriteExt;
use weft_model::{
    ClientPolicy, Endpoint, Profile, ProtocolHint, ServerPolicy,
    policy::{
        inbound::{DefaultPolicy, RateLimit, ServerProtocol},
        outbound::ClientProtocol,
        route::{GrpcMatch, GrpcRoute},
    },
    profile::{ProfileRoute, RequestMatch},
};
use weft_testkit::{
    collector::Collector,
    exposition, http1, http2,
    policy::{self, balance, forward, grpc_routes, inbound, service, tls_route},
};

/// Where a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// This proxy has it.
    Here,
    /// It describes Linkerd's inside and is left out (DESIGN 7).
    LeftOut,
}
use Where::{Here, LeftOut};

// What stands for several labels. In what is found, the labels of TLS are `TLS`, those of an endpoint `DST`, those of a profile's
// route `RT`. A `?` is behind what is not always there, a `|` between the two directions.
const PARENT: &str = "parent_group,parent_kind,parent_namespace,parent_name,parent_port,parent_section_name";
const BACKEND: &str = "backend_group,backend_kind,backend_namespace,backend_name,backend_port,backend_section_name";
const ROUTE: &str = "route_group,route_kind,route_namespace,route_name";
const TARGET: &str = "target_addr,target_ip,target_port";
const SERVER: &str = "srv_group,srv_kind,srv_name,srv_port";
const SERVERS_ROUTE: &str = "route_group,route_kind,route_name";
const AUTHZ: &str = "authz_group,authz_kind,authz_name";

/// Families whose series other tests make: what they begin with, and the test.
const ELSEWHERE: &[(&str, &str)] = &[
    ("outbound_http_route_retry_", "a_server_sees_what_the_policy_asks_for_and_no_more"),
    ("outbound_grpc_route_retry_", "grpc_is_asked_again_by_its_codes"),
    ("route_retryable_total", "the_profile_says_what_is_tried_again"),
    ("inbound_grpc_", "http_and_grpc_are_told_apart_by_the_policy"),
    ("inbound_http_errors_total", "an_application_that_is_not_there_is_a_502"),
    ("inbound_tcp_errors_total", "silence_on_a_detected_port_is_closed"),
    ("control_dns_resolutions_total", "look_ups_are_counted_by_client_record_and_result"),
];

const FRAMES: &[f64] = &[128.0, 1024.0, 10240.0];
const REQUEST: &[f64] = &[0.05, 0.5, 1.0, 10.0];
const RESPONSE: &[f64] = &[0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0];
const QUEUE: &[f64] = &[0.0005, 0.005, 0.05, 0.5, 1.0, 3.0];
const DETECT: &[f64] = &[0.001, 0.1];
const MILLIS: &[f64] = &[
    1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 100.0, 200.0, 300.0, 400.0, 500.0, 1e3, 2e3, 3e3, 4e3, 5e3,
    1e4, 2e4, 3e4, 4e4, 5e4,
];

/// One family.
struct Family {
    name: String,
    kind: &'static str,
    buckets: &'static [f64],
    /// In order; empty where they vary.
    labels: String,
    place: Where,
}

/// The families of data plane 6, section by section.
fn table() -> Vec<Family> {
    let mut table = Table::default();
    // 6.1
    let inbound = format!("direction,{TARGET},TLS,{SERVER},{SERVERS_ROUTE},{AUTHZ}");
    let outbound = format!("direction,authority?,{TARGET},TLS,DST?");
    let routes = "direction,dst,RT?".to_owned();
    for (prefix, bases) in [
        ("", vec![inbound, outbound]),
        ("route_", vec![routes.clone()]),
        ("route_actual_", vec![routes.clone()]),
        ("control_", vec!["addr,TLS".to_owned()]),
    ] {
        let with = |more: &str| bases.iter().map(|base| format!("{base}{more}")).collect::<Vec<_>>().join("|");
        table.counter(&format!("{prefix}request_total"), &with(""), Here);
        let response = with(",status_code,classification,grpc_status?,error?");
        table.counter(&format!("{prefix}response_total"), &response, Here);
        if prefix != "route_actual_" {
            table.histogram(&format!("{prefix}response_latency_ms"), MILLIS, &with(",status_code"), Here);
        }
    }
    table.counter("route_retryable_total", &format!("{routes},skipped?"), Here);
    // 6.2
    let transports = |more: &str| {
        let accepted = format!("direction,peer,{TARGET},TLS,{SERVER}{more}");
        format!("{accepted}|direction,peer,authority?,{TARGET},TLS,DST?{more}|direction,peer,TLS{more}")
    };
    for name in ["tcp_open_total", "tcp_read_bytes_total", "tcp_write_bytes_total"] {
        table.counter(name, &transports(""), Here);
    }
    table.gauge("tcp_open_connections", &transports(""), Here);
    table.counter("tcp_close_total", &transports(",errno"), Here);
    // 6.3
    let on_server = format!("{TARGET},TLS,{SERVER}");
    table.counter("inbound_http_authz_allow_total", &format!("{on_server},{SERVERS_ROUTE},{AUTHZ}"), Here);
    table.counter("inbound_http_authz_deny_total", &format!("{on_server},{SERVERS_ROUTE}"), Here);
    table.counter("inbound_http_route_not_found_total", &on_server, Here);
    table.counter("inbound_tcp_authz_allow_total", &format!("{SERVER},{AUTHZ},{TARGET},TLS"), Here);
    table.counter("inbound_tcp_authz_deny_total", &format!("{SERVER},{TARGET},TLS"), Here);
    table.counter("inbound_tcp_authz_terminate_total", &format!("{SERVER},{TARGET},TLS"), Here);
    let limited = format!("{on_server},ratelimit_group,ratelimit_kind,ratelimit_name,ratelimit_scope");
    table.counter("inbound_http_local_ratelimit_total", &limited, Here);
    table.counter("inbound_http_errors_total", "error", Here);
    table.counter("inbound_tcp_errors_total", "error", Here);
    table.counter("inbound_tcp_detect_http_results_total", &format!("result,{SERVER}"), Here);
    table.histogram("inbound_tcp_detect_http_duration_seconds", DETECT, SERVER, Here);
    let header = "session_protocol,target_port,target_name,client_id";
    table.counter("inbound_tcp_transport_header_connections_total", header, Here);
    for kind in ["http", "grpc"] {
        let labels = format!("parent_group,parent_kind,parent_name,parent_port,{SERVERS_ROUTE}");
        table.counter(&format!("inbound_{kind}_requests_total"), &labels, Here);
        table.counter(&format!("inbound_{kind}_statuses_total"), &format!("{labels},status"), Here);
        table.histogram(&format!("inbound_{kind}_request_duration_seconds"), RESPONSE, &labels, Here);
        table.histogram(&format!("inbound_{kind}_response_duration_seconds"), REQUEST, &labels, Here);
        table.histogram(&format!("inbound_{kind}_request_frame_size_bytes"), FRAMES, &labels, Here);
        table.histogram(&format!("inbound_{kind}_response_frame_size_bytes"), FRAMES, &labels, Here);
    }
    // 6.4
    table.counter("outbound_http_errors_total", "error", Here);
    table.counter("outbound_tcp_errors_total", "error", Here);
    table.counter("outbound_tcp_protocol_connections_total", &format!("protocol,{PARENT}"), Here);
    table.counter("outbound_tcp_detect_http_results_total", &format!("result,{PARENT}"), Here);
    table.histogram("outbound_tcp_detect_http_duration_seconds", DETECT, PARENT, Here);
    for (kind, status) in [("http", "http_status"), ("grpc", "grpc_status")] {
        let name = |name: &str| format!("outbound_{kind}_route_{name}");
        let (route, backend) = (format!("{PARENT},{ROUTE},hostname"), format!("{PARENT},{ROUTE},{BACKEND}"));
        table.histogram(&name("request_duration_seconds"), REQUEST, &route, Here);
        table.counter(&name("request_statuses_total"), &format!("{route},{status},error"), Here);
        table.histogram(&name("request_frame_size_bytes"), FRAMES, &route, Here);
        table.counter(&name("backend_requests_total"), &backend, Here);
        table.histogram(&name("backend_response_duration_seconds"), RESPONSE, &backend, Here);
        table.counter(&name("backend_response_statuses_total"), &format!("{backend},{status},error"), Here);
        table.histogram(&name("backend_response_frame_size_bytes"), FRAMES, &backend, Here);
        for what in ["requests", "successes", "overflow", "limit_exceeded"] {
            table.counter(&name(&format!("retry_{what}_total")), &format!("{PARENT},{ROUTE}"), Here);
        }
    }
    for (kind, more) in [("tcp", ""), ("tls", ",hostname")] {
        let labels = format!("{PARENT},{ROUTE}{more}");
        table.counter(&format!("outbound_{kind}_route_open_total"), &labels, Here);
        table.counter(&format!("outbound_{kind}_route_close_total"), &format!("{labels},error"), Here);
    }
    table.counter("outbound_tcp_transfer_cost_bytes_total", "op,zone_locality", Here);
    // 6.5
    let outbound = format!("{PARENT},{BACKEND}");
    for (prefix, labels) in [
        ("outbound_http_balancer", outbound.as_str()),
        ("outbound_tcp_balancer", outbound.as_str()),
        ("outbound_tls_balancer", outbound.as_str()),
        ("control_identity_balancer", "addr"),
        ("control_destination_balancer", "addr"),
        ("control_policy_balancer", "addr"),
        ("opentelemetry_balancer", "addr"),
    ] {
        let name = |name: &str| format!("{prefix}_{name}");
        table.gauge(&name("endpoints"), &format!("endpoint_state,{labels}"), Here);
        table.gauge(&name("p2c_endpoints"), labels, Here);
        table.counter(&name("p2c_updates_total"), &format!("op,{labels}"), Here);
        table.gauge(&name("queue_length"), labels, Here);
        table.counter(&name("queue_requests_total"), labels, Here);
        table.histogram(&name("queue_latency_seconds"), QUEUE, labels, Here);
        table.counter(&name("queue_gate_open_total"), labels, Here);
        table.counter(&name("queue_gate_shut_total"), labels, Here);
        for what in ["open_time", "shut_time", "timeout"] {
            table.gauge(&name(&format!("queue_gate_{what}_seconds")), labels, Here);
        }
    }
    // 6.6
    table.gauge("proxy_build_info", "version,git_sha,profile,vendor", Here);
    table.gauge("rustls_info", "tls_suites,tls_kx_groups,tls_rand,tls_key_provider,tls_fips", Here);
    for name in
        ["start_time_seconds", "virtual_memory_bytes", "resident_memory_bytes", "open_fds", "max_fds", "threads"]
    {
        table.gauge(&format!("process_{name}"), "", Here);
    }
    table.gauge("process_clock_time_seconds", "", Here);
    for name in ["uptime_seconds", "cpu_seconds", "network_receive_bytes", "network_transmit_bytes"] {
        table.counter(&format!("process_{name}_total"), "", Here);
    }
    for name in ["workers", "injection_queue_depth", "local_queue_depth"] {
        table.gauge(&format!("tokio_rt_{name}"), "", LeftOut);
    }
    for name in ["park", "noop", "steal", "steal_operations", "remote_schedule", "local_schedule", "overflow", "polls"]
    {
        table.counter(&format!("tokio_rt_{name}_total"), "", LeftOut);
    }
    for name in ["busy", "budget_forced_yield", "io_driver_ready"] {
        table.counter(&format!("tokio_rt_{name}_total"), "", LeftOut);
    }
    table.counter("control_dns_resolutions_total", "client,record_type,result", Here);
    table.gauge("control_identity_cert_expiration_timestamp_seconds", "", Here);
    table.gauge("control_identity_cert_refresh_timestamp_seconds", "", Here);
    table.counter("control_identity_cert_refreshes_total", "result", Here);
    for name in ["stack_create_total", "stack_drop_total", "stack_poll_total", "stack_poll_total_ms"] {
        table.counter(name, "", LeftOut);
    }
    table.counter("opentelemetry_span_export_streams", "", Here);
    table.counter("opentelemetry_span_export_requests", "", Here);
    table.counter("opentelemetry_span_exports", "", Here);
    table.0
}

#[derive(Default)]
struct Table(Vec<Family>);

impl Table {
    fn add(&mut self, name: &str, kind: &'static str, buckets: &'static [f64], labels: &str, place: Where) {
        self.0.push(Family { name: name.to_owned(), kind, buckets, labels: labels.to_owned(), place });
    }

    fn counter(&mut self, name: &str, labels: &str, place: Where) {
        self.add(name, "counter", &[], labels, place);
    }

    fn gauge(&mut self, name: &str, labels: &str, place: Where) {
        self.add(name, "gauge", &[], labels, place);
    }

    fn histogram(&mut self, name: &str, buckets: &'static [f64], labels: &str, place: Where) {
        self.add(name, "histogram", buckets, labels, place);
    }
}

/// The names of the labels of each series of a family, without that of buckets; groups have one name.
fn labels(text: &str, family: &Family) -> BTreeSet<String> {
    let suffix = if family.kind == "histogram" { "_count" } else { "" };
    let begins = format!("{}{suffix}{{", family.name);
    let names = |line: &str| {
        let (labels, _) = line.strip_prefix(&begins)?.rsplit_once("} ")?;
        let mut names: Vec<&str> = vec![];
        // No value of the test holds a quotation mark.
        for name in labels.split("\",").filter_map(|label| label.split('=').next()) {
            match name {
                "client_id" | "server_id" | "no_tls_reason" | "sni" if names.last() == Some(&"tls") => {
                    names.pop();
                    names.push("TLS");
                }
                _ if name.starts_with("dst_") => names.extend((names.last() != Some(&"DST")).then_some("DST")),
                _ if name.starts_with("rt_") => names.extend((names.last() != Some(&"RT")).then_some("RT")),
                _ => names.push(name),
            }
        }
        Some(names.join(","))
    };
    text.lines().filter_map(names).collect()
}

/// Whether labels are as a pattern says. A `?` makes what is before it, back to the comma, optional.
fn fits(pattern: &str, labels: &str) -> bool {
    fn rest(pattern: &[&str], labels: &[&str]) -> bool {
        let Some((first, more)) = pattern.split_first() else { return labels.is_empty() };
        let name = first.trim_end_matches('?');
        let skipped = first.ends_with('?') && rest(more, labels);
        skipped || labels.split_first().is_some_and(|(label, labels)| *label == name && rest(more, labels))
    }
    let labels: Vec<_> = labels.split(',').collect();
    pattern.split('|').any(|one| rest(&one.split(',').collect::<Vec<_>>(), &labels))
}

/// Makes the series of most families: each protocol, a profile, what is not let in and what has no route.
async fn traffic(mesh: &Mesh) {
    let origin = naming("app").await;
    let web = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    assert_eq!(soon(mesh.http2(&web).await.call(get())).await.unwrap().head.status, 200);

    let rpc = naming("rpc").await;
    let grpc = mesh.service(&[mesh.endpoint(rpc.addr(), ProtocolHint::H2)]);
    let backend = balance(service("ns", "rpc", 80), grpc.target.parse().unwrap());
    let protocol = ClientProtocol::Grpc { routes: grpc_routes(backend), breaker: None };
    mesh.control.set_outbound(grpc.addr, ClientPolicy { meta: service("ns", "rpc", 80), protocol });
    let mut calls = inbound(DefaultPolicy::AllUnauthenticated);
    let rules = vec![weft_model::policy::route::Rule {
        matches: vec![GrpcMatch::default()],
        filters: vec![],
        does: Default::default(),
    }];
    calls.protocol =
        ServerProtocol::Grpc { routes: vec![GrpcRoute { meta: service("ns", "rpc", 0), hosts: vec![], rules }] };
    mesh.control.set_inbound(rpc.addr().port(), calls);
    let call = || {
        let request = Request::post("http://app.ns/S/M").header("content-type", "application/grpc");
        request.body(http2::full("\0\0\0\0\0")).unwrap()
    };
    assert_eq!(soon(mesh.http2(&grpc).await.call(call())).await.unwrap().head.status, 200);

    let routed = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let (name, _) = routed.target.split_once(':').unwrap();
    let route = ProfileRoute {
        matches: RequestMatch::All(vec![]),
        response_classes: vec![],
        labels: [("route".to_owned(), "all".to_owned())].into(),
        retryable: false,
        timeout: None,
    };
    let profile = Profile { name: Some(name.parse().unwrap()), routes: vec![route], ..Profile::default() };
    mesh.control.set_profile(routed.addr, profile);
    assert_eq!(soon(mesh.http2(&routed).await.call(get())).await.unwrap().head.status, 200);

    let (shout, _shouting) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let opaque = mesh.opaque(&[mesh.endpoint(shout, ProtocolHint::Opaque)]);
    let tls = Service::new();
    let to = |meta| balance(meta, opaque.target.parse().unwrap());
    let routes = vec![tls_route("named", &["db.test"], to(service("ns", "db", 443)))];
    let policy = ClientPolicy { meta: service("ns", "db", 443), protocol: ClientProtocol::Tls(routes) };
    mesh.control.set_outbound(tls.addr, policy);
    for (service, bytes) in [(&opaque, b"abc".to_vec()), (&tls, crate::inbound::client_hello("db.test"))] {
        let mut tcp = mesh.connect(service).await;
        tcp.write_all(&bytes).await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut all = vec![];
        soon(tokio::io::AsyncReadExt::read_to_end(&mut tcp, &mut all)).await.unwrap();
    }

    // Nobody answers there.
    let (dead, meta) = (Service::new(), service("ns", "dead", 80));
    let nowhere = forward(Endpoint::plain(SocketAddr::from(([127, 0, 0, 1], 1))));
    mesh.control.set_outbound(dead.addr, policy::detect(meta.clone(), nowhere.clone()));
    assert!(soon(mesh.http2(&dead).await.call(get())).await.unwrap().head.status.is_server_error());
    let dead = Service::new();
    mesh.control.set_outbound(dead.addr, policy::opaque(meta, nowhere));
    let mut tcp = mesh.connect(&dead).await;
    let _ = tcp.write_all(b"abc").await;
    let _ = soon(tokio::io::AsyncReadExt::read_to_end(&mut tcp, &mut vec![])).await;
    mesh.web.reaches("outbound_tcp_errors_total{", 1.0).await;

    strangers(mesh).await;
}

/// Who is outside the mesh: let in, kept out, without a route, too often there, and no longer let in.
async fn strangers(mesh: &Mesh) {
    let request = "GET / HTTP/1.1\r\nHost: app.ns\r\nConnection: close\r\n\r\n";
    for (policy, status, counted) in [
        (inbound(DefaultPolicy::AllUnauthenticated), 200, "inbound_http_authz_allow_total{"),
        (inbound(DefaultPolicy::Deny), 403, "inbound_http_authz_deny_total{"),
        (
            {
                let mut policy = inbound(DefaultPolicy::AllUnauthenticated);
                if let ServerProtocol::Detect { routes, .. } = &mut policy.protocol {
                    routes[0].hosts = vec![weft_model::policy::route::HostMatch::Exact("another.example".to_owned())];
                }
                policy
            },
            404,
            "inbound_http_route_not_found_total{",
        ),
        (
            {
                let mut policy = inbound(DefaultPolicy::AllUnauthenticated);
                if let ServerProtocol::Detect { rate_limit, .. } = &mut policy.protocol {
                    let meta = service("ns", "limit", 0);
                    *rate_limit = Some(RateLimit { meta, total: Some(1), identity: None, overrides: vec![] });
                }
                policy
            },
            429,
            "inbound_http_local_ratelimit_total{",
        ),
    ] {
        let origin = http1::Origin::start(|_| http1::Reply::ok("one")).await.unwrap();
        mesh.control.set_inbound(origin.addr().port(), policy);
        let before = mesh.app.metric(counted);
        // Until the policy has come another one holds, and who is let in by that may be cut off when it comes.
        soon(async {
            loop {
                let tcp = mesh.app.connect_inbound_from(elsewhere(), origin.addr()).await.unwrap();
                let answer = http1::Client::over(tcp).call(request).await;
                if answer.is_ok_and(|answer| answer.status() == Some(status)) {
                    break;
                }
            }
        })
        .await;
        mesh.app.at_least(counted, before + 1.0).await;
    }
    let (shout, _shouting) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let bytes = |default| ServerPolicy { protocol: ServerProtocol::Opaque, ..inbound(default) };
    mesh.control.set_inbound(shout.port(), bytes(DefaultPolicy::AllUnauthenticated));
    let mut open = mesh.app.connect_inbound_from(elsewhere(), shout).await.unwrap();
    // Bytes also where the policy has not come yet.
    open.write_all(b"abc\n").await.unwrap();
    soon(tokio::io::AsyncReadExt::read_exact(&mut open, &mut [0; 6])).await.unwrap();
    mesh.control.set_inbound(shout.port(), bytes(DefaultPolicy::Deny));
    mesh.app.at_least("inbound_tcp_authz_terminate_total{", 1.0).await;
    soon(async {
        while mesh.app.metric("inbound_tcp_authz_deny_total{") == 0.0 {
            let Ok(mut tcp) = mesh.app.connect_inbound_from(elsewhere(), shout).await else { continue };
            let _ = tcp.write_all(b"abc").await;
            let _ = tcp.shutdown().await;
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut tcp, &mut vec![]).await;
        }
    })
    .await;
}

#[test]
fn what_other_tests_make_is_made_there() {
    let missing: Vec<_> = ELSEWHERE.iter().filter(|(_, test)| !is_a_test(test)).collect();
    assert!(missing.is_empty(), "no test has this name: {missing:?}");
}

#[tokio::test]
async fn every_family_is_known_with_its_labels() {
    // With a collector to which nothing is sent.
    let collector = Collector::start().await.unwrap();
    let addr = collector.addr().to_string();
    let mesh = Mesh::with(&[("LINKERD2_PROXY_TRACE_COLLECTOR_SVC_ADDR", &addr)], &[]).await;
    traffic(&mesh).await;
    for proxy in [&mesh.web, &mesh.app] {
        eventually("what has ended is counted", || proxy.metric("tcp_close_total{") >= 2.0).await;
        proxy.at_least("response_total{", 3.0).await;
    }
    mesh.web.at_least("outbound_tls_route_close_total{", 1.0).await;
    for proxy in [&mesh.web, &mesh.app] {
        assert_eq!(exposition::mistakes(&proxy.metrics()), [""; 0], "{}", proxy.metrics());
    }
    let text = format!("{}{}", mesh.web.metrics(), mesh.app.metrics());
    let registered = mesh.web.handle().metric_families();
    let collected = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut found: BTreeMap<String, String> = collected.map(|(name, kind)| (name.into(), kind.into())).collect();
    found.extend(registered.iter().map(|(name, kind, _)| ((*name).to_owned(), (*kind).to_owned())));
    let buckets: BTreeMap<&str, &[f64]> = registered.iter().map(|(name, _, buckets)| (*name, *buckets)).collect();
    let table = table();
    let (mut wrong, mut unseen) = (vec![], vec![]);
    for family in &table {
        let Family { name, kind, place, .. } = family;
        let Some(found) = found.remove(name) else {
            assert_ne!(*place, Here, "{name} is missing");
            continue;
        };
        assert_ne!(*place, LeftOut, "{name} is there after all");
        assert_eq!(found, *kind, "{name}");
        if let Some(buckets) = buckets.get(name.as_str()) {
            assert_eq!(*buckets, family.buckets, "{name}");
        }
        let seen = labels(&text, family);
        wrong.extend(seen.iter().filter(|labels| !fits(&family.labels, labels)).map(|l| format!("{name} has {l}")));
        let excused = ELSEWHERE.iter().any(|(begins, _)| name.starts_with(begins));
        if !family.labels.is_empty() && seen.is_empty() && !excused {
            unseen.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(unseen.is_empty(), "this traffic makes no series of these: {unseen:#?}");
    let strangers: Vec<_> = found.keys().filter(|name| !name.starts_with("weft_")).collect();
    assert!(strangers.is_empty(), "the table does not know {strangers:?}");
    let lines = table.iter().map(|family| {
        let Family { name, kind, buckets, labels, place } = family;
        let buckets = if buckets.is_empty() { String::new() } else { format!(" {buckets:?}") };
        format!("{place:?} {kind} {name}{{{labels}}}{buckets}\n")
    });
    insta::assert_snapshot!("families", lines.collect::<String>());
}
