//! The fake control plane does what its users rely on, seen through the clients of `wire`.

#![expect(clippy::unwrap_used, reason = "tests")]

use futures_util::StreamExt;
use std::{net::SocketAddr, time::Duration};
use tonic::{Code, transport::Channel};
use weft_model::{Endpoint, EndpointUpdate, Meta, ServerPolicy, policy::inbound::ServerProtocol};
use weft_testkit::control::{Call, FakeControl, Service, Target};
use weft_wire::{Error, destination, identity, inbound, outbound, trust};

async fn channel(fake: &FakeControl) -> Channel {
    Channel::from_shared(format!("http://{}", fake.addr())).unwrap().connect().await.unwrap()
}

fn endpoint(host: u8) -> Endpoint {
    Endpoint::plain(SocketAddr::from(([10, 0, 0, host], 80)))
}

fn opaque(name: &str) -> ServerPolicy {
    ServerPolicy { meta: Meta::default_named(name), protocol: ServerProtocol::Opaque, authorizations: vec![] }
}

fn code(error: Error) -> Code {
    match error {
        Error::Rpc(status) => status.code(),
        Error::Invalid(invalid) => panic!("{invalid}"),
    }
}

#[tokio::test]
async fn endpoints_come_in_steps() {
    let fake = FakeControl::start().unwrap();
    fake.set_endpoints("web:80", vec![endpoint(1), endpoint(2)]);
    let mut client = destination::Client::new(channel(&fake).await);
    let mut updates = client.get("web:80", "ctx").await.unwrap();
    assert_eq!(updates.next().await.unwrap().unwrap(), EndpointUpdate::Add(vec![endpoint(1), endpoint(2)]));

    fake.set_endpoints("web:80", vec![endpoint(2)]);
    assert_eq!(updates.next().await.unwrap().unwrap(), EndpointUpdate::Remove(vec![endpoint(1).addr]));
    fake.remove_endpoints("web:80");
    assert_eq!(updates.next().await.unwrap().unwrap(), EndpointUpdate::NoEndpoints { exists: false });

    let lookup = destination::Lookup { path: "web:80".to_owned(), context: "ctx".to_owned() };
    assert_eq!(fake.calls(), [Call::Endpoints(lookup)]);
    fake.opened(Service::Endpoints, 1).await.unwrap();
    drop(updates);
    fake.opened(Service::Endpoints, 0).await.unwrap();
}

#[tokio::test]
async fn policies_follow_and_fail_as_told() {
    let fake = FakeControl::start().unwrap();
    let mut client = inbound::Client::new(channel(&fake).await);
    assert_eq!(code(client.watch_port("w", 80).await.map(drop).unwrap_err()), Code::NotFound);

    fake.set_inbound(80, opaque("one"));
    fake.fail_next(Service::Inbound, Code::Internal);
    assert_eq!(code(client.watch_port("w", 80).await.map(drop).unwrap_err()), Code::Internal);

    let mut policies = client.watch_port("w", 80).await.unwrap();
    assert_eq!(policies.next().await.unwrap().unwrap(), opaque("one"));
    fake.set_inbound(80, opaque("two"));
    assert_eq!(policies.next().await.unwrap().unwrap(), opaque("two"));
    fake.break_streams(Service::Inbound, Code::Aborted);
    assert_eq!(code(policies.next().await.unwrap().unwrap_err()), Code::Aborted);
    assert!(policies.next().await.is_none());
}

#[tokio::test]
async fn a_stalled_call_is_answered_later() {
    let fake = FakeControl::start().unwrap();
    fake.stall(Service::Outbound, true);
    let mut client = outbound::Client::new(channel(&fake).await);
    let target = Target::Authority("web:80".to_owned());
    let call = tokio::spawn(async move { client.watch("w", target).await.map(drop) });
    fake.called(|call| matches!(call, Call::Outbound(_))).await.unwrap();
    assert!(!call.is_finished());
    fake.stall(Service::Outbound, false);
    assert_eq!(code(call.await.unwrap().unwrap_err()), Code::NotFound);
}

#[tokio::test]
async fn dies_and_comes_back_on_its_port() {
    let fake = FakeControl::start().unwrap();
    fake.set_inbound(80, opaque("one"));
    let mut policies = inbound::Client::new(channel(&fake).await).watch_port("w", 80).await.unwrap();
    assert_eq!(policies.next().await.unwrap().unwrap(), opaque("one"));

    fake.kill();
    assert!(policies.next().await.unwrap().is_err());
    assert_eq!(fake.open(Service::Inbound), 0);
    assert!(tokio::net::TcpStream::connect(fake.addr()).await.is_err());

    fake.restart().unwrap();
    let mut policies = inbound::Client::new(channel(&fake).await).watch_port("w", 80).await.unwrap();
    assert_eq!(policies.next().await.unwrap().unwrap(), opaque("one"));
}

#[tokio::test]
async fn certifies_and_tells_its_anchors() {
    let fake = FakeControl::start().unwrap();
    let id: weft_model::Identity = "web.ns.serviceaccount.identity.linkerd.cluster.local".parse().unwrap();
    let key = weft_transport::tls::Key::generate().unwrap();
    let csr = key.csr(&id).unwrap();
    fake.expect_token(b"right");
    let mut client = identity::Client::new(channel(&fake).await);
    let refused = client.certify(&id, "wrong".into(), csr.clone().into()).await.unwrap_err();
    assert_eq!(code(refused), Code::FailedPrecondition);
    fake.set_lifetime(Duration::from_secs(60));
    let certificate = client.certify(&id, "right".into(), csr.into()).await.unwrap();
    let left = certificate.valid_until.duration_since(std::time::SystemTime::now()).unwrap();
    assert!(left <= Duration::from_secs(60) && left > Duration::from_secs(50), "{left:?}");

    let mut bundles = trust::Client::new(channel(&fake).await).watch().await.unwrap();
    assert_eq!(bundles.next().await.unwrap().unwrap().pem, fake.ca().anchors_pem());
    fake.set_anchors(Some("other"));
    assert_eq!(bundles.next().await.unwrap().unwrap().pem, "other");
    fake.set_anchors(None);
    let refused = trust::Client::new(channel(&fake).await).watch().await.map(drop).unwrap_err();
    assert_eq!(code(refused), Code::Unimplemented);
}

#[tokio::test]
async fn the_plain_policies_arrive_as_they_are() {
    use weft_model::policy::inbound::DefaultPolicy;
    use weft_testkit::policy;
    let fake = FakeControl::start().unwrap();
    let service = policy::service("ns", "web", 80);
    let backend = policy::balance(service.clone(), "web.ns.svc.cluster.local:80".parse().unwrap());
    let mut client = outbound::Client::new(channel(&fake).await);
    for (n, sent) in
        [policy::detect(service.clone(), backend.clone()), policy::opaque(service, policy::forward(endpoint(1)))]
            .into_iter()
            .enumerate()
    {
        let addr = SocketAddr::from(([10, 96, 0, 1], 80 + u16::try_from(n).unwrap()));
        fake.set_outbound(addr, sent.clone());
        let mut policies = client.watch("w", Target::Addr(addr)).await.unwrap();
        assert_eq!(policies.next().await.unwrap().unwrap(), sent);
        assert_eq!(sent.unsupported(), None);
    }
    let sent = policy::inbound(DefaultPolicy::AllAuthenticated);
    fake.set_inbound(80, sent.clone());
    let mut policies = inbound::Client::new(channel(&fake).await).watch_port("w", 80).await.unwrap();
    assert_eq!(policies.next().await.unwrap().unwrap(), sent);
}
