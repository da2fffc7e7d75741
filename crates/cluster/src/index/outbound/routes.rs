//! The routes of a parent that clients of one namespace follow, and what holds of requests of which no route says otherwise.

use super::{
    super::{
        Index,
        failure::Traffic,
        routes::{RouteFacts, RouteId},
        wire::Wire,
    },
    Parent, detect,
};
use crate::{
    Kind,
    policy::{
        client::Terms,
        route::{Asked, ConnectionRoute, ParentOf, RouteOf, RuleTimeouts},
    },
};
use std::time::Duration;
use weft_model::{
    Meta,
    policy::{
        outbound::{ClientProtocol, Distribution, HttpRoutes, OutboundRule, Retry, TcpRoute, Timeouts, TlsRoute},
        route::{Filter, GrpcMatch, GrpcRoute, HttpMatch, HttpRoute, PathMatch, Rule},
    },
};

/// What a client is told whose request may not leave.
const NOT_ALLOWED: &str = "traffic not allowed";

const HTTP: [Kind; 2] = [Kind::MeshHttpRoute, Kind::HttpRoute];

/// A route, and what it is of.
type Follow<'i> = (&'i RouteFacts, Traffic);

impl Index {
    /// What the Service says of the port comes before its routes; of these those of gRPC come before others of requests, and then
    /// those of TLS before those of any connections.
    pub(super) fn protocol(&self, parent: &Parent<'_>, wire: Wire) -> ClientProtocol {
        let http = || HttpRoutes { routes: self.http(parent), breaker: parent.breaker.cloned() };
        let has = |kinds: &[Kind]| !self.followed(parent, kinds).is_empty();
        match wire {
            Wire::Opaque => ClientProtocol::Opaque(Some(self.tcp(parent))),
            Wire::Http1 => ClientProtocol::Http1(http()),
            Wire::Http2 | Wire::Detect => match (self.grpc(parent), wire) {
                (Some(routes), _) => ClientProtocol::Grpc { routes, breaker: parent.breaker.cloned() },
                (None, Wire::Http2) => ClientProtocol::Http2(http()),
                (None, _) if has(&HTTP) => detect(http(), parent.every_connection("opaq", "tcp")),
                (None, _) if has(&[Kind::TlsRoute]) => ClientProtocol::Tls(self.tls(parent)),
                (None, _) if has(&[Kind::TcpRoute]) => ClientProtocol::Opaque(Some(self.tcp(parent))),
                (None, _) => detect(http(), parent.every_connection("opaq", "tcp")),
            },
        }
    }

    /// A route of the parent's namespace holds for everybody, any other for clients of its own namespace, who look at it first.
    fn followed(&self, parent: &Parent<'_>, kinds: &[Kind]) -> Vec<(&RouteId, &RouteFacts)> {
        let mut routes = self.store.routes.attached(parent.of, parent.id, kinds, self.aged);
        let is_producers = |(_, (namespace, _)): &RouteId| *namespace == parent.id.0;
        routes.retain(|(id, facts)| {
            let for_client = is_producers(id) || id.1.0 == parent.from;
            for_client
                && facts.route.parents.iter().any(|p| {
                    let same = p.of == parent.of && p.namespace == parent.id.0 && p.name == parent.id.1;
                    same && p.port.is_none_or(|port| port == parent.meta.port())
                })
        });
        routes.sort_by_key(|(id, _)| is_producers(id));
        routes
    }

    fn http(&self, parent: &Parent<'_>) -> Vec<HttpRoute<OutboundRule>> {
        let followed = self.followed(parent, &HTTP);
        let mut routes: Vec<_> = followed
            .into_iter()
            .filter_map(|(_, facts)| {
                let RouteOf::Http(HttpRoute { meta, hosts, rules }) = &facts.route.of else { return None };
                let rules = self.rules_of(parent, (facts, Traffic::Http), rules);
                Some(HttpRoute { meta: meta.clone(), hosts: hosts.clone(), rules })
            })
            .collect();
        if routes.is_empty() || parent.of == ParentOf::EgressNetwork {
            let (name, filters) = parent.otherwise("http", "http", Traffic::Http.denied(NOT_ALLOWED));
            let retry = parent.terms.http.clone().flatten();
            let does = self.asked(parent.terms, retry, parent.itself(Traffic::Http));
            routes.push(every_request(&name, filters, does));
        }
        routes
    }

    /// `None` where no call is told from other requests.
    fn grpc(&self, parent: &Parent<'_>) -> Option<Vec<GrpcRoute<OutboundRule>>> {
        let followed = self.followed(parent, &[Kind::GrpcRoute]);
        let mut routes: Vec<_> = followed
            .into_iter()
            .filter_map(|(_, facts)| {
                let RouteOf::Grpc(GrpcRoute { meta, hosts, rules }) = &facts.route.of else { return None };
                let rules = self.rules_of(parent, (facts, Traffic::Grpc), rules);
                Some(GrpcRoute { meta: meta.clone(), hosts: hosts.clone(), rules })
            })
            .collect();
        if routes.is_empty() {
            return None;
        }
        if parent.of == ParentOf::EgressNetwork {
            let (name, filters) = parent.otherwise("grpc", "grpc", Traffic::Grpc.denied(NOT_ALLOWED));
            let retry = parent.terms.grpc.clone().flatten();
            let does = self.asked(parent.terms, retry, parent.itself(Traffic::Grpc));
            let rules = vec![Rule { matches: vec![GrpcMatch::default()], filters, does }];
            routes.push(GrpcRoute { meta: Meta::default_named(name), hosts: vec![], rules });
        }
        Some(routes)
    }

