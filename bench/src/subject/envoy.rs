//! Envoy as a pair: one worker, keep-alive, TLS 1.3 with client certificates.

use super::{CLIENT_PROXY, Pair, SERVER_NAME, SERVER_PROXY, certificates};
use crate::{
    lab::{Lab, ORIGIN, Side},
    load::Work,
    process::{Running, wait_for},
};
use anyhow::Context;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

pub(crate) fn binary() -> anyhow::Result<PathBuf> {
    let path =
        std::env::var_os("WEFT_BENCH_ENVOY").context("WEFT_BENCH_ENVOY names no envoy; use cargo xtask bench")?;
    Ok(path.into())
}

pub(crate) fn start(lab: &Lab, work: Work) -> anyhow::Result<Pair> {
    let dir = certificates()?;
    // What the two proxies speak between them, and what the server's speaks to the origin.
    let hop_h2 = work.hop_is_h2();
    let app_h2 = work == Work::H2;
    let client = config(
        listener(work, CLIENT_PROXY, None),
        cluster(SERVER_PROXY, hop_h2, Some(tls_context(&dir, "client", false, work))),
    );
    let server = config(
        listener(work, SERVER_PROXY, Some(tls_context(&dir, "server", true, work))),
        cluster(ORIGIN, app_h2, None),
    );
    let proxies = vec![run(lab, Side::Client, &dir, &client, 1)?, run(lab, Side::Server, &dir, &server, 2)?];
    let pair = Pair { target: ORIGIN, proxies, _controls: vec![] };
    wait_for("Envoy", || lab.listens(Side::Client, CLIENT_PROXY) && lab.listens(Side::Server, SERVER_PROXY))
        .with_context(|| pair.logs())?;
    Ok(pair)
}

fn address(addr: SocketAddr) -> Value {
    json!({"socket_address": {"address": addr.ip().to_string(), "port_value": addr.port()}})
}

fn tls_context(dir: &Path, side: &str, server: bool, work: Work) -> Value {
    let file = |name: String| json!({"filename": dir.join(name).display().to_string()});
    let mut validation = json!({"trusted_ca": file("ca.pem".into())});
    if !server {
        validation["match_typed_subject_alt_names"] = json!([{"san_type": "DNS", "matcher": {"exact": SERVER_NAME}}]);
    }
    let mut parameters = json!({"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"});
    if let Some(exchange) = work.exchange() {
        parameters["ecdh_curves"] = json!([exchange.name()]);
    }
    let common = json!({
        "tls_params": parameters,
        "tls_certificates": [{"certificate_chain": file(format!("{side}.pem")), "private_key": file(format!("{side}.key"))}],
        "validation_context": validation,
    });
    let (kind, mut context) = if server {
        ("Downstream", json!({"require_client_certificate": true}))
    } else {
        ("Upstream", json!({"sni": SERVER_NAME}))
    };
    if work.exchange().is_some() {
        // Every handshake is a full one.
        if server {
            context["disable_stateless_session_resumption"] = json!(true);
        } else {
            context["max_session_keys"] = json!(0);
        }
    }
    context["common_tls_context"] = common;
    context["@type"] = json!(format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}TlsContext"));
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

fn listener(work: Work, addr: SocketAddr, tls: Option<Value>) -> Value {
    let filter = if work.is_bytes() {
        json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "tcp", "cluster": "next"}})
    } else {
        json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "http", "codec_type": "AUTO", "generate_request_id": false,
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": "next", "timeout": "0s"}}]}]},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router", "suppress_envoy_headers": true}}]}})
    };
    let mut chain = json!({"filters": [filter]});
    if let Some(tls) = tls {
        chain["transport_socket"] = tls;
    }
    json!({"name": "in", "address": address(addr), "filter_chains": [chain]})
}

fn cluster(addr: SocketAddr, http2: bool, tls: Option<Value>) -> Value {
    let protocol = if http2 { "http2_protocol_options" } else { "http_protocol_options" };
    let mut cluster = json!({
        "name": "next", "type": "STATIC", "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [{"max_connections": 65536, "max_pending_requests": 65536, "max_requests": 65536}]},
        "load_assignment": {"cluster_name": "next", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(addr)}}]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {protocol: {}}}},
    });
    if let Some(tls) = tls {
        cluster["transport_socket"] = tls;
    }
    cluster
}

fn config(listener: Value, cluster: Value) -> Value {
    json!({"static_resources": {"listeners": [listener], "clusters": [cluster]}})
}

fn run(lab: &Lab, side: Side, dir: &Path, config: &Value, base_id: u32) -> anyhow::Result<Running> {
    let file = dir.join(format!("envoy-{}.json", side.name()));
    std::fs::write(&file, config.to_string())?;
    let mut command = lab.command(side, binary()?);
    command.args(["--concurrency", "1", "--log-level", "error", "--base-id", &base_id.to_string(), "-c"]).arg(file);
    Running::start(&format!("envoy-{}", side.name()), &mut command)
}
