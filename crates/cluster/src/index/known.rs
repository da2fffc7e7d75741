//! Workloads as they call and are called, for who asks what a policy would say before there is a request.

use super::{
    Index, WorkloadKind,
    facts::{ExternalFacts, Family, Map, PodFacts, Proves, ServiceFacts},
    store::Id,
};
use crate::workload::{CONTROL_NAMESPACE_LABEL, Port, Unsure};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use weft_model::{DnsName, Identity, names::annotation::INJECT, ports::PortRanges};

/// A workload that is known.
#[derive(Clone, Debug)]
pub(crate) struct Known<'i> {
    pub(crate) of: WorkloadKind,
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
    /// Its proxy sends a request that names a target there.
    pub(crate) ingress: bool,
    /// Where its proxy itself is spoken to, by other proxies and by tap.
    pub(crate) proxy_ports: [u16; 2],
    /// It runs, and is not about to end.
    pub(crate) running: bool,
    /// What is not known of it, where it only stands for others.
    pub(crate) unsure: Option<&'i Unsure>,
}

/// A workload behind a port of a Service.
pub(crate) struct Backing<'i> {
    pub(crate) known: Known<'i>,
    /// Its own, if it has one.
    pub(crate) port: Option<u16>,
    /// Its addresses of the families that the Service has.
    pub(crate) reached: Vec<IpAddr>,
    /// The one of them that the clients' proxies choose.
    pub(crate) balanced: Option<IpAddr>,
}

