//! A control plane that a test scripts: it answers what it was told to and records who asked what.
//!
//! ```text
//! test ── set_* ──► World ──► one stream per call ──► proxy
//!      ◄── calls ── World ◄── records ──
//! ```
//! It serves plaintext on loopback, which proxies take as "no TLS to the control plane". It has a thread of its own, so that it can be
//! killed with every connection and started again on its port.

mod services;
mod world;

use crate::ca::Ca;
use anyhow::{Context, Result};
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Mutex,
    thread,
    time::Duration,
};
use tokio::sync::{oneshot, watch};
use tonic::{Code, Status, service::Routes, transport::server::TcpIncoming};
use weft_model::{ClientPolicy, Endpoint, Profile, ServerPolicy};
use weft_wire::{destination, extension, identity, inbound, outbound, trust, work};

pub use outbound::Target;
use world::World;
pub use world::{Call, Service};

/// The fake. Dropping it ends it.
pub struct FakeControl {
    addr: SocketAddr,
    ca: Ca,
    world: watch::Sender<World>,
    server: Mutex<Option<Server>>,
}

/// The thread that serves; dropping it closes every connection.
struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Streams of one connection, as many as Linkerd's proxy lets through that stands before its control plane.
const STREAMS: u32 = 200;
/// How long [`FakeControl::called`] waits.
const PATIENCE: Duration = Duration::from_secs(60);

impl FakeControl {
    /// Starts serving on a free port of 127.0.0.1, with a certificate authority of its own.
    pub fn start() -> Result<Self> {
        Self::with_ca(Ca::new()?)
    }