    fn tls(&self, parent: &Parent<'_>) -> Vec<TlsRoute> {
        let followed = self.followed(parent, &[Kind::TlsRoute]);
        let routes = followed.into_iter().filter_map(|(_, facts)| match &facts.route.of {
            RouteOf::Tls(route) => Some(TlsRoute { snis: route.names.clone(), route: self.connections(parent, route) }),
            RouteOf::Http(_) | RouteOf::Grpc(_) | RouteOf::Tcp(_) => None,
        });
        let others = TlsRoute { snis: vec![], route: parent.every_connection("tls", "tls") };
        routes.chain((parent.of == ParentOf::EgressNetwork).then_some(others)).collect()
    }

    /// Of several the first: nothing of a connection tells them apart.
    fn tcp(&self, parent: &Parent<'_>) -> TcpRoute {
        let followed = self.followed(parent, &[Kind::TcpRoute]);
        let mut routes = followed.into_iter().filter_map(|(_, facts)| match &facts.route.of {
            RouteOf::Tcp(route) => Some(self.connections(parent, route)),
            RouteOf::Http(_) | RouteOf::Grpc(_) | RouteOf::Tls(_) => None,
        });
        routes.next().unwrap_or_else(|| parent.every_connection("opaq", "tcp"))
    }

    fn connections(&self, parent: &Parent<'_>, route: &ConnectionRoute) -> TcpRoute {
        let ConnectionRoute { meta, names: _, backends } = route;
        let backends = self.distribution(parent, backends, Traffic::Connections);
        TcpRoute { meta: meta.clone(), backends, filters: vec![] }
    }

    fn rules_of<M: Clone>(
        &self,
        parent: &Parent<'_>,
        follow: Follow<'_>,
        rules: &[Rule<M, Asked>],
    ) -> Vec<Rule<M, OutboundRule>> {
        let rules = rules.iter().map(|Rule { matches, filters, does }| {
            let (filters, does) = self.rule_of(parent, follow, filters, does);
            Rule { matches: matches.clone(), filters, does }
        });
        rules.collect()
    }

    /// What a route says of retries by its annotations stands for all that the parent says of them; so it does of timeouts, by its
    /// annotations and by the rule, of which the annotation counts.
    fn rule_of(
        &self,
        parent: &Parent<'_>,
        (facts, of): Follow<'_>,
        filters: &[Filter],
        Asked { backends, timeouts, beyond }: &Asked,
    ) -> (Vec<Filter>, OutboundRule) {
        let filters = match of.unmet(filters, beyond) {
            Some(what) => vec![of.not_carried_out(what)],
            None => self.beyond(parent, beyond).chain(filters.iter().cloned()).collect(),
        };
        let (own, parents) = match of {
            Traffic::Http => (&facts.terms.http, &parent.terms.http),
            Traffic::Grpc => (&facts.terms.grpc, &parent.terms.grpc),
            Traffic::Connections => (&None, &None),
        };
        let does = OutboundRule {
            backends: self.distribution(parent, backends, of),
            timeouts: together(facts.terms.timeouts, timeouts, parent.terms.timeouts),
            retry: own.as_ref().or(parents.as_ref()).cloned().flatten(),
            allow_l5d_headers: self.settings.request_headers,
        };
        (filters, does)
    }

    /// What an object asks for of all requests.
    pub(super) fn asked(&self, terms: &Terms, retry: Option<Retry>, backends: Distribution) -> OutboundRule {
        let timeouts = terms.timeouts.unwrap_or_default();
        OutboundRule { backends, timeouts, retry, allow_l5d_headers: self.settings.request_headers }
    }
}

/// What holds of `own` annotations, those of the rule, and those of the parent.
fn together(own: Option<Timeouts>, rule: &RuleTimeouts, parents: Option<Timeouts>) -> Timeouts {
    let RuleTimeouts { request, backend_request } = *rule;
    if own.is_none() && request.is_none() && backend_request.is_none() {
        return parents.unwrap_or_default();
    }
    let own = own.unwrap_or_default();
    let some = |timeout: Option<Duration>| timeout.filter(|timeout| !timeout.is_zero());
    Timeouts {
        request: own.request.or(some(request)),
        response: own.response.or(some(backend_request)),
        idle: own.idle,
    }
}

impl Parent<'_> {
    /// The name and the filters of what is followed where no other route is.
    fn otherwise(&self, of_service: &str, of_egress: &str, denied: Filter) -> (String, Vec<Filter>) {
        match (self.of, self.allowed) {
            (ParentOf::EgressNetwork, true) => (format!("{of_egress}-egress-allow"), vec![]),
            (ParentOf::EgressNetwork, false) => (format!("{of_egress}-egress-deny"), vec![denied]),
            (ParentOf::Service | ParentOf::Server, _) => (of_service.to_owned(), vec![]),
        }
    }

    fn every_connection(&self, of_service: &str, of_egress: &str) -> TcpRoute {
        let of = Traffic::Connections;
        let (name, filters) = self.otherwise(of_service, of_egress, of.denied(NOT_ALLOWED));
        TcpRoute { meta: Meta::default_named(name), backends: self.itself(of), filters }
    }
}

pub(super) fn every_request(name: &str, filters: Vec<Filter>, does: OutboundRule) -> HttpRoute<OutboundRule> {
    let every = HttpMatch { path: Some(PathMatch::Prefix("/".to_owned())), ..HttpMatch::default() };
    let rules = vec![Rule { matches: vec![every], filters, does }];
    HttpRoute { meta: Meta::default_named(name), hosts: vec![], rules }
}
