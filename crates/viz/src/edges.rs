//! Who talks to whom, how well, and whether encrypted: from what the clients' proxies count.

use crate::window::{Series, Window};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Traffic from one workload to another within the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// Bare workload names.
    pub from: String,
    pub from_namespace: String,
    pub to: String,
    pub to_namespace: String,
    /// `http`, `grpc` or `tcp`.
    pub protocol: String,
    /// 0 to 1; `None` without a response in the window, and for TCP.
    pub success_rate: Option<f64>,
    /// Requests per second; for TCP, connections.
    pub rps: f64,
    /// Milliseconds until the first byte of the response; `None` without one in the window.
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// Every connection of this edge was mTLS.
    pub mtls: bool,
    pub client_id: String,
    pub server_id: String,
}

/// All edges, and how much of the traffic between workloads is mTLS.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edges {
    pub edges: Vec<Edge>,
    /// 0 to 1, of connections between workloads; `None` until there has been one: it is not known yet.
    pub mtls_share: Option<f64>,
}

/// The series that tell about edges.
const NAMES: [&str; 3] = ["response_total", "response_latency_ms_bucket", "tcp_open_total"];

#[derive(Default)]
struct Tally {
    responses: f64,
    failures: f64,
    seconds: f64,
    grpc: bool,
    http: bool,
    /// Cumulative counts by upper bound in milliseconds.
    latency: BTreeMap<Bound, f64>,
    connections: f64,
    mtls: f64,
    opened: f64,
    client_id: String,
    server_ids: BTreeSet<String>,
}

/// An upper bound of a histogram, ordered.
#[derive(Clone, Copy, PartialEq)]
struct Bound(f64);

impl Eq for Bound {}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Namespace and workload of the client, then of the server.
type Key = (String, String, String, String);

impl Edges {
    /// What the proxies of clients say of the window.
    pub fn of(window: &Window) -> Self {
        let mut tallies: BTreeMap<Key, Tally> = BTreeMap::new();
        for series in window.series(|name| NAMES.contains(&name)) {
            if let Some(key) = key(&series) {
                tallies.entry(key).or_default().add(&series);
            }
        }
        let total: f64 = tallies.values().map(|t| t.connections).sum();
        let mtls: f64 = tallies.values().map(|t| t.mtls).sum();
        let edges = tallies.into_iter().map(|(key, tally)| tally.edge(key)).collect();
        Self { edges, mtls_share: (total > 0.0).then(|| mtls / total) }
    }
}

/// Below this success rate an edge counts as failing.
pub const HEALTHY: f64 = 0.995;

impl Edge {
    pub fn fails(&self) -> bool {
        self.success_rate.is_some_and(|rate| rate < HEALTHY)
    }
}

impl Edges {
    /// The failing edges to a workload that is not failed by another itself: there the failures begin, others pass them on.
    pub fn origins(&self) -> Vec<&Edge> {
        let failed_by_others = |edge: &Edge| {
            self.edges
                .iter()
                .any(|next| next.fails() && next.from == edge.to && next.from_namespace == edge.to_namespace)
        };
        self.edges.iter().filter(|edge| edge.fails() && !failed_by_others(edge)).collect()
    }
}

/// The edge of a series: only what a client's proxy counted of a known workload.
fn key(series: &Series<'_>) -> Option<Key> {
    let label = |name: &str| series.sample.labels.get(name).map(String::as_str);
    if label("direction") != Some("outbound") || label("peer").is_some_and(|p| p != "dst") {
        return None;
    }
    const OWNERS: [&str; 6] =
        ["dst_deployment", "dst_statefulset", "dst_daemonset", "dst_replicaset", "dst_k8s_job", "dst_pod"];
    let to = OWNERS.into_iter().find_map(label)?.to_owned();
    let to_namespace = label("dst_namespace")?.to_owned();
    Some((series.proxy.namespace.clone(), series.proxy.workload.clone(), to_namespace, to))
}

impl Tally {
    fn add(&mut self, series: &Series<'_>) {
        let label = |name: &str| series.sample.labels.get(name).map_or("", String::as_str);
        self.client_id.clone_from(&series.proxy.identity);
        self.seconds = self.seconds.max(series.seconds);
        match series.sample.name.as_str() {
            "response_total" => {
                self.http = true;
                self.grpc |= !label("grpc_status").is_empty();
                self.responses += series.increase;
                if label("classification") == "failure" {
                    self.failures += series.increase;
                }
            }
            "response_latency_ms_bucket" => {
                let bound = match label("le") {
                    "+Inf" => f64::INFINITY,
                    bound => bound.parse().unwrap_or(f64::INFINITY),
                };
                *self.latency.entry(Bound(bound)).or_default() += series.increase;
            }
            _ => {
                self.connections += series.sample.value;
                self.opened += series.increase;
                if label("tls") == "true" {
                    self.mtls += series.sample.value;
                    self.server_ids.insert(label("server_id").to_owned());
                }
            }
        }
    }