/// What is missing where nothing can be told to be behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Service,
    /// With those that it has instead.
    Port(Vec<String>),
    Selector,
    /// Whether a pod is behind it, since the value of a label is not known that it selects by.
    Label {
        pod: Id,
        label: String,
    },
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
        let pods = self.store.pods_at(ip).map(|(id, pod)| self.known_pod(id, pod)).filter(|known| known.running);
        pods.chain(self.store.externals_at(ip).map(|(id, external)| self.known_external(id, external)))
    }

    /// The number of a port that a Service declares.
    pub(crate) fn service_port(
        &self,
        (namespace, service): &Id,
        is_port: impl Fn(u16, Option<&str>) -> bool,
    ) -> Result<u16, Missing> {
        let facts = self.store.service(namespace, service).ok_or(Missing::Service)?;
        let declared = facts.ports.iter().find(|p| is_port(p.port, p.name.as_deref()));
        let shown = |p: &super::facts::ServicePort| match &p.name {
            Some(name) => format!("{} ({name})", p.port),
            None => p.port.to_string(),
        };
        declared.map(|p| p.port).ok_or_else(|| Missing::Port(facts.ports.iter().map(shown).collect()))
    }

    /// Whether clients that call a Service by its name follow its routes: they do by its own address, which not every Service has.
    pub(crate) fn is_addressed(&self, (namespace, service): &Id) -> bool {
        self.store.service(namespace, service).is_some_and(|facts| !facts.headless && !facts.external_name)
    }

    /// Whether a Service's name leads to its pods' own addresses, at which clients connect to any port.
    pub(crate) fn is_headless(&self, (namespace, service): &Id) -> bool {
        self.store.service(namespace, service).is_some_and(|facts| facts.headless && !facts.external_name)
    }

    pub(crate) fn service_at(&self, ip: IpAddr) -> Option<&Id> {
        self.store.services_at(ip).next().map(|(id, _)| id)
    }

    /// The same by an address from outside, of which the mesh knows nothing.
    pub(crate) fn service_from_outside(&self, ip: IpAddr) -> Option<&Id> {
        self.store.service_from_outside(ip)
    }

    /// A Server that a pod's port may have, and the label whose value would say so.
    pub(crate) fn server_by_label(&self, id: &Id, port: u16) -> Option<(&Id, &str)> {
        let (unsure, pod) = (self.unsure.get(id)?, self.store.pod_of(id)?);
        self.store.policies.server_by(&id.0, pod, port, &unsure.labels)
    }

    /// Whose endpoints a name stands for.
    pub(crate) fn service_named(&self, name: &DnsName) -> Option<Id> {
        let name = super::name::parse(name, &self.settings.cluster_domain).ok()?;
        Some((name.namespace, name.service))
    }

    /// The pods that a Service selects.
    pub(crate) fn selected_by(&self, (namespace, service): &Id) -> Result<impl Iterator<Item = Known<'_>>, Missing> {
        let facts = self.store.service(namespace, service).ok_or(Missing::Service)?;
        let pods = self.pods_of(namespace, facts)?.map(|(id, pod)| self.known_pod(id, pod));
        Ok(pods.filter(|known| known.running))
    }

    fn pods_of(
        &self,
        namespace: &str,
        facts: &ServiceFacts,
    ) -> Result<impl Iterator<Item = (&Id, &PodFacts)>, Missing> {
        if facts.selector.is_empty() {
            return Err(Missing::Selector);
        }
        let unsure = self.unsure.iter().filter(|(id, _)| id.0 == namespace).find_map(|(id, unsure)| {
            let label = facts.hangs_on(&self.store.pod_of(id)?.labels, &unsure.labels)?;
            Some(Missing::Label { pod: id.clone(), label: label.to_owned() })
        });
        match unsure {
            Some(missing) => Err(missing),
            None => Ok(self.store.pods_of(namespace, facts)),
        }
    }

    /// The workloads that a Service selects.
    pub(crate) fn behind(&self, (namespace, service): &Id, port: u16) -> Result<Vec<Backing<'_>>, Missing> {
        let facts = self.store.service(namespace, service).ok_or(Missing::Service)?;
        let pods = self.pods_of(namespace, facts)?;
        let port_of = |of: &super::facts::Common| super::destination::target_port(facts, of, port);
        let pods = pods.map(|(id, pod)| self.backing(facts, self.known_pod(id, pod), port_of(pod)));
        // One that does not declare the port is not behind the Service.
        let externals = self.store.externals_of(namespace, facts).filter_map(|(id, external)| {
            let number = port_of(external)?;
            let declares = external.ports.iter().any(|own| own.number == number);
            declares.then(|| self.backing(facts, self.known_external(id, external), Some(number)))
        });
        Ok(pods.filter(|backing| backing.known.running).chain(externals).collect())
    }

    fn backing<'i>(&self, service: &ServiceFacts, known: Known<'i>, port: Option<u16>) -> Backing<'i> {
        let has_family = |ip: &IpAddr| service.families.is_empty() || service.families.contains(&Family::of(*ip));
        let reached = known.addresses.iter().copied().filter(has_family).collect();
        Backing { balanced: self.address(service, &known.addresses), reached, known, port }
    }

    /// Whether a proxy of this mesh that connects to the workload's port proves its identity there.
    pub(crate) fn is_reached_by_tls(&self, of: WorkloadKind, id: &Id, port: u16) -> bool {
        let addr = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        match of {
            WorkloadKind::Pod => {
                self.store.pod_of(id).is_some_and(|pod| self.endpoint(id, pod, addr, Map::new()).tls.is_some())
            }
            WorkloadKind::ExternalWorkload => {
                self.store.external_of(id).is_some_and(|external| external.ports.iter().any(|p| p.number == port))
            }
        }
    }

    /// Its proxy is one of this mesh, and everything passes there.
    fn known_external<'i>(&'i self, id: &'i Id, external: &'i ExternalFacts) -> Known<'i> {
        let identity = match &external.proves {
            Proves::Said(tls) => Some(tls.identity.clone()),
            Proves::Account(_) => None,
        };
        Known {
            of: WorkloadKind::ExternalWorkload,
            id,
            addresses: external.ips.clone(),
            ports: &external.ports,
            control_namespace: Some(&self.settings.control_namespace),
            identity,
            skip_outbound: PortRanges::default(),
            skip_inbound: PortRanges::default(),
            ingress: false,
            proxy_ports: [external.proxy.inbound, external.proxy.control],
            running: true,
            unsure: None,
        }
    }

    fn known_pod<'i>(&'i self, id: &'i Id, pod: &'i PodFacts) -> Known<'i> {
        let mesh = self.mesh(&id.0, pod);
        let control_namespace = pod.labels.get(CONTROL_NAMESPACE_LABEL).map(String::as_str);
        let (control, domain) = (&self.settings.control_namespace, &self.settings.trust_domain);
        let account = match &pod.proves {
            Proves::Account(account) if control_namespace == Some(control) => Some(account),
            Proves::Account(_) | Proves::Said(_) => None,
        };
        let identity = account.and_then(|account| Identity::of_service_account(account, &id.0, control, domain).ok());
        Known {
            of: WorkloadKind::Pod,
            id,
            addresses: pod.ips.iter().chain(&pod.host_ips).copied().collect(),
            ports: &pod.ports,
            control_namespace,
            identity,
            skip_outbound: mesh.skip_outbound,
            skip_inbound: mesh.skip_inbound,
            // The injector reads it of a Namespace, and leaves it there.
            ingress: self.store.inherit(&id.0, &pod.annotations).get(INJECT).is_some_and(|mode| mode == "ingress"),
            proxy_ports: [pod.proxy.inbound, pod.proxy.control],
            running: pod.running && !pod.terminating,
            unsure: self.unsure.get(id),
        }
    }
}
