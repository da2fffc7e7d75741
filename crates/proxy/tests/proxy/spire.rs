//! Identities that are SPIFFE ids, from a workload API on the machine.

use crate::{
    harness::{Proxy, Setup, elsewhere, eventually, soon},
    mesh::{Mesh, get, naming},
};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tonic::Code;
use weft_model::{
    Endpoint, Identity, Meta, ProtocolHint,
    decide::cidr::Cidr,
    endpoint::ServerTls,
    policy::inbound::{Authentication, Authorization, DefaultPolicy, NetworkMatch},
};
use weft_proxy::config;
use weft_testkit::{
    control::FakeControl,
    http2, policy,
    spire::{FakeWorkloadApi, svid},
};
use weft_transport::{
    Stream,
    tls::{Key, Store},
};

const HOUR: Duration = Duration::from_secs(3600);

fn id(name: &str) -> Identity {
    format!("spiffe://cluster.local/ns/ns/sa/{name}").parse().unwrap()
}

/// The name by which peers call the workload, which its certificate does not carry.
fn server_name(name: &str) -> String {
    format!("{name}.ns.external")
}

/// A workload that is certified by the workload API at that address, and not by the control plane.
fn setup(control: &FakeControl, name: &str, address: &str) -> Setup {
    let unset = ["IDENTITY_DIR", "IDENTITY_TOKEN_FILE", "IDENTITY_SVC_ADDR", "IDENTITY_LOCAL_NAME"];
    unset
        .iter()
        .fold(Setup::new(control, name), |setup, name| setup.env(&format!("LINKERD2_PROXY_{name}"), ""))
        .env("LINKERD2_PROXY_IDENTITY_SERVER_ID", id(name))
        .env("LINKERD2_PROXY_IDENTITY_SERVER_NAME", server_name(name))
        .env("LINKERD2_PROXY_IDENTITY_SPIRE_WORKLOAD_API_ADDRESS", address)
}

/// The path of a socket, which is removed with the fake that listens there.
fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("weft-{name}-{}.sock", std::process::id()))
}

fn expiry(proxy: &Proxy) -> f64 {
    proxy.metric("control_identity_cert_expiration_timestamp_seconds")
}

/// Two proxies with SPIFFE ids, each with a workload API of its own.
async fn mesh(name: &str) -> (Mesh, [FakeWorkloadApi; 2]) {
    let control = FakeControl::start().unwrap();
    let api = |workload: &str| {
        let api = FakeWorkloadApi::start(&socket(&format!("{name}-{workload}"))).unwrap();
        // The identity that counts is the configured one, wherever it stands.
        let svids = ["another", workload].map(|name| svid(control.ca(), &id(name), HOUR).unwrap());
        api.set(svids.to_vec());
        api
    };
    let apis = [api("web"), api("app")];
    let [web, app] = [("web", &apis[0]), ("app", &apis[1])].map(|(name, api)| setup(&control, name, &api.address()));
    let (web, app) = tokio::join!(web.ready(), app.ready());
    (Mesh { control, web, app }, apis)
}

/// An endpoint behind `app`'s proxy, with that identity.
fn endpoint(mesh: &Mesh, addr: SocketAddr, identity: Identity) -> Endpoint {
    let tls = ServerTls { identity, server_name: server_name("app").parse().unwrap() };
    Endpoint { tls: Some(tls), ..mesh.endpoint(addr, ProtocolHint::H2) }
}

/// Lets that identity in.
fn only(identity: Identity) -> weft_model::ServerPolicy {
    let everywhere = |net| NetworkMatch { net, except: vec![] };
    let authorization = Authorization {
        networks: vec![everywhere(Cidr::ALL_V4), everywhere(Cidr::ALL_V6)],
        authentication: Authentication::TlsAuthenticated { identities: [identity].into(), suffixes: vec![] },
        meta: Meta::default_named("only"),
    };
    let mut policy = policy::inbound(DefaultPolicy::Deny);
    policy.authorizations = vec![authorization];
    policy
}

