//! What is behind a name: the pods of a Service and how each is reached (control plane 6.2).

use super::{
    Index, Refusal,
    facts::{Family, Map, PodFacts, ServiceFacts, TargetPort},
    name,
    store::Id,
};
use crate::workload::{CONTROL_NAMESPACE_LABEL, Mesh};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use weft_model::{
    Endpoint, Identity, NameAddr, ProtocolHint,
    endpoint::{Http2KeepAlive, Http2Params, ServerTls},
    names::port,
};

/// Connections between proxies notice a dead peer after 13 s, also while nothing is asked.
const MESH_KEEP_ALIVE: Http2KeepAlive =
    Http2KeepAlive { interval: Duration::from_secs(10), timeout: Duration::from_secs(3), while_idle: true };

impl Index {
    pub(super) fn destination(&self, target: &NameAddr) -> Result<BTreeMap<SocketAddr, Endpoint>, Refusal> {
        let name = name::parse(&target.name, &self.settings.cluster_domain)?;
        let service = self
            .store
            .service(&name.namespace, &name.service)
            .ok_or_else(|| Refusal::NotFound(format!("there is no Service {}/{}", name.namespace, name.service)))?;
        if service.external_name {
            let text = format!("Service {}/{} is only another name (ExternalName)", name.namespace, name.service);
            return Err(Refusal::Invalid(text));
        }
        let labels = Map::from(
            [("service", &name.service), ("namespace", &name.namespace)].map(|(k, v)| (k.to_owned(), v.clone())),
        );
        let pods = self.store.pods_of(&name.namespace, service).filter(|(_, pod)| {
            let instance = name.instance.as_ref().is_none_or(|i| is_instance(pod, i, &name.service));
            instance && !pod.terminating && (pod.ready || (service.publish_not_ready && pod.running))
        });
        Ok(pods
            .filter_map(|(id, pod)| {
                let addr = SocketAddr::new(address(service, pod)?, target_port(service, pod, target.port)?);
                Some((addr, self.endpoint(id, pod, addr, labels.clone())))
            })
            .collect())
    }

    /// How a port of a pod is reached.
    pub(super) fn endpoint(
        &self,
        (namespace, name): &Id,
        pod: &PodFacts,
        addr: SocketAddr,
        mut labels: Map,
    ) -> Endpoint {
        let mesh = self.mesh(namespace, pod);
        let of_this_mesh = pod.labels.get(CONTROL_NAMESPACE_LABEL) == Some(&self.settings.control_namespace);
        let tls =
            (of_this_mesh && !mesh.skip_inbound.contains(addr.port())).then(|| self.identity(namespace, pod)).flatten();
        let opaque = self.is_opaque(&mesh, pod, addr.port());

        labels.insert("pod".to_owned(), name.clone());
        labels.insert("serviceaccount".to_owned(), pod.service_account.clone());
        labels.extend(pod.owner.clone());
        for (label, metric) in
            [(CONTROL_NAMESPACE_LABEL, "control_plane_ns"), ("pod-template-hash", "pod_template_hash")]
        {
            labels.extend(pod.labels.get(label).map(|value| (metric.to_owned(), value.clone())));
        }
        let meshed = tls.is_some();
        Endpoint {
            addr,
            hint: match (meshed, opaque) {
                (true, true) => ProtocolHint::Opaque,
                (true, false) => self.settings.hint,
                (false, _) => ProtocolHint::Unknown,
            },
            // The proxy's own ports are not behind a transport header.
            transport_port: (meshed && ![port::ADMIN, port::CONTROL].contains(&addr.port())).then_some(port::INBOUND),
            authority_override: None,
            http2: Http2Params { keep_alive: meshed.then_some(MESH_KEEP_ALIVE), ..Http2Params::default() },
            tls,
            labels,
        }
    }

    pub(super) fn mesh(&self, namespace: &str, pod: &PodFacts) -> Mesh {
        Mesh::with_opaque_default(&self.store.inherit(namespace, &pod.annotations), &self.settings.opaque_ports)
    }

    pub(super) fn is_opaque(&self, mesh: &Mesh, pod: &PodFacts, port: u16) -> bool {
        mesh.opaque_ports.contains(port, pod.port_name(port))
    }

    /// `None` if the names do not make an identity, which Kubernetes' rules for names exclude but for their length.
    fn identity(&self, namespace: &str, pod: &PodFacts) -> Option<ServerTls> {
        let (control, domain) = (&self.settings.control_namespace, &self.settings.trust_domain);
        let identity = Identity::of_service_account(&pod.service_account, namespace, control, domain).ok()?;
        match &identity {
            Identity::Dns(server_name) => Some(ServerTls { server_name: server_name.clone(), identity }),
            Identity::Uri(_) => None,
        }
    }
}

pub(super) fn is_instance(pod: &PodFacts, instance: &str, service: &str) -> bool {
    pod.hostname.as_ref().is_some_and(|(hostname, subdomain)| hostname == instance && subdomain == service)
}

/// The pod's address of a family that the Service has; of two the Service's second is IPv6 and preferred as Linkerd does.
fn address(service: &ServiceFacts, pod: &PodFacts) -> Option<IpAddr> {
    let has = |family| service.families.contains(&family);
    let find = |family| pod.ips.iter().find(|ip| Family::of(**ip) == family).copied();
    match (has(Family::V4), has(Family::V6)) {
        (false, false) => pod.ips.first().copied(),
        (true, false) => find(Family::V4),
        (false, true) => find(Family::V6),
        (true, true) => find(Family::V6).or_else(|| find(Family::V4)),
    }
}

/// A port that the Service does not declare is used as it is.
fn target_port(service: &ServiceFacts, pod: &PodFacts, port: u16) -> Option<u16> {
    match service.port(port).map(|p| &p.target) {
        None => Some(port),
        Some(TargetPort::Number(number)) => Some(*number),
        Some(TargetPort::Name(name)) => pod.ports.iter().find(|p| p.name.as_ref() == Some(name)).map(|p| p.number),
    }
}
