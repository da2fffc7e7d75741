//! Authorizations as a control plane pushes them: networks with exceptions, and what a client must prove. Each row is a port of
//! its own, which four clients ask from an address that is not loopback.

use crate::{
    harness::{LONG, Proxy, Setup, elsewhere, eventually, identity, soon},
    mesh::{Mesh, certified, get, naming},
};
use bytes::Bytes;
use futures_util::StreamExt;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};
use tokio::net::TcpListener;
use weft_model::{
    Endpoint, Identity, ProtocolHint, ServerPolicy,
    decide::cidr::Cidr,
    endpoint::ServerTls,
    policy::{
        inbound::{
            Authentication, Authorization, DefaultPolicy, IdentitySuffix, InboundRule, NetworkMatch, ServerProtocol,
        },
        route::{GrpcMatch, GrpcRoute, Rule},
    },
};
use weft_testkit::{
    control::{FakeControl, Service},
    http2,
    policy::{inbound, service},
};
use weft_transport::tls::{Key, Store};

/// What the clients of each row prove, in order.
const CLIENTS: [&str; 4] = ["nothing", "TLS without a certificate", "web", "peer"];

/// Leading bits of a block that holds much besides the machine's address.
const WIDE: u8 = 8;

/// Which object lets each of them in; `None` is refused.
struct Row {
    name: &'static str,
    authorizations: Vec<Authorization>,
    lets_in: [Option<&'static str>; 4],
}

/// The block of so many leading bits around the address, without the addresses alone of `except`.
fn network((ip, len): (IpAddr, u8), except: &[IpAddr]) -> NetworkMatch {
    let block = |ip, len| Cidr::new(ip, len).unwrap();
    NetworkMatch { net: block(ip, len), except: except.iter().map(|ip| block(*ip, 32)).collect() }
}

fn authorization(name: &str, networks: Vec<NetworkMatch>, authentication: Authentication) -> Authorization {
    Authorization { meta: service("ns", name, 0), networks, authentication }
}

fn proving(identities: &[Identity], suffixes: &[&str]) -> Authentication {
    Authentication::TlsAuthenticated {
        identities: identities.to_vec(),
        suffixes: suffixes.iter().map(|suffix| IdentitySuffix((*suffix).to_owned())).collect(),
    }
}

fn rows(ip: IpAddr) -> Vec<Row> {
    let IpAddr::V4(v4) = ip else { panic!("{ip} is not of version 4") };
    let neighbour = IpAddr::from(Ipv4Addr::from(u32::from(v4) ^ 1));
    // Without loopback, which asks whether the policy is known.
    let (wide, own) = ((ip, WIDE), (ip, 32));
    let everywhere = || vec![network(wide, &[])];
    let anybody = Authentication::Unauthenticated;
    let all = |name| [Some(name); 4];
    let row = |name, authorizations, lets_in| Row { name, authorizations, lets_in };
    let one = |name: &'static str, networks, lets_in| {
        row(name, vec![authorization(name, networks, Authentication::Unauthenticated)], lets_in)
    };
    let proof = |name: &'static str, authentication, lets_in| {
        row(name, vec![authorization(name, everywhere(), authentication)], lets_in)
    };
    vec![
        row("nobody", vec![], [None; 4]),
        one("here", vec![network(own, &[])], all("here")),
        one("elsewhere", vec![network((neighbour, 32), &[])], [None; 4]),
        one("except-here", vec![network(wide, &[ip])], [None; 4]),
        one("except-elsewhere", vec![network(wide, &[neighbour])], all("except-elsewhere")),
        one("except-both", vec![network(wide, &[neighbour, ip])], [None; 4]),
        // An exception is one of its network alone.
        one("two-networks", vec![network(wide, &[ip]), network(own, &[])], all("two-networks")),
        row(
            "the-second",
            vec![
                authorization("first", vec![network(wide, &[ip])], anybody.clone()),
                authorization("second", everywhere(), anybody),
            ],
            all("second"),
        ),
        proof("tls", Authentication::TlsUnauthenticated, [None, Some("tls"), Some("tls"), Some("tls")]),
        proof("any-identity", proving(&[], &[""]), [None, None, Some("any-identity"), Some("any-identity")]),
        proof("one-identity", proving(&[identity("web")], &[]), [None, None, Some("one-identity"), None]),
        proof(
            "a-suffix",
            proving(&[], &["ns.serviceaccount.identity.linkerd.cluster.local"]),
            [None, None, Some("a-suffix"), Some("a-suffix")],
        ),
        // Labels are whole ones.
        proof("no-suffix", proving(&[], &["s.serviceaccount.identity.linkerd.cluster.local"]), [None; 4]),
        row(
            "except-and-proof",
            vec![
                authorization("everybody", vec![network(wide, &[ip])], Authentication::Unauthenticated),
                authorization("members", everywhere(), proving(&[identity("peer")], &[])),
            ],
            [None, None, None, Some("members")],
        ),
    ]
}

