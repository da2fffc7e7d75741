//! Who may call: the first authorization that holds the client's address and accepts its proof.

use crate::{
    Identity, Meta,
    policy::inbound::{Authentication, Authorization, IdentitySuffix, NetworkMatch, ServerPolicy},
};
use std::{net::IpAddr, sync::LazyLock};

/// What is known of a client.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    pub addr: IpAddr,
    pub tls: ClientTls<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientTls<'a> {
    /// Plaintext, or TLS that the proxy did not terminate.
    None,
    /// Mesh TLS without a certificate.
    Unauthenticated,
    Identity(&'a Identity),
}

/// What lets in clients of the workload's own network namespace.
static LOOPBACK: LazyLock<Meta> = LazyLock::new(|| Meta::default_named("localhost"));

/// The object that lets `client` in: the first of `authorizations` that takes it. Behind them stands one that lets in every client
/// on loopback. `None` denies.
pub fn permit<'p>(
    authorizations: impl IntoIterator<Item = &'p Authorization>,
    client: &Client<'_>,
) -> Option<&'p Meta> {
    let client = Client { addr: client.addr.to_canonical(), tls: client.tls };
    let loopback = || client.addr.is_loopback().then_some(&*LOOPBACK);
    authorize(authorizations, &client).map(|a| &a.meta).or_else(loopback)
}

/// Whether `client` may do anything at all on the port: the server lets it in, or one of its routes does.
pub fn may_enter(policy: &ServerPolicy, client: &Client<'_>) -> bool {
    permit(policy.all_authorizations(), client).is_some()
}

/// The first of `authorizations` that lets `client` in. `None` denies.
fn authorize<'p>(
    authorizations: impl IntoIterator<Item = &'p Authorization>,
    client: &Client<'_>,
) -> Option<&'p Authorization> {
    authorizations.into_iter().find(|a| in_networks(&a.networks, client.addr) && proves(&a.authentication, client.tls))
}

/// What of one authorization a client does not meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unmet {
    /// Its address is in none of the networks.
    pub network: bool,
    /// It does not speak mesh TLS.
    pub tls: bool,
    /// It has no identity, or none of those that are let in.
    pub identity: bool,
}

impl Unmet {
    pub fn count(self) -> usize {
        [self.network, self.tls, self.identity].into_iter().filter(|unmet| *unmet).count()
    }
}

/// Why `authorization` does not let `client` in; nothing if it does. For who explains a refusal.
pub fn unmet(authorization: &Authorization, client: &Client<'_>) -> Unmet {
    let Authorization { meta: _, networks, authentication } = authorization;
    let anybody = |suffixes: &[IdentitySuffix]| suffixes.iter().any(|s| s.0.is_empty());
    let proves = proves(authentication, client.tls);
    let identity = match authentication {
        Authentication::TlsAuthenticated { suffixes, .. } if client.tls == ClientTls::None => !anybody(suffixes),
        Authentication::TlsAuthenticated { .. } => true,
        Authentication::Unauthenticated | Authentication::TlsUnauthenticated => false,
    };
    Unmet {
        network: !in_networks(networks, client.addr.to_canonical()),
        tls: !proves && client.tls == ClientTls::None,
        identity: !proves && identity,
    }
}

fn in_networks(networks: &[NetworkMatch], addr: IpAddr) -> bool {
    networks.iter().any(|n| in_network(n, addr))
}

fn in_network(network: &NetworkMatch, addr: IpAddr) -> bool {
    network.net.contains(addr) && !network.except.iter().any(|e| e.contains(addr))
}

fn proves(wanted: &Authentication, tls: ClientTls<'_>) -> bool {
    match (wanted, tls) {
        (Authentication::Unauthenticated, _) => true,
        (Authentication::TlsUnauthenticated, ClientTls::Unauthenticated | ClientTls::Identity(_)) => true,
        (Authentication::TlsAuthenticated { identities, suffixes }, ClientTls::Identity(id)) => {
            identities.contains(id) || suffixes.iter().any(|s| s.matches(id))
        }
        _ => false,
    }
}

