//! What the control plane refuses while it is in use. What makes it do so passes, such as an address that two pods have for a moment,
//! and a client that is busy all the time finds out.

use crate::{
    discovery::{NAME, Origin, SERVICE, answers, connect, count, serve},
    harness::{Setup, elsewhere, eventually, soon},
};
use tokio::io::AsyncReadExt;
use tonic::Code;
use weft_model::{Profile, policy::inbound::DefaultPolicy};
use weft_testkit::{
    control::{FakeControl, Service},
    policy::{forward, inbound, opaque, service},
};

/// The streams of `service` end with `code`, and the next calls do.
fn refuse(control: &FakeControl, service: Service, code: Code, calls: usize) {
    (0..calls).for_each(|_| control.fail_next(service, code));
    control.break_streams(service, code);
}

#[tokio::test]
async fn a_profile_is_followed_again() {
    let control = FakeControl::start().unwrap();
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let profile = |origin: &Origin| Profile { opaque: true, endpoint: Some(origin.endpoint()), ..Profile::default() };
    control.set_profile(SERVICE, profile(&a));
    let proxy = Setup::new(&control, "client").ready().await;
    let (_, _held) = connect(&proxy).await.unwrap();
    refuse(&control, Service::Profile, Code::FailedPrecondition, 2);
    control.set_profile(SERVICE, profile(&b));
    soon(async { while answers(&proxy).await.expect("the last known answer holds meanwhile") != "b" {} }).await;
    assert_eq!(count(&control, Service::Profile), 4);
}

#[tokio::test]
async fn an_outbound_policy_is_followed_again() {
    let control = FakeControl::start().unwrap();
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let set = |origin: &Origin| {
        let policy = opaque(service("ns", "db", 5432), forward(origin.endpoint()));
        control.set_outbound(SERVICE.parse().unwrap(), policy);
    };
    set(&a);
    let proxy = Setup::new(&control, "client").ready().await;
    let (_, _held) = connect(&proxy).await.unwrap();
    refuse(&control, Service::Outbound, Code::InvalidArgument, 2);
    set(&b);
    soon(async { while answers(&proxy).await.expect("the last known answer holds meanwhile") != "b" {} }).await;
}

#[tokio::test]
async fn an_inbound_policy_is_followed_again() {
    let control = FakeControl::start().unwrap();
    let a = Origin::start("a").await;
    control.set_inbound(a.addr.port(), inbound(DefaultPolicy::AllUnauthenticated));
    let proxy = Setup::new(&control, "server").ready().await;
    let greets = || async {
        let Ok(mut tcp) = proxy.connect_inbound_from(elsewhere(), a.addr).await else { return false };
        soon(tcp.read_u8()).await.is_ok()
    };
    assert!(greets().await);
    refuse(&control, Service::Inbound, Code::InvalidArgument, 1);
    control.set_inbound(a.addr.port(), inbound(DefaultPolicy::Deny));
    soon(async { while greets().await {} }).await;
}

/// One word that there are no endpoints may be that of a control plane which has not read everything yet; two are believed.
#[tokio::test]
async fn endpoints_are_followed_again_and_not_used_once_they_are_refused_twice() {
    for code in [Code::InvalidArgument, Code::FailedPrecondition, Code::NotFound] {
        let control = FakeControl::start().unwrap();
        let (a, b, c) = (Origin::start("a").await, Origin::start("b").await, Origin::start("c").await);
        serve(&control, &[&a]);
        let proxy =
            Setup::new(&control, "client").env("LINKERD2_PROXY_OUTBOUND_TCP_FAILFAST_TIMEOUT", "60s").ready().await;
        let (_, _held) = connect(&proxy).await.unwrap();
        refuse(&control, Service::Endpoints, code, 0);
        serve(&control, &[&b]);
        soon(async { while answers(&proxy).await.expect("the last known answer holds meanwhile") != "b" {} }).await;
        let calls = count(&control, Service::Endpoints);
        refuse(&control, Service::Endpoints, code, 3);
        serve(&control, &[&c]);
        eventually("it was refused twice", || count(&control, Service::Endpoints) >= calls + 2).await;
        // Who comes now waits for what there will be.
        assert_eq!(answers(&proxy).await.as_deref(), Some("c"), "{code}, behind {NAME}");
    }
}
