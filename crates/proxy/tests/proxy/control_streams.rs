//! Limits on streams from the control plane: how long they last where it is not on loopback, since there it may sit behind something
//! that hangs; and how many a server lets through, which shall keep nobody from an answer.

use crate::{
    discovery::{Origin, count},
    harness::{Setup, elsewhere, soon},
    mesh::certified,
};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use weft_model::{Identity, Profile, policy::inbound::DefaultPolicy};
use weft_testkit::{
    control::{Call, FakeControl, Service},
    http1,
    policy::{detect, forward, inbound, opaque, service},
};

/// Terminates TLS in front of `server`, as the own proxy of a control plane or a collector does, on an address that is not loopback.
pub(crate) async fn front(control: &FakeControl, server: SocketAddr) -> (SocketAddr, Identity) {
    let id = Identity::of_service_account("linkerd-destination", "linkerd", "linkerd", "cluster.local").unwrap();
    let store = certified(control, id.clone());
    let listener = TcpListener::bind((elsewhere(), 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((accepted, _)) = listener.accept().await {
            let store = store.clone();
            tokio::spawn(async move {
                let (mut tls, _) = store.accept(accepted, bytes::Bytes::new(), false).await.unwrap();
                let mut plain = TcpStream::connect(server).await?;
                tokio::io::copy_bidirectional(&mut tls, &mut plain).await
            });
        }
    });
    (addr, id)
}

#[tokio::test]
async fn a_watch_is_opened_again_after_its_lifetime() {
    let control = FakeControl::start().unwrap();
    let (front, id) = front(&control, control.addr()).await;
    let target: SocketAddr = "10.0.0.9:80".parse().unwrap();
    control.set_outbound(target, detect(service("ns", "app", 80), forward(weft_model::Endpoint::plain(target))));
    let setup = |limit: &str, value: &str| {
        Setup::new(&control, "web")
            .env("LINKERD2_PROXY_POLICY_SVC_ADDR", front)
            .env("LINKERD2_PROXY_POLICY_SVC_NAME", &id)
            .env(&format!("LINKERD2_PROXY_CONTROL_STREAM_{limit}"), value)
    };
    let asked = |wanted: usize| {
        let control = &control;
        async move {
            let count = || {
                let calls = control.calls();
                calls.iter().filter(|call| matches!(call, Call::Outbound(_))).count()
            };
            crate::harness::eventually("it is asked again", || count() >= wanted).await;
        }
    };
    let mut before = 0;
    for (limit, value) in [("LIFETIME", "200ms"), ("IDLE_TIMEOUT", "200ms")] {
        let proxy = setup(limit, value).ready().await;
        let _held = proxy.connect_outbound(target).await;
        asked(before + 3).await;
        before = control.calls().iter().filter(|call| matches!(call, Call::Outbound(_))).count();
    }
    // A first answer that does not come is not waited for.
    control.stall(weft_testkit::control::Service::Outbound, true);
    let proxy = setup("INITIAL_TIMEOUT", "200ms").ready().await;
    let _held = proxy.connect_outbound(target).await;
    asked(before + 3).await;
}

/// Ports that are watched besides those that are from the start.
const MAX_PORTS: usize = 300;

/// Addresses of the application that a worker keeps.
const MAX_APPS: usize = 512;

/// As Linkerd's proxies do before its control plane, the fake takes 200 streams of a connection.
#[tokio::test]
async fn more_targets_are_watched_than_a_connection_has_streams() {
    const TARGETS: u16 = 450;
    let control = FakeControl::start().unwrap();
    let a = Origin::start("a").await;
    let proxy = Setup::new(&control, "client").ready().await;
    let mut held = vec![];
    for n in 0..TARGETS {
        let [high, low] = n.to_be_bytes();
        let target = SocketAddr::from(([10, 1, high, low], 80));
        control.set_outbound(target, opaque(service("ns", "db", 80), forward(a.endpoint())));
        control.set_profile(target, Profile::default());
        let mut tcp = proxy.connect_outbound(target).await;
        assert_eq!(soon(tcp.read_u8()).await.unwrap(), b'a', "target {n}");
        held.push(tcp);
    }
    for service in [Service::Outbound, Service::Profile] {
        soon(control.opened(service, TARGETS.into())).await.unwrap();
        assert_eq!(count(&control, service), usize::from(TARGETS));
    }
}

