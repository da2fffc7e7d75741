//! How a port of a workload is served and who may call it (control plane 6.4).

use super::{
    Index, Platform, Refusal, WorkloadKind,
    destination::is_said_opaque,
    facts::{Common, ProxyPorts},
    failure::Traffic,
    grants,
    routes::RouteId,
    store::Id,
};
use crate::{
    Kind,
    policy::{
        Spoken,
        route::{Asked, ParentOf, Route, RouteOf},
    },
};
use weft_model::{
    Meta, ServerPolicy,
    decide::cidr::Cidr,
    meta::Resource,
    names::annotation,
    policy::{
        inbound::{Authentication, Authorization, DefaultPolicy, InboundRule, NetworkMatch, RateLimit, ServerProtocol},
        route::{DETECT_TIMEOUT, Filter, GrpcMatch, GrpcRoute, HttpMatch, HttpRoute, PathMatch, Rule},
    },
};

/// What is asked of a proxy to know whether it lives.
const PROXY_PROBES: [&str; 2] = ["/live", "/ready"];

impl Index {
    pub(super) fn inbound(
        &self,
        namespace: &str,
        of: WorkloadKind,
        name: &str,
        port: u16,
    ) -> Result<ServerPolicy, Refusal> {
        if port == 0 {
            return Err(Refusal::Invalid("port 0 is no port".to_owned()));
        }
        let (found, what): (Option<&Common>, _) = match of {
            WorkloadKind::Pod => (self.store.pod(namespace, name).map(|pod| &**pod), "pod"),
            WorkloadKind::ExternalWorkload => {
                (self.store.external(namespace, name).map(|external| &**external), "ExternalWorkload")
            }
        };
        let Some(of) = found else {
            let is_refused = of == WorkloadKind::ExternalWorkload && self.store.is_refused_external(namespace, name);
            let absent = || Refusal::NotFound(format!("there is no {what} {namespace}/{name}"));
            return if is_refused { Ok(self.nobody(port)) } else { Err(absent()) };
        };
        let mut policy = match self.store.policies.server_of(namespace, of, port, self.aged) {
            Some((id, server)) => ServerPolicy {
                meta: grants::named("server", id),
                protocol: self.spoken_by(id, server.port.spoken, of, port),
                authorizations: self.grants(id, server),
            },
            None => self.default_policy(namespace, of, port),
        };
        if port == of.proxy.admin {
            policy.authorizations.extend(from("scrape", &self.settings.scrape_networks));
        }
        Ok(policy)
    }

    /// Of a port that no Server selects.
    fn default_policy(&self, namespace: &str, of: &Common, port: u16) -> ServerPolicy {
        let mesh = self.mesh(namespace, of);
        let mut policy = mesh.default_policy.unwrap_or(self.settings.default_policy.0);
        if mesh.require_identity.contains(port) {
            policy = with_identity(policy);
        }
        // On Kubernetes the usual ports are opaque because injection wrote them into the pod's annotation.
        let said =
            self.settings.platform == Platform::Manifests || of.annotations.contains_key(annotation::OPAQUE_PORTS);
        let spoken = if said && is_said_opaque(&mesh, of, port) { Spoken::Opaque } else { Spoken::Unknown };
        ServerPolicy {
            meta: Meta::default_named(policy.as_str()),
            protocol: spoken_as(spoken, || self.routes(of, port), Vec::new, None),
            authorizations: policy.authorizations(&self.settings.cluster_networks),
        }
    }

    /// Of a Server, whose routes take the place of the default ones: with the first of them it lets in no probe by itself.
    fn spoken_by(&self, server: &Id, spoken: Spoken, of: &Common, port: u16) -> ServerProtocol {
        let attached = |kinds: &[Kind]| self.store.routes.attached(ParentOf::Server, server, kinds, self.aged);
        let http = || {
            let routes = attached(&[Kind::MeshHttpRoute, Kind::HttpRoute]);
            let routes = routes.into_iter().filter_map(|(id, of)| self.http_route(id, &of.route)).collect::<Vec<_>>();
            if routes.is_empty() { self.routes(of, port) } else { routes }
        };
        let grpc = || {
            let routes = attached(&[Kind::GrpcRoute]);
            routes.into_iter().filter_map(|(id, of)| self.grpc_route(id, &of.route)).collect()
        };
        spoken_as(spoken, http, grpc, self.rate_limit(server))
    }

    fn http_route(&self, id: &RouteId, route: &Route) -> Option<HttpRoute<InboundRule>> {
        let RouteOf::Http(HttpRoute { meta, hosts, rules }) = &route.of else { return None };
        let rules = self.rules(id, rules, Traffic::Http);
        Some(HttpRoute { meta: without_namespace(meta), hosts: hosts.clone(), rules })
    }

    fn grpc_route(&self, id: &RouteId, route: &Route) -> Option<GrpcRoute<InboundRule>> {
        let RouteOf::Grpc(GrpcRoute { meta, hosts, rules }) = &route.of else { return None };
        let rules = self.rules(id, rules, Traffic::Grpc);
        Some(GrpcRoute { meta: without_namespace(meta), hosts: hosts.clone(), rules })
    }