/// Publishes a port's policy under a name of its own, and waits until it is in force.
async fn known(mesh: &Mesh, addr: SocketAddr, name: &str, authorizations: Vec<Authorization>) {
    in_force(mesh, addr, name, ServerPolicy { authorizations, ..inbound(DefaultPolicy::Deny) }).await;
}

/// The same of any policy: loopback is let in by every one.
async fn in_force(mesh: &Mesh, addr: SocketAddr, name: &str, policy: ServerPolicy) {
    mesh.control.set_inbound(addr.port(), ServerPolicy { meta: service("ns", name, 0), ..policy });
    let start = Instant::now();
    while !mesh.app.metric_has(&format!("srv_name=\"{name}\"")) {
        assert!(start.elapsed() < LONG, "the policy {name} never comes");
        // Whoever is connected when the policy comes may be cut off.
        if let Ok(mut client) = http2::Client::over(mesh.app.connect_inbound(addr).await).await {
            let _ = soon(client.call(get())).await;
        }
    }
}

/// The status that a client gets which proves so much.
async fn status(control: &FakeControl, app: &Proxy, addr: SocketAddr, ip: IpAddr, proof: &str) -> u16 {
    soon(client(control, app, addr, ip, proof).await.call(get())).await.unwrap().head.status.as_u16()
}

/// A client that proves so much.
async fn client(control: &FakeControl, app: &Proxy, addr: SocketAddr, ip: IpAddr, proof: &str) -> http2::Client {
    let tcp = app.connect_inbound_from(ip, addr).await.unwrap();
    let store = match proof {
        "nothing" => None,
        "TLS without a certificate" => {
            let (id, anchors) = (identity("web"), control.ca().anchors_pem());
            Some(Store::new(anchors, id.as_str().parse().unwrap(), id).unwrap())
        }
        name => Some(certified(control, identity(name))),
    };
    match store {
        None => http2::Client::over(tcp).await.unwrap(),
        Some(store) => {
            let id = app.identity();
            let server = ServerTls { server_name: id.as_str().parse().unwrap(), identity: id };
            let (stream, _) = soon(store.connect(tcp, &server, false)).await.unwrap();
            http2::Client::over(stream).await.unwrap()
        }
    }
}

#[tokio::test]
async fn clients_are_let_in_by_network_and_proof() {
    let mesh = Mesh::start().await;
    let ip = elsewhere();
    for Row { name, authorizations, lets_in } in rows(ip) {
        let origin = naming("app").await;
        let addr = origin.addr();
        known(&mesh, addr, name, authorizations).await;
        let before = origin.seen().requests.len();
        for (proof, by) in CLIENTS.into_iter().zip(lets_in) {
            let wanted = if by.is_some() { 200 } else { 403 };
            let got = status(&mesh.control, &mesh.app, addr, ip, proof).await;
            assert_eq!(got, wanted, "{name}: {proof}");
        }
        let (let_in, refused): (Vec<_>, Vec<_>) = lets_in.into_iter().partition(Option::is_some);
        assert_eq!(origin.seen().requests.len() - before, let_in.len(), "{name}: who is refused reaches nobody");
        let counted = |family: &str, by: &str| {
            let text = mesh.app.metrics();
            let lines = text.lines().filter(|line| line.starts_with(&format!("{family}{{target_addr=\"{addr}\"")));
            let of = lines.filter(|line| line.contains(&format!("srv_name=\"{name}\"")) && line.contains(by));
            of.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>()
        };
        let by = let_in.first().copied().flatten().unwrap_or("none-of-them");
        let by = format!("authz_group=\"core\",authz_kind=\"Service\",authz_name=\"{by}\"");
        eventually(name, || {
            counted("inbound_http_authz_deny_total", "") == refused.len() as f64
                && counted("inbound_http_authz_allow_total", &by) == let_in.len() as f64
        })
        .await;
    }
}

