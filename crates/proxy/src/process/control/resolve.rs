//! The addresses of a service of the control plane.

use crate::config::{ControlClients, HostPort};
use hickory_resolver::{
    ResolverBuilder, TokioResolver,
    config::LookupIpStrategy,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData, Record},
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use weft_telemetry::{CounterFamily, Labels, Registry, Shard};

/// Answers are kept at least this long, unless configured (data plane 5).
const MIN_TTL: Duration = Duration::from_secs(5);
/// That there is no address is believed for so long, whatever the server says: when the control plane comes, everybody waits for it.
const DENIED_TTL: Duration = Duration::from_secs(1);

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
        let resolutions = counter(registry);
        let dns = TokioResolver::builder_tokio().and_then(|builder| built(builder, config));
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

fn counter(registry: &Registry) -> CounterFamily {
    registry.counter("control_dns_resolutions_total", "Names looked up for the control plane")
}

fn built(
    mut builder: ResolverBuilder<TokioRuntimeProvider>,
    config: &ControlClients,
) -> Result<TokioResolver, NetError> {
    let options = builder.options_mut();
    let max = config.dns_max_ttl;
    // The resolver panics where the longest time is shorter than the shortest.
    let min = config.dns_min_ttl.unwrap_or(MIN_TTL).min(max.unwrap_or(Duration::MAX));
    options.positive_min_ttl = Some(min);
    options.positive_max_ttl = max;
    options.negative_max_ttl = Some(DENIED_TTL);
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = 64;
    builder.build()
}

async fn by_srv(dns: &TokioResolver, name: &str) -> Vec<SocketAddr> {
    let Ok(lookup) = dns.srv_lookup(name).await else { return vec![] };
    srv_addrs(lookup.answers())
}