    pub fn with_ca(ca: Ca) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let (world, _) = watch::channel(World::new(ca.clone()));
        let server = Mutex::new(Some(serve(listener, &world)?));
        Ok(Self { addr, ca, world, server })
    }

    /// Where all services are.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// What is behind `name:port`; streams get the steps from what they were told before. Without it the target does not exist.
    pub fn set_endpoints(&self, target: &str, endpoints: Vec<Endpoint>) {
        let set = endpoints.into_iter().map(|endpoint| (endpoint.addr, endpoint)).collect();
        self.world.send_modify(|world| drop(world.endpoints.insert(target.to_owned(), set)));
    }

    pub fn remove_endpoints(&self, target: &str) {
        self.world.send_modify(|world| drop(world.endpoints.remove(target)));
    }

    /// The profile of `ip:port` or `name:port`; without it GetProfile is NOT_FOUND.
    pub fn set_profile(&self, target: impl ToString, profile: Profile) {
        self.world.send_modify(|world| drop(world.profiles.insert(target.to_string(), profile)));
    }

    /// The policy of traffic to `addr`; without it Watch is NOT_FOUND.
    pub fn set_outbound(&self, addr: SocketAddr, policy: ClientPolicy) {
        self.set_outbound_target(Target::Addr(addr), policy);
    }

    pub fn set_outbound_target(&self, target: Target, policy: ClientPolicy) {
        self.world.send_modify(|world| drop(world.outbound.insert(target, policy)));
    }

    /// Open watches of it end with NOT_FOUND.
    pub fn remove_outbound(&self, addr: SocketAddr) {
        self.world.send_modify(|world| drop(world.outbound.remove(&Target::Addr(addr))));
    }

    /// The policy of `port` on every workload; without it WatchPort is NOT_FOUND.
    pub fn set_inbound(&self, port: u16, policy: ServerPolicy) {
        self.world.send_modify(|world| drop(world.inbound.insert(port, policy)));
    }

    /// The trust anchors that watches get; `None` makes the service UNIMPLEMENTED, as a control plane of Linkerd's is.
    pub fn set_anchors(&self, pem: Option<&str>) {
        self.world.send_modify(|world| world.anchors = pem.map(str::to_owned));
    }

    /// Whether it tells what Linkerd's policies have no words for; without it the service is UNIMPLEMENTED, as a control plane of
    /// Linkerd's is.
    pub fn set_extends(&self, extends: bool) {
        self.world.send_modify(|world| world.extends = extends);
    }

    /// Whether the work of every pod is done; `None` makes the service UNIMPLEMENTED, as a control plane of Linkerd's is.
    pub fn set_done(&self, done: Option<bool>) {
        self.world.send_modify(|world| world.done = done);
    }

    /// Whose certificates later calls get; [`FakeControl::ca`] stays the first one.
    pub fn sign_with(&self, ca: &Ca) {
        self.world.send_modify(|world| world.ca = ca.clone());
    }

    /// How long the certificates of later calls are valid.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.world.send_modify(|world| world.lifetime = lifetime);
    }

    /// Certify refuses every other token; by default any will do.
    pub fn expect_token(&self, token: &[u8]) {
        self.world.send_modify(|world| world.token = Some(token.to_vec()));
    }

    /// The next call of `service` fails; repeated, the next ones do.
    pub fn fail_next(&self, service: Service, code: Code) {
        self.world.send_modify(|world| world.failures.entry(service).or_default().push_back(code));
    }

    /// Calls of `service` are not answered until `stalled` is false again.
    pub fn stall(&self, service: Service, stalled: bool) {
        self.world.send_modify(|world| {
            if stalled {
                world.stalled.insert(service)
            } else {
                world.stalled.remove(&service)
            };
        });
    }

    /// Ends every open stream of `service` with an error.
    pub fn break_streams(&self, service: Service, code: Code) {
        self.world.send_modify(|world| {
            let breaks = world.breaks.entry(service).or_insert((0, code));
            *breaks = (breaks.0 + 1, code);
        });
    }

    /// Closes the port and every connection, as a process that dies does.
    pub fn kill(&self) {
        drop(self.lock().take());
    }

    /// Serves on the same port again; what was set is still set.
    pub fn restart(&self) -> Result<()> {
        let mut server = self.lock();
        drop(server.take());
        let listener = TcpListener::bind(self.addr).context("binding the old port")?;
        *server = Some(serve(listener, &self.world)?);
        Ok(())
    }

    /// Every call so far, also failed ones, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.world.borrow().calls.clone()
    }

    /// Streams of `service` that are open now.
    pub fn open(&self, service: Service) -> usize {
        self.world.borrow().open.get(&service).copied().unwrap_or(0)
    }

    /// Waits until a call that is `wanted` was made.
    pub async fn called(&self, wanted: impl FnMut(&Call) -> bool + Clone) -> Result<Call> {
        let mut world = self.world.subscribe();
        let made = |world: &World| world.calls.iter().any(wanted.clone());
        let waiting = world.wait_for(made);
        let seen = tokio::time::timeout(PATIENCE, waiting).await.context("nobody made the call")??;
        seen.calls.iter().find(|call| wanted.clone()(call)).cloned().context("the call was recorded")
    }

    /// Waits until as many streams of `service` are open.
    pub async fn opened(&self, service: Service, streams: usize) -> Result<()> {
        let mut world = self.world.subscribe();
        let waiting = world.wait_for(|world| world.open.get(&service).copied().unwrap_or(0) == streams);
        tokio::time::timeout(PATIENCE, waiting).await.context("the number of streams is another")??;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn serve(listener: TcpListener, world: &watch::Sender<World>) -> Result<Server> {
    listener.set_nonblocking(true)?;
    let services = services::Services { world: world.clone() };
    let routes = Routes::new(destination::server(services.clone()))
        .add_service(inbound::server(services.clone()))
        .add_service(outbound::server(services.clone()))
        .add_service(identity::server(services.clone()))
        .add_service(extension::server(services.clone()))
        .add_service(trust::server(services.clone()))
        .add_service(work::server(services));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel();
    let thread = thread::Builder::new().name("fake-control".to_owned()).spawn(move || {
        runtime.block_on(async {
            let serving = async {
                let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?).with_nodelay(Some(true));
                let mut server = tonic::transport::Server::builder().max_concurrent_streams(STREAMS);
                server.add_routes(routes).serve_with_incoming(incoming).await?;
                anyhow::Ok(())
            };
            tokio::select! {
                _ = serving => {}
                _ = stopped => {}
            }
        });
        // The runtime goes with the thread, and with it every connection.
    })?;
    Ok(Server { stop: Some(stop), thread: Some(thread) })
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the fake has been printed.
            let _ = thread.join();
        }
    }
}

/// The status of a call that fails because it was told to.
fn told(code: Code) -> Status {
    Status::new(code, "the test wants it so")
}
