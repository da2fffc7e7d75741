//! Certificates that are renewed, roots that are replaced, and connections that end with what they were opened with.

use crate::{
    change::{Kind, Load, Origin},
    harness::{Proxy, Setup, eventually, identity, soon},
    mesh::{Mesh, Service, get, shouting},
};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_model::{ProtocolHint, endpoint::ServerTls};
use weft_proxy::process::worker::WallClock;
use weft_testkit::{
    ca::Ca,
    control::{self as fake, FakeControl},
    http1, http2,
};
use weft_transport::{
    Stream,
    tls::{Key, Store, TlsError},
};

const KINDS: [Kind; 3] = [Kind::Http1, Kind::Http1OnHttp2, Kind::Http2];
const MANY: [(&str, &str); 2] =
    [("LINKERD2_PROXY_IDENTITY_MIN_REFRESH", "100ms"), ("LINKERD2_PROXY_IDENTITY_MAX_REFRESH", "100ms")];

/// Certificates that this proxy has got.
fn renewals(proxy: &Proxy) -> f64 {
    proxy.metric("control_identity_cert_refreshes_total{result=\"success\"}")
}

fn expired(proxy: &Proxy, how: &str) -> f64 {
    proxy.metric(&format!("weft_identity_expired_connections_total{{how=\"{how}\"}}"))
}

/// Waits until both proxies have a certificate that was made from now on.
async fn renewed(mesh: &Mesh) {
    for proxy in [&mesh.web, &mesh.app] {
        let before = renewals(proxy);
        // The one that is under way may have been signed before.
        eventually("the certificate is renewed", || renewals(proxy) >= before + 2.0).await;
    }
}

/// Connections of bytes, one after another, until the count is reached.
async fn bytes(mesh: &Mesh, service: &Service, until: Duration) -> Result<u64, String> {
    let (start, mut done) = (std::time::Instant::now(), 0);
    while start.elapsed() < until {
        let failed = |e: std::io::Error| format!("connection {done}: {e}");
        let mut tcp = mesh.connect(service).await;
        tcp.write_all(b"abc").await.map_err(failed)?;
        tcp.shutdown().await.map_err(failed)?;
        let mut text = String::new();
        soon(tcp.read_to_string(&mut text)).await.map_err(failed)?;
        if text != "hello\nABCbye\n" {
            return Err(format!("connection {done}: {text:?}"));
        }
        done += 1;
    }
    Ok(done)
}

