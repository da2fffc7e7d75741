//! Start, identity, admin server and end of the process.

use crate::harness::{LONG, Proxy, Setup, eventually, identity, soon};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use weft_model::{
    Endpoint, Meta,
    policy::inbound::{DefaultPolicy, ServerProtocol},
};
use weft_proxy::process::ProcessError;
use weft_testkit::{
    control::{Call, FakeControl, Service},
    policy,
};
use weft_transport::drain::Drained;

#[tokio::test]
async fn ready_only_once_certified() {
    let control = FakeControl::start().unwrap();
    control.stall(Service::Certify, true);
    let proxy = Setup::new(&control, "web").start();
    soon(control.called(|call| call.service() == Service::Certify)).await.unwrap();
    assert_eq!(proxy.admin("GET", "/ready").await, (503, "not ready\n".into()));
    assert_eq!(proxy.admin("GET", "/live").await, (200, "live\n".into()));
    // Nobody else of the control plane is called by somebody without a certificate.
    assert!(control.calls().iter().all(|call| call.service() == Service::Certify), "{:?}", control.calls());
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
    proxy.reaches("control_identity_cert_refreshes_total{result=\"error\"}", 2.0).await;
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
    // Two for each: the worker with the fewest open connections gets the next.
    eventually("all are taken", || proxy.handle().open_connections() == 6).await;
    for worker in 0..3 {
        proxy.reaches(&format!("weft_proxy_worker_connections{{worker=\"{worker}\"}}"), 2.0).await;
    }
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

#[tokio::test]
async fn a_worker_that_hangs_ends_the_process() {
    let control = FakeControl::start().unwrap();
    let proxy = Setup::new(&control, "web").env("LINKERD2_PROXY_CORES", 2).ask(Duration::from_millis(50)).ready().await;
    let _client = proxy.hang_worker().await;
    let ended = proxy.ended().await;
    assert!(matches!(ended, Err(ProcessError::WorkerHangs { worker: 0, .. })), "{ended:?}");
}

/// An opaque connection through `proxy` to an echo server, open and used.
async fn open(control: &FakeControl, proxy: &Proxy) -> TcpStream {
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = "10.1.2.3:7".parse().unwrap();
    let endpoint = Endpoint::plain(echo.local_addr().unwrap());
    control.set_outbound(service, policy::opaque(Meta::default_named("echo"), policy::forward(endpoint)));
    tokio::spawn(async move {
        let (mut tcp, _) = echo.accept().await?;
        let (mut read, mut write) = tcp.split();
        tokio::io::copy(&mut read, &mut write).await
    });
    let mut tcp = proxy.connect_outbound(service).await;
    tcp.write_all(b"x").await.unwrap();
    assert_eq!(soon(tcp.read_u8()).await.unwrap(), b'x');
    tcp
}

#[tokio::test]
async fn draining_waits_for_open_connections_and_takes_no_new_ones() {
    let control = FakeControl::start().unwrap();
    let proxy = Setup::new(&control, "web").ready().await;
    let addr = proxy.addrs().outbound[0];
    let mut tcp = open(&control, &proxy).await;
    assert_eq!(proxy.handle().open_connections(), 1);
    proxy.handle().shutdown();
    let start = std::time::Instant::now();
    while TcpStream::connect(addr).await.is_ok() {
        assert!(start.elapsed() < LONG, "it still takes new connections");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tcp.write_all(b"y").await.unwrap();
    assert_eq!(soon(tcp.read_u8()).await.unwrap(), b'y');
    let ended = tokio::spawn(proxy.ended());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!ended.is_finished());
    drop(tcp);
    assert_eq!(soon(ended).await.unwrap().unwrap(), Drained::Done);
}

#[tokio::test]
async fn the_grace_period_ends_the_drain() {
    let control = FakeControl::start().unwrap();
    let proxy = Setup::new(&control, "web").env("LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD", "100ms").ready().await;
    let mut tcp = open(&control, &proxy).await;
    assert!(matches!(proxy.shutdown().await, Drained::Deadline { .. }));
    assert!(!matches!(soon(tcp.read(&mut [0])).await, Ok(1..)), "the connection outlives the proxy");
}

/// Whatever it was doing: bytes, and a response whose end is that of its connection.
#[tokio::test]
async fn what_the_drains_deadline_cuts_off_looks_cut_on_both_sides() {
    let control = FakeControl::start().unwrap();
    for bytes in [true, false] {
        let proxy = Setup::new(&control, "web").env("LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD", "100ms").ready().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut policy = policy::inbound(DefaultPolicy::AllUnauthenticated);
        policy.protocol = match bytes {
            true => ServerProtocol::Opaque,
            false => ServerProtocol::Http1 { routes: vec![], rate_limit: None },
        };
        control.set_inbound(addr.port(), policy);
        let mut client = proxy.connect_inbound(addr).await;
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let (mut server, _) = soon(listener.accept()).await.unwrap();
        server.write_all(b"HTTP/1.0 200 OK\r\n\r\nhalf").await.unwrap();
        let mut read = vec![];
        while !read.ends_with(b"half") {
            read.push(soon(client.read_u8()).await.unwrap());
        }
        assert!(matches!(proxy.shutdown().await, Drained::Deadline { .. }));
        let rest = soon(client.read_to_end(&mut vec![])).await;
        assert!(rest.is_err(), "bytes: {bytes}: the client sees {rest:?}");
        let rest = soon(server.read_to_end(&mut vec![])).await;
        assert!(rest.is_err(), "bytes: {bytes}: the server sees {rest:?}");
    }
}

#[tokio::test]
async fn dropping_the_handle_cuts_everything_off() {
    let control = FakeControl::start().unwrap();
    let proxy = Setup::new(&control, "web").ready().await;
    let mut tcp = open(&control, &proxy).await;
    drop(proxy);
    assert!(!matches!(soon(tcp.read(&mut [0])).await, Ok(1..)), "the connection outlives the proxy");
}

#[tokio::test]
async fn the_log_level_is_not_there_without_logs() {
    let control = FakeControl::start().unwrap();
    let proxy = Setup::new(&control, "web").ready().await;
    assert_eq!(proxy.admin("GET", "/proxy-log-level").await, (404, "logging is off\n".into()));
}

#[tokio::test]
async fn one_socket_takes_both_families() {
    let control = FakeControl::start().unwrap();
    let proxy = Setup::new(&control, "web").env("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", "[::]:0").ready().await;
    let port = proxy.addrs().inbound.port();
    let four = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let six = TcpStream::connect(("::1", port)).await.unwrap();
    eventually("both are taken", || proxy.handle().open_connections() == 2).await;
    drop((four, six));
}

#[tokio::test]
async fn who_is_connected_when_the_drain_begins_is_served() {
    let control = FakeControl::start().unwrap();
    let proxy = Setup::new(&control, "web").env("LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD", "20s").ready().await;
    let first = open(&control, &proxy).await;
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = "10.1.2.4:7".parse().unwrap();
    let endpoint = Endpoint::plain(echo.local_addr().unwrap());
    control.set_outbound(service, policy::opaque(Meta::default_named("echo"), policy::forward(endpoint)));
    // The test's runtime and the workers are different threads: some of these are accepted, the rest are queued.
    let mut clients = vec![];
    for _ in 0..50 {
        clients.push(proxy.connect_outbound(service).await);
    }
    proxy.handle().shutdown();
    for client in &mut clients {
        client.write_all(b"x").await.unwrap();
    }
    for _ in &clients {
        let (mut server, _) = soon(echo.accept()).await.unwrap();
        assert_eq!(soon(server.read_u8()).await.unwrap(), b'x');
    }
    drop((first, clients));
    assert_eq!(proxy.shutdown().await, Drained::Done);
}

#[tokio::test]
async fn it_ends_with_the_work_of_its_pod() {
    let control = FakeControl::start().unwrap();
    // A control plane that does not say ends nobody, nor one that is away.
    control.fail_next(Service::Work, tonic::Code::Unavailable);
    let proxy = Setup::new(&control, "web").env("WEFT_PROXY_SHUTDOWN_WITH_POD", "uid-1").ready().await;
    let asked = |call: &Call| matches!(call, Call::Work(spec) if spec.uid == "uid-1" && spec.workload.contains("web"));
    soon(control.called(asked)).await.unwrap();
    soon(control.opened(Service::Work, 1)).await.unwrap();
    assert_eq!(proxy.admin("GET", "/ready").await.0, 200, "it goes on while the work does");
    control.break_streams(Service::Work, tonic::Code::Unavailable);
    control.set_done(Some(true));
    assert_eq!(proxy.ended().await.unwrap(), Drained::Done);

    control.set_done(None);
    let proxy = Setup::new(&control, "web").env("WEFT_PROXY_SHUTDOWN_WITH_POD", "uid-2").ready().await;
    soon(control.called(|call| matches!(call, Call::Work(spec) if spec.uid == "uid-2"))).await.unwrap();
    assert_eq!(proxy.admin("GET", "/ready").await.0, 200);
    assert_eq!(proxy.shutdown().await, Drained::Done);
    // Others do not ask.
    let calls = control.calls().len();
    let proxy = Setup::new(&control, "web").ready().await;
    let asked = |service: Service| control.calls()[calls..].iter().any(|call| call.service() == service);
    eventually("it asks about its ports", || asked(Service::Inbound)).await;
    assert!(!asked(Service::Work));
    drop(proxy);
}
