//! Who may call the port of a Server: everything that grants it, in the order in which it is tried (control plane 6.4).

use super::{Index, policies::ServerFacts, routes::RouteId, store::Id};
use crate::{
    Kind,
    policy::{GROUP, Identities, IdentityMatch, Limit, PolicyGrant, Proof, Required, ServerGrant, Target, definition},
};
use std::fmt;
use weft_model::{
    DnsName, Identity, Meta,
    decide::cidr::Cidr,
    meta::Resource,
    policy::inbound::{Authentication, Authorization, IdentitySuffix, NetworkMatch, RateLimit},
};

/// An object that another one names, and that is not there or cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    kind: Kind,
    id: Id,
}

/// `MeshTLSAuthentication shop/bots`.
impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = &self.id;
        write!(f, "{} {namespace}/{name}", self.kind.as_str())
    }
}

impl Index {
    /// ServerAuthorizations, then AuthorizationPolicies, each by its name, then what the Server itself says.
    pub(super) fn grants(&self, (namespace, name): &Id, server: &ServerFacts) -> Vec<Authorization> {
        let policies = &self.store.policies;
        let own = policies.server_authorizations(namespace).filter_map(|(id, grant)| {
            self.of_server_authorization(id, grant).filter(|_| grant.servers.contain(name, &server.labels))
        });
        let referring = policies.authorization_policies(namespace).filter_map(|(id, grant)| {
            let is_target = match &grant.target {
                Target::Server(target) => target == name,
                Target::Namespace => true,
                Target::Route(..) => false,
            };
            self.of_authorization_policy(id, grant).filter(|_| is_target)
        });
        own.chain(referring).chain(server.port.access.authorizations(&self.settings.cluster_networks)).collect()
    }

    /// Who may use a route, besides those whom its Server lets in.
    pub(super) fn grants_of_route(&self, (kind, (namespace, name)): &RouteId) -> Vec<Authorization> {
        let policies = self.store.policies.authorization_policies(namespace).filter(|(_, grant)| match &grant.target {
            Target::Route(of, target) => of == kind && target == name,
            Target::Server(_) | Target::Namespace => false,
        });
        policies.filter_map(|(id, grant)| self.of_authorization_policy(id, grant)).collect()
    }

    /// The AuthorizationPolicies that have no effect, as what they name is not there.
    pub fn in_vain(&self) -> impl Iterator<Item = (&Id, Absent)> {
        let all = self.store.policies.all_authorization_policies();
        all.filter_map(|(id, grant)| Some((id, self.absent_target(id, grant).or_else(|| self.absent(grant))?)))
    }

    /// Those for the port of a Server, or for a route there.
    pub(crate) fn in_vain_at(&self, namespace: &str, server: &Meta, route: &Meta) -> Vec<(Meta, Absent)> {
        let is_there = |target: &Target| match target {
            Target::Server(name) => matches!(server, Meta::Resource(server) if server.name == *name),
            Target::Namespace => matches!(server, Meta::Resource(_)),
            Target::Route(kind, name) => {
                let of = definition(*kind);
                of.is_some_and(|of| of.group == route.group() && of.kind.eq_ignore_ascii_case(route.kind()))
                    && name == route.name()
            }
        };
        let policies = self.store.policies.authorization_policies(namespace);
        let policies = policies.filter(|(_, grant)| is_there(&grant.target));
        policies.filter_map(|(id, grant)| Some((named("authorizationpolicy", id), self.absent(grant)?))).collect()
    }

    fn absent_target(&self, (namespace, _): &Id, grant: &PolicyGrant) -> Option<Absent> {
        let (kind, name) = match &grant.target {
            Target::Server(name) => (Kind::Server, name),
            Target::Route(kind, name) => (*kind, name),
            Target::Namespace => return None,
        };
        let id = (namespace.clone(), name.clone());
        let is_there = match kind {
            Kind::Server => self.store.policies.server(&id).is_some(),
            _ => self.store.routes.contains(&(kind, id.clone())),
        };
        (!is_there).then_some(Absent { kind, id })
    }

    /// What it requires: while that is absent, nobody is let in by the policy.
    fn absent(&self, grant: &PolicyGrant) -> Option<Absent> {
        let policies = &self.store.policies;
        let network = grant.network.as_ref().filter(|id| policies.networks(id).is_none());
        let identities = match &grant.identity {
            Some(Required::MeshTls(id)) if policies.identities(id).is_none() => Some(id),
            _ => None,
        };
        let network = network.map(|id| (Kind::NetworkAuthentication, id));
        let (kind, id) = network.or(identities.map(|id| (Kind::MeshTlsAuthentication, id)))?;
        Some(Absent { kind, id: id.clone() })
    }

