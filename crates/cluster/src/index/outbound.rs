//! How traffic to a target behaves on the client's side (control plane 6.5).

use super::{Index, Refusal, Target, facts::ServiceFacts, name, policies::EgressFacts, store::Id};
use crate::policy::{GROUP, client::Terms};
use std::{net::SocketAddr, time::Duration};
use weft_model::{
    ClientPolicy, Endpoint, Meta, NameAddr,
    meta::Resource,
    policy::{
        outbound::{
            Backend, BackendKind, ClientProtocol, Distribution, HttpRoutes, Load, OutboundRule, Queue, RouteBackend,
            TcpRoute,
        },
        route::{DETECT_TIMEOUT, Filter, HttpMatch, HttpRoute, PathMatch, Ratio, Rule},
    },
};

const QUEUE: Queue = Queue { capacity: 100, failfast: Duration::from_secs(3) };
/// The name of everything that is done with traffic that leaves the cluster.
const EGRESS: &str = "egress-fallback";
/// What a client is told whose request may not leave.
const NOT_ALLOWED: &str = "traffic not allowed";

/// What is spoken on a port of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Detect,
    Http1,
    Http2,
    Opaque,
}

impl Index {
    /// Of what comes from a namespace, which may have EgressNetworks of its own.
    pub(super) fn outbound(&self, from: &str, target: &Target) -> Result<ClientPolicy, Refusal> {
        match target {
            Target::Name(target) => {
                let name = name::parse_authority(&target.name, &self.settings.cluster_domain)?;
                let service = self.store.service(&name.namespace, &name.service).ok_or_else(|| {
                    Refusal::NotFound(format!("there is no Service {}/{}", name.namespace, name.service))
                })?;
                self.to_service(&(name.namespace, name.service), service, target.port)
            }
            Target::Addr(addr) => {
                let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
                if addr.port() == 0 {
                    return Err(Refusal::Invalid("port 0 is no port".to_owned()));
                }
                if let Some((id, service)) = self.only_service_at(addr)? {
                    return self.to_service(id, service, addr.port());
                }
                // What is known to be a pod is not outside, however large a network is.
                if self.store.pods_at(addr.ip()).next().is_none()
                    && let Some((id, egress)) = self.store.policies.egress_of(from, addr.ip(), &self.settings)
                {
                    return Ok(to_egress(id, egress, addr));
                }
                if self.settings.cluster_networks.iter().any(|net| net.contains(addr.ip())) {
                    return Err(Refusal::NotFound(format!("no Service has the address {}", addr.ip())));
                }
                Ok(to_outside(addr))
            }
        }
    }

    /// What the Service says of a port that it declares; `appProtocol` before the annotation.
    pub(super) fn wire_of(&self, namespace: &str, service: &ServiceFacts, port: u16) -> Wire {
        let declared = service.port(port);
        match declared.and_then(|p| p.app_protocol.as_deref()) {
            Some("http") => Wire::Http1,
            Some("kubernetes.io/h2c") => Wire::Http2,
            // Also what nobody knows: to detect it could only go wrong.
            Some(_) => Wire::Opaque,
            None if self
                .opaque_ports_of(namespace, service)
                .contains(port, declared.and_then(|p| p.name.as_deref())) =>
            {
                Wire::Opaque
            }
            None => Wire::Detect,
        }
    }

