//! Every family of data plane 6: its name, its type, its buckets and labels, and where it is.

use crate::{
    harness::soon,
    mesh::{Mesh, get, naming},
};
use std::collections::{BTreeMap, BTreeSet};
use weft_model::ProtocolHint;

/// Where a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// This proxy has it.
    Here,
    /// Not yet: whoever builds it says [`Where::Here`].
    NotYet,
    /// It describes Linkerd's inside and is left out (DESIGN 7).
    LeftOut,
}
use Where::{Here, LeftOut, NotYet};

/// `BACKENDS` and the like stand for several labels.
const PARENT: &str = "parent_group,parent_kind,parent_namespace,parent_name,parent_port,parent_section_name";
const BACKEND: &str = "backend_group,backend_kind,backend_namespace,backend_name,backend_port,backend_section_name";
const ROUTE: &str = "route_group,route_kind,route_namespace,route_name";

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
    for (prefix, place) in [("", Here), ("route_", NotYet), ("control_", NotYet)] {
        table.counter(&format!("{prefix}request_total"), "", place);
        table.counter(&format!("{prefix}response_total"), "", place);
        table.histogram(&format!("{prefix}response_latency_ms"), MILLIS, "", place);
    }
    table.counter("route_actual_request_total", "", NotYet);
    table.counter("route_actual_response_total", "", NotYet);
    table.counter("route_retryable_total", "", NotYet);
    // 6.2
    for name in ["tcp_open_total", "tcp_read_bytes_total", "tcp_write_bytes_total", "tcp_close_total"] {
        table.counter(name, "", Here);
    }
    table.gauge("tcp_open_connections", "", Here);
    // 6.3
    for name in ["http_authz_allow", "http_authz_deny", "http_route_not_found", "tcp_authz_allow", "tcp_authz_deny"] {
        table.counter(&format!("inbound_{name}_total"), "", Here);
    }
    table.counter("inbound_tcp_authz_terminate_total", "", Here);
    table.counter("inbound_http_local_ratelimit_total", "", NotYet);
    table.counter("inbound_http_errors_total", "error", Here);
    table.counter("inbound_tcp_errors_total", "error", Here);
    table.counter("inbound_tcp_detect_http_results_total", "", NotYet);
    table.histogram("inbound_tcp_detect_http_duration_seconds", DETECT, "", NotYet);
    table.counter("inbound_tcp_transport_header_connections_total", "", NotYet);
    for kind in ["http", "grpc"] {
        table.counter(&format!("inbound_{kind}_requests_total"), "", NotYet);
        table.counter(&format!("inbound_{kind}_statuses_total"), "", NotYet);
        table.histogram(&format!("inbound_{kind}_request_duration_seconds"), RESPONSE, "", NotYet);
        table.histogram(&format!("inbound_{kind}_response_duration_seconds"), REQUEST, "", NotYet);
        table.histogram(&format!("inbound_{kind}_request_frame_size_bytes"), FRAMES, "", NotYet);
        table.histogram(&format!("inbound_{kind}_response_frame_size_bytes"), FRAMES, "", NotYet);
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
            table.counter(&name(&format!("retry_{what}_total")), "", NotYet);
        }
    }
    for kind in ["tcp", "tls"] {
        table.counter(&format!("outbound_{kind}_route_open_total"), "", NotYet);
        table.counter(&format!("outbound_{kind}_route_close_total"), "", NotYet);
    }
    table.counter("outbound_tcp_transfer_cost_bytes_total", "op,zone_locality", Here);
    // 6.5
    let outbound = format!("{PARENT},{BACKEND}");
    for (prefix, labels, place) in [
        ("outbound_http_balancer", outbound.as_str(), Here),
        ("outbound_tcp_balancer", outbound.as_str(), Here),
        ("outbound_tls_balancer", outbound.as_str(), Here),
        ("control_identity_balancer", "addr", NotYet),
        ("control_destination_balancer", "addr", NotYet),
        ("control_policy_balancer", "addr", NotYet),
        ("opentelemetry_balancer", "addr", NotYet),
    ] {
        let name = |name: &str| format!("{prefix}_{name}");
        table.gauge(&name("endpoints"), &format!("endpoint_state,{labels}"), place);
        table.gauge(&name("p2c_endpoints"), labels, place);
        table.counter(&name("p2c_updates_total"), &format!("op,{labels}"), place);
        table.gauge(&name("queue_length"), labels, place);
        table.counter(&name("queue_requests_total"), labels, place);
        table.histogram(&name("queue_latency_seconds"), QUEUE, labels, place);
        table.counter(&name("queue_gate_open_total"), labels, place);
        table.counter(&name("queue_gate_shut_total"), labels, place);
        for what in ["open_time", "shut_time", "timeout"] {
            table.gauge(&name(&format!("queue_gate_{what}_seconds")), labels, place);
        }
    }
    // 6.6
    table.gauge("proxy_build_info", "", Here);
    table.gauge("rustls_info", "tls_suites,tls_kx_groups,tls_rand,tls_key_provider,tls_fips", NotYet);
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
    table.gauge("opentelemetry_span_export_streams", "", NotYet);
    table.counter("opentelemetry_span_export_requests", "", NotYet);
    table.counter("opentelemetry_span_exports", "", NotYet);
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

/// The names of the labels of each series of a family, without that of buckets.
fn labels<'t>(text: &'t str, family: &Family) -> BTreeSet<String> {
    let suffix = if family.kind == "histogram" { "_count" } else { "" };
    let begins = format!("{}{suffix}{{", family.name);
    let names = |line: &'t str| {
        let (labels, _) = line.strip_prefix(&begins)?.rsplit_once("} ")?;
        // No value of the test holds a quotation mark.
        Some(labels.split("\",").filter_map(|label| label.split('=').next()).collect::<Vec<_>>().join(","))
    };
    text.lines().filter_map(names).collect()
}

#[tokio::test]
async fn every_family_is_known_with_its_labels() {
    let mesh = Mesh::start().await;
    let origin = naming("app").await;
    let web = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    assert_eq!(soon(mesh.http2(&web).await.call(get())).await.unwrap().head.status, 200);
    let text = mesh.web.handle().metrics();
    let registered = mesh.web.handle().metric_families();
    let collected = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut found: BTreeMap<String, String> = collected.map(|(name, kind)| (name.into(), kind.into())).collect();
    found.extend(registered.iter().map(|(name, kind, _)| ((*name).to_owned(), (*kind).to_owned())));
    let buckets: BTreeMap<&str, &[f64]> = registered.iter().map(|(name, _, buckets)| (*name, *buckets)).collect();
    let table = table();
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
        for labels in labels(&text, family) {
            assert!(family.labels.is_empty() || family.labels == labels, "{name} has {labels}");
        }
    }
    let strangers: Vec<_> = found.keys().filter(|name| !name.starts_with("weft_")).collect();
    assert!(strangers.is_empty(), "the table does not know {strangers:?}");
    let lines = table.iter().map(|family| {
        let Family { name, kind, buckets, labels, place } = family;
        let buckets = if buckets.is_empty() { String::new() } else { format!(" {buckets:?}") };
        format!("{place:?} {kind} {name}{{{labels}}}{buckets}\n")
    });
    insta::assert_snapshot!("families", lines.collect::<String>());
}
