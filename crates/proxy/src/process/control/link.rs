//! What a client of the control plane shows of its connections, under the names of Linkerd's balancers (data plane 6.5).
//!
//! The endpoints are the addresses that the service's name has; one is ready while a connection to it stands. A request waits
//! while its channel has none. The gate is shut from an attempt to connect that failed until one succeeds: what asks meanwhile
//! fails with the next attempt. It must not decide where to connect.

use crate::metrics::balancer::{Client, Families, Series, Update};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use weft_telemetry::{Labels, Registry, Shard};
use weft_transport::stream::Meter;

/// Those of all clients: a handful, as many as services are configured.
#[derive(Clone)]
pub(in crate::process) struct Links(Arc<Known>);

struct Known {
    families: [Families; Client::ALL.len()],
    made: Mutex<Vec<(Client, String, Arc<Balancer>)>>,
    /// How long an attempt may take.
    timeout: Duration,
}

/// One service as one client sees it, over all its channels.
struct Balancer(Mutex<State>);

struct State {
    series: Series,
    addrs: BTreeSet<SocketAddr>,
    /// How many connections stand.
    open: BTreeMap<SocketAddr, usize>,
    shut: bool,
}

/// One channel of a client. Cheap to clone.
#[derive(Clone)]
pub(super) struct Link {
    balancer: Arc<Balancer>,
    /// How many connections of this channel stand.
    connected: Arc<watch::Sender<usize>>,
}

/// A connection counts while this lives.
struct Held {
    link: Link,
    addr: SocketAddr,
}

/// A request that waits for a connection.
struct Waiting {
    link: Link,
    since: Instant,
}

impl Links {
    pub(in crate::process) fn new(registry: &Registry, timeout: Duration) -> Self {
        let families = Client::ALL.map(|client| Families::of_client(registry, client));
        Self(Arc::new(Known { families, made: Mutex::default(), timeout }))
    }

    /// A new channel of `client` to `addr`.
    pub(super) fn link(&self, client: Client, addr: &str) -> Link {
        let Known { families, made, timeout } = &*self.0;
        let mut made = made.lock();
        let known = made.iter().find(|(c, a, _)| *c == client && a == addr).map(|(_, _, balancer)| balancer.clone());
        let balancer = known.unwrap_or_else(|| {
            let [identity, destination, policy, opentelemetry] = families;
            let families = match client {
                Client::Identity => identity,
                Client::Destination => destination,
                Client::Policy => policy,
                Client::Opentelemetry => opentelemetry,
            };
            let series = families.series(Shard::ADMIN, Labels::new().with("addr", addr), *timeout);
            let state = State { series, addrs: BTreeSet::new(), open: BTreeMap::new(), shut: false };
            let balancer = Arc::new(Balancer(Mutex::new(state)));
            made.push((client, addr.to_owned(), balancer.clone()));
            balancer
        });
        Link { balancer, connected: Arc::new(watch::Sender::new(0)) }
    }
}

impl State {
    fn show(&self) {
        let pending = self.addrs.iter().filter(|addr| !self.open.contains_key(addr)).count();
        self.series.endpoints(self.open.len(), pending);
    }

    fn gate(&mut self, open: bool) {
        if self.shut == open {
            self.shut = !open;
            self.series.gate(open);
        }
    }
}

impl Link {
    /// The name has these addresses now.
    pub(super) fn resolved(&self, addrs: &[SocketAddr]) {
        let mut state = self.balancer.0.lock();
        let now: BTreeSet<SocketAddr> = addrs.iter().copied().collect();
        let (added, removed) = (now.difference(&state.addrs).count(), state.addrs.difference(&now).count());
        if state.addrs.is_empty() && added > 0 {
            state.series.update(Update::Reset);
        } else {
            (0..added).for_each(|_| state.series.update(Update::Add));
            (0..removed).for_each(|_| state.series.update(Update::Remove));
        }
        state.addrs = now;
        state.show();
    }