    fn to_service(&self, id: &Id, service: &ServiceFacts, port: u16) -> Result<ClientPolicy, Refusal> {
        let meta = Meta::Resource(Resource {
            group: "core".to_owned(),
            kind: "Service".to_owned(),
            namespace: id.0.clone(),
            name: id.1.clone(),
            section: String::new(),
            port,
        });
        let name = format!("{}.{}.svc.{}", id.1, id.0, self.settings.cluster_domain);
        let name = name.parse().map_err(|_| Refusal::Invalid(format!("{name} is no valid DNS name")))?;
        let target = NameAddr { name, port };
        let backends = |load| {
            let kind = BackendKind::Balance { target: target.clone(), load };
            to(Backend { meta: meta.clone(), kind, queue: QUEUE })
        };
        if service.port(port).is_none() {
            let protocol = ClientProtocol::Opaque(Some(TcpRoute {
                meta: Meta::default_named("undefined-port"),
                backends: backends(Load::LINKERD),
                filters: vec![Filter::Forbidden],
            }));
            return Ok(ClientPolicy { meta, protocol });
        }
        let http = || {
            let does = asked(&service.terms, backends(service.balancing.load));
            HttpRoutes { breaker: service.balancing.breaker.clone(), ..http_routes("http", does) }
        };
        // The load of connections is told by how long they take to be made.
        let tcp = || tcp_route("opaq", backends(Load::LINKERD));
        let protocol = match self.wire_of(&id.0, service, port) {
            Wire::Http1 => ClientProtocol::Http1(http()),
            Wire::Http2 => ClientProtocol::Http2(http()),
            Wire::Opaque => ClientProtocol::Opaque(Some(tcp())),
            Wire::Detect => detect(http(), tcp()),
        };
        Ok(ClientPolicy { meta, protocol })
    }
}

/// Traffic that leaves the cluster by an EgressNetwork.
fn to_egress(id: &Id, egress: &EgressFacts, addr: SocketAddr) -> ClientPolicy {
    let meta = Meta::Resource(Resource {
        group: GROUP.to_owned(),
        kind: "EgressNetwork".to_owned(),
        namespace: id.0.clone(),
        name: id.1.clone(),
        section: String::new(),
        port: addr.port(),
    });
    let kind = BackendKind::Forward(Endpoint::plain(addr));
    let backends = to(Backend { meta: meta.clone(), kind, queue: QUEUE });
    let does = asked(&egress.terms, backends.clone());
    let (mut http, mut tcp) = if egress.egress.allowed {
        (http_routes("http-egress-allow", does), tcp_route("tcp-egress-allow", backends))
    } else {
        (http_routes("http-egress-deny", does), tcp_route("tcp-egress-deny", backends))
    };
    if !egress.egress.allowed {
        let denied = Filter::HttpFailure { status: 403, message: NOT_ALLOWED.to_owned(), ratio: Ratio::ALWAYS };
        http.routes.iter_mut().flat_map(|route| &mut route.rules).for_each(|rule| rule.filters.push(denied.clone()));
        tcp.filters.push(Filter::Forbidden);
    }
    http.breaker = egress.breaker.clone();
    ClientPolicy { meta, protocol: detect(http, tcp) }
}

/// What an object asks for of all requests.
fn asked(terms: &Terms, backends: Distribution) -> OutboundRule {
    OutboundRule {
        backends,
        timeouts: terms.timeouts.unwrap_or_default(),
        retry: terms.http.clone().flatten(),
        allow_l5d_headers: false,
    }
}

/// Traffic that leaves the cluster goes where the application sent it.
fn to_outside(addr: SocketAddr) -> ClientPolicy {
    let meta = Meta::default_named(EGRESS);
    let kind = BackendKind::Forward(Endpoint::plain(addr));
    let backends = to(Backend { meta: meta.clone(), kind, queue: QUEUE });
    let http = http_routes(EGRESS, asked(&Terms::default(), backends.clone()));
    let protocol = detect(http, tcp_route(EGRESS, backends));
    ClientPolicy { meta, protocol }
}

fn to(backend: Backend) -> Distribution {
    Distribution::FirstAvailable(vec![RouteBackend { backend, filters: vec![] }])
}

fn detect(http: HttpRoutes, tcp: TcpRoute) -> ClientProtocol {
    ClientProtocol::Detect { timeout: DETECT_TIMEOUT, http1: http.clone(), http2: http, opaque: Some(tcp) }
}

fn tcp_route(name: &str, backends: Distribution) -> TcpRoute {
    TcpRoute { meta: Meta::default_named(name), backends, filters: vec![] }
}

fn http_routes(name: &str, does: OutboundRule) -> HttpRoutes {
    let every = HttpMatch { path: Some(PathMatch::Prefix("/".to_owned())), ..HttpMatch::default() };
    let rule = Rule { matches: vec![every], filters: vec![], does };
    let route = HttpRoute { meta: Meta::default_named(name), hosts: vec![], rules: vec![rule] };
    HttpRoutes { routes: vec![route], breaker: None }
}
