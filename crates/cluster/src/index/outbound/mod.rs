//! How traffic to a target behaves on the client's side (control plane 6.5).
//!
//! ```text
//! Target ─► Parent (a Service, an EgressNetwork, as one client sees it) ─► routes ─► backend ─► ClientPolicy
//!        └► outside: where the application sent it
//! ```

mod backend;
mod routes;

use super::{
    Index, Refusal, Target, facts::ServiceFacts, failure::Traffic, name, policies::EgressFacts, store::Id, wire::Wire,
};
use crate::policy::{GROUP, client::Terms, route::ParentOf};
use std::{net::SocketAddr, time::Duration};
use weft_model::{
    ClientPolicy, Endpoint, Meta, NameAddr,
    meta::Resource,
    policy::{
        outbound::{
            Backend, BackendKind, Breaker, ClientProtocol, Distribution, HttpRoutes, Load, Queue, RouteBackend,
            TcpRoute,
        },
        route::{DETECT_TIMEOUT, Filter},
    },
};

const QUEUE: Queue = Queue { capacity: 100, failfast: Duration::from_secs(3) };
/// The name of everything that is done with traffic that leaves the cluster.
const EGRESS: &str = "egress-fallback";

/// What routes are attached to, as the clients of one namespace see it.
struct Parent<'a> {
    of: ParentOf,
    id: &'a Id,
    /// The namespace of the clients.
    from: &'a str,
    meta: Meta,
    to: To,
    /// Whether traffic goes there of which no route says otherwise.
    allowed: bool,
    terms: &'a Terms,
    breaker: Option<&'a Breaker>,
    load: Load,
}

/// Where traffic goes.
enum To {
    Endpoints(NameAddr),
    /// Where the application sent it.
    Address(SocketAddr),
}

impl Index {
    /// Of what comes from a namespace, which may have EgressNetworks and routes of its own.
    pub(super) fn outbound(&self, from: &str, target: &Target) -> Result<ClientPolicy, Refusal> {
        match target {
            Target::Name(target) => {
                let name = name::parse_authority(&target.name, &self.settings.cluster_domain)?;
                let service = self.store.service(&name.namespace, &name.service).ok_or_else(|| {
                    Refusal::NotFound(format!("there is no Service {}/{}", name.namespace, name.service))
                })?;
                self.to_service(from, &(name.namespace, name.service), service, target.port)
            }
            Target::Addr(addr) => {
                let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
                if addr.port() == 0 {
                    return Err(Refusal::Invalid("port 0 is no port".to_owned()));
                }
                if let Some((id, service)) = self.only_service_at(addr)? {
                    return self.to_service(from, id, service, addr.port());
                }
                // A pod that runs is not outside, however large the networks of EgressNetworks are, of which alone this is said; the
                // address of one that has ended is nobody's any more, or somebody else's.
                if !self.store.pods_at(addr.ip()).any(|(_, pod)| pod.running)
                    && let Some((id, egress)) =
                        self.store.policies.egress_of(from, addr.ip(), &self.settings, self.aged)
                {
                    return Ok(self.to_egress(from, id, egress, addr));
                }
                if self.settings.cluster_networks.iter().any(|net| net.contains(addr.ip())) {
                    return Err(Refusal::NotFound(format!("no Service has the address {}", addr.ip())));
                }
                Ok(self.to_outside(addr))
            }
        }
    }

    /// What the Service says of a port, if it declares it.
    pub(super) fn wire_of(&self, namespace: &str, service: &ServiceFacts, port: u16) -> Wire {
        let said = self.annotations(namespace, &service.annotations);
        Wire::of(port, service.port(port), &said, &self.settings.opaque_ports)
    }

