//! The series that dashboards and the CLI select by: names and labels are Linkerd's, and what they count adds up.

use crate::{
    faults::forwarded,
    harness::{Proxy, eventually, soon},
    inbound::client_hello,
    ingress::INGRESS,
    mesh::{Mesh, Service, get, naming, shouting},
};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_model::{Endpoint, ProtocolHint};
use weft_testkit::policy::{balance, opaque};

/// The families of traffic without their values, each line once, with ports and buckets left out.
fn series(proxy: &Proxy) -> String {
    let text = proxy.handle().metrics();
    let families = ["request_", "response_", "tcp_", "inbound_", "outbound_", "weft_proxy_errors"];
    let lines: BTreeSet<&str> = text
        .lines()
        .filter(|line| families.iter().any(|f| line.starts_with(f)) && !line.contains("_bucket"))
        .filter_map(|line| line.rsplit_once(' ').map(|(series, _)| series))
        .collect();
    lines.into_iter().flat_map(|line| [line, "\n"]).collect()
}

#[tokio::test]
async fn labels_are_linkerds() {
    let mesh = Mesh::start().await;
    let origin = naming("app").await;
    let web = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    assert_eq!(soon(mesh.http2(&web).await.call(get())).await.unwrap().head.status, 200);
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let bytes = mesh.opaque(&[mesh.endpoint(addr, ProtocolHint::Opaque)]);
    let mut tcp = mesh.connect(&bytes).await;
    tcp.shutdown().await.unwrap();
    soon(tcp.read_to_string(&mut String::new())).await.unwrap();
    for proxy in [&mesh.web, &mesh.app] {
        eventually("both connections are closed and the response has ended", || {
            proxy.metric("tcp_close_total{") >= 2.0 && proxy.metric("response_total{") == 1.0
        })
        .await;
        proxy.reaches("response_latency_ms_count{", 1.0).await;
    }
    let filters = vec![
        (r"127\.0\.0\.1:\d+", "IP:PORT"),
        (r"127\.0\.0\.1", "IP"),
        (r"10\.96\.0\.\d+", "VIP"),
        (r#"(target|srv|parent)_port="\d{3,}""#, r#"${1}_port="PORT""#),
        (r"app-\d+\.ns\.svc", "app.ns.svc"),
    ];
    insta::with_settings!({filters => filters}, {
        insta::assert_snapshot!("outbound", series(&mesh.web));
        insta::assert_snapshot!("inbound", series(&mesh.app));
    });
    server.abort();
}

/// Why there is no TLS to an endpoint, of requests and of connections. In ingress mode a target that was dialled is discovered like
/// one that was named: Linkerd's reason for the one that is not, `ingress_without_override`, has no case.
#[tokio::test]
async fn what_is_dialled_without_tls_says_why() {
    let origin = naming("app").await;
    for (env, reason) in [
        (&[][..], "not_provided_by_service_discovery"),
        (&[INGRESS], "not_provided_by_service_discovery"),
        (&[("LINKERD2_PROXY_INBOUND_IPS", "127.0.0.1")], "loopback"),
    ] {
        let mesh = Mesh::with(env, &[]).await;
        let known = forwarded(&mesh, Endpoint::plain(origin.addr()));
        assert_eq!(soon(mesh.http2(&known).await.call(get())).await.unwrap().head.status, 200);
        let labels = format!(
            "target_addr=\"{addr}\",target_ip=\"127.0.0.1\",target_port=\"{port}\",tls=\"no_identity\",\
             no_tls_reason=\"{reason}\"",
            addr = origin.addr(),
            port = origin.addr().port()
        );
        mesh.web.reaches(&format!("request_total{{direction=\"outbound\",{labels}}}"), 1.0).await;
        mesh.web.reaches(&format!("tcp_open_total{{direction=\"outbound\",peer=\"dst\",{labels}}}"), 1.0).await;
        assert!(!mesh.web.metric_has("tls=\"true\",server_id"), "{env:?}");
    }
}

#[tokio::test]
async fn version_six_end_to_end() {
    let listen = ("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", "[::1]:0");
    let mesh = Mesh::with(&[("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS", "127.0.0.1:0,[::1]:0")], &[listen]).await;
    let (addr, server) = shouting(Ipv6Addr::LOCALHOST.into()).await;
    let mut service = mesh.opaque(&[mesh.endpoint(addr, ProtocolHint::Opaque)]);
    service.addr = "[fd00::10]:80".parse().unwrap();
    let meta = weft_testkit::policy::service("ns", "app", 80);
    mesh.control.set_outbound(service.addr, opaque(meta.clone(), balance(meta, service.target.parse().unwrap())));
    let mut tcp = mesh.connect(&service).await;
    let mut hello = [0; 6];
    soon(tcp.read_exact(&mut hello)).await.unwrap();
    assert_eq!(&hello, b"hello\n");
    mesh.web.reaches("tcp_open_total{direction=\"outbound\",peer=\"src\",target_addr=\"[fd00::10]:80\"", 1.0).await;
    mesh.app.at_least("tcp_open_total{direction=\"inbound\",peer=\"src\",target_addr=\"[::1]:", 1.0).await;
    server.abort();
}

/// Hosts that clients make up: over the cap all share one series, and no request is left uncounted.
#[tokio::test]
async fn over_the_cap_requests_are_counted_together() {
    const HOSTS: usize = 150;
    const CAP: usize = 300;
    let cap = CAP.to_string();
    let env = [
        ("LINKERD2_PROXY_CORES", "2"),
        ("LINKERD2_PROXY_OUTBOUND_METRICS_HOSTNAME_LABELS", "true"),
        ("WEFT_PROXY_METRICS_SERIES_CAP", &cap),
    ];
    let mesh = Mesh::with(&env, &[]).await;
    let origin = naming("app").await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let mut clients = [mesh.http2(&known).await, mesh.http2(&known).await];
    let worker = |n: u8| mesh.web.metric(&format!("weft_proxy_worker_connections{{worker=\"{n}\"}}"));
    eventually("each worker has one", || (worker(0), worker(1)) == (1.0, 1.0)).await;
    let family = "outbound_http_route_request_statuses_total{";
    let named = || mesh.web.metrics().lines().filter(|l| l.starts_with(family) && l.contains("hostname=\"h")).count();
    let (mut asked, mut kept) = (0, vec![]);
    for _ in 0..2 {
        for n in asked..asked + HOSTS {
            let request = http::Request::get(format!("http://h{n}.example/")).body(weft_testkit::http2::full(""));
            assert_eq!(soon(clients[n % 2].call(request.unwrap())).await.unwrap().head.status, 200);
        }
        asked += HOSTS;
        mesh.web.reaches(family, asked as f64).await;
        kept.push(named());
    }
    assert!((1..HOSTS).contains(&kept[0]), "some hosts have a series of their own: {kept:?}");
    assert_eq!(kept[0], kept[1], "beyond the cap none is added");
    // It is the process's: with one of its own each worker would keep as many apart. Two threads may pass it by one each.
    let apart = mesh.web.metric("weft_metrics_series ");
    assert!((CAP as f64..=CAP as f64 + 2.0).contains(&apart), "{apart} series");
    let together = asked - kept[1];
    mesh.web.reaches("outbound_http_route_request_statuses_total{overflow=\"true\"}", together as f64).await;
    mesh.web.at_least("weft_metrics_series_dropped_total", together as f64).await;
}

/// Server names that strangers make up, before anybody has let them in, fill half of the cap: what else is counted is told apart.
#[tokio::test]
async fn names_that_strangers_make_up_leave_room_for_others() {
    const NAMES: usize = 60;
    let mesh = Mesh::with(&[], &[("WEFT_PROXY_METRICS_SERIES_CAP", "300")]).await;
    let origin = naming("app").await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    for n in 0..NAMES {
        let mut tcp = mesh.app.connect_inbound(origin.addr()).await;
        tcp.write_all(&client_hello(&format!("n{n}.example"))).await.unwrap();
        tcp.shutdown().await.unwrap();
        // However the server ends what is not for it.
        let _ = soon(tcp.read_to_end(&mut vec![])).await;
    }
    let opened = "tcp_open_total{direction=\"inbound\",peer=\"src\"";
    let together = "tcp_open_total{overflow=\"true\"}";
    eventually("each is counted", || mesh.app.metric(opened) + mesh.app.metric(together) == NAMES as f64).await;
    assert!(mesh.app.metric(together) > 0.0, "there were too many");
    assert_eq!(soon(mesh.http2(&known).await.call(get())).await.unwrap().head.status, 200);
    for family in ["request_total", "response_total"] {
        mesh.app.reaches(&format!("{family}{{direction=\"inbound\""), 1.0).await;
        assert_eq!(mesh.app.metric(&format!("{family}{{overflow")), 0.0);
    }
}

/// Series of what is gone leave a scrape behind the time that is set, and of what is open none does, however long it says nothing.
#[tokio::test]
async fn series_that_nobody_holds_are_forgotten() {
    let retain = ("LINKERD2_PROXY_METRICS_RETAIN_IDLE", "1s");
    let idle = ("LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT", "1s");
    let mesh = Mesh::with(&[retain, idle], &[]).await;
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let [stays, goes] = [0; 2].map(|_| mesh.opaque(&[mesh.endpoint(addr, ProtocolHint::Opaque)]));
    let opened =
        |known: &Service| format!("tcp_open_total{{direction=\"outbound\",peer=\"dst\",authority=\"{}\"", known.target);
    let mut open = vec![];
    for known in [&stays, &goes] {
        let mut tcp = mesh.connect(known).await;
        soon(tcp.read_exact(&mut [0; 6])).await.unwrap();
        mesh.web.reaches(&opened(known), 1.0).await;
        open.push(tcp);
    }
    open.truncate(1);
    eventually("nothing of it is kept", || !mesh.web.metrics().contains(&goes.target)).await;
    let (status, text) = mesh.web.admin("GET", "/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains(&opened(&stays)) && !text.contains(&goes.target), "{text}");
    server.abort();
}
