//! How a port of a pod is served and who may call it (control plane 6.4).

use super::{Index, Platform, Refusal, facts::PodFacts, grants};
use crate::policy::Spoken;
use weft_model::{
    Meta, ServerPolicy,
    decide::cidr::Cidr,
    names::annotation,
    policy::{
        inbound::{Authentication, Authorization, DefaultPolicy, InboundRule, NetworkMatch, ServerProtocol},
        route::{DETECT_TIMEOUT, GrpcMatch, GrpcRoute, HttpMatch, HttpRoute, PathMatch, Rule},
    },
};

/// What is asked of a proxy to know whether it lives.
const PROXY_PROBES: [&str; 2] = ["/live", "/ready"];

impl Index {
    pub(super) fn inbound(&self, namespace: &str, name: &str, port: u16) -> Result<ServerPolicy, Refusal> {
        if port == 0 {
            return Err(Refusal::Invalid("port 0 is no port".to_owned()));
        }
        let missing = || Refusal::NotFound(format!("there is no pod {namespace}/{name}"));
        let pod = self.store.pod(namespace, name).ok_or_else(missing)?;
        let aged = self.settings.platform == Platform::Kubernetes;
        let mut policy = match self.store.policies.server_of(namespace, pod, port, aged) {
            Some((id, server)) => ServerPolicy {
                meta: grants::named("server", id),
                protocol: self.spoken(server.port.spoken, pod, port),
                authorizations: self.grants(id, server),
            },
            None => self.default_policy(namespace, pod, port),
        };
        if port == pod.proxy.admin {
            policy.authorizations.extend(from("scrape", &self.settings.scrape_networks));
        }
        Ok(policy)
    }

    /// Of a port that no Server selects.
    fn default_policy(&self, namespace: &str, pod: &PodFacts, port: u16) -> ServerPolicy {
        let mesh = self.mesh(namespace, pod);
        let mut policy = mesh.default_policy.unwrap_or(self.settings.default_policy.0);
        if mesh.require_identity.contains(port) {
            policy = with_identity(policy);
        }
        // On Kubernetes the usual ports are opaque because injection wrote them into the pod's annotation.
        let said =
            self.settings.platform == Platform::Manifests || pod.annotations.contains_key(annotation::OPAQUE_PORTS);
        let spoken = if said && self.is_opaque(&mesh, pod, port) { Spoken::Opaque } else { Spoken::Unknown };
        ServerPolicy {
            meta: Meta::default_named(policy.as_str()),
            protocol: self.spoken(spoken, pod, port),
            authorizations: policy.authorizations(&self.settings.cluster_networks),
        }
    }

    fn spoken(&self, spoken: Spoken, pod: &PodFacts, port: u16) -> ServerProtocol {
        let (routes, rate_limit) = (|| self.routes(pod, port), None);
        match spoken {
            Spoken::Unknown => ServerProtocol::Detect { timeout: DETECT_TIMEOUT, routes: routes(), rate_limit },
            Spoken::Http1 => ServerProtocol::Http1 { routes: routes(), rate_limit },
            Spoken::Http2 => ServerProtocol::Http2 { routes: routes(), rate_limit },
            // Probes are of HTTP alone.
            Spoken::Grpc => {
                let rule = Rule {
                    matches: vec![GrpcMatch::default()],
                    filters: vec![],
                    does: InboundRule { authorizations: vec![] },
                };
                let route = GrpcRoute { meta: Meta::default_named("default"), hosts: vec![], rules: vec![rule] };
                ServerProtocol::Grpc { routes: vec![route] }
            }
            Spoken::Opaque => ServerProtocol::Opaque,
            Spoken::Tls => ServerProtocol::Tls,
        }
    }

    /// Every request, and the HTTP probes of the pod and of its proxy, which are let in whatever the policy is.
    fn routes(&self, pod: &PodFacts, port: u16) -> Vec<HttpRoute<InboundRule>> {
        let every = HttpMatch { path: Some(PathMatch::Prefix("/".to_owned())), ..HttpMatch::default() };
        let mut routes = vec![route("default", vec![every], vec![])];
        let of_proxy = (port == pod.proxy.admin).then_some(PROXY_PROBES).into_iter().flatten();
        let of_pod = pod.probes.iter().filter(|(at, _)| *at == port).map(|(_, path)| path.as_str());
        let probes: Vec<HttpMatch> = of_proxy
            .chain(of_pod)
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

/// Everybody in these networks.
fn from(name: &str, networks: &[Cidr]) -> Option<Authorization> {
    (!networks.is_empty()).then(|| Authorization {
        meta: Meta::default_named(name),
        networks: networks.iter().map(|net| NetworkMatch { net: *net, except: vec![] }).collect(),
        authentication: Authentication::Unauthenticated,
    })
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
