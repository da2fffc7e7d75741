//! Ports of the host that lead to Services of the mesh.

use super::{endpoints, hands::Node, store::Store};
use crate::{Publish, node::protocol::Net};
use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use weft_cluster::{Key, Kind, Object};

const CONNECTIONS: usize = 1024;
const CONNECT: Duration = Duration::from_secs(5);

/// Serves a published port until dropped.
pub(crate) async fn serve(publish: Publish, listener: TcpListener, store: Store, node: Node) {
    let permits = std::sync::Arc::new(Semaphore::new(CONNECTIONS));
    let turn = AtomicUsize::new(0);
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let targets = targets(&publish, &store.objects());
                let turn = turn.fetch_add(1, Ordering::Relaxed);
                let to = targets.get(turn.checked_rem(targets.len()).unwrap_or_default()).copied();
                let (node, name) = (node.clone(), format!("{}/{}", publish.namespace, publish.service));
                tokio::spawn(async move {
                    if let Err(error) = carry(&node, stream, to).await {
                        tracing::debug!(service = name, %error, "a published connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a published connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn targets(publish: &Publish, objects: &[Object]) -> Vec<SocketAddr> {
    let key = Key::new(Kind::Service, &publish.namespace, &publish.service);
    let service = objects.iter().find_map(|o| match o {
        Object::Service(service) if o.key() == key => Some(service),
        _ => None,
    });
    let Some(service) = service else { return vec![] };
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let port = ports.into_iter().find(|p| u16::try_from(p.port) == Ok(publish.port));
    let all = port.map(|port| endpoints::targets(service, port, objects)).unwrap_or_default();
    all.into_iter().filter(|to| endpoints::has_family(service, to.is_ipv6())).collect()
}

async fn carry(node: &Node, mut outside: TcpStream, to: Option<SocketAddr>) -> io::Result<()> {
    let refused = |text: String| io::Error::new(io::ErrorKind::ConnectionRefused, text);
    let inside = match to {
        None => Err(refused("the Service has no pod that is ready".into())),
        Some(to) => node.dial(Net::Bridge, to, CONNECT).await.map_err(|e| refused(e.to_string())),
    };
    match inside {
        Ok(mut inside) => {
            outside.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut outside, &mut inside).await?;
            Ok(())
        }
        Err(error) => {
            outside.set_zero_linger()?;
            Err(error)
        }
    }
}