    fn to_service(&self, from: &str, id: &Id, service: &ServiceFacts, port: u16) -> Result<ClientPolicy, Refusal> {
        let parent = Parent {
            of: ParentOf::Service,
            id,
            from,
            meta: service_meta(id, port),
            to: To::Endpoints(self.endpoints_of(id, port)?),
            allowed: true,
            terms: &service.terms,
            breaker: service.balancing.breaker.as_ref(),
            load: service.balancing.load,
        };
        let protocol = match service.port(port) {
            Some(_) => self.protocol(&parent, self.wire_of(&id.0, service, port)),
            None => ClientProtocol::Opaque(Some(TcpRoute {
                meta: Meta::default_named("undefined-port"),
                backends: parent.itself(Traffic::Connections),
                filters: vec![Filter::Forbidden],
            })),
        };
        Ok(ClientPolicy { meta: parent.meta, protocol })
    }

    /// Traffic that leaves the cluster by an EgressNetwork.
    fn to_egress(&self, from: &str, id: &Id, egress: &EgressFacts, addr: SocketAddr) -> ClientPolicy {
        let parent = Parent {
            of: ParentOf::EgressNetwork,
            id,
            from,
            meta: egress_meta(id, addr.port()),
            to: To::Address(addr),
            allowed: egress.egress.allowed,
            terms: &egress.terms,
            breaker: egress.breaker.as_ref(),
            load: Load::LINKERD,
        };
        let said = self.annotations(&id.0, &egress.annotations);
        let wire = Wire::of(addr.port(), None, &said, &self.settings.opaque_ports);
        let protocol = self.protocol(&parent, wire);
        ClientPolicy { meta: parent.meta, protocol }
    }

    /// Traffic that leaves the cluster goes where the application sent it.
    fn to_outside(&self, addr: SocketAddr) -> ClientPolicy {
        let meta = Meta::default_named(EGRESS);
        let kind = BackendKind::Forward(Endpoint::plain(addr));
        let backends = only(Backend { meta: meta.clone(), kind, queue: QUEUE });
        let tcp = TcpRoute { meta: meta.clone(), backends: backends.clone(), filters: vec![] };
        let does = self.asked(&Terms::default(), None, backends);
        let http = HttpRoutes { routes: vec![routes::every_request(EGRESS, vec![], does)], breaker: None };
        ClientPolicy { meta, protocol: detect(http, tcp) }
    }

    /// By which name the endpoints of a Service's port are looked up.
    fn endpoints_of(&self, (namespace, name): &Id, port: u16) -> Result<NameAddr, Refusal> {
        let name = format!("{name}.{namespace}.svc.{}", self.settings.cluster_domain);
        let name = name.parse().map_err(|_| Refusal::Invalid(format!("{name} is no valid DNS name")))?;
        Ok(NameAddr { name, port })
    }
}

impl Parent<'_> {
    /// The load of connections is told by how long they take to be made.
    fn load_of(&self, of: Traffic) -> Load {
        match of {
            Traffic::Http | Traffic::Grpc => self.load,
            Traffic::Connections => Load::LINKERD,
        }
    }

    /// All of it goes where it would go without a route.
    fn itself(&self, of: Traffic) -> Distribution {
        let kind = match &self.to {
            To::Endpoints(target) => BackendKind::Balance { target: target.clone(), load: self.load_of(of) },
            To::Address(addr) => BackendKind::Forward(Endpoint::plain(*addr)),
        };
        only(Backend { meta: self.meta.clone(), kind, queue: QUEUE })
    }
}

fn detect(http: HttpRoutes, tcp: TcpRoute) -> ClientProtocol {
    ClientProtocol::Detect { timeout: DETECT_TIMEOUT, http1: http.clone(), http2: http, opaque: Some(tcp) }
}

fn only(backend: Backend) -> Distribution {
    Distribution::FirstAvailable(vec![RouteBackend { backend, filters: vec![] }])
}

pub(super) fn service_meta(id: &Id, port: u16) -> Meta {
    object("core", "Service", id, port)
}

fn egress_meta(id: &Id, port: u16) -> Meta {
    object(GROUP, "EgressNetwork", id, port)
}

fn object(group: &str, kind: &str, (namespace, name): &Id, port: u16) -> Meta {
    Meta::Resource(Resource {
        group: group.to_owned(),
        kind: kind.to_owned(),
        namespace: namespace.clone(),
        name: name.clone(),
        section: String::new(),
        port,
    })
}
