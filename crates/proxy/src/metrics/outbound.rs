//! The families that only the outbound direction has (data plane 6.4, 6.5), and the series of each that its stages hold.

use super::{
    balancer,
    detect::{DetectFamilies, Detected},
    labels, mirror, route,
    tcp::Transfer,
};
use weft_model::Meta;
use weft_telemetry::{Counter, CounterFamily, Labels, Registry, Shard};

pub(crate) struct Families {
    http_route: route::Families,
    grpc_route: route::Families,
    http_balancer: balancer::Families,
    tcp_balancer: balancer::Families,
    tls_balancer: balancer::Families,
    detect: DetectFamilies,
    protocols: CounterFamily,
    transfer: CounterFamily,
    mirrors: mirror::Families,
}

impl Families {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            http_route: route::Families::new(registry, route::Kind::Http),
            grpc_route: route::Families::new(registry, route::Kind::Grpc),
            http_balancer: balancer::Families::new(registry, balancer::Kind::Http),
            tcp_balancer: balancer::Families::new(registry, balancer::Kind::Tcp),
            tls_balancer: balancer::Families::new(registry, balancer::Kind::Tls),
            detect: DetectFamilies::new(registry),
            mirrors: mirror::Families::new(registry),
            protocols: registry
                .counter("outbound_tcp_protocol_connections_total", "Connections by what their policy says they speak"),
            transfer: registry
                .counter("outbound_tcp_transfer_cost_bytes_total", "Bytes exchanged with endpoints, by their zone"),
        }
    }

    pub(crate) fn route(&self, kind: route::Kind) -> &route::Families {
        match kind {
            route::Kind::Http => &self.http_route,
            route::Kind::Grpc => &self.grpc_route,
        }
    }

    pub(crate) fn balancer(&self, kind: balancer::Kind) -> &balancer::Families {
        match kind {
            balancer::Kind::Http => &self.http_balancer,
            balancer::Kind::Tcp => &self.tcp_balancer,
            balancer::Kind::Tls => &self.tls_balancer,
        }
    }

    /// Copies that go to a mirror.
    pub(crate) fn mirror(&self, shard: Shard, labels: &Labels) -> mirror::Series {
        self.mirrors.series(shard, labels)
    }

    pub(crate) fn detected(&self, shard: Shard, parent: &Meta) -> Detected {
        self.detect.series(shard, labels::parent(parent))
    }

    pub(crate) fn protocol(&self, shard: Shard, protocol: &str, parent: &Meta) -> Counter {
        self.protocols.with(shard, &Labels::new().with("protocol", protocol).join(&labels::parent(parent)))
    }

    /// Bytes to and from endpoints of a zone, by what discovery says of it.
    pub(crate) fn transfer(&self, shard: Shard, zone_locality: Option<&str>) -> Transfer {
        let locality = zone_locality.filter(|zone| matches!(*zone, "local" | "remote")).unwrap_or("unknown");
        let op = |op: &str| self.transfer.with(shard, &Labels::new().with("op", op).with("zone_locality", locality));
        Transfer { sent: op("Send"), received: op("Recv") }
    }
}
