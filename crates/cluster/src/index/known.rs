//! Pods as they call and are called, for who asks what a policy would say before there is a request.

use super::{
    Index,
    facts::{Map, PodFacts},
    store::Id,
};
use crate::workload::{CONTROL_NAMESPACE_LABEL, Port};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use weft_model::{Identity, ports::PortRanges};

/// A pod that is known.
#[derive(Clone, Debug)]
pub(crate) struct Known<'i> {
    pub(crate) id: &'i Id,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: &'i [Port],
    /// Whose proxy it has, if it has one: the namespace of a control plane.
    pub(crate) control_namespace: Option<&'i str>,
    /// What its proxy proves, if that is one of this mesh.
    pub(crate) identity: Option<Identity>,
    /// Connections to these ports go past its proxy.
    pub(crate) skip_outbound: PortRanges,
    /// Connections from outside to these ports go past its proxy.
    pub(crate) skip_inbound: PortRanges,
    /// It runs, and is not about to end.
    pub(crate) running: bool,
}

/// A port of a Service, and the pods that the Service selects, each with its own port behind it, if it has one.
pub(crate) struct Behind<'i> {
    pub(crate) port: u16,
    pub(crate) pods: Vec<(Known<'i>, Option<u16>)>,
}

/// What is missing where nothing can be told to be behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Service,
    /// With those that it has instead.
    Port(Vec<String>),
    Selector,
}

impl Index {
    /// The pods that are meant, by what they are called and by their workload.
    pub(crate) fn known(
        &self,
        is_meant: impl Fn(&Id, Option<&(String, String)>) -> bool,
    ) -> impl Iterator<Item = Known<'_>> {
        let meant = self.store.all_pods().filter(move |(id, pod)| is_meant(id, pod.owner.as_ref()));
        meant.map(|(id, pod)| self.known_pod(id, pod)).filter(|known| known.running)
    }

    pub(crate) fn known_at(&self, ip: IpAddr) -> impl Iterator<Item = Known<'_>> {
        self.store.pods_at(ip).map(|(id, pod)| self.known_pod(id, pod)).filter(|known| known.running)
    }

    pub(crate) fn behind(
        &self,
        namespace: &str,
        service: &str,
        is_port: impl Fn(u16, Option<&str>) -> bool,
    ) -> Result<Behind<'_>, Missing> {
        let facts = self.store.service(namespace, service).ok_or(Missing::Service)?;
        let Some(port) = facts.ports.iter().find(|p| is_port(p.port, p.name.as_deref())) else {
            let shown = |p: &super::facts::ServicePort| match &p.name {
                Some(name) => format!("{} ({name})", p.port),
                None => p.port.to_string(),
            };
            return Err(Missing::Port(facts.ports.iter().map(shown).collect()));
        };
        if facts.selector.is_empty() {
            return Err(Missing::Selector);
        }
        let pods = self.store.pods_of(namespace, facts).map(|(id, pod)| {
            let number = super::destination::target_port(facts, pod, port.port);
            (self.known_pod(id, pod), number)
        });
        Ok(Behind { port: port.port, pods: pods.filter(|(known, _)| known.running).collect() })
    }

    /// Whether a proxy of this mesh that connects to the pod's port proves its identity there.
    pub(crate) fn is_reached_by_tls(&self, id: &Id, port: u16) -> bool {
        let addr = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        self.store.pod(&id.0, &id.1).is_some_and(|pod| self.endpoint(id, pod, addr, Map::new()).tls.is_some())
    }

    fn known_pod<'i>(&'i self, id: &'i Id, pod: &'i PodFacts) -> Known<'i> {
        let mesh = self.mesh(&id.0, pod);
        let control_namespace = pod.labels.get(CONTROL_NAMESPACE_LABEL).map(String::as_str);
        let (control, domain) = (&self.settings.control_namespace, &self.settings.trust_domain);
        let identity = (control_namespace == Some(control))
            .then(|| Identity::of_service_account(&pod.service_account, &id.0, control, domain).ok())
            .flatten();
        Known {
            id,
            addresses: pod.ips.iter().chain(&pod.host_ips).copied().collect(),
            ports: &pod.ports,
            control_namespace,
            identity,
            skip_outbound: mesh.skip_outbound,
            skip_inbound: mesh.skip_inbound,
            running: pod.running && !pod.terminating,
        }
    }
}
