//! Changes under load that no client may notice.

use crate::{
    harness::{Dialler, Setup, eventually, soon},
    mesh::{Mesh, Service, get, naming},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{net::TcpStream, task::JoinSet};
use weft_model::{Endpoint, ProtocolHint};
use weft_testkit::{
    control, http1, http2,
    policy::{balance, detect, service},
};
use weft_transport::drain::Drained;

/// What the clients speak, and what carries it between the proxies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// HTTP/1 on pooled connections.
    Http1,
    /// HTTP/1 carried on HTTP/2.
    Http1OnHttp2,
    Http2,
}

impl Kind {
    pub(crate) fn hint(self) -> ProtocolHint {
        match self {
            Self::Http1 => ProtocolHint::Unknown,
            Self::Http1OnHttp2 | Self::Http2 => ProtocolHint::H2,
        }
    }
}

pub(crate) enum Origin {
    Http1(http1::Origin),
    Http2(http2::Origin),
}

impl Origin {
    pub(crate) async fn start(kind: Kind) -> Self {
        match kind {
            Kind::Http1 | Kind::Http1OnHttp2 => {
                Self::Http1(http1::Origin::start(|_| http1::Reply::ok("ok")).await.unwrap())
            }
            Kind::Http2 => Self::Http2(naming("ok").await),
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        match self {
            Self::Http1(origin) => origin.addr(),
            Self::Http2(origin) => origin.addr(),
        }
    }

    fn served(&self) -> usize {
        match self {
            Self::Http1(origin) => origin.seen().requests.len(),
            Self::Http2(origin) => origin.seen().requests.len(),
        }
    }
}

/// A client on a connection that it keeps.
enum Client {
    Http1(http1::Client<TcpStream>),
    Http2(http2::Client),
}

impl Client {
    async fn connect(dialler: &Dialler, kind: Kind) -> Self {
        let tcp = dialler.connect().await;
        match kind {
            Kind::Http1 | Kind::Http1OnHttp2 => Self::Http1(http1::Client::over(tcp)),
            Kind::Http2 => Self::Http2(http2::Client::over(tcp).await.unwrap()),
        }
    }

    /// Whether the connection goes on behind the answer.
    async fn call(&mut self) -> anyhow::Result<bool> {
        let (status, head, stays) = match self {
            Self::Http1(client) => {
                let answer = client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n").await?;
                let closes = answer.header("connection").is_some_and(|value| value == "close");
                (answer.status(), answer.head_text(), !closes)
            }
            Self::Http2(client) => {
                let answer = client.call(get()).await?;
                (Some(answer.head.status.as_u16()), format!("{:?}", answer.head), !client.is_closed())
            }
        };
        anyhow::ensure!(status == Some(200), head);
        Ok(stays)
    }
}

/// Whether the connection was told to go away before the request was on it: hyper cancels it, or, where it is told between looking and
/// sending, passes on the GOAWAY without error, behind which nothing is processed (RFC 9113 6.8).
fn was_not_sent(error: &anyhow::Error) -> bool {
    let Some(error) = error.downcast_ref::<hyper::Error>() else { return false };
    let of_h2 = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    let goes_away = |e: &h2::Error| e.is_go_away() && e.is_remote() && e.reason() == Some(h2::Reason::NO_ERROR);
    error.is_canceled() || of_h2.is_some_and(goes_away)
}

/// Whose connections the clients of a load keep.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The first one, which must outlast everything.
    One,
    /// As applications do: whoever is told that a connection goes away takes another, and sends there what was not sent.
    AsTold,
}

/// Clients that call until told to stop; every answer must be a 200.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: JoinSet<Result<(), String>>,
}

impl Load {
    pub(crate) async fn on(mesh: &Mesh, service: &Service, kind: Kind) -> Self {
        Self::keeping(Keep::One, mesh.web.outbound(service.addr), kind).await
    }

