//! The addresses of a service of the control plane.

use crate::config::{ControlClients, HostPort};
use hickory_resolver::{
    TokioResolver,
    config::LookupIpStrategy,
    proto::rr::{Name, RData},
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use weft_telemetry::{CounterFamily, Labels, Registry, Shard};

/// Answers are kept at least this long, unless configured (data plane 5).
const MIN_TTL: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(in crate::process) struct Resolver {
    /// `None` where the system's configuration cannot be read: then only addresses work.
    dns: Option<TokioResolver>,
    resolutions: CounterFamily,
}

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub(in crate::process) enum ResolveError {
    #[error("{name} cannot be resolved: {reason}")]
    Failed { name: String, reason: String },
    #[error("{0} cannot be resolved: the system's resolver configuration cannot be read")]
    NoResolver(String),
}

impl Resolver {
    pub(in crate::process) fn new(config: &ControlClients, registry: &Registry) -> Self {
        let resolutions = registry.counter("control_dns_resolutions_total", "Names looked up for the control plane");
        let dns = TokioResolver::builder_tokio().and_then(|mut builder| {
            let options = builder.options_mut();
            options.positive_min_ttl = Some(config.dns_min_ttl.unwrap_or(MIN_TTL));
            options.positive_max_ttl = config.dns_max_ttl;
            options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
            options.cache_size = 64;
            builder.build()
        });
        let dns = dns.inspect_err(|error| tracing::warn!(%error, "Names cannot be resolved")).ok();
        Self { dns, resolutions }
    }

    /// All addresses of `host`, by SRV records if it has any, else by A and AAAA.
    pub(in crate::process) async fn resolve(
        &self,
        client: &'static str,
        host: &HostPort,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let (name, port) = match host {
            HostPort::Addr(addr) => return Ok(vec![*addr]),
            // The system may not know the name; every system knows the address.
            HostPort::Name(_, port) if host.is_loopback() => return Ok(vec![([127, 0, 0, 1], *port).into()]),
            HostPort::Name(name, port) => (name.as_str(), *port),
        };
        let dns = self.dns.as_ref().ok_or_else(|| ResolveError::NoResolver(name.to_owned()))?;
        let count = |record, found| {
            let labels = Labels::new()
                .with("client", client)
                .with("record_type", record)
                .with("result", if found { "ok" } else { "not_found" });
            self.resolutions.pinned(Shard::ADMIN, &labels).inc();
        };
        let srv = by_srv(dns, name).await;
        count("SRV", !srv.is_empty());
        if !srv.is_empty() {
            return Ok(srv);
        }
        let addrs = dns.lookup_ip(name).await;
        count("A/AAAA", addrs.is_ok());
        match addrs {
            Ok(ips) => Ok(ips.iter().map(|ip| SocketAddr::new(ip, port)).collect()),
            Err(e) => Err(ResolveError::Failed { name: name.to_owned(), reason: e.to_string() }),
        }
    }
}

/// Kubernetes names the targets of a headless Service's SRV records by the pods' addresses, dashed.
async fn by_srv(dns: &TokioResolver, name: &str) -> Vec<SocketAddr> {
    let Ok(lookup) = dns.srv_lookup(name).await else { return vec![] };
    let records = lookup.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(srv) => Some(srv),
        _ => None,
    });
    records.filter_map(|srv| Some(SocketAddr::new(dashed_ip(&srv.target)?, srv.port))).collect()
}

/// `10-1-2-3.name.` → 10.1.2.3; `fd00--1.name.` → fd00::1.
fn dashed_ip(target: &Name) -> Option<IpAddr> {
    let label = std::str::from_utf8(target.iter().next()?).ok()?;
    label.replace('-', ".").parse().or_else(|_| label.replace('-', ":").parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn srv_targets_carry_the_address() {
        let ip = |name: &str| dashed_ip(&name.parse().unwrap());
        assert_eq!(ip("10-1-2-3.dst.linkerd.svc.cluster.local."), Some([10, 1, 2, 3].into()));
        assert_eq!(ip("fd00--1.dst."), Some("fd00::1".parse().unwrap()));
        assert_eq!(ip("pod-0.dst."), None);
    }
}
