//! Start, identity, admin server and end of the process.

use crate::harness::{LONG, Setup, eventually, identity, soon};
use std::time::Duration;
use tokio::{io::AsyncReadExt, net::TcpStream};
use weft_testkit::control::{Call, FakeControl, Service};
use weft_transport::drain::Drained;

#[tokio::test]
async fn ready_only_once_certified() {
    let control = FakeControl::start().unwrap();
    control.stall(Service::Certify, true);
    let proxy = Setup::new(&control, "web").start();
    soon(control.called(|call| call.service() == Service::Certify)).await.unwrap();
    assert_eq!(proxy.admin("GET", "/ready").await, (503, "not ready\n".into()));
    assert_eq!(proxy.admin("GET", "/live").await, (200, "live\n".into()));
    // The kernel takes the connection, nobody accepts it.
    let mut early = TcpStream::connect(proxy.addrs().outbound[0]).await.unwrap();
    let read = tokio::time::timeout(Duration::from_millis(100), early.read_u8()).await;
    assert!(read.is_err(), "a connection is served before the identity is certified");

    control.stall(Service::Certify, false);
    soon(proxy.handle().ready()).await;
    assert_eq!(proxy.admin("GET", "/ready").await, (200, "ready\n".into()));
    // It is accepted now; as the test names no destination for it, it is closed.
    assert!(soon(early.read_u8()).await.is_err());
}

#[tokio::test]
async fn the_key_is_kept_and_the_token_read_anew() {
    let control = FakeControl::start().unwrap();
    control.set_lifetime(Duration::from_secs(3600));
    let setup = Setup::new(&control, "web")
        .env("LINKERD2_PROXY_IDENTITY_MIN_REFRESH", "100ms")
        .env("LINKERD2_PROXY_IDENTITY_MAX_REFRESH", "100ms");
    let dir = setup.dir();
    let proxy = setup.ready().await;
    std::fs::write(dir.join("token"), "another token").unwrap();
    soon(control.called(|call| matches!(call, Call::Certify { token, .. } if token == b"another token")))
        .await
        .unwrap();
    assert!(dir.join("key.p8").exists() && dir.join("csr.der").exists());
    eventually("renewals are counted", || {
        proxy.metric("control_identity_cert_refreshes_total{result=\"success\"}") >= 2.0
    })
    .await;
    assert!(proxy.metric("control_identity_cert_expiration_timestamp_seconds") > 1e9);
    assert_eq!(proxy.identity(), identity("web"));
}

#[tokio::test]
async fn a_refused_identity_is_asked_for_again() {
    let control = FakeControl::start().unwrap();
    control.fail_next(Service::Certify, tonic::Code::Unavailable);
    control.fail_next(Service::Certify, tonic::Code::FailedPrecondition);
    let proxy = Setup::new(&control, "web").ready().await;
    assert_eq!(proxy.metric("control_identity_cert_refreshes_total{result=\"error\"}"), 2.0);
}

#[tokio::test]
async fn the_admin_server_shows_what_it_should() {
    let control = FakeControl::start().unwrap();
    let proxy = Setup::new(&control, "web").ready().await;
    let (status, metrics) = proxy.admin("GET", "/metrics").await;
    assert_eq!(status, 200);
    for name in ["proxy_build_info{", "process_start_time_seconds ", "weft_discovery_watches{kind=\"inbound\"} 1"] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
    assert_eq!(proxy.admin("POST", "/shutdown").await.0, 404);
    assert_eq!(proxy.admin("GET", "/nothing").await.0, 404);
}

#[tokio::test]
async fn shutdown_by_request_ends_it() {
    let control = FakeControl::start().unwrap();
    let proxy = Setup::new(&control, "web").env("LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED", true).ready().await;
    let inbound = proxy.addrs().inbound;
    assert_eq!(proxy.admin("POST", "/shutdown").await, (200, "shutdown\n".into()));
    assert_eq!(proxy.shutdown().await, Drained::Done);
    let refused = tokio::time::timeout(LONG, TcpStream::connect(inbound)).await.unwrap();
    assert!(refused.is_err());
}

#[tokio::test]
async fn several_workers_start_and_end() {
    let control = FakeControl::start().unwrap();
    let proxy = Setup::new(&control, "web").env("LINKERD2_PROXY_CORES", 3).ready().await;
    let clients: Vec<_> = {
        let mut clients = vec![];
        for _ in 0..6 {
            clients.push(TcpStream::connect(proxy.addrs().inbound).await.unwrap());
        }
        clients
    };
    assert_eq!(proxy.admin("GET", "/live").await.0, 200);
    drop(clients);
    assert_eq!(proxy.shutdown().await, Drained::Done);
}

#[tokio::test]
async fn eager_ports_are_watched_from_the_start() {
    let control = FakeControl::start().unwrap();
    let _proxy = Setup::new(&control, "web").env("LINKERD2_PROXY_INBOUND_PORTS", "80,8080-8081").ready().await;
    for wanted in [80, 8080, 8081] {
        soon(control.called(move |call| matches!(call, Call::Inbound(spec) if spec.port == wanted))).await.unwrap();
    }
}

#[tokio::test]
async fn trust_anchors_follow_the_control_plane() {
    let control = FakeControl::start().unwrap();
    control.set_anchors(Some(control.ca().anchors_pem()));
    let proxy = Setup::new(&control, "web").ready().await;
    eventually("the bundle is in force", || {
        proxy.metric("weft_identity_trust_updates_total{result=\"success\"}") >= 1.0
    })
    .await;
}