/// Certificates live three seconds, connections no longer than one second more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_seconds_are_renewed_under_load() {
    let control = FakeControl::start().unwrap();
    control.set_lifetime(Duration::from_secs(3));
    let setup = |name| {
        Setup::new(&control, name)
            .env("LINKERD2_PROXY_IDENTITY_MIN_REFRESH", "100ms")
            .env("WEFT_PROXY_IDENTITY_EXPIRY_GRACE", "1s")
    };
    let (web, app) = tokio::join!(setup("web").ready(), setup("app").ready());
    let mesh = Mesh { control, web, app };
    let mut loads = vec![];
    let mut origins = vec![];
    for kind in KINDS {
        let origin = Origin::start(kind).await;
        let service = mesh.service(&[mesh.endpoint(origin.addr(), kind.hint())]);
        loads.push(Load::on(&mesh, &service, kind).await);
        origins.push(origin);
    }
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let opaque = mesh.opaque(&[mesh.endpoint(addr, ProtocolHint::Opaque)]);
    let connections = bytes(&mesh, &opaque, Duration::from_secs(9)).await.unwrap();
    assert!(connections > 3);
    for load in loads {
        load.more(20).await;
        load.stop().await;
    }
    assert!(renewals(&mesh.web) >= 3.0 && renewals(&mesh.app) >= 3.0);
    assert_eq!(mesh.web.metric("control_identity_cert_refreshes_total{result=\"error\"}"), 0.0);
    assert!(expired(&mesh.web, "asked") > 0.0, "connections ended with their certificates");
    assert_eq!(expired(&mesh.web, "cut") + expired(&mesh.app, "cut"), 0.0, "in order");
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trust_bundle_is_rotated_three_times_under_load() {
    let mesh = Mesh::with(&MANY, &MANY).await;
    let mut loads = vec![];
    let mut origins = vec![];
    for kind in KINDS {
        let origin = Origin::start(kind).await;
        let service = mesh.service(&[mesh.endpoint(origin.addr(), kind.hint())]);
        loads.push(Load::on(&mesh, &service, kind).await);
        origins.push(origin);
    }
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let opaque = mesh.opaque(&[mesh.endpoint(addr, ProtocolHint::Opaque)]);
    let mut from_the_start = mesh.connect(&opaque).await;
    let mut greeting = [0; 6];
    soon(from_the_start.read_exact(&mut greeting)).await.unwrap();

    let mut old = mesh.control.ca().clone();
    for _ in 0..3 {
        let new = Ca::new().unwrap();
        let both = format!("{}{}", old.anchors_pem(), new.anchors_pem());
        // The new root is added, the issuer moves, the old root is removed.
        for (anchors, changes, signer) in
            [(both.as_str(), true, &old), (&both, false, &new), (new.anchors_pem(), true, &new)]
        {
            let loaded =
                [&mesh.web, &mesh.app].map(|p| p.metric("weft_identity_trust_updates_total{result=\"success\"}"));
            mesh.control.set_anchors(Some(anchors));
            mesh.control.sign_with(signer);
            for (proxy, loaded) in [&mesh.web, &mesh.app].into_iter().zip(loaded) {
                let updates = || proxy.metric("weft_identity_trust_updates_total{result=\"success\"}");
                eventually("the bundle is in force", || !changes || updates() > loaded).await;
            }
            renewed(&mesh).await;
            bytes(&mesh, &opaque, Duration::from_millis(100)).await.unwrap();
            for load in &loads {
                load.more(20).await;
            }
        }
        old = new;
    }
    // Nothing of the first root is left, and what was opened with it lives on: its certificates are not over.
    from_the_start.write_all(b"abc").await.unwrap();
    let mut answer = [0; 3];
    soon(from_the_start.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"ABC");
    for load in loads {
        load.stop().await;
    }
    for proxy in [&mesh.web, &mesh.app] {
        assert_eq!(proxy.metric("control_identity_cert_refreshes_total{result=\"error\"}"), 0.0);
        assert_eq!(proxy.metric("weft_identity_trust_updates_total{result=\"error\"}"), 0.0);
    }
    // Neither side believes the old root any more.
    let first = mesh.control.ca().clone();
    let port = mesh.app.addrs().inbound;
    assert!(dial(&mesh, port, &first, &first).await.is_err(), "a server of the new root, for a client of the old one");
    let refused = match dial(&mesh, port, &first, &old).await {
        Ok(mut stream) => soon(stream.read(&mut [0])).await.map(drop).map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    assert!(refused.is_err(), "a client of the old root is believed");
    server.abort();
}

/// A clock that a test moves.
#[derive(Clone)]
pub(crate) struct Ahead(Arc<AtomicU64>);

impl Ahead {
    pub(crate) fn new() -> (Self, WallClock) {
        let ahead = Self(Arc::default());
        let seconds = ahead.0.clone();
        (ahead, Arc::new(move || SystemTime::now() + Duration::from_secs(seconds.load(Relaxed))))
    }

    pub(crate) fn by(&self, wait: Duration) {
        self.0.fetch_add(wait.as_secs(), Relaxed);
    }
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Two proxies with one clock, certified for an hour.
async fn with_clock() -> (Mesh, Ahead) {
    let control = FakeControl::start().unwrap();
    control.set_lifetime(HOUR);
    let (ahead, clock) = Ahead::new();
    let setup = |name| {
        let setup = Setup::new(&control, name).wall_clock(clock.clone());
        MANY.iter().fold(setup, |setup, (name, value)| setup.env(name, value))
    };
    let (web, app) = tokio::join!(setup("web").ready(), setup("app").ready());
    (Mesh { control, web, app }, ahead)
}

/// A client of the mesh that the test plays itself: certified by `ca`, believing `believed`, at a port behind `app`'s proxy.
async fn dial(mesh: &Mesh, port: SocketAddr, ca: &Ca, believed: &Ca) -> Result<Stream, TlsError> {
    let id = identity("stranger");
    let issued = ca.issue(&id, HOUR).unwrap();
    let store = Store::new(ca.anchors_pem(), id.as_str().parse().unwrap(), id).unwrap();
    let intermediates: Vec<_> = issued.certificate.intermediates.iter().map(|i| i.to_vec()).collect();
    let key = Key::from_pkcs8(&issued.key_pkcs8).unwrap();
    store.set_certificate(&key, &issued.certificate.leaf, &intermediates).unwrap();
    store.set_anchors(believed.anchors_pem()).unwrap();
    let app = identity("app");
    let server = ServerTls { server_name: app.as_str().parse().unwrap(), identity: app };
    let (stream, _) = store.connect(mesh.app.connect_inbound(port).await, &server, false).await?;
    Ok(stream)
}

/// Sends a piece of a body again and again.
async fn ticking() -> http2::Origin {
    let tick = |()| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok(Frame::data(Bytes::from_static(b"tick"))), ()))
    };
    http2::Origin::start(move |_| async move {
        let body = StreamBody::new(futures_util::stream::unfold((), tick));
        Ok(http::Response::new(BodyExt::boxed(body)))
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_end_with_the_certificates_they_were_opened_with() {
    let (mesh, ahead) = with_clock().await;
    let http1 = Origin::start(Kind::Http1).await;
    let endless = ticking().await;
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let pooled = mesh.service(&[mesh.endpoint(http1.addr(), ProtocolHint::Unknown)]);
    let shared = mesh.service(&[mesh.endpoint(http1.addr(), ProtocolHint::H2)]);
    let opaque = mesh.opaque(&[mesh.endpoint(addr, ProtocolHint::Opaque)]);

    let mut loads = vec![Load::on(&mesh, &pooled, Kind::Http1).await, Load::on(&mesh, &shared, Kind::Http1).await];
    let mut tcp = mesh.connect(&opaque).await;
    let mut greeting = [0; 6];
    soon(tcp.read_exact(&mut greeting)).await.unwrap();
    for load in &loads {
        load.more(20).await;
    }
    let long = mesh.service(&[mesh.endpoint(endless.addr(), ProtocolHint::H2)]);
    let mut stream = soon(mesh.http2(&long).await.start(get())).await.unwrap().into_body();
    assert!(soon(stream.frame()).await.unwrap().is_ok());

    mesh.control.set_lifetime(100 * HOUR);
    renewed(&mesh).await;
    assert_eq!(expired(&mesh.web, "asked"), 0.0);
    ahead.by(HOUR + Duration::from_secs(1));
    // Of what the client's proxy has left by itself the server's may see nothing any more: two cannot be left.
    for (proxy, least) in [(&mesh.web, 4.0), (&mesh.app, 2.0)] {
        eventually("what was opened for an hour is asked to end", || expired(proxy, "asked") >= least).await;
    }
    for load in &loads {
        load.more(20).await;
    }
    // Bytes have no end that could be asked for: they go on for the grace.
    tcp.write_all(b"abc").await.unwrap();
    let mut answer = [0; 3];
    soon(tcp.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"ABC");
    for _ in 0..5 {
        assert!(soon(stream.frame()).await.unwrap().is_ok(), "a running stream goes on as well");
    }
    assert_eq!(expired(&mesh.web, "cut") + expired(&mesh.app, "cut"), 0.0);

    ahead.by(Duration::from_secs(121));
    assert!(soon(tcp.read_exact(&mut answer)).await.is_err(), "the connection outlives its certificate");
    let ended = async { while let Some(Ok(_)) = stream.frame().await {} };
    soon(ended).await;
    for load in loads.drain(..) {
        load.more(20).await;
        load.stop().await;
    }
    server.abort();
}

/// As a client sees it that does not look after its own certificate: Linkerd's proxy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_told_before_its_connection_ends() {
    let (mesh, ahead) = with_clock().await;
    let origin = Origin::start(Kind::Http1).await;
    mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::Unknown)]);
    let ca = mesh.control.ca();
    let connect = || async { dial(&mesh, origin.addr(), ca, ca).await.unwrap() };
    let request = "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n";
    let mut one = http1::Client::over(connect().await);
    let mut idle = http1::Client::over(connect().await);
    let naming = crate::mesh::naming("ok").await;
    mesh.service(&[mesh.endpoint(naming.addr(), ProtocolHint::H2)]);
    let mut two = http2::Client::over(dial(&mesh, naming.addr(), ca, ca).await.unwrap()).await.unwrap();
    for client in [&mut one, &mut idle] {
        let answer = soon(client.call(request)).await.unwrap();
        assert_eq!((answer.status(), answer.header("connection")), (Some(200), None));
    }
    soon(two.call(get())).await.unwrap();

    ahead.by(HOUR + Duration::from_secs(1));
    eventually("all three are asked to end", || expired(&mesh.app, "asked") >= 3.0).await;
    let answer = soon(one.call(request)).await.unwrap();
    assert_eq!((answer.status(), answer.header("connection").as_deref()), (Some(200), Some("close")));
    assert_eq!(soon(one.rest()).await.unwrap(), b"");
    eventually("HTTP/2 was told to go away", || mesh.app.metric("weft_identity_bound_connections") <= 1.0).await;
    assert!(soon(two.call(get())).await.is_err());

    ahead.by(Duration::from_secs(121));
    eventually("the idle one is closed in the end", || expired(&mesh.app, "cut") >= 1.0).await;
    let _ = soon(idle.rest()).await;
    eventually("nothing is left", || mesh.app.metric("weft_identity_bound_connections") == 0.0).await;
}

