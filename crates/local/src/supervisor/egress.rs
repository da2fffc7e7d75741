//! Connections that leave the mesh: accepted on the bridge, dialled from the host.
//!
//! What is the machine's own affair, its loopback and what is local to its links, is reached only as a named service of
//! the host; its other addresses are reached like anybody's.

use super::{
    carry::{End, IDLE, Places, carry},
    endpoints,
    logs::LogBook,
    plan::Plan,
    store::Store,
};
use crate::{HostService, status};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::net::{TcpListener, TcpStream};
use weft_cluster::Object;
use weft_transport::socket::original_dst;

/// Of all pods together; the next one is refused.
const CONNECTIONS: usize = 4096;
const CONNECT: Duration = Duration::from_secs(10);
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// What may leave, and what did.
#[derive(Debug)]
pub(crate) struct Egress {
    plan: Plan,
    enabled: bool,
    host_services: Vec<HostService>,
    places: Places,
    connections: AtomicU64,
    refused: AtomicU64,
    idle: AtomicU64,
    store: Store,
    logs: LogBook,
    /// When a pod was last told of a refusal: one that asks in a loop would fill its log.
    told: Mutex<HashMap<IpAddr, Instant>>,
}

/// Why a connection does not leave, or does not last. The code is stable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("[EGRESS_OFF] connections to the outside are switched off by --egress=off")]
    Off,
    #[error("[EGRESS_LOOPBACK] the host's loopback is reached only by a name given with --host-service")]
    Loopback,
    #[error(
        "[EGRESS_LINK_LOCAL] addresses of the host's own links, such as a cloud's metadata service, are reached only by a \
         name given with --host-service"
    )]
    LinkLocal,
    #[error("[EGRESS_MESH] there is no such address in the mesh")]
    Mesh,
    #[error("[EGRESS_PORT] {name} has port {port} only, the one that --host-service gives it")]
    Port { name: String, port: u16 },
    #[error("[EGRESS_FULL] {CONNECTIONS} connections to the outside are open already")]
    Full,
    #[error("[EGRESS_CONNECT] the host cannot connect: {0}")]
    Connect(io::ErrorKind),
    #[error("[EGRESS_IDLE] nothing has passed for {} minutes", IDLE.as_secs() / 60)]
    Idle,
}

impl Egress {
    pub(crate) fn new(plan: Plan, enabled: bool, host_services: Vec<HostService>, store: Store, logs: LogBook) -> Self {
        Self {
            plan,
            enabled,
            host_services,
            places: Places::new(CONNECTIONS),
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            idle: AtomicU64::new(0),
            store,
            logs,
            told: Mutex::default(),
        }
    }

    /// Refuses a connection: counts it, and leads its reset back to the program.
    fn refuse(&self, inside: &TcpStream, wanted: SocketAddr, refusal: Refusal) -> io::Result<()> {
        self.refused.fetch_add(1, Ordering::Relaxed);
        if let Ok(peer) = inside.peer_addr() {
            self.tell(peer.ip().to_canonical(), wanted, &refusal);
        }
        inside.set_zero_linger()
    }

    /// Writes a refusal into the log of whoever was refused.
    fn tell(&self, pod: IpAddr, wanted: SocketAddr, refusal: &Refusal) {
        {
            let mut told = self.told.lock();
            told.retain(|_, when| when.elapsed() < TELL_AGAIN);
            if told.len() >= CONNECTIONS || told.contains_key(&pod) {
                return;
            }
            told.insert(pod, Instant::now());
        }
        let objects = self.store.objects();
        let found = objects.iter().find_map(|o| match o {
            Object::Pod(p) if endpoints::ips(p).contains(&pod) => Some(p),
            _ => None,
        });
        let workload = found.and_then(|p| endpoints::workload(p, &objects));
        let what = if *refusal == Refusal::Idle { "ended" } else { "refused" };
        let text = format!("connection to {wanted} {what}: {refusal}");
        match (found, workload) {
            (Some(pod), Some(workload)) => self.logs.note(&workload, endpoints::name(pod), text),
            _ => tracing::info!("{text}"),
        }
    }

    pub(crate) fn status(&self) -> status::Egress {
        status::Egress {
            enabled: self.enabled,
            connections: self.connections.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            idle: self.idle.load(Ordering::Relaxed),
        }
    }

