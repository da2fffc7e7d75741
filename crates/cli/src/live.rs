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
    /// Scrapes that failed, of proxies that were ready.
    failed: u64,
}

impl Live {
    /// Rates are those of the last `length`.
    pub(crate) fn new(client: Client, length: Duration) -> Self {
        Self { client, start: Instant::now(), window: Window::new(length), failed: 0 }
    }

    /// Asks every proxy at once. One that does not answer keeps what it said before.
    pub(crate) async fn scrape(&mut self, status: &Status) {
        let mut asked = JoinSet::new();
        let mut present = BTreeSet::new();
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
                let (client, addr) = (self.client.clone(), SocketAddr::new(*ip, port::ADMIN));
                asked.spawn(async move {
                    let connection = client.dial(addr).await.ok()?;
                    Some((proxy, scrape::scrape(connection).await.ok()?))
                });
            }
        }
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Some((proxy, text))) => {
                    self.window.add(proxy, self.start.elapsed(), exposition::parse(&text));
                }
                _ => self.failed += 1,
            }
        }
        self.window.retain(|proxy| present.contains(proxy));
    }

    pub(crate) fn edges(&self) -> Edges {
        Edges::of(&self.window)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }
}

fn identity(namespace: &str, pod: &Pod) -> String {
    Identity::of_service_account(&pod.service_account, namespace, CONTROL_NAMESPACE, CLUSTER_DOMAIN)
        .map_or_else(|_| String::new(), |id| id.to_string())
}
