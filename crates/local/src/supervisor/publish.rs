//! Ports of the host that lead to Services of the mesh.

use super::{
    carry::{IDLE, Places, carry},
    endpoints,
    hands::Node,
    store::Store,
};
use crate::{Publish, node::protocol::Net, status};
use parking_lot::Mutex;
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::net::{TcpListener, TcpStream};
use weft_cluster::{
    Key, Kind, Object,
    k8s::api::core::v1::{Service, ServicePort},
};

/// Of one port; the next one is refused.
const CONNECTIONS: usize = 1024;
const CONNECT: Duration = Duration::from_secs(5);
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// A port of the host that is open.
#[derive(Debug)]
pub(crate) struct Published {
    publish: Publish,
    listen: SocketAddr,
    store: Store,
    node: Node,
    places: Places,
    turn: AtomicUsize,
    connections: AtomicU64,
    refused: AtomicU64,
    /// When a refusal was last told.
    told: Mutex<Option<Instant>>,
}

/// Why a connection does not get in. The code is stable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("[PUBLISH_FULL] {CONNECTIONS} connections of this port are open already")]
    Full,
    #[error("[PUBLISH_NO_POD] the Service has no pod that is ready, or no such port")]
    NoPod,
    #[error("[PUBLISH_CONNECT] the pod cannot be connected: {0}")]
    Connect(String),
}

impl Published {
    pub(crate) fn new(publish: Publish, listen: SocketAddr, store: Store, node: Node) -> Self {
        Self {
            publish,
            listen,
            store,
            node,
            places: Places::new(CONNECTIONS),
            turn: AtomicUsize::new(0),
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            told: Mutex::default(),
        }
    }

    pub(crate) fn status(&self) -> status::Published {
        status::Published {
            listen: self.listen,
            namespace: self.publish.namespace.clone(),
            service: self.publish.service.clone(),
            port: self.publish.port,
            connections: self.connections.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            problem: self.problem().map(str::to_owned),
        }
    }

    /// Why nobody can get in, whatever runs.
    fn problem(&self) -> Option<&'static str> {
        let objects = self.store.objects();
        match service(&self.publish, &objects) {
            None => Some("no such Service"),
            Some(service) if port(&self.publish, service).is_none() => Some("the Service has no such port"),
            Some(_) => None,
        }
    }

    /// The next pod in turn.
    fn pick(&self) -> Option<SocketAddr> {
        let targets = targets(&self.publish, &self.store.objects());
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        targets.get(turn.checked_rem(targets.len()).unwrap_or_default()).copied()
    }

    async fn lead(&self, outside: TcpStream) -> io::Result<()> {
        let Some(_place) = self.places.take() else { return self.refuse(&outside, &Refusal::Full) };
        let Some(to) = self.pick() else { return self.refuse(&outside, &Refusal::NoPod) };
        match self.node.dial(Net::Bridge, to, CONNECT).await {
            Ok(inside) => {
                self.connections.fetch_add(1, Ordering::Relaxed);
                carry(outside, inside, IDLE).await.map(drop)
            }
            Err(error) => self.refuse(&outside, &Refusal::Connect(error.to_string())),
        }
    }

    /// Counted each time, told now and then.
    fn refuse(&self, outside: &TcpStream, refusal: &Refusal) -> io::Result<()> {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let again = {
            let mut told = self.told.lock();
            let again = told.is_none_or(|last| last.elapsed() >= TELL_AGAIN);
            if again {
                *told = Some(Instant::now());
            }
            again
        };
        if again {
            let Publish { namespace, service, .. } = &self.publish;
            tracing::warn!(port = %self.listen, service = %format!("{namespace}/{service}"), "connection refused: {refusal}");
        }
        outside.set_zero_linger()
    }
}

/// Serves a published port until dropped.
pub(crate) async fn serve(published: Arc<Published>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let published = published.clone();
                tokio::spawn(async move {
                    if let Err(error) = published.lead(stream).await {
                        tracing::debug!(port = %published.listen, %error, "a published connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a published connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn service<'a>(publish: &Publish, objects: &'a [Object]) -> Option<&'a Service> {
    let key = Key::new(Kind::Service, &publish.namespace, &publish.service);
    objects.iter().find_map(|o| match o {
        Object::Service(service) if o.key() == key => Some(&**service),
        _ => None,
    })
}

fn port<'a>(publish: &Publish, service: &'a Service) -> Option<&'a ServicePort> {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    ports.into_iter().find(|p| u16::try_from(p.port) == Ok(publish.port))
}

fn targets(publish: &Publish, objects: &[Object]) -> Vec<SocketAddr> {
    let Some(service) = service(publish, objects) else { return vec![] };
    let port = port(publish, service);
    let all = port.map(|port| endpoints::targets(service, port, objects)).unwrap_or_default();
    all.into_iter().filter(|to| endpoints::has_family(service, to.is_ipv6())).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::carry::tests::{pair, rest},
        *,
    };

    #[tokio::test]
    async fn a_service_that_is_not_there_is_named() {
        let (node, _other_end) = Node::unanswered().unwrap();
        let store = Store::new();
        let publish: Publish = "0:shop/web:80".parse().unwrap();
        let published = Published::new(publish, "127.0.0.1:1".parse().unwrap(), store.clone(), node);
        let problem = || published.status().problem;
        assert_eq!(problem().as_deref(), Some("no such Service"));
        let apply = |port: u16| {
            let text = format!(
                "{{apiVersion: v1, kind: Service, metadata: {{name: web, namespace: shop}}, spec: {{selector: {{a: b}}, ports: [{{port: {port}}}]}}}}"
            );
            let loaded = weft_cluster::manifest::load_text(std::path::Path::new("m.yaml"), &text);
            store.apply(loaded.objects.into_iter().next().unwrap().object);
        };
        apply(81);
        assert_eq!(problem().as_deref(), Some("the Service has no such port"));
        apply(80);
        assert_eq!(problem(), None);
    }

    #[tokio::test]
    async fn who_cannot_get_in_is_refused_and_counted() {
        let publish: Publish = "0:shop/web:80".parse().unwrap();
        let (node, _other_end) = Node::unanswered().unwrap();
        let mut published = Published::new(publish, "127.0.0.1:1".parse().unwrap(), Store::new(), node);
        let (mut first, outside) = pair().await;
        published.lead(outside).await.unwrap();
        assert_eq!(rest(&mut first).await, Err(io::ErrorKind::ConnectionReset));
        published.places = Places::new(1);
        let place = published.places.take();
        let (mut second, outside) = pair().await;
        published.lead(outside).await.unwrap();
        assert_eq!(rest(&mut second).await, Err(io::ErrorKind::ConnectionReset));
        drop(place);
        assert!(published.places.take().is_some());
        assert_eq!((published.status().connections, published.status().refused), (0, 2));
        assert!(Refusal::Full.to_string().starts_with("[PUBLISH_FULL] 1024"));
    }
}
