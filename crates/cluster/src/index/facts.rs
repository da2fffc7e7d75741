//! What answers need of an object, taken out once when it comes.

use super::{gateway::Gateway, work::Work};
use crate::{
    annotation::is_port_name,
    external_workload::{self, External},
    object::{self, namespace_of, probed_path, probed_port},
    policy::{
        ExternalWorkload, WorkloadKind,
        client::{self, Balancing, Terms},
    },
    workload::{Port, inherited},
};
use k8s_openapi::{
    api::{
        core::v1::{Container, Pod, PodSpec, PodStatus, Service, ServiceSpec},
        discovery::v1::{Endpoint as SliceSpec, EndpointSlice},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::Deref,
    sync::Arc,
};
use weft_model::{endpoint::ServerTls, names::port};

pub(crate) type Map = BTreeMap<String, String>;

/// The label of an EndpointSlice that names its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// The port of an ExternalWorkload where its proxy listens.
const PROXY_PORT: &str = "linkerd-proxy";
/// The label of a Node that names its zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServiceFacts {
    pub(super) cluster_ips: Vec<IpAddr>,
    /// At which nodes take it in besides.
    pub(super) external_ips: Vec<IpAddr>,
    pub(super) ports: Vec<ServicePort>,
    /// Empty selects nothing.
    pub(super) selector: Map,
    /// Those of the mesh.
    pub(super) annotations: Map,
    pub(super) publish_not_ready: bool,
    /// Empty is the main family of each pod.
    pub(super) families: Vec<Family>,
    pub(super) external_name: bool,
    /// Its name leads to the addresses of its endpoints.
    pub(super) headless: bool,
    /// Its clients are sent to their own node alone.
    pub(super) node_only: bool,
    /// What it asks of its clients.
    pub(super) terms: Terms,
    pub(super) balancing: Balancing,
    /// What says that its endpoints are in other clusters, or some of them.
    pub(super) elsewhere: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServicePort {
    pub(super) name: Option<String>,
    pub(super) port: u16,
    pub(super) target: TargetPort,
    pub(super) app_protocol: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TargetPort {
    Number(u16),
    Name(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodFacts {
    /// Its fields are this pod's as well.
    pub(super) common: Arc<Common>,
    /// The first is the main one; none if the pod shares the host's.
    pub(super) ips: Vec<IpAddr>,
    /// The host's, if the pod shares them.
    pub(super) host_ips: Vec<IpAddr>,
    /// Ports of its node that lead to ports of its own.
    pub(super) host_ports: Vec<HostPort>,
    pub(super) running: bool,
    pub(super) ready: bool,
    pub(super) terminating: bool,
    /// With the Service that it is of.
    pub(super) hostname: Option<(String, String)>,
    /// Of a pod that runs to an end.
    pub(super) work: Option<Work>,
}

/// What pods of one template have in common, held once for all of them; and all of an ExternalWorkload but its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Common {
    pub(super) labels: Map,
    /// Those of the mesh.
    pub(super) annotations: Map,
    pub(super) proves: Proves,
    pub(super) proxy: ProxyPorts,
    pub(super) ports: Vec<Port>,
    /// Ports and paths of HTTP probes.
    pub(super) probes: Vec<(u16, String)>,
    /// The metric label of its kind, and its name.
    pub(super) owner: Option<(String, String)>,
}

/// What a proxy proves, if it has one of this mesh.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Proves {
    /// A pod's: that it is of this ServiceAccount of its namespace.
    Account(String),
    /// An ExternalWorkload's, which says so itself.
    Said(ServerTls),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExternalFacts {
    /// Its fields are this workload's as well.
    pub(super) common: Common,
    pub(super) ips: Vec<IpAddr>,
}

impl Deref for ExternalFacts {
    type Target = Common;

    fn deref(&self) -> &Common {
        &self.common
    }
}

impl Deref for PodFacts {
    type Target = Common;

    fn deref(&self) -> &Common {
        &self.common
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    pub(super) at: SocketAddr,
    pub(super) port: u16,
}

/// Where a pod's proxy listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ProxyPorts {
    pub(super) inbound: u16,
    pub(super) control: u16,
    pub(super) admin: u16,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SliceFacts {
    /// The Service that it is of.
    pub(super) service: String,
    pub(super) family: Family,
    /// By the name of the Service's port, which may be empty; no number is every port.
    pub(super) ports: BTreeMap<String, Option<u16>>,
    pub(super) endpoints: Vec<SliceEndpoint>,
    /// What its endpoints without a pod are.
    pub(super) gateway: Option<Gateway>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SliceEndpoint {
    pub(super) ip: IpAddr,
    pub(super) ready: bool,
    pub(super) hostname: Option<String>,
    pub(super) node: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) for_zones: BTreeSet<String>,
    pub(super) of: Option<Behind>,
}

/// What an endpoint says that it is, by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Behind {
    Pod((String, String)),
    ExternalWorkload((String, String)),
}

impl Family {
    pub(super) fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl ServiceFacts {
    pub(super) fn selects(&self, labels: &Map) -> bool {
        !self.selector.is_empty() && self.selector.iter().all(|(k, v)| labels.get(k) == Some(v))
    }

    /// The label by which it selects a pod or not, where the values of some are not known.
    pub(super) fn hangs_on(&self, labels: &Map, unknown: &BTreeSet<String>) -> Option<&str> {
        let (open, others): (Vec<_>, Vec<_>) = self.selector.iter().partition(|(k, _)| unknown.contains(*k));
        let first = open.first().filter(|_| others.iter().all(|(k, v)| labels.get(*k) == Some(*v)));
        first.map(|(k, _)| k.as_str())
    }

    pub(super) fn port(&self, port: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|p| p.port == port)
    }
}

impl PodFacts {
    pub(super) fn has_ip(&self, ip: IpAddr) -> bool {
        self.ips.iter().chain(&self.host_ips).any(|own| own.to_canonical() == ip)
    }
}

impl Common {
    pub(super) fn kind(&self) -> WorkloadKind {
        match self.proves {
            Proves::Account(_) => WorkloadKind::Pod,
            Proves::Said(_) => WorkloadKind::ExternalWorkload,
        }
    }

    pub(super) fn port_names(&self, port: u16) -> impl Iterator<Item = &str> {
        self.ports.iter().filter(move |p| p.number == port).filter_map(|p| p.name.as_deref())
    }
}

pub(crate) fn of_mesh(meta: &ObjectMeta) -> Map {
    let annotations = meta.annotations.iter().flatten().filter(|(k, _)| inherited().any(|key| key == k.as_str()));
    annotations.map(|(k, v)| (k.clone(), v.clone())).collect()
}

pub(super) fn zone_of(node: &ObjectMeta) -> Option<String> {
    node.labels.as_ref()?.get(ZONE_LABEL).filter(|zone| !zone.is_empty()).cloned()
}

impl From<&Service> for ServiceFacts {
    fn from(service: &Service) -> Self {
        let nothing = ServiceSpec::default();
        let spec = service.spec.as_ref().unwrap_or(&nothing);
        let given = spec.cluster_ip.iter().chain(spec.cluster_ips.iter().flatten());
        let mut cluster_ips: Vec<IpAddr> = vec![];
        for ip in given.filter_map(|ip| ip.parse::<IpAddr>().ok()) {
            if !cluster_ips.contains(&ip) {
                cluster_ips.push(ip);
            }
        }
        let mut families: Vec<Family> = cluster_ips.iter().map(|ip| Family::of(*ip)).collect();
        if families.is_empty() {
            families = spec
                .ip_families
                .iter()
                .flatten()
                .filter_map(|f| match f.as_str() {
                    "IPv4" => Some(Family::V4),
                    "IPv6" => Some(Family::V6),
                    _ => None,
                })
                .collect();
        }
        let ports = spec.ports.iter().flatten().filter(|p| is_tcp(p.protocol.as_deref())).filter_map(|p| {
            let port = u16::try_from(p.port).ok()?;
            let target = match &p.target_port {
                Some(IntOrString::Int(n)) if *n != 0 => TargetPort::Number(u16::try_from(*n).ok()?),
                Some(IntOrString::String(name)) if is_port_name(name) => TargetPort::Name(name.clone()),
                Some(IntOrString::String(number)) if !number.is_empty() => TargetPort::Number(number.parse().ok()?),
                _ => TargetPort::Number(port),
            };
            let app_protocol = p.app_protocol.clone().filter(|a| !a.is_empty());
            Some(ServicePort { name: p.name.clone().filter(|n| !n.is_empty()), port, target, app_protocol })
        });
        let nothing = Map::new();
        let said = service.metadata.annotations.as_ref().unwrap_or(&nothing);
        Self {
            elsewhere: client::elsewhere(&service.metadata),
            terms: client::terms(said),
            balancing: client::balancing(said, client::On::Service),
            ports: ports.collect(),
            cluster_ips,
            external_ips: spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect(),
            families,
            selector: spec.selector.clone().unwrap_or_default(),
            annotations: of_mesh(&service.metadata),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
            external_name: spec.type_.as_deref() == Some("ExternalName"),
            headless: spec.cluster_ip.as_deref() == Some("None"),
            node_only: spec.internal_traffic_policy.as_deref() == Some("Local"),
        }
    }
}

impl From<&Pod> for PodFacts {
    fn from(pod: &Pod) -> Self {
        let work = Work::of(pod);
        let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
        let (spec, status) = (pod.spec.as_ref().unwrap_or(&no_spec), pod.status.as_ref().unwrap_or(&no_status));
        let labels: Map = pod.metadata.labels.clone().unwrap_or_default();
        let mut ips: Vec<IpAddr> = vec![];
        let given = status.pod_ip.iter().chain(status.pod_ips.iter().flatten().map(|ip| &ip.ip));
        for ip in given.filter_map(|ip| ip.parse::<IpAddr>().ok()) {
            if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
        let (ips, host_ips) = if spec.host_network.unwrap_or(false) { (vec![], ips) } else { (ips, vec![]) };
        let containers = || object::containers(spec);
        let ports: Vec<Port> = containers()
            .flat_map(|c| c.ports.iter().flatten())
            .filter(|p| is_tcp(p.protocol.as_deref()))
            .filter_map(|p| Some(Port { name: p.name.clone(), number: u16::try_from(p.container_port).ok()? }))
            .collect();
        let nodes = || {
            let given = status.host_ip.iter().chain(status.host_ips.iter().flatten().map(|ip| &ip.ip));
            given.filter_map(|ip| ip.parse::<IpAddr>().ok())
        };
        let mut host_ports: Vec<HostPort> = containers()
            .flat_map(|c| c.ports.iter().flatten())
            .filter(|p| !ips.is_empty() && is_tcp(p.protocol.as_deref()))
            .filter_map(|p| Some((p, u16::try_from(p.host_port?).ok()?, u16::try_from(p.container_port).ok()?)))
            .flat_map(|(p, at, port)| {
                let one =
                    p.host_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()).filter(|ip| !ip.is_unspecified());
                let all: Vec<IpAddr> = one.map_or_else(|| nodes().collect(), |one| vec![one]);
                all.into_iter().map(move |ip| HostPort { at: SocketAddr::new(ip.to_canonical(), at), port })
            })
            .collect();
        host_ports.sort_by_key(|p| (p.at, p.port));
        host_ports.dedup();
        let mut probes: Vec<(u16, String)> = containers()
            .flat_map(|c| [&c.readiness_probe, &c.liveness_probe, &c.startup_probe].map(|probe| (c, probe)))
            .filter_map(|(c, probe)| {
                let get = probe.as_ref()?.http_get.as_ref()?;
                // A route is matched by the path alone.
                Some((probed_port(&get.port, c)?, probed_path(get).split('?').next().unwrap_or("/").to_owned()))
            })
            .collect();
        probes.sort();
        probes.dedup();
        let proxy = containers().find(|c| c.name == crate::inject::PROXY).map(ProxyPorts::from).unwrap_or_default();
        let common = Common {
            annotations: of_mesh(&pod.metadata),
            proves: Proves::Account(
                spec.service_account_name.clone().filter(|a| !a.is_empty()).unwrap_or_else(|| "default".to_owned()),
            ),
            proxy,
            ports,
            probes,
            owner: owner(&pod.metadata, &labels),
            labels,
        };
        Self {
            common: Arc::new(common),
            ips,
            host_ips,
            host_ports,
            running: status.phase.as_deref() == Some("Running"),
            ready: status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True"),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            hostname: spec.hostname.clone().zip(spec.subdomain.clone()).filter(|(h, s)| !h.is_empty() && !s.is_empty()),
            work,
        }
    }
}

impl ExternalFacts {
    /// `None` of one that cannot be carried out.
    pub(super) fn of(workload: &ExternalWorkload) -> Option<Self> {
        let External { tls, ports, ips } = external_workload::checked(workload).ok()?;
        let ports = ports.into_iter().filter(|p| is_tcp(Some(p.protocol)));
        let ports: Vec<Port> = ports.map(|p| Port { name: p.name, number: p.number }).collect();
        let inbound = ports.iter().find(|p| p.name.as_deref() == Some(PROXY_PORT)).map(|p| p.number);
        let proxy = ProxyPorts { inbound: inbound.unwrap_or(port::INBOUND), ..ProxyPorts::default() };
        let owner = match workload.metadata.owner_references.as_deref() {
            Some([owner]) => Some((owner.kind.to_lowercase(), owner.name.clone())),
            _ => None,
        };
        let common = Common {
            labels: workload.metadata.labels.clone().unwrap_or_default(),
            annotations: of_mesh(&workload.metadata),
            proves: Proves::Said(tls),
            proxy,
            ports,
            probes: vec![],
            owner,
        };
        Some(Self { common, ips })
    }

    pub(super) fn has_ip(&self, ip: IpAddr) -> bool {
        self.ips.contains(&ip)
    }
}

impl Default for ProxyPorts {
    fn default() -> Self {
        Self { inbound: port::INBOUND, control: port::CONTROL, admin: port::ADMIN }
    }
}

impl From<&Container> for ProxyPorts {
    fn from(proxy: &Container) -> Self {
        let listens = |name: &str, default: u16| {
            let value = proxy.env.iter().flatten().find(|v| v.name == name).and_then(|v| v.value.as_deref());
            value.and_then(|v| v.parse::<SocketAddr>().ok()).map_or(default, |addr| addr.port())
        };
        Self {
            inbound: listens("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", port::INBOUND),
            control: listens("LINKERD2_PROXY_CONTROL_LISTEN_ADDR", port::CONTROL),
            admin: listens("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", port::ADMIN),
        }
    }
}

impl SliceFacts {
    /// `None` of a slice that is of no Service, or that has no addresses of IP.
    pub(super) fn of(slice: &EndpointSlice) -> Option<Self> {
        let service = slice.metadata.labels.as_ref()?.get(SERVICE_LABEL).filter(|s| !s.is_empty())?.clone();
        let family = match slice.address_type.as_str() {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            _ => return None,
        };
        let ports = slice.ports.iter().flatten().filter(|p| is_tcp(p.protocol.as_deref())).filter_map(|p| {
            let number = p.port.map(u16::try_from).transpose().ok()?;
            Some((p.name.clone().unwrap_or_default(), number))
        });
        let gateway = Gateway::of(&slice.metadata).ok()?;
        let endpoints = slice.endpoints.iter().filter_map(|e| SliceEndpoint::of(slice, e));
        Some(Self { service, family, ports: ports.collect(), endpoints: endpoints.collect(), gateway })
    }
}

impl SliceEndpoint {
    fn of(slice: &EndpointSlice, spec: &SliceSpec) -> Option<Self> {
        let own = || namespace_of(&slice.metadata).to_owned();
        let of = spec.target_ref.as_ref().and_then(|r| match r.kind.as_deref() {
            Some("Pod") => Some(Behind::Pod((r.namespace.clone().unwrap_or_else(own), r.name.clone()?))),
            // Of no other namespace, whatever is said: it would be reached by what somebody else says that it proves.
            Some("ExternalWorkload") => Some(Behind::ExternalWorkload((own(), r.name.clone()?))),
            _ => None,
        });
        let hints = spec.hints.iter().flat_map(|h| h.for_zones.iter().flatten());
        Some(Self {
            // All addresses of one endpoint are the same server.
            ip: spec.addresses.first()?.parse::<IpAddr>().ok()?.to_canonical(),
            // What is not said counts as ready.
            ready: spec.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true),
            hostname: spec.hostname.clone().filter(|h| !h.is_empty()),
            node: spec.node_name.clone().filter(|n| !n.is_empty()),
            zone: spec.zone.clone().filter(|z| !z.is_empty()),
            for_zones: hints.map(|z| z.name.clone()).collect(),
            of,
        })
    }
}

/// The protocol of a port that names none is TCP; the mesh carries no other.
pub(crate) fn is_tcp(protocol: Option<&str>) -> bool {
    matches!(protocol, None | Some("" | "TCP"))
}

/// A ReplicaSet whose name ends in the template's hash stands for its Deployment.
fn owner(meta: &ObjectMeta, labels: &Map) -> Option<(String, String)> {
    let owner = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
    let deployment = labels
        .get("pod-template-hash")
        .and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'))
        .filter(|_| owner.kind == "ReplicaSet");
    Some(match (deployment, owner.kind.as_str()) {
        (Some(name), _) => ("deployment".to_owned(), name.to_owned()),
        // `job` is a label that scrapers give.
        (None, "Job") => ("k8s_job".to_owned(), owner.name.clone()),
        (None, kind) => (kind.to_lowercase(), owner.name.clone()),
    })
}
