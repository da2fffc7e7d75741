//! How traffic to a target behaves on the client's side (control plane 6.5).

use super::{Index, Refusal, Target, facts::ServiceFacts, name, store::Id};
use std::{net::SocketAddr, time::Duration};
use weft_model::{
    ClientPolicy, Endpoint, Meta, NameAddr,
    meta::Resource,
    policy::{
        outbound::{
            Backend, BackendKind, ClientProtocol, Distribution, HttpRoutes, Load, OutboundRule, Queue, RouteBackend,
            TcpRoute, Timeouts,
        },
        route::{DETECT_TIMEOUT, Filter, HttpMatch, HttpRoute, PathMatch, Rule},
    },
};

const QUEUE: Queue = Queue { capacity: 100, failfast: Duration::from_secs(3) };
/// The name of everything that is done with traffic that leaves the cluster.
const EGRESS: &str = "egress-fallback";

/// What is spoken on a port of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Detect,
    Http1,
    Http2,
    Opaque,
}

impl Index {
    pub(super) fn outbound(&self, target: &Target) -> Result<ClientPolicy, Refusal> {
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
        let kind = BackendKind::Balance { target: NameAddr { name, port }, load: Load::LINKERD };
        let backends = to(Backend { meta: meta.clone(), kind, queue: QUEUE });
        if service.port(port).is_none() {
            let protocol = ClientProtocol::Opaque(Some(TcpRoute {
                meta: Meta::default_named("undefined-port"),
                backends,
                filters: vec![Filter::Forbidden],
            }));
            return Ok(ClientPolicy { meta, protocol });
        }
        let http = || http_routes("http", backends.clone());
        let tcp = || tcp_route("opaq", backends.clone());
        let protocol = match self.wire_of(&id.0, service, port) {
            Wire::Http1 => ClientProtocol::Http1(http()),
            Wire::Http2 => ClientProtocol::Http2(http()),
            Wire::Opaque => ClientProtocol::Opaque(Some(tcp())),
            Wire::Detect => detect(http(), tcp()),
        };
        Ok(ClientPolicy { meta, protocol })
    }
}

/// Traffic that leaves the cluster goes where the application sent it.
fn to_outside(addr: SocketAddr) -> ClientPolicy {
    let meta = Meta::default_named(EGRESS);
    let kind = BackendKind::Forward(Endpoint::plain(addr));
    let backends = to(Backend { meta: meta.clone(), kind, queue: QUEUE });
    let protocol = detect(http_routes(EGRESS, backends.clone()), tcp_route(EGRESS, backends));
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

fn http_routes(name: &str, backends: Distribution) -> HttpRoutes {
    let every = HttpMatch { path: Some(PathMatch::Prefix("/".to_owned())), ..HttpMatch::default() };
    let does = OutboundRule { backends, timeouts: Timeouts::default(), retry: None, allow_l5d_headers: false };
    let rule = Rule { matches: vec![every], filters: vec![], does };
    let route = HttpRoute { meta: Meta::default_named(name), hosts: vec![], rules: vec![rule] };
    HttpRoutes { routes: vec![route], breaker: None }
}