    /// A connection stands until what this returns is dropped.
    pub(super) fn opened(&self, addr: SocketAddr) -> impl Meter + use<> {
        let mut state = self.balancer.0.lock();
        *state.open.entry(addr).or_insert(0) += 1;
        state.gate(true);
        state.show();
        drop(state);
        self.connected.send_modify(|connected| *connected += 1);
        Held { link: self.clone(), addr }
    }

    /// No address could be connected.
    pub(super) fn failed(&self) {
        self.balancer.0.lock().gate(false);
    }

    /// Counts a request that `response` answers, and how long it waits for a connection.
    pub(super) async fn request<T>(&self, response: impl Future<Output = T>) -> T {
        if *self.connected.borrow() > 0 {
            self.balancer.0.lock().series.passed();
            return response.await;
        }
        self.balancer.0.lock().series.waits();
        let waiting = Waiting { link: self.clone(), since: Instant::now() };
        let mut connected = self.connected.subscribe();
        let mut response = pin!(response);
        tokio::select! {
            biased;
            // It goes on where it was.
            response = &mut response => return response,
            _ = connected.wait_for(|connected| *connected > 0) => drop(waiting),
        }
        response.await
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.link.balancer.0.lock().series.waited(self.since.elapsed());
    }
}

impl Meter for Held {
    fn read(&self, _: usize) {}

    fn written(&self, _: usize) {}

    fn failed(&self, _: &std::io::Error) {}
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.link.balancer.0.lock();
        if let Some(open) = state.open.get_mut(&self.addr) {
            *open -= 1;
            if *open == 0 {
                state.open.remove(&self.addr);
            }
        }
        state.show();
        drop(state);
        self.link.connected.send_modify(|connected| *connected = connected.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_client_has_is_shown() {
        let registry = Registry::new(1, 1000);
        let links = Links::new(&registry, Duration::from_secs(1));
        let link = links.link(Client::Policy, "policy.linkerd:8090");
        let shown = |family: &str, labels: &str| {
            let name = format!("control_policy_balancer_{family}{{{labels}addr=\"policy.linkerd:8090\"}} ");
            let text = registry.encode();
            text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<f64>().ok())
        };
        let endpoints = |state: &str| shown("endpoints", &format!("endpoint_state=\"{state}\","));
        let (a, b) = (SocketAddr::from(([10, 0, 0, 1], 1)), SocketAddr::from(([10, 0, 0, 2], 1)));
        link.resolved(&[a, b]);
        assert_eq!((endpoints("ready"), endpoints("pending")), (Some(0.0), Some(2.0)));
        assert_eq!(shown("p2c_endpoints", ""), Some(2.0));
        link.resolved(&[b]);
        assert_eq!(shown("p2c_updates_total", "op=\"Reset\","), Some(1.0));
        assert_eq!(shown("p2c_updates_total", "op=\"Remove\","), Some(1.0));

        // A request waits for a connection; another channel's is of no use to it.
        let other = links.link(Client::Policy, "policy.linkerd:8090");
        let elsewhere = other.opened(a);
        let (answer, answered) = tokio::sync::oneshot::channel::<()>();
        let asking = tokio::spawn({
            let link = link.clone();
            async move { link.request(answered).await }
        });
        while shown("queue_length", "") != Some(1.0) {
            tokio::task::yield_now().await;
        }
        link.failed();
        assert_eq!(shown("queue_gate_shut_total", ""), Some(1.0));
        let held = link.opened(b);
        while shown("queue_length", "") != Some(0.0) {
            tokio::task::yield_now().await;
        }
        assert_eq!(shown("queue_gate_open_total", ""), Some(2.0), "to begin with, and again");
        answer.send(()).unwrap();
        asking.await.unwrap().unwrap();
        link.request(std::future::ready(())).await;
        assert_eq!(shown("queue_requests_total", ""), Some(2.0));
        assert_eq!(shown("queue_latency_seconds_count", ""), Some(2.0));
        assert_eq!((endpoints("ready"), endpoints("pending")), (Some(2.0), Some(0.0)));
        drop((held, elsewhere));
        assert_eq!((endpoints("ready"), endpoints("pending")), (Some(0.0), Some(1.0)));
    }
}