    /// Requests of a rule that cannot be carried out are refused: without it they would follow another, which may let in others.
    fn rules<M: Clone>(&self, id: &RouteId, rules: &[Rule<M, Asked>], of: Traffic) -> Vec<Rule<M, InboundRule>> {
        let does = InboundRule { authorizations: self.grants_of_route(id) };
        let rules = rules.iter().map(|Rule { matches, filters, does: asked }| {
            let filters = match asked.beyond.first() {
                Some(first) => vec![of.not_carried_out(first)],
                // Responses are edited by the client's proxy alone.
                None => filters.iter().filter(|f| !matches!(f, Filter::ResponseHeaders(_))).cloned().collect(),
            };
            Rule { matches: matches.clone(), filters, does: does.clone() }
        });
        rules.collect()
    }

    /// Every request, and the HTTP probes of the workload and of its proxy, which are let in whatever the policy is.
    fn routes(&self, of: &Common, port: u16) -> Vec<HttpRoute<InboundRule>> {
        let of_workload = of.probes.iter().filter(|(at, _)| *at == port).map(|(_, path)| path.as_str());
        self.routes_and_probes(&of.proxy, port, of_workload)
    }

    /// Of what cannot be carried out: without an answer its proxy would let in whom it did before, or whom its own default does. The
    /// proxy's own probes come in: its machine would start it again and again.
    fn nobody(&self, port: u16) -> ServerPolicy {
        let routes = || self.routes_and_probes(&ProxyPorts::default(), port, []);
        ServerPolicy {
            meta: Meta::default_named(DefaultPolicy::Deny.as_str()),
            protocol: spoken_as(Spoken::Unknown, routes, Vec::new, None),
            authorizations: vec![],
        }
    }

    fn routes_and_probes<'p>(
        &self,
        proxy: &ProxyPorts,
        port: u16,
        of_workload: impl IntoIterator<Item = &'p str>,
    ) -> Vec<HttpRoute<InboundRule>> {
        let mut routes = vec![every_request()];
        let of_proxy = (port == proxy.admin).then_some(PROXY_PROBES).into_iter().flatten();
        let probes: Vec<HttpMatch> = of_proxy
            .chain(of_workload)
            .map(|path| HttpMatch {
                path: Some(PathMatch::Exact(path.to_owned())),
                method: Some("GET".to_owned()),
                ..HttpMatch::default()
            })
            .collect();
        if let Some(authorization) = from("probe", &self.settings.probe_networks)
            && !probes.is_empty()
        {
            routes.push(route("probe", probes, vec![authorization]));
        }
        routes
    }
}

/// The routes are those of requests of HTTP and of gRPC; a limit is of HTTP alone, on the wire too.
fn spoken_as(
    spoken: Spoken,
    http: impl FnOnce() -> Vec<HttpRoute<InboundRule>>,
    grpc: impl FnOnce() -> Vec<GrpcRoute<InboundRule>>,
    rate_limit: Option<RateLimit>,
) -> ServerProtocol {
    match spoken {
        Spoken::Unknown => ServerProtocol::Detect { timeout: DETECT_TIMEOUT, routes: http(), rate_limit },
        Spoken::Http1 => ServerProtocol::Http1 { routes: http(), rate_limit },
        Spoken::Http2 => ServerProtocol::Http2 { routes: http(), rate_limit },
        Spoken::Grpc => {
            let mut routes = grpc();
            if routes.is_empty() {
                let does = InboundRule { authorizations: vec![] };
                let rule = Rule { matches: vec![GrpcMatch::default()], filters: vec![], does };
                routes.push(GrpcRoute { meta: Meta::default_named("default"), hosts: vec![], rules: vec![rule] });
            }
            ServerProtocol::Grpc { routes }
        }
        Spoken::Opaque => ServerProtocol::Opaque,
        Spoken::Tls => ServerProtocol::Tls,
    }
}

/// As Linkerd names routes here: metrics and errors name the namespace otherwise.
fn without_namespace(meta: &Meta) -> Meta {
    match meta {
        Meta::Resource(of) => Meta::Resource(Resource { namespace: String::new(), ..of.clone() }),
        default @ Meta::Default(_) => default.clone(),
    }
}

/// Everybody in these networks.
fn from(name: &str, networks: &[Cidr]) -> Option<Authorization> {
    (!networks.is_empty()).then(|| Authorization {
        meta: Meta::default_named(name),
        networks: networks.iter().map(|net| NetworkMatch { net: *net, except: vec![] }).collect(),
        authentication: Authentication::Unauthenticated,
    })
}

fn every_request() -> HttpRoute<InboundRule> {
    let every = HttpMatch { path: Some(PathMatch::Prefix("/".to_owned())), ..HttpMatch::default() };
    route("default", vec![every], vec![])
}

fn route(name: &str, matches: Vec<HttpMatch>, authorizations: Vec<Authorization>) -> HttpRoute<InboundRule> {
    HttpRoute {
        meta: Meta::default_named(name),
        hosts: vec![],
        rules: vec![Rule { matches, filters: vec![], does: InboundRule { authorizations } }],
    }
}

fn with_identity(policy: DefaultPolicy) -> DefaultPolicy {
    match policy {
        DefaultPolicy::Deny => DefaultPolicy::Deny,
        DefaultPolicy::ClusterAuthenticated | DefaultPolicy::ClusterUnauthenticated => {
            DefaultPolicy::ClusterAuthenticated
        }
        DefaultPolicy::AllAuthenticated | DefaultPolicy::AllUnauthenticated | DefaultPolicy::Audit => {
            DefaultPolicy::AllAuthenticated
        }
    }
}
