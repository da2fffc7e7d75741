//! weft-proxy as a pair, intercepting as in production, each with a control plane that answers for the origin alone.

use super::{CLIENT_NAME, Pair, SERVER_NAME, SERVER_PROXY};
use crate::{
    lab::{CLIENT, Lab, MARK, ORIGIN, SERVER, Side},
    load::{Exchange, Work},
    process::{Running, wait_for},
};
use anyhow::Context;
use std::{net::IpAddr, path::PathBuf};
use weft_model::{Endpoint, NameAddr, ProtocolHint, endpoint::ServerTls, policy::inbound::DefaultPolicy};
use weft_testkit::{ca::Ca, control::FakeControl, policy};

const TARGET: &str = "origin.bench.svc.cluster.local:8080";
const CONTROL_NAME: &str = "linkerd-destination.linkerd.serviceaccount.identity.linkerd.cluster.local";

pub(crate) fn start(lab: &Lab, work: Work, workers: usize) -> anyhow::Result<Pair> {
    let ca = Ca::new()?;
    let mut controls = vec![];
    let mut proxies = vec![];
    for side in [Side::Client, Side::Server] {
        let control = lab.within(side, || FakeControl::with_ca(ca.clone()))??;
        script(&control, work)?;
        proxies.push(run(lab, side, &control, work, workers)?);
        controls.push(control);
    }
    for (side, proxy) in [Side::Client, Side::Server].into_iter().zip(&proxies) {
        wait_for("weft-proxy", || ready(lab, side)).with_context(|| proxy.log())?;
    }
    Ok(Pair { target: ORIGIN, proxies, _controls: controls })
}

/// What a default installation answers for one meshed endpoint.
fn script(control: &FakeControl, work: Work) -> anyhow::Result<()> {
    let identity: weft_model::DnsName = SERVER_NAME.parse()?;
    let target: NameAddr = TARGET.parse()?;
    let endpoint = Endpoint {
        tls: Some(ServerTls { identity: weft_model::Identity::Dns(identity.clone()), server_name: identity }),
        hint: match work {
            _ if work.is_bytes() => ProtocolHint::Opaque,
            _ if work.hop_is_h2() => ProtocolHint::H2,
            _ => ProtocolHint::Unknown,
        },
        transport_port: Some(SERVER_PROXY.port()),
        ..Endpoint::plain(ORIGIN)
    };
    control.set_endpoints(TARGET, vec![endpoint]);
    let meta = policy::service("bench", "origin", ORIGIN.port());
    let backend = policy::balance(meta.clone(), target);
    let outbound = if work.is_bytes() { policy::opaque(meta, backend) } else { policy::detect(meta, backend) };
    control.set_outbound(ORIGIN, outbound);
    let mut inbound = policy::inbound(DefaultPolicy::AllAuthenticated);
    if work.is_bytes() {
        inbound.protocol = weft_model::policy::inbound::ServerProtocol::Opaque;
    }
    control.set_inbound(ORIGIN.port(), inbound);
    Ok(())
}

fn run(lab: &Lab, side: Side, control: &FakeControl, work: Work, workers: usize) -> anyhow::Result<Running> {
    let binary: PathBuf =
        std::env::var_os("WEFT_BENCH_PROXY").context("WEFT_BENCH_PROXY names no proxy; use cargo xtask bench")?.into();
    let (ip, name): (IpAddr, _) = match side {
        Side::Client => (CLIENT, CLIENT_NAME),
        Side::Server => (SERVER, SERVER_NAME),
    };
    let dir = PathBuf::from(format!("/run/weft-{}", side.name()));
    std::fs::create_dir_all(&dir)?;
    let token = dir.join("token");
    std::fs::write(&token, "bench")?;
    let control_addr = control.addr().to_string();
    let mut command = lab.command(side, binary);
    command
        .env("WEFT_PROXY_MARK", MARK.to_string())
        .env("LINKERD2_PROXY_IDENTITY_DIR", &dir)
        .env("LINKERD2_PROXY_IDENTITY_TOKEN_FILE", token);
    let variables = [
        ("LOG", "warn"),
        ("CORES", &workers.to_string()),
        ("INBOUND_LISTEN_ADDR", "0.0.0.0:4143"),
        ("OUTBOUND_LISTEN_ADDR", "127.0.0.1:4140"),
        ("ADMIN_LISTEN_ADDR", "0.0.0.0:4191"),
        ("INBOUND_IPS", &ip.to_string()),
        ("INBOUND_PORTS", "8080"),
        ("INBOUND_DEFAULT_POLICY", "all-unauthenticated"),
        ("POLICY_CLUSTER_NETWORKS", "10.0.0.0/8"),
        ("DESTINATION_PROFILE_NETWORKS", "10.0.0.0/8"),
        ("IDENTITY_LOCAL_NAME", name),
        ("IDENTITY_TRUST_ANCHORS", control.ca().anchors_pem()),
        ("IDENTITY_SVC_ADDR", &control_addr),
        ("IDENTITY_SVC_NAME", CONTROL_NAME),
        ("DESTINATION_SVC_ADDR", &control_addr),
        ("DESTINATION_SVC_NAME", CONTROL_NAME),
        ("POLICY_SVC_ADDR", &control_addr),
        ("POLICY_SVC_NAME", CONTROL_NAME),
        ("POLICY_WORKLOAD", r#"{"ns":"bench","pod":"bench"}"#),
        ("DESTINATION_CONTEXT", r#"{"ns":"bench","nodeName":"bench","pod":"bench"}"#),
    ];
    for (variable, value) in variables {
        command.env(format!("LINKERD2_PROXY_{variable}"), value);
    }
    if work.exchange() == Some(Exchange::X25519) {
        command.env("WEFT_PROXY_TLS_POST_QUANTUM", "false");
    }
    Running::start(&format!("weft-{}", side.name()), &mut command)
}

fn ready(lab: &Lab, side: Side) -> bool {
    lab.command(side, "curl")
        .args(["-sf", "-o", "/dev/null", "http://127.0.0.1:4191/ready"])
        .status()
        .is_ok_and(|status| status.success())
}