    pub(super) fn rate_limit(&self, server: &Id) -> Option<RateLimit> {
        let (id, Limit { server: _, total, identity, overrides }) = self.store.policies.limit_of(server, self.aged)?;
        let overrides = overrides.iter().map(|(rate, accounts)| {
            let identities = accounts.iter().filter_map(|(namespace, name)| self.account(namespace, name));
            (*rate, identities.collect())
        });
        let meta = named("HTTPLocalRateLimitPolicy", id);
        Some(RateLimit { meta, total: *total, identity: *identity, overrides: overrides.collect() })
    }

    /// `None` if nobody can have that name.
    fn account(&self, namespace: &str, name: &str) -> Option<Identity> {
        let (control, domain) = (&self.settings.control_namespace, &self.settings.trust_domain);
        Identity::of_service_account(name, namespace, control, domain).ok()
    }

    fn of_server_authorization(&self, id: &Id, grant: &ServerGrant) -> Option<Authorization> {
        let ServerGrant { servers: _, networks, proof } = grant;
        let networks = networks.clone().unwrap_or_else(|| whole(&self.settings.cluster_networks));
        let authentication = match proof {
            Proof::Nothing => Authentication::Unauthenticated,
            Proof::MeshTls => Authentication::TlsUnauthenticated,
            Proof::Identity(identities) => self.one_of(identities)?,
        };
        authorization("serverauthorization", id, networks, authentication)
    }

    /// `None` while something that it requires is missing: nobody is let in by half of it.
    fn of_authorization_policy(&self, id: &Id, grant: &PolicyGrant) -> Option<Authorization> {
        let PolicyGrant { target: _, identity, network } = grant;
        let networks = match network {
            None => whole(&[Cidr::ALL_V4, Cidr::ALL_V6]),
            Some(network) => self.store.policies.networks(network)?.clone(),
        };
        let authentication = match identity {
            None => Authentication::Unauthenticated,
            Some(Required::MeshTls(id)) => self.one_of(self.store.policies.identities(id)?)?,
            Some(Required::Account((namespace, name))) => {
                self.one_of(&vec![IdentityMatch::Account { namespace: namespace.clone(), name: name.clone() }])?
            }
        };
        authorization("authorizationpolicy", id, networks, authentication)
    }

    /// `None` if nobody can have any of these identities.
    fn one_of(&self, matches: &Identities) -> Option<Authentication> {
        let (control, domain) = (&self.settings.control_namespace, &self.settings.trust_domain);
        let (mut identities, mut suffixes) = (vec![], vec![]);
        for wanted in matches {
            match wanted {
                IdentityMatch::Exact(identity) => identities.push(identity.clone()),
                IdentityMatch::Suffix(suffix) => suffixes.push(suffix.clone()),
                IdentityMatch::Account { namespace, name } => {
                    identities.extend(self.account(namespace, name));
                }
                IdentityMatch::Namespace(namespace) => {
                    let name: Option<DnsName> =
                        format!("{namespace}.serviceaccount.identity.{control}.{domain}").parse().ok();
                    suffixes.extend(name.map(|name| IdentitySuffix(name.as_str().to_owned())));
                }
            }
        }
        let somebody = !identities.is_empty() || !suffixes.is_empty();
        somebody.then_some(Authentication::TlsAuthenticated { identities, suffixes })
    }
}

/// `None` if it is of no network: the empty list would mean nobody, and has no form on the wire.
fn authorization(
    kind: &str,
    id: &Id,
    networks: Vec<NetworkMatch>,
    authentication: Authentication,
) -> Option<Authorization> {
    (!networks.is_empty()).then(|| Authorization { meta: named(kind, id), networks, authentication })
}

/// By kind and name alone, as Linkerd has it: metrics and errors name the namespace otherwise.
pub(super) fn named(kind: &str, (_, name): &Id) -> Meta {
    Meta::Resource(Resource {
        group: GROUP.to_owned(),
        kind: kind.to_owned(),
        name: name.clone(),
        ..Resource::default()
    })
}

fn whole(networks: &[Cidr]) -> Vec<NetworkMatch> {
    networks.iter().map(|net| NetworkMatch { net: *net, except: vec![] }).collect()
}