    /// Where a connection to `wanted` is to go.
    fn decide(&self, wanted: SocketAddr) -> Result<SocketAddr, Refusal> {
        let ip = wanted.ip().to_canonical();
        if let Some(index) = self.plan.host_service_index(ip) {
            let service = self.host_services.get(index).ok_or(Refusal::Mesh)?;
            let port = service.addr.port();
            if port == wanted.port() {
                return Ok(service.addr);
            }
            return Err(Refusal::Port { name: service.name.clone(), port });
        }
        if self.plan.contains(ip) {
            return Err(Refusal::Mesh);
        }
        let compatible = match ip {
            // `::7f00:1` and the like mean v4 addresses to some.
            IpAddr::V6(v6) => v6.to_ipv4(),
            IpAddr::V4(v4) => Some(v4),
        };
        let unspecified = ip.is_unspecified() || compatible.is_some_and(|v4| v4.octets()[0] == 0);
        if ip.is_loopback() || unspecified || compatible.is_some_and(|v4| v4.is_loopback()) {
            return Err(Refusal::Loopback);
        }
        if is_link_local(ip) || compatible.is_some_and(|v4| v4.is_link_local()) {
            return Err(Refusal::LinkLocal);
        }
        if self.enabled { Ok(SocketAddr::new(ip, wanted.port())) } else { Err(Refusal::Off) }
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Serves a listener of the bridge until dropped.
pub(crate) async fn serve(egress: Arc<Egress>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let egress = egress.clone();
                tokio::spawn(async move {
                    if let Err(error) = lead(&egress, stream).await {
                        tracing::debug!(%error, "a connection to the outside ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the outside was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn lead(egress: &Egress, inside: TcpStream) -> io::Result<()> {
    let wanted = original_dst(&inside)?;
    let to = match egress.decide(wanted) {
        Ok(to) => to,
        Err(refusal) => return egress.refuse(&inside, wanted, refusal),
    };
    outward(egress, inside, wanted, to).await
}

/// Leads a connection for `wanted` to `to`.
async fn outward(egress: &Egress, inside: TcpStream, wanted: SocketAddr, to: SocketAddr) -> io::Result<()> {
    let Some(_place) = egress.places.take() else { return egress.refuse(&inside, wanted, Refusal::Full) };
    let outside = match tokio::time::timeout(CONNECT, TcpStream::connect(to)).await {
        Ok(Ok(outside)) => outside,
        Ok(Err(error)) => return egress.refuse(&inside, wanted, Refusal::Connect(error.kind())),
        Err(_) => return egress.refuse(&inside, wanted, Refusal::Connect(io::ErrorKind::TimedOut)),
    };
    egress.connections.fetch_add(1, Ordering::Relaxed);
    let pod = inside.peer_addr()?.ip().to_canonical();
    if carry(inside, outside, IDLE).await? == End::Idle {
        egress.idle.fetch_add(1, Ordering::Relaxed);
        egress.tell(pod, wanted, &Refusal::Idle);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::carry::tests::{pair, rest},
        *,
    };

    #[test]
    fn loopback_is_reached_by_name_only() {
        let plan = Plan::pick("", true);
        let host = HostService { name: "db".into(), addr: "127.0.0.1:5432".parse().unwrap() };
        let logs = LogBook::new(std::env::temp_dir());
        let egress = |enabled| Egress::new(plan, enabled, vec![host.clone()], Store::new(), logs.clone());
        let decide = |enabled, to: &str| egress(enabled).decide(to.parse().unwrap());
        let addr = |text: &str| Ok(text.parse::<SocketAddr>().unwrap());
        for enabled in [true, false] {
            assert_eq!(decide(enabled, "10.99.255.0:5432"), addr("127.0.0.1:5432"));
            let other = decide(enabled, "10.99.255.0:22").unwrap_err();
            assert_eq!(other, Refusal::Port { name: "db".into(), port: 5432 });
            assert_eq!(other.to_string(), "[EGRESS_PORT] db has port 5432 only, the one that --host-service gives it");
            assert_eq!(decide(enabled, "10.99.255.1:5432"), Err(Refusal::Mesh));
            assert_eq!(decide(enabled, "10.99.128.7:80"), Err(Refusal::Mesh));
            for loopback in [
                "127.0.0.1:22",
                "127.9.9.9:22",
                "0.0.0.0:22",
                "0.0.0.1:22",
                "[::1]:22",
                "[::]:22",
                "[::ffff:127.0.0.1]:22",
                "[::7f00:1]:22",
            ] {
                assert_eq!(decide(enabled, loopback), Err(Refusal::Loopback), "{loopback}");
            }
        }
        for link_local in ["169.254.169.254:80", "[fe80::1]:80", "[::ffff:169.254.169.254]:80", "[::a9fe:a9fe]:80"] {
            assert_eq!(decide(true, link_local), Err(Refusal::LinkLocal), "{link_local}");
        }
        assert_eq!(decide(true, "169.253.0.1:80"), addr("169.253.0.1:80"));
        assert_eq!(decide(true, "192.0.2.1:443"), addr("192.0.2.1:443"));
        assert_eq!(decide(true, "[2001:db8::1]:443"), addr("[2001:db8::1]:443"));
        assert_eq!(decide(false, "192.0.2.1:443"), Err(Refusal::Off));
    }

    #[tokio::test]
    async fn a_full_house_refuses_and_counts() {
        let logs = LogBook::new(std::env::temp_dir());
        let mut egress = Egress::new(Plan::pick("", true), true, vec![], Store::new(), logs);
        egress.places = Places::new(1);
        let egress = Arc::new(egress);
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = server.local_addr().unwrap();
        let (mut first, inside) = pair().await;
        let served = egress.clone();
        let carried = tokio::spawn(async move { outward(&served, inside, to, to).await });
        let (outside, _) = server.accept().await.unwrap();
        let (mut second, inside) = pair().await;
        outward(&egress, inside, to, to).await.unwrap();
        assert_eq!(rest(&mut second).await, Err(io::ErrorKind::ConnectionReset));
        let counts = |egress: &Egress| (egress.status().connections, egress.status().refused, egress.status().idle);
        assert_eq!(counts(&egress), (1, 1, 0));

        // Its place comes back with its end.
        drop(outside);
        assert_eq!(rest(&mut first).await.unwrap(), "");
        drop(first);
        carried.await.unwrap().unwrap();
        drop(server);
        let (mut third, inside) = pair().await;
        outward(&egress, inside, to, to).await.unwrap();
        assert_eq!(rest(&mut third).await, Err(io::ErrorKind::ConnectionReset), "nobody listens");
        assert_eq!(counts(&egress), (1, 2, 0));
        assert!(Refusal::Connect(io::ErrorKind::ConnectionRefused).to_string().starts_with("[EGRESS_CONNECT]"));
        assert!(Refusal::Full.to_string().starts_with("[EGRESS_FULL] 4096"));
        assert!(Refusal::Idle.to_string().ends_with("60 minutes"));
    }
}
