//! Changes under load that no client may notice.

use crate::{
    harness::{eventually, soon},
    mesh::{Mesh, Service, get, naming},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::task::JoinSet;
use weft_model::ProtocolHint;
use weft_testkit::{control, http2};

/// Clients that call until told to stop; every answer must be a 200.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: JoinSet<Result<(), String>>,
}

impl Load {
    async fn on(mesh: &Mesh, service: &Service) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            let mut client = mesh.http2(service).await;
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            clients.spawn(async move {
                while !stop.load(Relaxed) {
                    let answer = client.call(get()).await.map_err(|e| format!("{e:#}"))?;
                    if answer.head.status != 200 {
                        return Err(format!("{:?}", answer.head));
                    }
                    answered.fetch_add(1, Relaxed);
                }
                Ok(())
            });
        }
        Self { stop, answered, clients }
    }

    /// Waits until so many more were answered.
    async fn more(&self, n: u64) {
        let goal = self.answered.load(Relaxed) + n;
        eventually("the load goes on", || self.answered.load(Relaxed) >= goal).await;
    }

    async fn stop(self) {
        self.stop.store(true, Relaxed);
        let results = soon(self.clients.join_all()).await;
        assert_eq!(results, vec![Ok(()); 4]);
    }
}

fn served(origin: &http2::Origin) -> usize {
    origin.seen().requests.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_come_and_go() {
    let mesh = Mesh::start().await;
    let (a, b) = (naming("a").await, naming("b").await);
    let [one, two] = [&a, &b].map(|origin| mesh.endpoint(origin.addr(), ProtocolHint::H2));
    let service = mesh.service(&[one.clone(), two.clone()]);
    mesh.control.set_endpoints(&service.target, vec![one.clone()]);
    let load = Load::on(&mesh, &service).await;
    load.more(50).await;
    let open = a.seen().connections;
    for _ in 0..5 {
        mesh.control.set_endpoints(&service.target, vec![one.clone(), two.clone()]);
        let before = served(&b);
        eventually("the new endpoint is used", || served(&b) > before).await;
        load.more(20).await;
        mesh.control.set_endpoints(&service.target, vec![one.clone()]);
        load.more(20).await;
    }
    assert_eq!(a.seen().connections, open, "the endpoint that stayed kept its connection");
    // The whole set changes at once.
    mesh.control.set_endpoints(&service.target, vec![two]);
    load.more(20).await;
    let (before, so_far) = (served(&a), served(&b));
    eventually("only the other one is used", || served(&b) > so_far + 50).await;
    assert!(served(&a) <= before + 8, "what was under way has ended");
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_plane_dies_and_comes_back() {
    let idle = [("LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT", "200ms")];
    let mesh = Mesh::with(&idle, &[]).await;
    let (a, b) = (naming("a").await, naming("b").await);
    let [one, two] = [&a, &b].map(|origin| mesh.endpoint(origin.addr(), ProtocolHint::H2));
    let service = mesh.service(&[one, two.clone()]);
    let load = Load::on(&mesh, &service).await;
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
    let so_far = served(&b);
    eventually("what changed meanwhile is in force", || served(&b) > so_far + 100).await;
    load.stop().await;
}
