//! What stands before a pod's port, and what it says to who comes there, by the functions that the proxies run.

use super::{
    Request, hosts,
    people::{Called, Caller, GIVEN_LATER, Guard},
    told::{Nearest, Said, Shown, Verdict, missing, worst},
    way::{answered, no_call},
};
use crate::{
    Index,
    index::{Absent, Answer as Known, Question},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_model::{
    Meta, ServerPolicy,
    decide::{
        admit::{Admission, admit, considered},
        authorize::{self, ClientTls, Unmet, unmet},
        cidr::Cidr,
        filter::Matched,
        route::matched_prefix,
    },
    policy::inbound::{Authentication, Authorization, IdentitySuffix, NetworkMatch, ServerProtocol},
};

/// What stands before a pod's port.
pub(super) enum Door {
    /// Nothing that asks: why.
    Open(&'static str),
    Unknown(String),
    Guarded {
        policy: Box<ServerPolicy>,
        tls: bool,
        /// Why it is not known whether it stands there.
        unsure: Option<String>,
    },
}

impl Door {
    pub(super) fn of(index: &Index, pod: &Called) -> Self {
        let Called { of, namespace, name, port, dialled: _, at: _, by_node: _, from_outside: _, guard, unsure } = pod;
        let Some(port) = *port else { return Self::Unknown("the workload has no such port".to_owned()) };
        match guard {
            Guard::NoProxy => return Self::Open("the pod has no proxy, so that no policy holds there"),
            Guard::Skipped => {
                return Self::Open("connections to this port go past the proxy, so that no policy holds there");
            }
            Guard::OfAnother(namespace) => {
                return Self::Unknown(format!(
                    "the pod's proxy asks another control plane, in the namespace {namespace}"
                ));
            }
            Guard::Proxys => {
                return Self::Unknown("the port is the proxy's own, and no policy says who may speak to it".to_owned());
            }
            Guard::OfThisMesh => {}
        }
        let id = (namespace.clone(), name.clone());
        if let Some(((_, server), label)) = index.server_by_label(&id, port) {
            return Self::Unknown(format!("Server/{server} may be of the port: it names {label}, {GIVEN_LATER}"));
        }
        let question = Question::Inbound { namespace: namespace.clone(), of: *of, name: name.clone(), port };
        match index.answer(&question).answer {
            Ok(Known::Inbound(policy)) => {
                let tls = index.is_reached_by_tls(*of, &id, port);
                Self::Guarded { policy: Box::new(policy), tls, unsure: unsure.proxy.clone() }
            }
            Ok(_) => Self::Unknown("the index has no policy of the port".to_owned()),
            Err(refusal) => Self::Unknown(refusal.to_string()),
        }
    }

    /// One thing, unless it says the same for another reason where another host is asked for.
    pub(super) fn says(&self, index: &Index, pod: &Called, caller: &Caller, request: &Request) -> Vec<Said> {
        let (each, by_pattern) = match self {
            Self::Guarded { policy, .. } => {
                (hosts::each(request, &policy.protocol), hosts::by_pattern(request, &policy.protocol))
            }
            Self::Open(_) | Self::Unknown(_) => (vec![request.clone()], None),
        };
        let said = each.iter().map(|asked| self.says_to(index, pod, caller, asked));
        let mut said: Vec<Said> = said.collect();
        let differ = || hosts::differ(each.iter().zip(said.iter().map(|said| said.verdict)));
        if let (Some(why), Some(first)) = (by_pattern.or_else(differ), said.first()) {
            let (route, by, nearest, why) = (None, None, None, Some(why));
            return vec![Said { verdict: Verdict::Unknown, route, by, nearest, why, ..first.clone() }];
        }
        said.sort_unstable();
        said.dedup();
        match self {
            // Without a proxy everybody would be let in.
            Self::Guarded { unsure: Some(unsure), .. } if worst(&said) != Some(Verdict::Allowed) => {
                let why = format!("it is not known whether the pod has a proxy: {unsure}");
                vec![Said::of(Verdict::Unknown, pod.port, why)]
            }
            _ => said,
        }
    }

    fn says_to(&self, index: &Index, pod: &Called, caller: &Caller, request: &Request) -> Said {
        let (policy, reached_by_tls) = match self {
            Self::Open(why) => return Said::of(Verdict::Allowed, pod.port, (*why).to_owned()),
            Self::Unknown(why) => return Said::of(Verdict::Unknown, pod.port, why.clone()),
            Self::Guarded { policy, tls, unsure: _ } => (&**policy, *tls),
        };
        let proves = reached_by_tls && !pod.from_outside && !caller.skip.contains(pod.dialled);
        let identity = caller.identity.as_ref().filter(|_| proves);
        let tls = identity.map_or(ClientTls::None, ClientTls::Identity);
        let anywhere = match caller.addresses.as_slice() {
            _ if pod.from_outside => Some(Anywhere::Outside),
            [] if caller.unsure.on_node => Some(Anywhere::Outside),
            [] => Some(Anywhere::InCluster),
            _ => None,
        };
        let addresses = match anywhere {
            Some(Anywhere::InCluster) => representatives(policy, &index.settings().cluster_networks),
            Some(Anywhere::Outside) => representatives(policy, &[]),
            None => caller.addresses.clone(),
        };
        let comes_from = |addr: &IpAddr| pod.at.is_empty() || pod.at.iter().any(|at| at.is_ipv4() == addr.is_ipv4());
        let in_vain = |route: &Meta| {
            let absent = index.in_vain_at(&pod.namespace, &policy.meta, route).into_iter();
            let why = |(policy, absent): (Meta, Absent)| {
                format!(
                    "{} lets nobody in: {absent}, which it requires, is not there or is quarantined",
                    Shown::of(&policy)
                )
            };
            let all: Vec<String> = absent.map(why).take(SOME).collect();
            (!all.is_empty()).then(|| all.join("; "))
        };
        let mut addresses: Vec<IpAddr> = addresses.into_iter().filter(comes_from).collect();
        if anywhere.is_some() && addresses.is_empty() {
            // The cluster's networks are said of the other family alone.
            addresses = representatives(policy, &[]).into_iter().filter(comes_from).collect();
        }
        let judged: Vec<(IpAddr, Judged)> = addresses
            .into_iter()
            .map(|addr| (addr, Judged::of(policy, &authorize::Client { addr, tls }, request, anywhere)))
            .collect();
        // Proxies are told of these objects without it.
        let within = |shown: Shown| shown.within(&pod.namespace);
        let known = |verdict, route: Option<Shown>, by: Option<Shown>, nearest: Option<Nearest>, why| Said {
            verdict,
            port: pod.port,
            identity: identity.map(ToString::to_string),
            via: None,
            server: Some(Shown::of(&policy.meta).within(&pod.namespace)),
            route: route.map(within),
            by: by.map(within),
            nearest: nearest.map(|Nearest { object, missing, why }| Nearest { object: within(object), missing, why }),
            why,
            to_itself: false,
        };
        let allowed = judged.iter().find(|(_, judged)| judged.verdict == Verdict::Allowed);
        let denied = judged
            .iter()
            .filter(|(_, judged)| judged.verdict == Verdict::Denied)
            .min_by_key(|(_, judged)| judged.unmet.map_or(usize::MAX, Unmet::count));
        match (allowed, denied) {
            (Some((inside, yes)), Some((outside, _))) => {
                let by = yes.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
                let remedy = if pod.from_outside {
                    "the node may put its own in place of it"
                } else {
                    "say which it has (--address)"
                };
                let why = format!(
                    "it depends on the client's address: {inside} is allowed{by} and {outside} is denied; {remedy}"
                );
                known(Verdict::Unknown, None, None, None, Some(why))
            }
            (None, Some(_)) if caller.mesh.is_some() => {
                let of = caller.mesh.as_deref().unwrap_or_default();
                let why =
                    format!("the client's proxy has its identity from another control plane, in the namespace {of}");
                known(Verdict::Unknown, None, None, None, Some(why))
            }
            (Some((_, judged)), None) | (None, Some((_, judged))) => {
                let Judged { verdict, route, by, nearest, unmet: _, shut, why } = judged.clone();
                known(verdict, route, by, nearest, shut.and_then(in_vain).or(why))
            }
            (None, None) => {
                let why = "the client has no address of the family by which the pod is reached";
                known(Verdict::Unknown, None, None, None, Some(why.to_owned()))
            }
        }
    }
}

/// All the addresses that a client may have.
#[derive(Clone, Copy)]
enum Anywhere {
    InCluster,
    /// As a node has them.
    Outside,
}

/// What is said to a client at one address.
#[derive(Clone)]
struct Judged<'p> {
    verdict: Verdict,
    route: Option<Shown>,
    by: Option<Shown>,
    nearest: Option<Nearest>,
    unmet: Option<Unmet>,
    /// The route at which nothing lets it in.
    shut: Option<&'p Meta>,
    why: Option<String>,
}

impl<'p> Judged<'p> {
    /// `anywhere`: what the address stands for.
    fn of(
        policy: &'p ServerPolicy,
        client: &authorize::Client<'_>,
        request: &Request,
        anywhere: Option<Anywhere>,
    ) -> Self {
        let judged = |verdict, route: Option<&_>| Self {
            verdict,
            route: route.map(Shown::of),
            by: None,
            nearest: None,
            unmet: None,
            shut: None,
            why: None,
        };
        match admit(policy, client, request) {
            Admission::Permitted { route, matches, filters, by } => {
                let prefix = matched_prefix(matches, request);
                match answered(filters, &Matched { request, prefix, default_authority: &"" }) {
                    Some((Some(Verdict::Denied), why)) => {
                        Self { why: Some(why), ..judged(Verdict::Denied, Some(route)) }
                    }
                    told => {
                        let why = told.map(|(_, why)| why);
                        Self { by: Some(Shown::of(by)), why, ..judged(Verdict::Allowed, Some(route)) }
                    }
                }
            }
            Admission::NoRoute => {
                let of_grpc = matches!(policy.protocol, ServerProtocol::Grpc { .. });
                let why = match no_call(request).filter(|_| of_grpc) {
                    Some(why) => format!("the port {why}"),
                    None => {
                        "the request follows no route of the port, and a port with routes serves no others".to_owned()
                    }
                };
                Self { why: Some(why), ..judged(Verdict::Denied, None) }
            }
            Admission::Denied { route } => {
                let all = considered(policy, client, request);
                let nearest = all.into_iter().map(|a| (unmet(a, client), a)).min_by_key(|(unmet, _)| unmet.count());
                let why = nearest.is_none().then(|| "nothing lets anybody in there".to_owned());
                Self {
                    shut: Some(route),
                    unmet: nearest.map(|(unmet, _)| unmet),
                    nearest: nearest.map(|(unmet, a)| Nearest {
                        object: Shown::of(&a.meta),
                        missing: missing(unmet),
                        why: explained(unmet, a, client, anywhere),
                    }),
                    why,
                    ..judged(Verdict::Denied, Some(route))
                }
            }
        }
    }
}

fn explained(
    unmet: Unmet,
    authorization: &Authorization,
    client: &authorize::Client<'_>,
    anywhere: Option<Anywhere>,
) -> String {
    let Unmet { network, tls, identity } = unmet;
    let mut parts = vec![];
    if network {
        let networks: Vec<String> = authorization.networks.iter().map(network_text).collect();
        // Were it met at one of the addresses, it would be told of that one, where less is missing.
        let addr = match anywhere {
            Some(Anywhere::InCluster) => "any address of the cluster's networks".to_owned(),
            Some(Anywhere::Outside) => "any address".to_owned(),
            None => client.addr.to_string(),
        };
        parts.push(format!("it lets in {}, and not {addr}", listed(&networks)));
    }
    if tls {
        parts.push("it wants the mesh's TLS, which the client does not speak there".to_owned());
    }
    if identity {
        let wanted = match &authorization.authentication {
            Authentication::TlsAuthenticated { identities, suffixes } => {
                let identities = identities.iter().map(ToString::to_string);
                let all: Vec<String> = identities.chain(suffixes.iter().map(suffix_text)).collect();
                listed(&all)
            }
            Authentication::Unauthenticated | Authentication::TlsUnauthenticated => "one".to_owned(),
        };
        parts.push(match client.tls {
            ClientTls::Identity(id) => format!("it wants the identity {wanted}, and not {id}"),
            ClientTls::None | ClientTls::Unauthenticated => format!("it wants the identity {wanted}"),
        });
    }
    parts.join("; ")
}

fn suffix_text(IdentitySuffix(suffix): &IdentitySuffix) -> String {
    if suffix.is_empty() { "*".to_owned() } else { format!("*.{suffix}") }
}

fn network_text(NetworkMatch { net, except }: &NetworkMatch) -> String {
    let except: Vec<String> = except.iter().map(ToString::to_string).collect();
    if except.is_empty() { net.to_string() } else { format!("{net} except {}", listed(&except)) }
}

/// Objects and networks in one line.
const SOME: usize = 3;

/// The first of them.
fn listed(all: &[String]) -> String {
    let text = all.iter().take(SOME).cloned().collect::<Vec<_>>().join(" or ");
    if all.len() > SOME { format!("{text} or {} more", all.len() - SOME) } else { text }
}

/// One address for all those of the cluster's networks to which the policy says the same: what it says changes only where one of the
/// networks that it names begins, or has just ended.
fn representatives(policy: &ServerPolicy, cluster: &[Cidr]) -> Vec<IpAddr> {
    let all = [Cidr::ALL_V4, Cidr::ALL_V6];
    let within = if cluster.is_empty() { &all } else { cluster };
    let networks = policy.all_authorizations().flat_map(|a| &a.networks);
    let named = networks.flat_map(|n| std::iter::once(n.net).chain(n.except.iter().copied()));
    let borders = named.flat_map(|net| std::iter::once(net.addr()).chain(after(net)));
    let borders = borders.filter(|addr| within.iter().any(|net| net.contains(*addr)));
    let mut found: Vec<IpAddr> = within.iter().map(Cidr::addr).chain(borders).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The address behind the last one of a network; `None` at the end of all addresses.
fn after(net: Cidr) -> Option<IpAddr> {
    let len = u32::from(net.prefix_len());
    match net.addr() {
        IpAddr::V4(first) => {
            let host = u32::MAX.checked_shr(len).unwrap_or(0);
            Some(Ipv4Addr::from((u32::from(first) | host).checked_add(1)?).into())
        }
        IpAddr::V6(first) => {
            let host = u128::MAX.checked_shr(len).unwrap_or(0);
            Some(Ipv6Addr::from((u128::from(first) | host).checked_add(1)?).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_ends_where_the_next_begins() {
        for (net, expected) in [
            ("10.0.0.0/8", Some("11.0.0.0")),
            ("10.0.0.7/32", Some("10.0.0.8")),
            ("0.0.0.0/0", None),
            ("255.0.0.0/8", None),
            ("fd00::/8", Some("fe00::")),
            ("::/0", None),
            ("fd00::1/128", Some("fd00::2")),
        ] {
            assert_eq!(after(net.parse().unwrap()), expected.map(|e| e.parse().unwrap()), "{net}");
        }
    }
}