/// What holds while the control plane says nothing: each default that a proxy may be given, and whom it lets in, in order; what is
/// for the cluster once with the clients' address in it and once without.
#[tokio::test]
async fn the_default_policy_of_the_environment_lets_in_whom_it_names() {
    use DefaultPolicy::*;
    let control = FakeControl::start().unwrap();
    control.stall(Service::Inbound, true);
    let origin = naming("app").await;
    let (addr, ip) = (origin.addr(), elsewhere());
    let (nobody, everybody, members) = ([403; 4], [200; 4], [403, 403, 200, 200]);
    let rows = [
        (Deny, true, nobody),
        (Audit, false, everybody),
        (AllUnauthenticated, false, everybody),
        (AllAuthenticated, false, members),
        (ClusterUnauthenticated, true, everybody),
        (ClusterUnauthenticated, false, nobody),
        (ClusterAuthenticated, true, members),
        (ClusterAuthenticated, false, nobody),
    ];
    assert!(DefaultPolicy::ALL.iter().all(|default| rows.iter().any(|(of_row, ..)| of_row == default)));
    let control = &control;
    let each = |(default, within, expected): (DefaultPolicy, bool, [u16; 4])| async move {
        let networks = if within { format!("10.99.0.0/16,{ip}/32") } else { "10.99.0.0/16".to_owned() };
        let app = Setup::new(control, "app")
            .env("LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", default.as_str())
            .env("LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS", networks)
            .ready()
            .await;
        let what = format!("{} with the clients {}", default.as_str(), if within { "inside" } else { "outside" });
        let mut got = vec![];
        for proof in CLIENTS {
            got.push(status(control, &app, addr, ip, proof).await);
        }
        assert_eq!(got, expected, "{what}");
        // Who comes over loopback is let in by none of them.
        assert_eq!(status(control, &app, addr, Ipv4Addr::LOCALHOST.into(), CLIENTS[0]).await, 200, "{what}");
        let let_in = expected.iter().filter(|status| **status == 200).count();
        app.reaches("inbound_http_authz_deny_total{", (4 - let_in) as f64).await;
        app.reaches("inbound_http_authz_allow_total{", (let_in + 1) as f64).await;
        let by = format!("authz_group=\"\",authz_kind=\"default\",authz_name=\"{}\"", default.as_str());
        assert_eq!(app.metric_has(&by), let_in > 0, "{what}");
        assert!(app.metric_has(&format!("srv_kind=\"default\",srv_name=\"{}\"", default.as_str())), "{what}");
    };
    futures_util::stream::iter(rows).for_each_concurrent(4, each).await;
    assert_eq!(control.open(Service::Inbound), 0, "nothing was answered");
}

/// Nobody is let in by the server of a port of gRPC, strangers by the route of one of its services, and a member by that of another.
#[tokio::test]
async fn a_service_of_grpc_is_open_to_whom_its_route_lets_in() {
    let mesh = Mesh::start().await;
    let (ip, origin) = (elsewhere(), naming("app").await);
    let route = |name: &str, called: &str, authentication: Option<Authentication>| {
        let authorizations =
            authentication.map(|who| authorization(&format!("{name}-ones"), vec![network((ip, WIDE), &[])], who));
        let does = InboundRule { authorizations: authorizations.into_iter().collect() };
        let matches = vec![GrpcMatch { service: called.to_owned(), ..GrpcMatch::default() }];
        GrpcRoute { meta: service("ns", name, 0), hosts: vec![], rules: vec![Rule { matches, filters: vec![], does }] }
    };
    let routes = vec![
        route("open", "a.Open", Some(Authentication::Unauthenticated)),
        route("members", "a.Members", Some(proving(&[identity("web")], &[]))),
        route("closed", "a.Closed", None),
    ];
    let protocol = ServerProtocol::Grpc { routes };
    in_force(&mesh, origin.addr(), "rpcs", ServerPolicy { protocol, ..inbound(DefaultPolicy::Deny) }).await;
    let before = origin.seen().requests.len();
    let mut served = 0;
    for (proof, answers) in [
        (
            "nothing",
            [("/a.Open/C", None), ("/a.Members/C", Some("7")), ("/a.Closed/C", Some("7")), ("/a.No/C", Some("5"))],
        ),
        ("web", [("/a.Open/C", None), ("/a.Members/C", None), ("/a.Closed/C", Some("7")), ("/a.No/C", Some("5"))]),
        (
            "peer",
            [("/a.Open/C", None), ("/a.Members/C", Some("7")), ("/a.Closed/C", Some("7")), ("/a.No/C", Some("5"))],
        ),
    ] {
        // A call that is refused leaves the connection to the others.
        let mut client = client(&mesh.control, &mesh.app, origin.addr(), ip, proof).await;
        for (path, refused) in answers {
            let call = http::Request::post(format!("http://app.ns{path}")).header("content-type", "application/grpc");
            let answer = soon(client.call(call.body(http2::full("x")).unwrap())).await.unwrap();
            assert_eq!(answer.head.status, 200, "{proof}: {path}");
            let header = |name: &str| answer.head.headers.get(name).map(|value| value.to_str().unwrap());
            assert_eq!(header("grpc-status"), refused, "{proof}: {path}");
            assert_eq!(&answer.body[..], if refused.is_none() { &b"app"[..] } else { b"" }, "{proof}: {path}");
            let told = refused.filter(|_| proof != "nothing").map(|code| match code {
                "7" => "unauthorized request on route [UNAUTHORIZED]",
                _ => "no route found for request [ROUTE_NOT_FOUND]",
            });
            assert_eq!(header("grpc-message"), told, "{proof}: {path}");
            served += usize::from(refused.is_none());
        }
    }
    assert_eq!(origin.seen().requests.len() - before, served, "who is refused reaches nobody");
    let counted = |family: &str, labels: &str| {
        let text = mesh.app.metrics();
        let of = text.lines().filter(|l| l.starts_with(family) && l.contains("\"rpcs\"") && l.contains(labels));
        of.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>()
    };
    let route = |name: &str| format!("route_group=\"core\",route_kind=\"Service\",route_name=\"{name}\"");
    let by =
        |name: &str| format!("{},authz_group=\"core\",authz_kind=\"Service\",authz_name=\"{name}-ones\"", route(name));
    for (family, labels, requests) in [
        ("inbound_http_authz_allow_total{", by("open"), 3.0),
        ("inbound_http_authz_allow_total{", by("members"), 1.0),
        ("inbound_http_authz_deny_total{", route("members"), 2.0),
        ("inbound_http_authz_deny_total{", route("closed"), 3.0),
        ("inbound_grpc_requests_total{", route("open"), 3.0),
        ("inbound_grpc_requests_total{", route("members"), 1.0),
    ] {
        eventually(&format!("{family}{labels}"), || counted(family, &labels) == requests).await;
    }
    mesh.app.reaches("weft_proxy_errors_total{direction=\"inbound\",code=\"UNAUTHORIZED\"}", 5.0).await;
}

