//! What is behind a name: the pods of a Service and how each is reached (control plane 6.2).

use super::{
    Endpoints, Index, Platform, Refusal,
    endpoints::{Located, labels_of},
    facts::{Behind, Common, ExternalFacts, Family, Map, PodFacts, Proves, ServiceFacts, SliceFacts, TargetPort},
    gateway::Gateway,
    name::{self, ServiceName},
    store::Id,
};
use crate::{
    policy::Spoken,
    workload::{CONTROL_NAMESPACE_LABEL, Mesh},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use weft_model::{
    Endpoint, Identity, NameAddr, ProtocolHint,
    endpoint::{Http2KeepAlive, Http2Params, ServerTls},
};

/// Connections between proxies notice a dead peer after 13 s, also while nothing is asked.
const MESH_KEEP_ALIVE: Http2KeepAlive =
    Http2KeepAlive { interval: Duration::from_secs(10), timeout: Duration::from_secs(3), while_idle: true };

impl Index {
    pub(super) fn destination(&self, target: &NameAddr) -> Result<Endpoints, Refusal> {
        let name = name::parse(&target.name, &self.settings.cluster_domain)?;
        let service = self
            .store
            .service(&name.namespace, &name.service)
            .ok_or_else(|| Refusal::NotFound(format!("there is no Service {}/{}", name.namespace, name.service)))?;
        if service.external_name {
            let text = format!("Service {}/{} is only another name (ExternalName)", name.namespace, name.service);
            return Err(Refusal::Invalid(text));
        }
        if let Some(by) = service.elsewhere {
            let text = format!(
                "Service {}/{} has endpoints in other clusters by its {by}, which this version of weft does not look up",
                name.namespace, name.service
            );
            return Err(Refusal::NotCarriedOut(text));
        }
        let (all, node_only) = match self.settings.platform {
            // There is one node.
            Platform::Manifests => (self.selected(&name, service, target.port), false),
            Platform::Kubernetes => (self.sliced(&name, service, target.port), service.node_only),
        };
        Ok(Endpoints { all, node_only, platform: self.settings.platform, zone_weights: self.settings.zone_weights })
    }

    /// The pods that the Service selects.
    fn selected(&self, name: &ServiceName, service: &ServiceFacts, port: u16) -> BTreeMap<SocketAddr, Located> {
        let mut likes = Likes::of(name);
        let pods = self.store.pods_of(&name.namespace, service).filter(|(_, pod)| {
            let instance = name.instance.as_ref().is_none_or(|i| is_instance(pod, i, &name.service));
            instance && !pod.terminating && (pod.ready || (service.publish_not_ready && pod.running))
        });
        pods.filter_map(|(id, pod)| {
            let addr = SocketAddr::new(self.address(service, &pod.ips)?, target_port(service, pod, port)?);
            let (like, pod) = (likes.of_pod(self, id, pod, addr.port()), Some(id.1.as_str().into()));
            Some((addr, Located { like, pod, node: None, zone: None, for_zones: BTreeSet::new() }))
        })
        .collect()
    }

    /// What the Service's EndpointSlices name.
    ///
    /// An endpoint that says which workload it is counts only while that one is known and has the address: before and after,
    /// what is there would be reached without its identity or by another's.
    fn sliced(&self, name: &ServiceName, service: &ServiceFacts, port: u16) -> BTreeMap<SocketAddr, Located> {
        let mut likes = Likes::of(name);
        let mut found: BTreeMap<SocketAddr, Located> = BTreeMap::new();
        let mut on_v6: BTreeSet<&Behind> = BTreeSet::new();
        let mut on_v4: Vec<(&Behind, SocketAddr)> = vec![];
        for slice in self.store.slices_of(&name.namespace, &name.service) {
            let Some(number) = slice_port(service, slice, port) else { continue };
            if slice.family == Family::V6 && !self.settings.ipv6 {
                continue;
            }
            for e in slice.endpoints.iter().filter(|e| e.ready) {
                if name.instance.is_some() && name.instance != e.hostname {
                    continue;
                }
                let addr = SocketAddr::new(e.ip, number);
                let like = match &e.of {
                    None => likes.of_no_pod(slice.gateway.as_ref(), port),
                    Some(Behind::ExternalWorkload(id)) => {
                        let Some(external) = self.store.external_of(id).filter(|of| of.has_ip(e.ip)) else { continue };
                        likes.of_external(self, id, external, number)
                    }
                    Some(Behind::Pod(id)) => {
                        let Some(pod) = self.store.pod_of(id).filter(|pod| pod.has_ip(e.ip)) else { continue };
                        // The slice follows a little later.
                        if pod.terminating && !service.publish_not_ready {
                            continue;
                        }
                        likes.of_pod(self, id, pod, number)
                    }
                };
                match (&e.of, slice.family) {
                    (Some(of), Family::V6) => drop(on_v6.insert(of)),
                    (Some(of), Family::V4) => on_v4.push((of, addr)),
                    (None, _) => {}
                }
                let pod = match &e.of {
                    Some(Behind::Pod(id)) => Some(id.1.as_str().into()),
                    Some(Behind::ExternalWorkload(_)) | None => None,
                };
                let text = |text: &Option<String>| text.as_deref().map(Box::<str>::from);
                let located = Located {
                    like,
                    pod,
                    node: text(&e.node).filter(|_| service.node_only),
                    zone: text(&e.zone),
                    for_zones: e.for_zones.clone(),
                };
                found.insert(addr, located);
            }
        }
        // A workload is one endpoint, however many families it has.
        for (_, addr) in on_v4.into_iter().filter(|(of, _)| on_v6.contains(of)) {
            found.remove(&addr);
        }
        found
    }

    /// How a port of a pod is reached.
    pub(super) fn endpoint(&self, id: &Id, pod: &PodFacts, addr: SocketAddr, labels: Map) -> Endpoint {
        let mut endpoint = Endpoint { addr, ..self.like(&id.0, pod, addr.port(), labels) };
        endpoint.labels.insert("pod".to_owned(), id.1.clone());
        endpoint
    }

    /// How a port of an ExternalWorkload is reached.
    pub(super) fn external_endpoint(&self, id: &Id, of: &ExternalFacts, addr: SocketAddr, labels: Map) -> Endpoint {
        let mut endpoint = Endpoint { addr, ..self.like(&id.0, of, addr.port(), labels) };
        endpoint.labels.insert("external_workload".to_owned(), id.1.clone());
        endpoint
    }

    /// How a port of any workload is reached that has this in common with others: all but the address, and the label of its name.
    fn like(&self, namespace: &str, of: &Common, port: u16, mut labels: Map) -> Endpoint {
        let mesh = self.mesh(namespace, of);
        let opaque = self.is_opaque(namespace, &mesh, of, port);
        labels.extend(of.owner.clone());
        let (tls, hint) = match &of.proves {
            Proves::Account(account) => {
                let of_this_mesh = of.labels.get(CONTROL_NAMESPACE_LABEL) == Some(&self.settings.control_namespace);
                let has_proxy = of_this_mesh && !mesh.skip_inbound.contains(port);
                labels.insert("serviceaccount".to_owned(), account.clone());
                for (label, metric) in
                    [(CONTROL_NAMESPACE_LABEL, "control_plane_ns"), ("pod-template-hash", "pod_template_hash")]
                {
                    labels.extend(of.labels.get(label).map(|value| (metric.to_owned(), value.clone())));
                }
                (has_proxy.then(|| self.identity(namespace, account)).flatten(), self.settings.hint)
            }
            // Whatever the mesh's own hint is, as Linkerd does.
            Proves::Said(tls) => (Some(tls.clone()), ProtocolHint::H2),
        };
        let meshed = tls.is_some();
        Endpoint {
            addr: nowhere(),
            weight: Endpoint::WEIGHT,
            hint: match (meshed, opaque) {
                (true, true) => ProtocolHint::Opaque,
                (true, false) => hint,
                (false, _) => ProtocolHint::Unknown,
            },
            // The proxy's own ports are not behind a transport header.
            transport_port: (meshed && ![of.proxy.admin, of.proxy.control].contains(&port)).then_some(of.proxy.inbound),
            authority_override: None,
            http2: Http2Params { keep_alive: meshed.then_some(MESH_KEEP_ALIVE), ..Http2Params::default() },
            tls,
            labels,
        }
    }

    pub(super) fn mesh(&self, namespace: &str, of: &Common) -> Mesh {
        Mesh::with_opaque_default(&self.annotations(namespace, &of.annotations), &self.settings.opaque_ports)
    }

    /// Whether clients take a port for bytes: a Server of it says so or otherwise, else annotations, else it is a usual one.
    pub(super) fn is_opaque(&self, namespace: &str, mesh: &Mesh, of: &Common, port: u16) -> bool {
        let server = self.store.policies.server_of(namespace, of, port, self.aged);
        match server {
            Some((_, server)) => server.port.spoken == Spoken::Opaque,
            None => is_said_opaque(mesh, of, port),
        }
    }

    /// Of a workload's addresses one of a family that the Service has; of two the Service's second is IPv6 and preferred as Linkerd does.
    pub(super) fn address(&self, service: &ServiceFacts, ips: &[IpAddr]) -> Option<IpAddr> {
        let has = |family| service.families.contains(&family);
        let find = |family| ips.iter().find(|ip| Family::of(**ip) == family).copied();
        match (has(Family::V4), has(Family::V6) && self.settings.ipv6) {
            (false, false) => ips.first().copied().filter(|ip| ip.is_ipv4() || self.settings.ipv6),
            (true, false) => find(Family::V4),
            (false, true) => find(Family::V6),
            (true, true) => find(Family::V6).or_else(|| find(Family::V4)),
        }
    }

    /// `None` if the names do not make an identity, which Kubernetes' rules for names exclude but for their length.
    fn identity(&self, namespace: &str, account: &str) -> Option<ServerTls> {
        let (control, domain) = (&self.settings.control_namespace, &self.settings.trust_domain);
        let identity = Identity::of_service_account(account, namespace, control, domain).ok()?;
        match &identity {
            Identity::Dns(server_name) => Some(ServerTls { server_name: server_name.clone(), identity }),
            Identity::Uri(_) => None,
        }
    }
}

/// The endpoints of one answer that others are like, each made once.
struct Likes<'s> {
    /// The labels of all of them.
    labels: Map,
    /// Of what is no pod.
    plain: Arc<Endpoint>,
    /// Of gateways to other clusters.
    gateways: HashMap<&'s Gateway, Arc<Endpoint>>,
    /// By namespace, what the pods have in common (by where it is: it is held once), and port.
    of_pods: HashMap<(&'s str, *const Common, u16), Arc<Endpoint>>,
}

impl<'s> Likes<'s> {
    fn of(name: &ServiceName) -> Self {
        let labels = labels_of(&name.namespace, &name.service);
        let plain = Arc::new(Endpoint { labels: labels.clone(), ..Endpoint::plain(nowhere()) });
        Self { labels, plain, gateways: HashMap::new(), of_pods: HashMap::new() }
    }

    /// Of what is no pod: a gateway, or something of which nothing is known.
    fn of_no_pod(&mut self, gateway: Option<&'s Gateway>, port: u16) -> Arc<Endpoint> {
        let Some(gateway) = gateway else { return self.plain.clone() };
        let made = self.gateways.entry(gateway);
        made.or_insert_with(|| Arc::new(gateway.endpoint(&self.plain, port))).clone()
    }

    fn of_pod(&mut self, index: &Index, id: &'s Id, pod: &'s PodFacts, port: u16) -> Arc<Endpoint> {
        let key = (id.0.as_str(), Arc::as_ptr(&pod.common), port);
        let made = self.of_pods.entry(key);
        made.or_insert_with(|| Arc::new(index.like(&id.0, pod, port, self.labels.clone()))).clone()
    }

    /// Each proves something of its own, and is like no other.
    fn of_external(&self, index: &Index, id: &Id, external: &ExternalFacts, port: u16) -> Arc<Endpoint> {
        let addr = SocketAddr::new(nowhere().ip(), port);
        let endpoint = index.external_endpoint(id, external, addr, self.labels.clone());
        Arc::new(Endpoint { addr: nowhere(), ..endpoint })
    }
}

/// The address of an endpoint that only others are like.
fn nowhere() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 0).into()
}

/// By annotations alone.
pub(super) fn is_said_opaque(mesh: &Mesh, of: &Common, port: u16) -> bool {
    mesh.opaque_ports.contains(port, of.port_names(port))
}

pub(super) fn is_instance(pod: &PodFacts, instance: &str, service: &str) -> bool {
    pod.hostname.as_ref().is_some_and(|(hostname, subdomain)| hostname == instance && subdomain == service)
}

/// The number of a Service's port in a slice; a port that the Service does not declare is used as it is.
fn slice_port(service: &ServiceFacts, slice: &SliceFacts, port: u16) -> Option<u16> {
    let Some(declared) = service.port(port) else { return Some(port) };
    let number = slice.ports.get(declared.name.as_deref().unwrap_or_default())?;
    Some(number.unwrap_or(port))
}

/// A port that the Service does not declare is used as it is.
pub(super) fn target_port(service: &ServiceFacts, of: &Common, port: u16) -> Option<u16> {
    match service.port(port).map(|p| &p.target) {
        None => Some(port),
        Some(TargetPort::Number(number)) => Some(*number),
        Some(TargetPort::Name(name)) => of.ports.iter().find(|p| p.name.as_ref() == Some(name)).map(|p| p.number),
    }
}
