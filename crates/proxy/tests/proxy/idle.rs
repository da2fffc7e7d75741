//! Idle HTTP/1 connections: as many are kept as the user says, by all workers together.

use crate::{
    harness::{Dialler, Proxy, soon},
    mesh::Mesh,
};
use std::{io, net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use weft_model::Endpoint;
use weft_testkit::{http1::Client, policy};

const CLIENTS: usize = 12;
/// Not the same for both workers.
const KEPT: usize = 3;
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n";

/// An application that answers once it is let go. Ends with its owner.
struct Application {
    addr: SocketAddr,
    seen: watch::Receiver<Seen>,
    release: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    opened: usize,
    asked: usize,
    closed: usize,
}

impl Application {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let ((release, held), (count, seen)) = (watch::channel(false), watch::channel(Seen::default()));
        let count = Arc::new(count);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                count.send_modify(|seen| seen.opened += 1);
                let (held, count) = (held.clone(), Arc::clone(&count));
                connections.spawn(async move {
                    let _ = serve(tcp, held, &count).await;
                    count.send_modify(|seen| seen.closed += 1);
                });
            }
        });
        Self { addr, seen, release, task }
    }

    async fn sees(&self, wanted: impl FnMut(&Seen) -> bool) -> Seen {
        *soon(self.seen.clone().wait_for(wanted)).await.unwrap()
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut tcp: TcpStream, mut held: watch::Receiver<bool>, count: &watch::Sender<Seen>) -> io::Result<()> {
    let mut head = vec![];
    while tcp.read_buf(&mut head).await? > 0 {
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            count.send_modify(|seen| seen.asked += 1);
            let _ = held.wait_for(|free| *free).await;
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
        }
    }
    Ok(())
}

/// Many are needed at once, on both workers; of them as many stay as may, and are used again by each.
async fn keeps_as_many_as_it_may(proxy: &Proxy, dialler: Dialler, application: &Application) {
    let mut clients = vec![];
    for _ in 0..CLIENTS {
        let mut client = Client::over(dialler.connect().await);
        client.send(REQUEST).await.unwrap();
        clients.push(client);
    }
    application.sees(|seen| seen.asked == CLIENTS).await;
    for worker in 0..2 {
        proxy.at_least(&format!("weft_proxy_worker_connections{{worker=\"{worker}\"}}"), 4.0).await;
    }
    application.release.send_replace(true);
    for client in &mut clients {
        assert_eq!(client.response(false).await.unwrap().status(), Some(200));
    }
    application.sees(|seen| seen.closed >= CLIENTS - KEPT).await;
    for client in &mut clients {
        assert_eq!(client.call(REQUEST).await.unwrap().status(), Some(200));
    }
    let seen = application.sees(|seen| seen.opened - seen.closed == KEPT).await;
    // A worker that has none left would have opened one for each of its clients.
    assert!(seen.opened <= CLIENTS + 3, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_share_the_idle_connections_to_an_endpoint() {
    let kept = KEPT.to_string();
    let env = [
        ("LINKERD2_PROXY_CORES", "2"),
        ("LINKERD2_PROXY_OUTBOUND_MAX_IDLE_CONNS_PER_ENDPOINT", &*kept),
        ("LINKERD2_PROXY_OUTBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT", "600s"),
    ];
    let mesh = Mesh::with(&env, &[]).await;
    let application = Application::start().await;
    let service = mesh.service(&[Endpoint::plain(application.addr)]);
    keeps_as_many_as_it_may(&mesh.web, mesh.web.outbound(service.addr), &application).await;
}

/// A client that asks nothing more keeps the policy of its last request, and with it the connections to a fixed endpoint.
#[tokio::test]
async fn what_an_earlier_policy_has_left_idle_is_closed_in_time() {
    let mesh = Mesh::with(&[("LINKERD2_PROXY_OUTBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT", "2s")], &[]).await;
    let (before, behind) = (Application::start().await, Application::start().await);
    for application in [&before, &behind] {
        application.release.send_replace(true);
    }
    let known = mesh.service(&[]);
    let leads_to = |application: &Application| {
        let backend = policy::forward(Endpoint::plain(application.addr));
        mesh.control.set_outbound(known.addr, policy::detect(policy::service("ns", "app", 80), backend));
    };
    leads_to(&before);
    let mut quiet = Client::over(mesh.connect(&known).await);
    assert_eq!(quiet.call(REQUEST).await.unwrap().status(), Some(200));
    leads_to(&behind);
    while behind.seen.borrow().asked == 0 {
        let mut other = Client::over(mesh.connect(&known).await);
        assert_eq!(other.call(REQUEST).await.unwrap().status(), Some(200));
    }
    before.sees(|seen| seen.closed == seen.opened).await;
    assert_eq!(quiet.call(REQUEST).await.unwrap().status(), Some(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_share_the_idle_connections_to_the_application() {
    let kept = KEPT.to_string();
    let env = [
        ("LINKERD2_PROXY_CORES", "2"),
        ("LINKERD2_PROXY_MAX_IDLE_CONNS_PER_ENDPOINT", &*kept),
        ("LINKERD2_PROXY_INBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT", "600s"),
    ];
    let mesh = Mesh::with(&[], &env).await;
    let application = Application::start().await;
    mesh.service(&[Endpoint::plain(application.addr)]);
    keeps_as_many_as_it_may(&mesh.app, mesh.app.inbound(application.addr), &application).await;
}
