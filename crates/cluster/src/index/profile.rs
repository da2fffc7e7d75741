//! What an address or a name is (control plane 6.3).

use super::{
    Index, Refusal, Target,
    destination::is_instance,
    facts::{Common, ExternalFacts, Map, PodFacts, ServiceFacts},
    name,
    outbound::service_meta,
    store::Id,
    wire::Wire,
};
use crate::{Kind, policy::PROFILES};
use std::net::{IpAddr, SocketAddr};
use weft_model::{Endpoint, Meta, Profile, meta::Resource, profile::RetryBudget};

impl Index {
    /// For a client in the namespace `from`, which may have ServiceProfiles of its own.
    pub(super) fn profile(&self, from: &str, target: &Target) -> Result<Profile, Refusal> {
        match target {
            Target::Addr(addr) => self.profile_of_address(from, *addr),
            Target::Name(target) => {
                let name = name::parse(&target.name, &self.settings.cluster_domain)?;
                let missing = || Refusal::NotFound(format!("there is no {}", target.name));
                let service = self.store.service(&name.namespace, &name.service).ok_or_else(missing)?;
                let Some(instance) = name.instance else {
                    return Ok(self.profile_of_service(from, &(name.namespace, name.service), service, target.port));
                };
                let pod = self
                    .store
                    .pods_of(&name.namespace, service)
                    .find(|(_, pod)| !pod.terminating && is_instance(pod, &instance, &name.service));
                if let Some((id, pod)) = pod {
                    let ip = pod.ips.first().ok_or_else(missing)?;
                    return Ok(self.profile_of_pod(id, pod, SocketAddr::new(*ip, target.port)));
                }
                let mut external = self.store.externals_of(&name.namespace, service);
                let (id, external) = external.find(|(id, _)| id.1 == instance).ok_or_else(missing)?;
                let ip = external.ips.first().ok_or_else(missing)?;
                Ok(self.profile_of_external(id, external, SocketAddr::new(*ip, target.port)))
            }
        }
    }

    fn profile_of_address(&self, from: &str, addr: SocketAddr) -> Result<Profile, Refusal> {
        let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        if let Some((id, service)) = self.only_service_at(addr)? {
            return Ok(self.profile_of_service(from, id, service, addr.port()));
        }
        // A pod that stops keeps its identity until it is gone, so that nothing is sent to it in plaintext; an address that
        // was already given to another pod is that one's.
        let running = || self.store.pods_at(addr.ip()).filter(|(_, pod)| pod.running);
        let mut living = running().filter(|(_, pod)| !pod.terminating);
        match (living.next(), living.next()) {
            (Some((a, _)), Some((b, _))) => {
                let text = format!("pods {}/{} and {}/{} have the same address {}", a.0, a.1, b.0, b.1, addr.ip());
                Err(Refusal::Ambiguous(text))
            }
            (Some((id, pod)), None) => Ok(self.profile_of_pod(id, pod, addr)),
            (None, _) => match running().next() {
                Some((id, pod)) => Ok(self.profile_of_pod(id, pod, addr)),
                None => self.profile_of_host_port(addr),
            },
        }
    }

    /// A port of a node that leads to a pod is that pod: it is reached where its proxy listens.
    fn profile_of_host_port(&self, at: SocketAddr) -> Result<Profile, Refusal> {
        let mut pods = self.store.pods_behind(at).filter(|(_, pod, _)| pod.running && !pod.terminating);
        match (pods.next(), pods.next()) {
            (Some((a, ..)), Some((b, ..))) => {
                let text = format!("pods {}/{} and {}/{} have the same host port {at}", a.0, a.1, b.0, b.1);
                Err(Refusal::Ambiguous(text))
            }
            (Some((id, pod, port)), None) => {
                let same = |ip: &&IpAddr| ip.is_ipv4() == at.is_ipv4();
                let ip = pod.ips.iter().find(same).or(pod.ips.first()).copied().unwrap_or(at.ip());
                Ok(self.profile_of_pod(id, pod, SocketAddr::new(ip, port)))
            }
            (None, _) => self.profile_of_external_port(at),
        }
    }