/// Kubernetes names the targets of a headless Service's SRV records by the pods' addresses, dashed; others have none here.
pub(crate) fn srv_addrs(answers: &[Record]) -> Vec<SocketAddr> {
    let records = answers.iter().filter_map(|record| match &record.data {
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
    use crate::config::{Connect, SocketOptions, StreamLimits};
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };
    use tokio::net::UdpSocket;
    use weft_model::policy::outbound::Backoff;

    /// Answers each question for an address with 10.0.0.1 and this time to live, others with nothing; counts those for addresses.
    async fn server(ttl: u32) -> (SocketAddr, Arc<AtomicUsize>) {
        answering(ttl, Knows::Addresses).await
    }

    /// What a name server knows of every name.
    #[derive(Clone, Copy, PartialEq)]
    enum Knows {
        /// That there is no such name.
        Nothing,
        Addresses,
        /// Of a service, 10.1.2.3 at port 8090; and its addresses.
        Services,
    }

    async fn answering(ttl: u32, knows: Knows) -> (SocketAddr, Arc<AtomicUsize>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (addr, asked) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = asked.clone();
        tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((n, from)) = socket.recv_from(&mut question).await {
                // The name ends with an empty label; type and class follow.
                let end = 12 + question[12..n].iter().position(|b| *b == 0).unwrap() + 5;
                let address = question[end - 4..end - 2] == [0, 1];
                let service = knows == Knows::Services && question[end - 4..end - 2] == [0, 33];
                let mut answer = question[..end].to_vec();
                answer[2..4].copy_from_slice(&[0x81, 0x80]);
                answer[6..12].copy_from_slice(&[0, u8::from(address || service), 0, 0, 0, 0]);
                if address {
                    count.fetch_add(1, SeqCst);
                }
                if knows == Knows::Nothing {
                    // A start of authority, whose last number is the time.
                    answer[3] = 0x83;
                    answer[6..12].copy_from_slice(&[0, 0, 0, 1, 0, 0]);
                    answer.extend_from_slice(&[0xc0, 12, 0, 6, 0, 1]);
                    answer.extend_from_slice(&ttl.to_be_bytes());
                    answer.extend_from_slice(&[0, 22, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]);
                    answer.extend_from_slice(&ttl.to_be_bytes());
                } else if address {
                    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
                    answer.extend_from_slice(&ttl.to_be_bytes());
                    answer.extend_from_slice(&[0, 4, 10, 0, 0, 1]);
                } else if service {
                    answer.extend_from_slice(&[0xc0, 12, 0, 33, 0, 1]);
                    answer.extend_from_slice(&ttl.to_be_bytes());
                    // Priority, weight and port; then the name.
                    answer.extend_from_slice(&[0, 20, 0, 0, 0, 100]);
                    answer.extend_from_slice(&8090_u16.to_be_bytes());
                    answer.extend_from_slice(b"\x0810-1-2-3\x03dst\0");
                }
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        (addr, asked)
    }

    fn resolver(server: SocketAddr, min: Option<u64>, max: Option<u64>) -> Resolver {
        let config = ControlClients {
            connect: Connect { timeout: Duration::from_secs(1), socket: SocketOptions::default(), mark: None },
            backoff: Backoff { min: MIN_TTL, max: MIN_TTL, jitter: 0.0 },
            streams: StreamLimits::default(),
            dns_min_ttl: min.map(Duration::from_millis),
            dns_max_ttl: max.map(Duration::from_millis),
        };
        let mut connection = ConnectionConfig::udp();
        connection.port = server.port();
        let mut servers = NameServerConfig::udp(server.ip());
        servers.connections = vec![connection];
        let system = ResolverConfig::from_parts(None, vec![], vec![servers]);
        let builder = TokioResolver::builder_with_config(system, TokioRuntimeProvider::default());
        let resolutions = Registry::new(1, 10).counter("r", "r");
        Resolver { dns: Some(built(builder, &config).unwrap()), resolutions }
    }

    #[tokio::test]
    async fn answers_are_kept_as_long_as_configured() {
        // How often the server is asked by two questions half a second apart, by its time to live.
        for (ttl, min, max, asked) in [
            (3600, None, None, 1),
            (0, None, None, 1),
            (0, Some(3_600_000), None, 1),
            (3600, None, Some(100), 2),
            (3600, Some(50), Some(100), 2),
            (0, Some(100), None, 2),
        ] {
            let (addr, count) = server(ttl).await;
            let resolver = resolver(addr, min, max);
            let host = HostPort::Name("dst.test.".into(), 8086);
            for _ in 0..2 {
                let found = resolver.resolve("destination", &host).await.unwrap();
                assert_eq!(found, ["10.0.0.1:8086".parse().unwrap()]);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            assert_eq!(count.load(SeqCst), asked, "{ttl} {min:?} {max:?}");
        }
    }

    #[tokio::test]
    async fn a_name_that_was_not_there_is_asked_for_again_soon() {
        let (addr, count) = answering(3600, Knows::Nothing).await;
        let resolver = resolver(addr, None, None);
        let host = HostPort::Name("dst.test.".into(), 8086);
        let mut asked = vec![];
        for pause in [Duration::ZERO, DENIED_TTL + Duration::from_millis(200)] {
            tokio::time::sleep(pause).await;
            let denied = resolver.resolve("identity", &host).await;
            assert!(matches!(denied, Err(ResolveError::Failed { .. })), "{denied:?}");
            asked.push(count.load(SeqCst));
        }
        assert!(asked[0] > 0 && asked[1] > asked[0], "{asked:?}");
    }

    #[tokio::test]
    async fn look_ups_are_counted_by_client_record_and_result() {
        let registry = Registry::new(1, 10);
        let resolutions = counter(&registry);
        let host = HostPort::Name("dst.test.".into(), 8086);
        for (client, knows, wanted) in [
            ("policy", Knows::Addresses, Some("10.0.0.1:8086")),
            ("policy", Knows::Nothing, None),
            ("identity", Knows::Services, Some("10.1.2.3:8090")),
        ] {
            let (addr, _) = answering(3600, knows).await;
            let resolver = Resolver { resolutions: resolutions.clone(), ..resolver(addr, None, None) };
            let found = resolver.resolve(client, &host).await.ok();
            assert_eq!(found, wanted.map(|addr| vec![addr.parse().unwrap()]));
        }
        let text = registry.encode();
        let mut lines: Vec<_> =
            text.lines().filter(|line| line.starts_with("control_dns_resolutions_total{")).collect();
        lines.sort_unstable();
        let wanted = [
            r#"control_dns_resolutions_total{client="identity",record_type="SRV",result="ok"} 1"#,
            r#"control_dns_resolutions_total{client="policy",record_type="A/AAAA",result="not_found"} 1"#,
            r#"control_dns_resolutions_total{client="policy",record_type="A/AAAA",result="ok"} 1"#,
            r#"control_dns_resolutions_total{client="policy",record_type="SRV",result="not_found"} 2"#,
        ];
        assert_eq!(lines, wanted);
    }

    #[test]
    fn srv_targets_carry_the_address() {
        let ip = |name: &str| dashed_ip(&name.parse().unwrap());
        assert_eq!(ip("10-1-2-3.dst.linkerd.svc.cluster.local."), Some([10, 1, 2, 3].into()));
        assert_eq!(ip("fd00--1.dst."), Some("fd00::1".parse().unwrap()));
        assert_eq!(ip("pod-0.dst."), None);
    }
}