/// Linkerd's families of the clients of the control plane, and what TLS is made with.
#[tokio::test]
async fn what_the_control_plane_is_asked_is_counted() {
    let control = FakeControl::start().unwrap();
    control.fail_next(fake::Service::Certify, tonic::Code::Unavailable);
    let proxy = Setup::new(&control, "web").ready().await;
    let of = |name: &str| format!("{name}{{addr=\"{}\",tls=\"no_identity\",no_tls_reason=\"loopback\"", control.addr());
    let responses = of("control_response_total");
    for (end, expected) in [
        (r#"status_code="200",classification="success",grpc_status="0""#, 1.0),
        (r#"status_code="200",classification="failure",grpc_status="14""#, 1.0),
    ] {
        let series = format!("{responses},{end}}}");
        eventually(&series, || proxy.metric(&series) >= expected).await;
    }
    proxy.at_least(&of("control_request_total"), 2.0).await;
    proxy.at_least(&of("control_response_latency_ms_count"), 2.0).await;
    let tls = r#"rustls_info{tls_suites="TLS13_AES_128_GCM_SHA256,TLS13_AES_256_GCM_SHA384,TLS13_CHACHA20_POLY1305_SHA256",tls_kx_groups="X25519MLKEM768,X25519,secp256r1,secp384r1",tls_rand="AwsLcRs",tls_key_provider="AwsLcRs",tls_fips="false"} 1"#;
    assert!(proxy.handle().metrics().lines().any(|line| line == tls), "{}", proxy.handle().metrics());
}

#[tokio::test]
async fn who_is_without_post_quantum_agrees_with_who_is_not() {
    let without = [("WEFT_PROXY_TLS_POST_QUANTUM", "false")];
    for (web, app) in [(&without[..], &[][..]), (&[], &without), (&without, &without)] {
        let mesh = Mesh::with(web, app).await;
        let classical = "tls_kx_groups=\"X25519,secp256r1,secp384r1\"";
        assert_eq!(mesh.web.metric_has(classical), !web.is_empty());
        let origin = http1::Origin::start(|_| http1::Reply::ok("ok")).await.unwrap();
        let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::Unknown)]);
        let mut client = http1::Client::over(mesh.connect(&service).await);
        let answer = soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
        assert_eq!(answer.status(), Some(200));
    }
}