    /// A port that an ExternalWorkload does not declare is not behind its proxy.
    fn profile_of_external_port(&self, at: SocketAddr) -> Result<Profile, Refusal> {
        let declares = |of: &ExternalFacts| of.ports.iter().any(|port| port.number == at.port());
        let mut externals = self.store.externals_at(at.ip()).filter(|(_, of)| declares(of));
        match (externals.next(), externals.next()) {
            (Some((a, _)), Some((b, _))) => {
                let text = format!("ExternalWorkloads {}/{} and {}/{} have the same address {at}", a.0, a.1, b.0, b.1);
                Err(Refusal::Ambiguous(text))
            }
            (Some((id, external)), None) => Ok(self.profile_of_external(id, external, at)),
            (None, _) => Ok(Profile {
                opaque: self.settings.opaque_ports.contains(&at.port()),
                endpoint: (at.port() != 0).then(|| Endpoint::plain(at)),
                retry_budget: Some(RetryBudget::LINKERD),
                ..Profile::default()
            }),
        }
    }

    pub(super) fn only_service_at(&self, addr: SocketAddr) -> Result<Option<(&Id, &ServiceFacts)>, Refusal> {
        let mut services = self.store.services_at(addr.ip());
        match (services.next(), services.next()) {
            (Some((a, _)), Some((b, _))) => {
                let text = format!("Services {}/{} and {}/{} have the same address {}", a.0, a.1, b.0, b.1, addr.ip());
                Err(Refusal::Ambiguous(text))
            }
            (first, _) => Ok(first),
        }
    }

    /// A port that the Service does not declare has an empty profile: the client policy refuses it.
    fn profile_of_service(&self, from: &str, id: &Id, service: &ServiceFacts, port: u16) -> Profile {
        if service.port(port).is_none() {
            return Profile::default();
        }
        let name = format!("{}.{}.svc.{}", id.1, id.0, self.settings.cluster_domain);
        let asked = self.store.profile(from, &id.0, &name);
        let origin = asked.map(|(namespace, _)| {
            Meta::Resource(Resource {
                group: PROFILES.to_owned(),
                kind: Kind::ServiceProfile.as_str().to_owned(),
                namespace: namespace.to_owned(),
                name: name.clone(),
                ..Resource::default()
            })
        });
        let asked = asked.map(|(_, asked)| asked);
        Profile {
            parent: Some(service_meta(id, port)),
            origin,
            name: name.parse().ok(),
            opaque: self.wire_of(&id.0, service, port) == Wire::Opaque,
            routes: asked.map(|asked| asked.routes.clone()).unwrap_or_default(),
            retry_budget: Some(asked.map_or(RetryBudget::LINKERD, |asked| asked.budget)),
            targets: asked.map(|asked| asked.targets(port)).unwrap_or_default(),
            ..Profile::default()
        }
    }

    fn profile_of_pod(&self, id: &Id, pod: &PodFacts, addr: SocketAddr) -> Profile {
        self.profile_of_workload(&id.0, pod, addr, |labels| self.endpoint(id, pod, addr, labels))
    }

    fn profile_of_external(&self, id: &Id, external: &ExternalFacts, addr: SocketAddr) -> Profile {
        self.profile_of_workload(&id.0, external, addr, |labels| self.external_endpoint(id, external, addr, labels))
    }

    fn profile_of_workload(
        &self,
        namespace: &str,
        of: &Common,
        addr: SocketAddr,
        endpoint: impl FnOnce(Map) -> Endpoint,
    ) -> Profile {
        let labels = Map::from([("namespace".to_owned(), namespace.to_owned())]);
        Profile {
            opaque: self.is_opaque(namespace, &self.mesh(namespace, of), of, addr.port()),
            endpoint: (addr.port() != 0).then(|| endpoint(labels)),
            retry_budget: Some(RetryBudget::LINKERD),
            ..Profile::default()
        }
    }
}