#[tokio::test]
async fn who_connects_to_many_ports_keeps_nobody_from_an_answer() {
    let control = FakeControl::start().unwrap();
    let a = Origin::start("a").await;
    let proxy = Setup::new(&control, "app")
        .env("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", "600s")
        .env("WEFT_PROXY_INBOUND_SERVER_FIRST_WAIT", "0ms")
        .ready()
        .await;
    let watched = "weft_discovery_watches{kind=\"inbound\"}";
    let eager = proxy.metric(watched);
    let proxy = &proxy;
    // Nobody listens there.
    let port = |n: usize| SocketAddr::from(([127, 0, 0, 1], 20_000 + u16::try_from(n).unwrap()));
    for n in 0..2 * MAX_PORTS {
        control.set_inbound(port(n).port(), inbound(DefaultPolicy::AllUnauthenticated));
    }
    let mut held = vec![];
    for n in 0..MAX_PORTS {
        held.push(proxy.connect_inbound(port(n)).await);
    }
    soon(control.opened(Service::Inbound, MAX_PORTS)).await.unwrap();
    let apps = "weft_proxy_inbound_apps";
    assert_eq!(proxy.metric(apps), 0.0, "nobody has asked for anything");
    // While they are in use another one lets nobody in, whatever its policy is. What is behind it does not speak HTTP.
    let asks = "GET / HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n";
    let answer = |addr: SocketAddr| async move {
        let mut tcp = proxy.connect_inbound(addr).await;
        let mut said = vec![];
        soon(tcp.write_all(asks.as_bytes())).await.unwrap();
        // It may be reset behind its answer.
        let _ = soon(tcp.read_to_end(&mut said)).await;
        String::from_utf8(said).unwrap()
    };
    let refused = |answer: String| answer.starts_with("HTTP/1.1 500");
    assert!(refused(answer(a.addr).await));
    for n in MAX_PORTS..MAX_PORTS + MAX_APPS + 50 {
        assert!(refused(answer(port(n)).await));
    }
    let kept = proxy.metric(apps);
    assert!((1.0..=MAX_APPS as f64).contains(&kept), "{kept} are kept");
    let target: SocketAddr = "10.1.2.3:80".parse().unwrap();
    control.set_outbound(target, opaque(service("ns", "db", 80), forward(a.endpoint())));
    assert_eq!(soon(proxy.connect_outbound(target).await.read_u8()).await.unwrap(), b'a');
    // Those that nobody uses give way.
    drop(held);
    soon(async { while answer(a.addr).await.contains("ports are in use") {} }).await;
    for n in MAX_PORTS..2 * MAX_PORTS {
        drop(proxy.connect_inbound(port(n)).await);
        assert!(proxy.metric(watched) <= MAX_PORTS as f64 + eager);
    }
    soon(async { while answer(a.addr).await.contains("ports are in use") {} }).await;
}

/// Whoever connects chooses the address: what is kept for it is for those who are let in.
#[tokio::test]
async fn who_is_let_in_nowhere_has_no_address_kept() {
    let control = FakeControl::start().unwrap();
    let app = http1::Origin::start(|_| http1::Reply::ok(b"app")).await.unwrap();
    let proxy =
        Setup::new(&control, "app").env("LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", "all-authenticated").ready().await;
    let call = "GET / HTTP/1.1\r\nhost: app\r\n\r\n";
    let kept = || proxy.metric("weft_proxy_inbound_apps");
    let stranger = proxy.connect_inbound_from(elsewhere(), app.addr()).await.unwrap();
    let answer = soon(http1::Client::over(stranger).call(call)).await.unwrap();
    assert_eq!((answer.status(), kept()), (Some(403), 0.0));
    // Who is on loopback is let in.
    let answer = soon(http1::Client::over(proxy.connect_inbound(app.addr()).await).call(call)).await.unwrap();
    assert_eq!((answer.status(), kept()), (Some(200), 1.0));
}