impl IdentitySuffix {
    /// The empty suffix matches every identity; any other only DNS names with at least one label before it.
    pub fn matches(&self, id: &Identity) -> bool {
        match id {
            _ if self.0.is_empty() => true,
            Identity::Dns(name) => {
                name.as_str().strip_suffix(self.0.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Identity::Uri(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::inbound::DefaultPolicy;

    #[test]
    fn default_policies_let_in_whom_they_name() {
        let id: Identity = "a.b.serviceaccount.identity.linkerd.cluster.local".parse().unwrap();
        let cluster = ["10.0.0.0/8".parse().unwrap()];
        let inside: IpAddr = "10.1.1.1".parse().unwrap();
        let outside: IpAddr = "203.0.113.1".parse().unwrap();
        let cases = [
            (DefaultPolicy::Deny, [false; 6]),
            (DefaultPolicy::AllAuthenticated, [false, false, true, false, false, true]),
            (DefaultPolicy::AllUnauthenticated, [true; 6]),
            (DefaultPolicy::ClusterAuthenticated, [false, false, true, false, false, false]),
            (DefaultPolicy::ClusterUnauthenticated, [true, true, true, false, false, false]),
            (DefaultPolicy::Audit, [true; 6]),
        ];
        for (policy, expected) in cases {
            let authorizations = policy.authorizations(&cluster);
            let got: Vec<bool> = [inside, outside]
                .into_iter()
                .flat_map(|addr| {
                    [ClientTls::None, ClientTls::Unauthenticated, ClientTls::Identity(&id)]
                        .map(|tls| authorize(&authorizations, &Client { addr, tls }).is_some())
                })
                .collect();
            assert_eq!(got, expected, "{policy:?}");
        }
    }

    #[test]
    fn what_is_unmet_is_what_keeps_out() {
        let id: Identity = "a.b.serviceaccount.identity.linkerd.cluster.local".parse().unwrap();
        let networks =
            vec![NetworkMatch { net: "10.0.0.0/8".parse().unwrap(), except: vec!["10.9.0.0/16".parse().unwrap()] }];
        let of = |identities: &[&str], suffixes: &[&str]| Authentication::TlsAuthenticated {
            identities: identities.iter().map(|i| i.parse().unwrap()).collect(),
            suffixes: suffixes.iter().map(|s| IdentitySuffix((*s).to_owned())).collect(),
        };
        let all = [
            Authentication::Unauthenticated,
            Authentication::TlsUnauthenticated,
            of(&[], &[""]),
            of(&["a.b.serviceaccount.identity.linkerd.cluster.local"], &[]),
            of(&["c.b.serviceaccount.identity.linkerd.cluster.local"], &["x"]),
        ];
        let unmet_of = |network, tls, identity| Unmet { network, tls, identity };
        for (i, authentication) in all.into_iter().enumerate() {
            let authorization =
                Authorization { meta: Meta::default_named("a"), networks: networks.clone(), authentication };
            for (addr, network) in
                [("10.1.1.1", false), ("::ffff:10.1.1.1", false), ("10.9.1.1", true), ("fd00::1", true)]
            {
                for (tls, expected) in [
                    (ClientTls::None, [(false, false), (true, false), (true, false), (true, true), (true, true)]),
                    (
                        ClientTls::Unauthenticated,
                        [(false, false), (false, false), (false, true), (false, true), (false, true)],
                    ),
                    (
                        ClientTls::Identity(&id),
                        [(false, false), (false, false), (false, false), (false, false), (false, true)],
                    ),
                ] {
                    let client = Client { addr: addr.parse().unwrap(), tls };
                    let unmet = unmet(&authorization, &client);
                    assert_eq!(unmet, unmet_of(network, expected[i].0, expected[i].1), "{authorization:?} {client:?}");
                    assert_eq!(
                        unmet.count() == 0,
                        permit([&authorization], &client).is_some(),
                        "{authorization:?} {client:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_lets_in_is_named_before_loopback() {
        let client = Client { addr: "127.0.0.1".parse().unwrap(), tls: ClientTls::None };
        let anybody = DefaultPolicy::AllUnauthenticated.authorizations(&[]);
        assert_eq!(permit(&anybody, &client).map(Meta::name), Some("all-unauthenticated"));
        assert_eq!(permit(&[], &client).map(Meta::name), Some("localhost"));
    }

    #[test]
    fn loopback_is_always_let_in() {
        let nobody = DefaultPolicy::Deny.authorizations(&[]);
        for (addr, permitted) in [("127.0.0.1", true), ("::1", true), ("::ffff:127.0.0.1", true), ("10.0.0.2", false)] {
            let client = Client { addr: addr.parse().unwrap(), tls: ClientTls::None };
            assert_eq!(permit(&nobody, &client).is_some(), permitted, "{addr}");
        }
    }

    #[test]
    fn a_client_may_enter_by_a_route_alone() {
        use crate::policy::{
            inbound::{InboundRule, ServerProtocol},
            route::{HttpRoute, Rule},
        };
        let stranger = Client { addr: "10.0.0.1".parse().unwrap(), tls: ClientTls::None };
        let policy = |authorizations| {
            let rule = Rule { matches: vec![], filters: vec![], does: InboundRule { authorizations } };
            let route = HttpRoute { meta: Meta::default_named("route"), hosts: vec![], rules: vec![rule] };
            let protocol = ServerProtocol::Http1 { routes: vec![route], rate_limit: None };
            ServerPolicy { meta: Meta::default_named("server"), protocol, authorizations: vec![] }
        };
        assert!(may_enter(&policy(DefaultPolicy::AllUnauthenticated.authorizations(&[])), &stranger));
        assert!(!may_enter(&policy(DefaultPolicy::AllAuthenticated.authorizations(&[])), &stranger));
    }

    #[test]
    fn suffixes_match_whole_labels() {
        let id = |s: &str| s.parse::<Identity>().unwrap();
        let suffix = IdentitySuffix("b.c".into());
        assert!(suffix.matches(&id("a.b.c")));
        assert!(!suffix.matches(&id("b.c")));
        assert!(!suffix.matches(&id("ab.c")));
        assert!(!suffix.matches(&id("spiffe://td/b.c")));
        assert!(IdentitySuffix(String::new()).matches(&id("spiffe://td/x")));
    }
}
