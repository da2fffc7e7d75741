//! Limits on streams from the control plane, which hold where it is not on loopback: there it may sit behind something that hangs.

use crate::{
    harness::{Setup, elsewhere},
    mesh::certified,
};
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use weft_model::Identity;
use weft_testkit::{
    control::{Call, FakeControl},
    policy::{detect, forward, service},
};

/// Terminates TLS in front of `control`, as the control plane's own proxy does, on an address that is not loopback.
async fn front(control: &FakeControl) -> (SocketAddr, Identity) {
    let id = Identity::of_service_account("linkerd-destination", "linkerd", "linkerd", "cluster.local").unwrap();
    let store = certified(control, id.clone());
    let listener = TcpListener::bind((elsewhere(), 0)).await.unwrap();
    let (addr, control) = (listener.local_addr().unwrap(), control.addr());
    tokio::spawn(async move {
        while let Ok((accepted, _)) = listener.accept().await {
            let store = store.clone();
            tokio::spawn(async move {
                let (mut tls, _) = store.accept(accepted, bytes::Bytes::new(), false).await.unwrap();
                let mut plain = TcpStream::connect(control).await?;
                tokio::io::copy_bidirectional(&mut tls, &mut plain).await
            });
        }
    });
    (addr, id)
}

#[tokio::test]
async fn a_watch_is_opened_again_after_its_lifetime() {
    let control = FakeControl::start().unwrap();
    let (front, id) = front(&control).await;
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
