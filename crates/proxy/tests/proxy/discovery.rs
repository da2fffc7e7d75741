//! Discovery, seen from an application: first answers, changes, a control plane that is away, one watch per target.

use crate::harness::{Proxy, Setup, eventually, soon};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};
use tonic::Code;
use weft_model::{Endpoint, Profile};
use weft_testkit::{
    control::{FakeControl, Service},
    policy,
};

pub(crate) const NAME: &str = "db.ns.svc.cluster.local:5432";
/// The address of the Service; nobody is there.
pub(crate) const SERVICE: &str = "10.1.2.3:5432";

/// Says its name to whoever connects, then echoes.
pub(crate) struct Origin {
    pub(crate) addr: SocketAddr,
    task: AbortHandle,
}

impl Origin {
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                tokio::spawn(async move {
                    tcp.write_all(name.as_bytes()).await?;
                    let (mut read, mut write) = tcp.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        Self { addr, task: task.abort_handle() }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::plain(self.addr)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes `SERVICE` an opaque Service with these endpoints.
pub(crate) fn serve(control: &FakeControl, origins: &[&Origin]) {
    let backend = policy::balance(policy::service("ns", "db", 5432), NAME.parse().unwrap());
    control.set_outbound(SERVICE.parse().unwrap(), policy::opaque(policy::service("ns", "db", 5432), backend));
    control.set_endpoints(NAME, origins.iter().map(|o| o.endpoint()).collect());
}

/// The name of the origin that answers a new connection, and the connection; `None` if it is closed.
pub(crate) async fn connect(proxy: &Proxy) -> Option<(String, TcpStream)> {
    let mut tcp = proxy.connect_outbound(SERVICE.parse().unwrap()).await;
    let mut name = [0; 1];
    match soon(tcp.read(&mut name)).await {
        Ok(1) => Some((String::from_utf8(name.to_vec()).unwrap(), tcp)),
        _ => None,
    }
}

pub(crate) async fn answers(proxy: &Proxy) -> Option<String> {
    connect(proxy).await.map(|(name, _)| name)
}

pub(crate) fn count(control: &FakeControl, service: Service) -> usize {
    control.calls().iter().filter(|call| call.service() == service).count()
}

#[tokio::test]
async fn connections_go_where_the_newest_endpoints_are() {
    let control = FakeControl::start().unwrap();
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    serve(&control, &[&a]);
    let proxy = Setup::new(&control, "client").ready().await;
    assert_eq!(answers(&proxy).await.as_deref(), Some("a"));
    let (_, _held) = connect(&proxy).await.unwrap();
    serve(&control, &[&b]);
    loop {
        if answers(&proxy).await.as_deref() == Some("b") {
            break;
        }
    }
    assert_eq!((count(&control, Service::Endpoints), count(&control, Service::Outbound)), (1, 1));
}

#[tokio::test]
async fn the_last_known_state_stays_while_the_control_plane_is_away() {
    let control = FakeControl::start().unwrap();
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    serve(&control, &[&a]);
    let proxy = Setup::new(&control, "client").ready().await;
    let (_, _held) = connect(&proxy).await.unwrap();
    control.kill();
    for _ in 0..5 {
        assert_eq!(answers(&proxy).await.as_deref(), Some("a"));
    }
    serve(&control, &[&b]);
    control.restart().unwrap();
    loop {
        if answers(&proxy).await.expect("a connection fails during the change") == "b" {
            break;
        }
    }
}

#[tokio::test]
async fn a_broken_stream_is_opened_again() {
    let control = FakeControl::start().unwrap();
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    serve(&control, &[&a]);
    let proxy = Setup::new(&control, "client").ready().await;
    let (_, _held) = connect(&proxy).await.unwrap();
    control.break_streams(Service::Endpoints, Code::Internal);
    control.break_streams(Service::Outbound, Code::Unavailable);
    // A control plane that has just been started may not know yet what an earlier one knew.
    control.fail_next(Service::Outbound, Code::NotFound);
    assert_eq!(answers(&proxy).await.as_deref(), Some("a"));
    soon(control.opened(Service::Endpoints, 1)).await.unwrap();
    serve(&control, &[&b]);
    loop {
        if answers(&proxy).await.expect("a connection fails during the change") == "b" {
            break;
        }
    }
}

/// As when its Service is deleted, and made again: meanwhile connections go where they went without it.
#[tokio::test]
async fn a_policy_that_is_taken_back_is_in_force_no_more() {
    let control = FakeControl::start().unwrap();
    let (a, itself) = (Origin::start("a").await, Origin::start("i").await);
    serve(&control, &[&a]);
    let profile = Profile { opaque: true, endpoint: Some(itself.endpoint()), ..Profile::default() };
    control.set_profile(SERVICE, profile);
    let proxy = Setup::new(&control, "client").ready().await;
    let (name, _held) = connect(&proxy).await.unwrap();
    assert_eq!(name, "a");
    control.remove_outbound(SERVICE.parse().unwrap());
    soon(async { while answers(&proxy).await.as_deref() != Some("i") {} }).await;
    serve(&control, &[&a]);
    soon(async { while answers(&proxy).await.as_deref() != Some("a") {} }).await;
}

#[tokio::test]
async fn no_answer_ends_the_connection_in_time() {
    let control = FakeControl::start().unwrap();
    let a = Origin::start("a").await;
    serve(&control, &[&a]);
    control.stall(Service::Outbound, true);
    let proxy = Setup::new(&control, "client").env("WEFT_PROXY_DISCOVERY_TIMEOUT", "200ms").ready().await;
    assert_eq!(answers(&proxy).await, None);
    let code = "weft_proxy_errors_total{direction=\"outbound\",code=\"DISCOVERY_TIMEOUT\"}";
    eventually("it is counted", || proxy.metric(code) == 1.0).await;
    control.stall(Service::Outbound, false);
    eventually("the policy is known", || control.open(Service::Outbound) == 1).await;
    assert_eq!(answers(&proxy).await.as_deref(), Some("a"));
}

#[tokio::test]
async fn a_refused_question_fails_at_once_and_is_asked_again_later() {
    let control = FakeControl::start().unwrap();
    let a = Origin::start("a").await;
    serve(&control, &[&a]);
    control.fail_next(Service::Outbound, Code::InvalidArgument);
    let proxy =
        Setup::new(&control, "client").env("LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT", "10ms").ready().await;
    assert_eq!(answers(&proxy).await, None);
    soon(async {
        while answers(&proxy).await.is_none() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    })
    .await;
    assert_eq!(count(&control, Service::Outbound), 2);
}

#[tokio::test]
async fn without_a_policy_the_profiles_endpoint_is_used() {
    let control = FakeControl::start().unwrap();
    let a = Origin::start("a").await;
    let profile = Profile { opaque: true, endpoint: Some(a.endpoint()), ..Profile::default() };
    control.set_profile(SERVICE, profile);
    let proxy = Setup::new(&control, "client").ready().await;
    assert_eq!(answers(&proxy).await.as_deref(), Some("a"));
}

#[tokio::test]
async fn all_workers_share_one_watch_and_it_ends_when_unused() {
    let control = FakeControl::start().unwrap();
    let a = Origin::start("a").await;
    serve(&control, &[&a]);
    let proxy = Setup::new(&control, "client")
        .env("LINKERD2_PROXY_CORES", 3)
        .env("LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT", "50ms")
        .ready()
        .await;
    let mut held = vec![];
    for _ in 0..6 {
        held.push(connect(&proxy).await.unwrap());
    }
    for service in [Service::Outbound, Service::Profile, Service::Endpoints] {
        assert_eq!(count(&control, service), 1, "{service:?}");
    }
    proxy.reaches("weft_discovery_watches{kind=\"outbound\"}", 1.0).await;
    drop(held);
    soon(control.opened(Service::Outbound, 0)).await.unwrap();
    soon(control.opened(Service::Endpoints, 0)).await.unwrap();
    assert_eq!(proxy.metric("weft_discovery_watches{kind=\"outbound\"}"), 0.0);
}

#[tokio::test]
async fn a_profile_that_fails_at_first_is_still_awaited() {
    let control = FakeControl::start().unwrap();
    let a = Origin::start("a").await;
    control.set_profile(SERVICE, Profile { opaque: true, endpoint: Some(a.endpoint()), ..Profile::default() });
    control.fail_next(Service::Profile, Code::Unavailable);
    let proxy = Setup::new(&control, "client").ready().await;
    assert_eq!(answers(&proxy).await.as_deref(), Some("a"));
}

#[tokio::test]
async fn a_port_may_be_opaque_before_its_policy_comes() {
    let control = FakeControl::start().unwrap();
    control.stall(Service::Inbound, true);
    let a = Origin::start("a").await;
    let proxy = Setup::new(&control, "server")
        .env("LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", a.addr.port())
        .ready()
        .await;
    let mut tcp = proxy.connect_inbound(a.addr).await;
    assert_eq!(soon(tcp.read_u8()).await.unwrap(), b'a');
}

/// What is made of a target is made once, also for connections that wait for the same answer.
#[tokio::test]
async fn connections_that_come_together_share_what_is_made_for_the_first() {
    let mesh = crate::mesh::Mesh::start().await;
    let origin = crate::mesh::naming("app").await;
    let known = mesh.service(&[]);
    let fixed = policy::forward(Endpoint::plain(origin.addr()));
    mesh.control.set_outbound(known.addr, policy::detect(policy::service("ns", "app", 80), fixed));
    mesh.control.stall(Service::Outbound, true);
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let tcp = mesh.web.connect_outbound(known.addr);
            async move {
                weft_testkit::http2::Client::over(tcp.await).await.unwrap().call(crate::mesh::get()).await.unwrap()
            }
        })
        .collect();
    let calls = futures_util::future::join_all(calls);
    let released = async {
        mesh.control.called(|call| call.service() == Service::Outbound).await.unwrap();
        // The others come meanwhile; one that is late proves less, and breaks nothing.
        tokio::time::sleep(Duration::from_millis(200)).await;
        mesh.control.stall(Service::Outbound, false);
    };
    let (answers, ()) = soon(futures_util::future::join(calls, released)).await;
    assert!(answers.iter().all(|answer| answer.head.status == 200));
    assert_eq!(origin.seen().connections, 1);
}