    fn edge(self, (from_namespace, from, to_namespace, to): Key) -> Edge {
        let count = if self.http { self.responses } else { self.opened };
        let protocol = match (self.http, self.grpc) {
            (true, true) => "grpc",
            (true, false) => "http",
            (false, _) => "tcp",
        };
        Edge {
            from,
            from_namespace,
            to,
            to_namespace,
            protocol: protocol.to_owned(),
            success_rate: (self.responses > 0.0).then(|| 1.0 - self.failures / self.responses),
            rps: if self.seconds > 0.0 { count / self.seconds } else { 0.0 },
            p50_ms: quantile(&self.latency, 0.5),
            p95_ms: quantile(&self.latency, 0.95),
            p99_ms: quantile(&self.latency, 0.99),
            mtls: self.connections > 0.0 && self.mtls == self.connections,
            client_id: if self.mtls > 0.0 { self.client_id } else { String::new() },
            server_id: self.server_ids.into_iter().collect::<Vec<_>>().join(","),
        }
    }
}

/// The value below which a share of the observations lies, read linearly within its bucket.
fn quantile(buckets: &BTreeMap<Bound, f64>, share: f64) -> Option<f64> {
    let total = *buckets.values().next_back()?;
    if total <= 0.0 {
        return None;
    }
    let rank = total * share;
    let (mut below, mut counted) = (0.0, 0.0);
    for (Bound(bound), count) in buckets {
        if *count >= rank {
            if bound.is_infinite() {
                return Some(below);
            }
            let inside = count - counted;
            let part = if inside > 0.0 { (rank - counted) / inside } else { 1.0 };
            return Some(below + (bound - below) * part);
        }
        (below, counted) = (*bound, *count);
    }
    Some(below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{exposition::parse, window::Proxy};
    use std::time::Duration;

    const ZERO: &str = r#"
tcp_open_total{direction="outbound",peer="dst",tls="true",server_id="voting",dst_deployment="voting",dst_namespace="e"} 0
"#;
    const LATER: &str = r#"
tcp_open_total{direction="outbound",peer="dst",tls="true",server_id="voting",dst_deployment="voting",dst_namespace="e"} 3
tcp_open_total{direction="outbound",peer="src",tls="disabled",dst_deployment="voting",dst_namespace="e"} 9
tcp_open_total{direction="outbound",peer="dst",tls="no_identity",dst_deployment="db",dst_namespace="e"} 1
response_total{direction="outbound",classification="success",grpc_status="0",dst_deployment="voting",dst_namespace="e"} 30
response_total{direction="outbound",classification="failure",grpc_status="2",dst_deployment="voting",dst_namespace="e"} 10
response_latency_ms_bucket{direction="outbound",le="1",dst_deployment="voting",dst_namespace="e"} 20
response_latency_ms_bucket{direction="outbound",le="2",dst_deployment="voting",dst_namespace="e"} 40
response_latency_ms_bucket{direction="outbound",le="+Inf",dst_deployment="voting",dst_namespace="e"} 40
response_total{direction="inbound",classification="failure"} 99
"#;

    #[test]
    fn edges_come_from_the_clients_side() {
        let proxy =
            Proxy { namespace: "e".into(), workload: "web".into(), pod: "web-1".into(), identity: "web".into() };
        let mut window = Window::new(Duration::from_secs(60));
        window.add(proxy.clone(), Duration::from_secs(0), parse(ZERO));
        window.add(proxy, Duration::from_secs(10), parse(LATER));
        let Edges { edges, mtls_share } = Edges::of(&window);
        assert_eq!(mtls_share, Some(0.75));
        let [db, voting] = edges.as_slice() else { panic!("{edges:?}") };
        assert_eq!((db.protocol.as_str(), db.mtls, db.success_rate, db.rps), ("tcp", false, None, 0.1));
        assert_eq!((voting.protocol.as_str(), voting.mtls), ("grpc", true));
        assert_eq!((voting.client_id.as_str(), voting.server_id.as_str()), ("web", "voting"));
        assert_eq!((voting.success_rate, voting.rps), (Some(0.75), 4.0));
        assert_eq!((voting.p50_ms, voting.p99_ms), (Some(1.0), Some(1.98)));
    }

    #[test]
    fn failures_have_an_origin() {
        let edge = |from: &str, to: &str, success_rate| Edge {
            from: from.into(),
            from_namespace: "e".into(),
            to: to.into(),
            to_namespace: "e".into(),
            protocol: "http".into(),
            success_rate,
            rps: 1.0,
            p50_ms: None,
            p95_ms: None,
            p99_ms: None,
            mtls: true,
            client_id: String::new(),
            server_id: String::new(),
        };
        let edges =
            vec![edge("bot", "web", Some(0.9)), edge("web", "voting", Some(0.8)), edge("web", "emoji", Some(1.0))];
        let all = Edges { edges, mtls_share: Some(1.0) };
        let origins: Vec<_> = all.origins().iter().map(|e| e.to.as_str()).collect();
        assert_eq!(origins, ["voting"]);
    }

    #[test]
    fn nothing_is_not_zero() {
        assert_eq!(quantile(&BTreeMap::new(), 0.5), None);
        assert_eq!(quantile(&BTreeMap::from([(Bound(1.0), 0.0)]), 0.5), None);
        assert_eq!(Edges::of(&Window::new(Duration::from_secs(1))).mtls_share, None);
    }
}
