//! Connections that leave the mesh: accepted on the bridge, dialled from the host.
//!
//! Loopback of the host is reached only as a named service of the host.

use super::{endpoints, logs::LogBook, plan::Plan, store::Store};
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
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use weft_cluster::Object;
use weft_transport::socket::original_dst;

const CONNECTIONS: usize = 4096;
const CONNECT: Duration = Duration::from_secs(10);
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// What may leave, and what did.
#[derive(Debug)]
pub(crate) struct Egress {
    plan: Plan,
    enabled: bool,
    host_services: Vec<HostService>,
    connections: AtomicU64,
    refused: AtomicU64,
    store: Store,
    logs: LogBook,
    /// When a pod was last told of a refusal: one that asks in a loop would fill its log.
    told: Mutex<HashMap<IpAddr, Instant>>,
}

/// Why a connection does not leave. The code is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("[EGRESS_OFF] connections to the outside are switched off by --egress=off")]
    Off,
    #[error("[EGRESS_LOOPBACK] the host's loopback is reached only by a name given with --host-service")]
    Loopback,
    #[error("[EGRESS_MESH] there is no such address in the mesh")]
    Mesh,
}

impl Egress {
    pub(crate) fn new(plan: Plan, enabled: bool, host_services: Vec<HostService>, store: Store, logs: LogBook) -> Self {
        Self {
            plan,
            enabled,
            host_services,
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            store,
            logs,
            told: Mutex::default(),
        }
    }

    /// Writes a refusal into the log of whoever was refused.
    fn tell(&self, pod: IpAddr, wanted: SocketAddr, refusal: Refusal) {
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
        let text = format!("connection to {wanted} refused: {refusal}");
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
        }
    }

    /// Where a connection to `wanted` is to go.
    fn decide(&self, wanted: SocketAddr) -> Result<SocketAddr, Refusal> {
        let ip = wanted.ip().to_canonical();
        if let Some(index) = self.plan.host_service_index(ip) {
            let service = self.host_services.get(index).ok_or(Refusal::Mesh)?;
            return if service.addr.port() == wanted.port() { Ok(service.addr) } else { Err(Refusal::Mesh) };
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
        if self.enabled { Ok(SocketAddr::new(ip, wanted.port())) } else { Err(Refusal::Off) }
    }
}

/// Serves a listener of the bridge until dropped.
pub(crate) async fn serve(egress: Arc<Egress>, listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let egress = egress.clone();
                tokio::spawn(async move {
                    if let Err(error) = carry(&egress, stream).await {
                        tracing::debug!(%error, "a connection to the outside ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the outside was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn carry(egress: &Egress, mut inside: TcpStream) -> io::Result<()> {
    let wanted = original_dst(&inside)?;
    let refuse = |stream: TcpStream| {
        egress.refused.fetch_add(1, Ordering::Relaxed);
        stream.set_zero_linger()
    };
    let to = match egress.decide(wanted) {
        Ok(to) => to,
        Err(refusal) => {
            if let Ok(peer) = inside.peer_addr() {
                egress.tell(peer.ip().to_canonical(), wanted, refusal);
            }
            return refuse(inside);
        }
    };
    let mut outside = match tokio::time::timeout(CONNECT, TcpStream::connect(to)).await {
        Ok(Ok(outside)) => outside,
        Ok(Err(error)) => {
            tracing::debug!(%to, %error, "the outside refuses");
            return refuse(inside);
        }
        Err(_) => return refuse(inside),
    };
    egress.connections.fetch_add(1, Ordering::Relaxed);
    inside.set_nodelay(true)?;
    outside.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut inside, &mut outside).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(decide(enabled, "10.99.255.0:22"), Err(Refusal::Mesh));
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
        assert_eq!(decide(true, "192.0.2.1:443"), addr("192.0.2.1:443"));
        assert_eq!(decide(true, "[2001:db8::1]:443"), addr("[2001:db8::1]:443"));
        assert_eq!(decide(false, "192.0.2.1:443"), Err(Refusal::Off));
    }
}