/// A client whose certificate has several names is the first of them, also where another one would be let in; of a server's any
/// one may be the name that is asked for.
#[tokio::test]
async fn a_client_is_its_first_name_and_a_server_any_of_its_names() {
    let mesh = Mesh::start().await;
    let names = ["peer", "web"].map(identity);
    let issued = mesh.control.ca().issue_all(&names, Duration::from_secs(3600)).unwrap();
    let certificate = &issued.certificate;
    let intermediates: Vec<_> = certificate.intermediates.iter().map(|i| i.to_vec()).collect();
    let store =
        Store::new(mesh.control.ca().anchors_pem(), names[0].as_str().parse().unwrap(), names[0].clone()).unwrap();
    store.set_certificate(&Key::from_pkcs8(&issued.key_pkcs8).unwrap(), &certificate.leaf, &intermediates).unwrap();

    let origin = naming("app").await;
    for (let_in, wanted) in [("peer", 200), ("web", 403)] {
        let only = authorization(let_in, vec![network((elsewhere(), WIDE), &[])], proving(&[identity(let_in)], &[]));
        known(&mesh, origin.addr(), let_in, vec![only]).await;
        let before = origin.seen().requests.len();
        let tcp = mesh.app.connect_inbound_from(elsewhere(), origin.addr()).await.unwrap();
        let (stream, _) = soon(store.connect(tcp, &mesh.server(), false)).await.unwrap();
        let mut client = http2::Client::over(stream).await.unwrap();
        assert_eq!(soon(client.call(get())).await.unwrap().head.status, wanted, "{let_in}");
        if wanted == 200 {
            let seen = origin.seen().requests[before].headers.clone();
            let ids: Vec<_> = seen.get_all("l5d-client-id").iter().collect();
            assert_eq!(ids, [names[0].as_str()]);
        }
    }
    assert!(mesh.app.metric_has(&format!("client_id=\"{}\"", names[0])));
    assert!(!mesh.app.metric_has(&format!("client_id=\"{}\"", names[1])));

    // The same certificate as a server's.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let store = store.clone();
            // Who wants another name goes away.
            tokio::spawn(async move {
                if let Ok((stream, _)) = store.accept(tcp, Bytes::new(), false).await {
                    answers(stream).await;
                }
            });
        }
    });
    for (asked, wanted) in [("peer", 200), ("web", 200), ("app", 502)] {
        let identity = identity(asked);
        let tls = ServerTls { server_name: identity.as_str().parse().unwrap(), identity };
        let endpoint = Endpoint { tls: Some(tls), hint: ProtocolHint::H2, ..Endpoint::plain(addr) };
        let known = crate::faults::forwarded(&mesh, endpoint);
        let answer = soon(mesh.http2(&known).await.call(get())).await.unwrap();
        assert_eq!(answer.head.status, wanted, "{asked}");
    }
    mesh.web.reaches("weft_proxy_errors_total{direction=\"outbound\",code=\"IDENTITY_MISMATCH\"}", 1.0).await;
    server.abort();
}

/// Answers requests of HTTP/2 with 200 and nothing else.
async fn answers(stream: weft_transport::Stream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let _ = respond.send_response(http::Response::<()>::default(), true);
    }
}