/// A client that the test plays itself, at a port behind `app`'s proxy.
async fn dial(mesh: &Mesh, name: &str, port: SocketAddr) -> Stream {
    let svid = svid(mesh.control.ca(), &id(name), HOUR).unwrap();
    let store = Store::new(mesh.control.ca().anchors_pem(), server_name(name).parse().unwrap(), id(name)).unwrap();
    let intermediates: Vec<_> = svid.chain[1..].iter().map(|der| der.to_vec()).collect();
    store.set_certificate(&Key::from_pkcs8(&svid.key).unwrap(), &svid.chain[0], &intermediates).unwrap();
    let tcp = mesh.app.connect_inbound_from(elsewhere(), port).await.unwrap();
    let server = ServerTls { identity: id("app"), server_name: server_name("app").parse().unwrap() };
    store.connect(tcp, &server, false).await.unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spiffe_ids_name_clients_and_servers() {
    let (mesh, _apis) = mesh("names").await;
    let origin = naming("ok").await;
    let service = mesh.service(&[endpoint(&mesh, origin.addr(), id("app"))]);
    mesh.control.set_inbound(origin.addr().port(), only(id("web")));
    let response = soon(mesh.http2(&service).await.call(get())).await.unwrap();
    assert_eq!((response.head.status.as_u16(), &response.body[..]), (200, &b"ok"[..]));
    let seen = origin.seen();
    let ids: Vec<_> = seen.requests[0].headers.get_all("l5d-client-id").iter().collect();
    assert_eq!(ids, [id("web").as_str()]);
    assert!(mesh.web.metric_has(&format!("server_id=\"{}\"", id("app"))));
    assert!(mesh.app.metric_has(&format!("client_id=\"{}\"", id("web"))));

    // Clients on loopback are always let in, so these come from somewhere else.
    for (name, status) in [("web", 200), ("another", 403)] {
        let stream = dial(&mesh, name, origin.addr()).await;
        let mut client = http2::Client::over(stream).await.unwrap();
        assert_eq!(soon(client.call(get())).await.unwrap().head.status, status, "{name}");
    }
    let so_far = origin.seen().requests.len();

    // A server with another id of the same trust domain gets no byte of a request.
    let impostor = mesh.service(&[endpoint(&mesh, origin.addr(), id("ap"))]);
    mesh.control.set_inbound(origin.addr().port(), only(id("web")));
    let response = soon(mesh.http2(&impostor).await.call(get())).await.unwrap();
    assert!(response.head.status.is_server_error(), "{:?}", response.head);
    assert_eq!(origin.seen().requests.len(), so_far);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_come_by_the_stream() {
    let (mesh, mut apis) = mesh("renewals").await;
    let renew = |api: &FakeWorkloadApi, lifetime| api.set(vec![svid(mesh.control.ca(), &id("web"), lifetime).unwrap()]);
    let before = expiry(&mesh.web);
    renew(&apis[0], 2 * HOUR);
    eventually("the new one is in force", || expiry(&mesh.web) > before + 3000.0).await;
    assert_eq!(apis[0].calls(), 1, "by the same stream");
    mesh.web.reaches("control_identity_cert_refreshes_total{result=\"success\"}", 2.0).await;
    // An agent that dies takes nothing away, and is found again.
    apis[0].kill();
    eventually("the loss is noticed", || {
        mesh.web.metric("control_identity_cert_refreshes_total{result=\"error\"}") >= 1.0
    })
    .await;
    let origin = naming("ok").await;
    let service = mesh.service(&[endpoint(&mesh, origin.addr(), id("app"))]);
    assert_eq!(soon(mesh.http2(&service).await.call(get())).await.unwrap().head.status, 200);
    renew(&apis[0], 3 * HOUR);
    apis[0].restart().unwrap();
    eventually("the new one is in force", || expiry(&mesh.web) > before + 6600.0).await;
    // One that cannot be used leaves the present one: of another root, or for somebody else.
    let errors = || mesh.web.metric("control_identity_cert_refreshes_total{result=\"error\"}");
    let stranger = weft_testkit::ca::Ca::new().unwrap();
    for wrong in [svid(&stranger, &id("web"), 9 * HOUR), svid(mesh.control.ca(), &id("another"), 9 * HOUR)] {
        let so_far = errors();
        apis[0].set(vec![wrong.unwrap()]);
        eventually("it is refused", || errors() > so_far).await;
        assert!(expiry(&mesh.web) < before + 10_000.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_workload_api_may_come_later() {
    let control = FakeControl::start().unwrap();
    let path = socket("later");
    let proxy = setup(&control, "web", path.to_str().unwrap())
        .env("LINKERD2_PROXY_IDENTITY_SPIRE_EXP_BACKOFF_MIN", "10ms")
        .env("LINKERD2_PROXY_IDENTITY_SPIRE_EXP_BACKOFF_MAX", "50ms")
        .start();
    eventually("it is tried", || proxy.metric("control_identity_cert_refreshes_total{result=\"error\"}") >= 3.0).await;
    assert_eq!(proxy.admin("GET", "/ready").await.0, 503);
    let api = FakeWorkloadApi::start(&path).unwrap();
    api.fail_next(Code::PermissionDenied);
    eventually("it is found", || api.calls() >= 2).await;
    api.set(vec![svid(control.ca(), &id("web"), HOUR).unwrap()]);
    soon(proxy.handle().ready()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_api_that_refuses_for_good_is_not_asked_again() {
    let control = FakeControl::start().unwrap();
    let api = FakeWorkloadApi::start(&socket("refuses")).unwrap();
    api.fail_next(Code::InvalidArgument);
    api.set(vec![svid(control.ca(), &id("web"), HOUR).unwrap()]);
    let proxy = setup(&control, "web", &api.address()).start();
    eventually("it is refused", || proxy.metric("control_identity_cert_refreshes_total{result=\"error\"}") >= 1.0)
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(api.calls(), 1);
    assert_eq!(proxy.admin("GET", "/ready").await.0, 503, "who has no certificate is not ready");
}

#[test]
fn the_environment_must_fit_together() {
    let control = FakeControl::start().unwrap();
    let checked = |setup: Setup| {
        let vars: Vec<_> = setup.vars().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        config::check(vars, 1)
            .map(drop)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<String>())
    };
    for address in ["/run/agent.sock", "unix:/run/agent.sock", "unix:///run/agent.sock"] {
        assert_eq!(checked(setup(&control, "web", address)), Ok(()));
    }
    let older = setup(&control, "web", "").env("LINKERD2_PROXY_IDENTITY_SPIRE_SOCKET", "unix:///run/agent.sock");
    assert_eq!(checked(older), Ok(()));
    assert!(checked(setup(&control, "web", "agent.sock")).unwrap_err().contains("WORKLOAD_API_ADDRESS"));
    // A workload API gives SPIFFE ids, and the control plane does not.
    let name = "web.ns.serviceaccount.identity.linkerd.cluster.local";
    let dns = setup(&control, "web", "/run/agent.sock")
        .env("LINKERD2_PROXY_IDENTITY_SERVER_ID", name)
        .env("LINKERD2_PROXY_IDENTITY_SERVER_NAME", name);
    assert!(checked(dns).unwrap_err().contains("spiffe://"));
    let local = Setup::new(&control, "web").env("LINKERD2_PROXY_IDENTITY_SPIRE_SOCKET", "/run/agent.sock");
    assert!(checked(local).unwrap_err().contains("spiffe://"));
    let without = Setup::new(&control, "web")
        .env("LINKERD2_PROXY_IDENTITY_SERVER_ID", id("web"))
        .env("LINKERD2_PROXY_IDENTITY_SERVER_NAME", server_name("web"));
    assert!(checked(without).unwrap_err().contains("LINKERD2_PROXY_IDENTITY_SERVER_ID"));
}