    pub(crate) async fn keeping(keep: Keep, dialler: Dialler, kind: Kind) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            let mut client = Client::connect(&dialler, kind).await;
            let (dialler, stop, answered) = (dialler.clone(), Arc::clone(&stop), Arc::clone(&answered));
            clients.spawn(async move {
                while !stop.load(Relaxed) {
                    let stays = match client.call().await {
                        Ok(stays) => {
                            answered.fetch_add(1, Relaxed);
                            stays
                        }
                        Err(error) if keep == Keep::AsTold && was_not_sent(&error) => false,
                        Err(error) => return Err(format!("{error:#}")),
                    };
                    if !stays && keep == Keep::AsTold {
                        client = Client::connect(&dialler, kind).await;
                    }
                }
                Ok(())
            });
        }
        Self { stop, answered, clients }
    }

    /// Waits until so many more were answered.
    pub(crate) async fn more(&self, n: u64) {
        let goal = self.answered.load(Relaxed) + n;
        eventually("the load goes on", || self.answered.load(Relaxed) >= goal).await;
    }

    pub(crate) async fn stop(self) {
        self.stop.store(true, Relaxed);
        let results = soon(self.clients.join_all()).await;
        assert_eq!(results, vec![Ok(()); 4]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_come_and_go_under_http1() {
    endpoints_come_and_go(Kind::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_come_and_go_under_http1_on_http2() {
    endpoints_come_and_go(Kind::Http1OnHttp2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_come_and_go_under_http2() {
    endpoints_come_and_go(Kind::Http2).await;
}

async fn endpoints_come_and_go(kind: Kind) {
    let mesh = Mesh::with(&[("LINKERD2_PROXY_CORES", "2")], &[]).await;
    let (a, b) = (Origin::start(kind).await, Origin::start(kind).await);
    let [one, two] = [&a, &b].map(|origin| mesh.endpoint(origin.addr(), kind.hint()));
    let service = mesh.service(&[one.clone(), two.clone()]);
    mesh.control.set_endpoints(&service.target, vec![one.clone()]);
    let load = Load::on(&mesh, &service, kind).await;
    load.more(50).await;
    let to_one = format!(
        "tcp_open_total{{direction=\"outbound\",peer=\"dst\",authority=\"{}\",target_addr=\"{}\"",
        service.target,
        a.addr()
    );
    let open = mesh.web.metric(&to_one);
    for _ in 0..5 {
        mesh.control.set_endpoints(&service.target, vec![one.clone(), two.clone()]);
        let before = b.served();
        eventually("the new endpoint is used", || b.served() > before).await;
        load.more(20).await;
        mesh.control.set_endpoints(&service.target, vec![one.clone()]);
        load.more(20).await;
    }
    assert!(open > 0.0);
    assert!(mesh.web.metric(&to_one) <= open.max(4.0), "the endpoint that stayed kept its connections");
    // The whole set changes at once.
    mesh.control.set_endpoints(&service.target, vec![two]);
    load.more(20).await;
    let (before, so_far) = (a.served(), b.served());
    eventually("only the other one is used", || b.served() > so_far + 50).await;
    assert!(a.served() <= before + 8, "what was under way has ended");
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_changes_keeps_connections() {
    let mesh = Mesh::start().await;
    let origin = Origin::start(Kind::Http2).await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let load = Load::on(&mesh, &known, Kind::Http2).await;
    load.more(50).await;
    for n in 1..=5 {
        // Another object behind the same target: only the routes are made anew.
        let backend = balance(service("ns", "app", n), known.target.parse().unwrap());
        mesh.control.set_outbound(known.addr, detect(service("ns", "app", n), backend));
        load.more(50).await;
    }
    load.stop().await;
    mesh.web.reaches("tcp_open_total{direction=\"outbound\",peer=\"dst\"", 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_servers_proxy_drains_under_http1() {
    a_servers_proxy_drains(Kind::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_servers_proxy_drains_under_http1_on_http2() {
    a_servers_proxy_drains(Kind::Http1OnHttp2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_servers_proxy_drains_under_http2() {
    a_servers_proxy_drains(Kind::Http2).await;
}

/// One of two replicas ends in order while it is in use; the control plane notices later than the clients.
async fn a_servers_proxy_drains(kind: Kind) {
    let mesh = Mesh::start().await;
    let other = Setup::new(&mesh.control, "app").ready().await;
    let (a, b) = (Origin::start(kind).await, Origin::start(kind).await);
    let one = mesh.endpoint(a.addr(), kind.hint());
    let two = Endpoint { transport_port: Some(other.addrs().inbound.port()), ..mesh.endpoint(b.addr(), kind.hint()) };
    let service = mesh.service(&[one, two]);
    let load = Load::on(&mesh, &service, kind).await;
    load.more(100).await;
    assert!(a.served() > 0 && b.served() > 0);
    assert_eq!(other.shutdown().await, Drained::Done);
    let so_far = b.served();
    load.more(200).await;
    assert_eq!(b.served(), so_far);
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_plane_dies_and_comes_back() {
    let idle = [("LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT", "200ms")];
    let mesh = Mesh::with(&idle, &[]).await;
    let (a, b) = (Origin::start(Kind::Http2).await, Origin::start(Kind::Http2).await);
    let [one, two] = [&a, &b].map(|origin| mesh.endpoint(origin.addr(), ProtocolHint::H2));
    let service = mesh.service(&[one, two.clone()]);
    let load = Load::on(&mesh, &service, Kind::Http2).await;
    load.more(50).await;
    mesh.control.kill();
    // Caches are looked through every second: what is used stays though nobody refreshes it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    load.more(50).await;
    // New connections are served from what is known as well.
    assert_eq!(soon(mesh.http2(&service).await.call(get())).await.unwrap().head.status, 200);
    mesh.control.set_endpoints(&service.target, vec![two]);
    mesh.control.restart().unwrap();
    mesh.control.opened(control::Service::Endpoints, 1).await.unwrap();
    load.more(50).await;
    let so_far = b.served();
    eventually("what changed meanwhile is in force", || b.served() > so_far + 100).await;
    load.stop().await;
}

/// What was under way at the proxy that dies may fail; nothing after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_servers_proxy_dies() {
    for kind in [Kind::Http1, Kind::Http1OnHttp2, Kind::Http2] {
        let mesh = Mesh::start().await;
        let other = Setup::new(&mesh.control, "app").ready().await;
        let (a, b) = (Origin::start(kind).await, Origin::start(kind).await);
        let one = mesh.endpoint(a.addr(), kind.hint());
        let port = Some(other.addrs().inbound.port());
        let service = mesh.service(&[one, Endpoint { transport_port: port, ..mesh.endpoint(b.addr(), kind.hint()) }]);
        let load = Load::on(&mesh, &service, kind).await;
        eventually("both are in use", || a.served() > 10 && b.served() > 10).await;
        load.stop().await;
        drop(other);
        let load = Load::on(&mesh, &service, kind).await;
        load.more(300).await;
        load.stop().await;
    }
}
