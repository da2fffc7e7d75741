//! Keeps the last scrapes of every proxy of a running mesh.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};
use tokio::{task::JoinSet, time::Instant};
use weft_local::{Client, Status, status::Pod};
use weft_model::{
    Identity,
    names::{CLUSTER_DOMAIN, CONTROL_NAMESPACE, port},
};
use weft_viz::{Edges, Proxy, Window, exposition, scrape};

/// Scrapes at intervals that the caller chooses.
pub(crate) struct Live {
    client: Client,
    start: Instant,
    window: Window,
    /// Proxies that were ready and did not answer the last scrape.
    silent: usize,
}

impl Live {
    /// Rates are those of the last `length`.
    pub(crate) fn new(client: Client, length: Duration) -> Self {
        Self { client, start: Instant::now(), window: Window::new(length), silent: 0 }
    }

    /// Asks every proxy at once. One that does not answer keeps what it said before.
    pub(crate) async fn scrape(&mut self, status: &Status) {
        let mut asked = JoinSet::new();
        let mut present = BTreeSet::new();
        self.silent = 0;
        for workload in &status.workloads {
            for pod in workload.pods.iter().filter(|p| p.meshed) {
                let Some(ip) = pod.ips.first() else { continue };
                let proxy = Proxy {
                    namespace: workload.namespace.clone(),
                    workload: workload.name.clone(),
                    pod: pod.name.clone(),
                    identity: identity(&workload.namespace, pod),
                };
                present.insert(proxy.clone());
                let (client, addr, ready) = (self.client.clone(), SocketAddr::new(*ip, port::ADMIN), pod.ready);
                asked.spawn(async move {
                    let text = async { scrape::scrape(client.dial(addr).await.ok()?).await.ok() };
                    (proxy, text.await, ready)
                });
            }
        }
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok((proxy, Some(text), _)) => {
                    self.window.add(proxy, self.start.elapsed(), exposition::parse(&text));
                }
                // One that starts has nothing to say yet.
                Ok((_, None, false)) => {}
                Ok((_, None, true)) | Err(_) => self.silent += 1,
            }
        }
        self.window.retain(|proxy| present.contains(proxy));
    }

    pub(crate) fn edges(&self) -> Edges {
        Edges::of(&self.window)
    }

    pub(crate) fn silent(&self) -> usize {
        self.silent
    }
}

fn identity(namespace: &str, pod: &Pod) -> String {
    Identity::of_service_account(&pod.service_account, namespace, CONTROL_NAMESPACE, CLUSTER_DOMAIN)
        .map_or_else(|_| String::new(), |id| id.to_string())
}
