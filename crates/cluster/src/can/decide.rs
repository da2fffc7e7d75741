//! The question itself: where each client's proxy sends the request, and what each pod's port there says to it, by the functions that
//! the proxies run.

use super::{
    Client, Request, Target, Untold, hosts,
    people::{self, Called, Caller, Guard, Place, Reach},
    told::{Answer, Nearest, Said, Shown, Told, Verdict, missing},
    way::{self, To, Way, answered},
};
use crate::{
    Index,
    index::{Absent, Answer as Known, Question, Refusal, WorkloadKind},
};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use weft_model::{
    Meta, ServerPolicy,
    decide::{
        admit::{Admission, admit, considered},
        authorize::{self, ClientTls, Unmet, unmet},
        cidr::Cidr,
        filter::Matched,
        route::matched_prefix,
    },
    policy::inbound::{Authentication, Authorization, IdentitySuffix, NetworkMatch},
};

/// Who asks whom for what.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub client: &'a Client,
    pub target: &'a Target,
    pub request: &'a Request,
    /// Where the client is, if that is not its own address.
    pub address: Option<IpAddr>,
}

/// # Errors
/// There is no such client or target.
pub fn ask(index: &Index, asked: &Asked<'_>) -> Result<Told, Untold> {
    let (callers, place) = (people::callers(index, asked)?, people::place(index, asked.target)?);
    // What those meet whose proxies follow the routes of one namespace, and those past whose proxy it goes.
    let mut met: BTreeMap<Option<&str>, Vec<(Request, Vec<Met>)>> = BTreeMap::new();
    let mut by_pod: BTreeMap<String, BTreeMap<Said, Vec<String>>> = BTreeMap::new();
    let mut to_itself: BTreeMap<Said, BTreeSet<String>> = BTreeMap::new();
    for caller in &callers {
        let follows =
            caller.follows.as_deref().filter(|_| !place.dialled().is_some_and(|port| caller.skip.contains(port)));
        let met = match met.entry(follows) {
            Entry::Occupied(met) => met.into_mut(),
            Entry::Vacant(new) => new.insert(Met::all(index, &place, follows, asked.request)?),
        };
        let said: Vec<(&Request, Vec<(String, Said)>)> = met
            .iter()
            .map(|(asked, met)| (asked, met.iter().flat_map(|met| met.says(index, caller)).collect()))
            .collect();
        let worst = |said: &[(String, Said)]| said.iter().map(|(_, said)| said.verdict).max();
        let verdicts = said.iter().filter_map(|(asked, said)| Some((*asked, worst(said)?)));
        let said = match hosts::differ(verdicts) {
            Some(why) => vec![(String::new(), Said::nobody(caller, None, Verdict::Unknown, why))],
            None => said.into_iter().flat_map(|(_, said)| said).collect(),
        };
        for (pod, said) in said {
            if said.to_itself {
                to_itself.entry(said).or_default().insert(pod);
                continue;
            }
            by_pod.entry(pod).or_default().entry(said).or_default().push(caller.name.clone());
        }
    }
    // Pods that say the same to the same clients are told of together.
    let mut alike: BTreeMap<BTreeMap<Said, Vec<String>>, Vec<String>> = BTreeMap::new();
    for (pod, mut said) in by_pod {
        said.values_mut().for_each(Vec::dedup);
        alike.entry(said).or_default().extend(Some(pod).filter(|pod| !pod.is_empty()));
    }
    let own: BTreeSet<String> = to_itself.values().flatten().cloned().collect();
    let others = alike
        .into_iter()
        .flat_map(|(said, pods)| said.into_iter().map(move |(said, clients)| (said, clients, pods.clone())));
    let others = others.filter_map(|(said, clients, pods)| {
        let (clients, pods) = apart(&own, clients, pods)?;
        Some(said.answer(clients, pods))
    });
    let own = to_itself.into_iter().map(|(said, pods)| {
        let pods: Vec<String> = pods.into_iter().collect();
        said.answer(pods.clone(), pods)
    });
    let mut answers: Vec<Answer> = others.chain(own).collect();
    answers.sort_by(|a, b| (b.verdict, &a.pods, &a.clients).cmp(&(a.verdict, &b.pods, &b.clients)));
    Ok(Told::new(asked.request.line(), answers))
}

/// Clients and pods without the one that would be told of itself; `None` if nobody is left. Where there are several of both, each of them
/// to each means to each other one.
fn apart(own: &BTreeSet<String>, clients: Vec<String>, pods: Vec<String>) -> Option<(Vec<String>, Vec<String>)> {
    let without = |all: &[String], one: &String| all.iter().filter(|name| *name != one).cloned().collect::<Vec<_>>();
    let (clients, pods) = match (clients.as_slice(), pods.as_slice()) {
        ([client], all) if own.contains(client) && all.contains(client) => {
            let others = without(all, client);
            if others.is_empty() {
                return None;
            }
            (clients, others)
        }
        (all, [pod]) if own.contains(pod) => (without(all, pod), pods),
        _ => (clients, pods),
    };
    Some((clients, pods))
}

/// What a request meets on one of the ways that it may take.
struct Met {
    /// The client's route.
    by: Option<Shown>,
    /// What stands before the ports that it comes to, and the request that comes there; or what comes of it elsewhere, and why.
    doors: Result<(Request, Doors), (Verdict, String)>,
}

/// What stands before each pod.
type Doors = Vec<(Called, Door)>;

impl Met {
    /// On each of the ways from a client whose proxy follows the routes of a namespace, or that has none; of the hosts between which they
    /// differ each, where nobody has said it.
    fn all(
        index: &Index,
        place: &Place,
        follows: Option<&str>,
        request: &Request,
    ) -> Result<Vec<(Request, Vec<Self>)>, Untold> {
        let alone = |met: Self| vec![(request.clone(), vec![met])];
        let of_pods = |pods: Vec<Called>| alone(Self::doors(index, None, request, pods));
        let nobody = |verdict, why: String| alone(Self { by: None, doors: Err((verdict, why)) });
        let ways = match (place, follows) {
            (Place::Pods(pods), _) => return Ok(of_pods(pods.clone())),
            (Place::Service { id, port }, Some(from)) if index.is_addressed(id) => {
                way::to_service(index, from, id, *port, request)
            }
            (Place::Service { id, port }, _) if index.is_addressed(id) => {
                return people::behind(index, id, *port, *port, Reach::Any).map(of_pods);
            }
            (Place::Service { id, port }, _) => return people::named(index, id, *port).map(of_pods),
            (Place::Address(addr), follows) => {
                let pods = people::at(index, *addr);
                match (index.service_at(addr.ip()), follows) {
                    // Egress goes before what an ExternalWorkload is, as outside the cluster's networks everything does.
                    (None, Some(from)) if pods.iter().any(|called| called.of == WorkloadKind::ExternalWorkload) => {
                        match way::to_address(index, from, *addr, request) {
                            Err(Refusal::NotFound(_)) => return Ok(of_pods(pods)),
                            ways => ways,
                        }
                    }
                    (None, _) if !pods.is_empty() => return Ok(of_pods(pods)),
                    (_, Some(from)) => way::to_address(index, from, *addr, request),
                    (Some(id), None) => {
                        let (port, reach) = (addr.port(), Reach::As(addr.ip()));
                        return people::behind(index, id, port, port, reach).map(of_pods);
                    }
                    (None, None) if index.settings().cluster_networks.iter().any(|net| net.contains(addr.ip())) => {
                        return Ok(nobody(Verdict::Unknown, format!("nobody is known at {}", addr.ip())));
                    }
                    (None, None) => {
                        let why =
                            "the client's proxy, if it has one, is gone past, and no policy of the mesh holds there";
                        return Ok(nobody(Verdict::Allowed, why.to_owned()));
                    }
                }
            }
        };
        let ways = match ways {
            Ok(ways) => ways,
            Err(refusal) => return Ok(nobody(Verdict::Unknown, refusal.to_string())),
        };
        let met = |Way { by, to }: Way| match to {
            To::Nobody(verdict, why) => Ok(Self { by, doors: Err((verdict, why)) }),
            To::Service { id, port, request } => {
                let itself = matches!(place, Place::Service { id: asked, .. } if *asked == id);
                match people::behind(index, &id, port, place.dialled().unwrap_or(port), Reach::Balanced) {
                    Ok(pods) => Ok(Self::doors(index, by, &request, pods)),
                    Err(untold) if itself => Err(untold),
                    Err(untold) => Ok(Self { by, doors: Err((Verdict::Unknown, untold.message)) }),
                }
            }
        };
        ways.into_iter()
            .map(|(asked, ways)| Ok((asked, ways.into_iter().map(met).collect::<Result<_, _>>()?)))
            .collect()
    }

    /// What is said to a caller, each beside the pod that says it; none's where the request comes to none.
    fn says(&self, index: &Index, caller: &Caller) -> Vec<(String, Said)> {
        let Self { by, doors } = self;
        match doors {
            Err((verdict, why)) => {
                vec![(String::new(), Said::nobody(caller, by.clone(), *verdict, why.clone()))]
            }
            Ok((request, doors)) => {
                let of_pod = |(pod, door): &(Called, Door)| {
                    let name = format!("{}/{}", pod.namespace, pod.name);
                    let is_itself = pod.port.is_some() && pod.at.iter().any(|own| caller.addresses.contains(own));
                    let to_itself = is_itself.then(|| Said::to_itself(pod));
                    let said =
                        if is_itself && doors.len() == 1 { vec![] } else { door.says(index, pod, caller, request) };
                    let said = said.into_iter().chain(to_itself);
                    said.map(move |said| (name.clone(), Said { via: by.clone(), ..said })).collect::<Vec<_>>()
                };
                doors.iter().flat_map(of_pod).collect()
            }
        }
    }

    fn doors(index: &Index, by: Option<Shown>, request: &Request, pods: Vec<Called>) -> Self {
        let doors: Doors = pods
            .into_iter()
            .map(|pod| {
                let door = Door::of(index, &pod);
                (pod, door)
            })
            .collect();
        Self { by, doors: Ok((request.clone(), doors)) }
    }
}

impl Place {
    /// What every client connects to, where that is one port.
    fn dialled(&self) -> Option<u16> {
        match self {
            Self::Pods(_) => None,
            Self::Service { id: _, port } => Some(*port),
            Self::Address(addr) => Some(addr.port()),
        }
    }
}

impl Said {
    /// Of a request that comes to no pod.
    fn nobody(caller: &Caller, via: Option<Shown>, verdict: Verdict, why: String) -> Self {
        let identity = caller.identity.as_ref().map(ToString::to_string);
        Self { identity, via, ..Self::of(verdict, None, why) }
    }

    /// Of a pod that comes to itself: the kernel takes it there without a proxy's seeing it.
    fn to_itself(pod: &Called) -> Self {
        let why = "a pod comes to itself past its proxy, so that no policy holds there";
        Self { to_itself: true, ..Self::of(Verdict::Allowed, pod.port, why.to_owned()) }
    }

    /// Where no Server is asked.
    fn of(verdict: Verdict, port: Option<u16>, why: String) -> Self {
        let (identity, via, server, route, by, nearest) = (None, None, None, None, None, None);
        Self { verdict, port, identity, via, server, route, by, nearest, why: Some(why), to_itself: false }
    }

    fn answer(self, clients: Vec<String>, pods: Vec<String>) -> Answer {
        let Self { verdict, port, identity, via, server, route, by, nearest, why, to_itself: _ } = self;
        Answer { verdict, clients, identity, via, pods, port, server, route, by, nearest, why }
    }
}

/// What stands before a pod's port.
enum Door {
    /// Nothing that asks: why.
    Open(&'static str),
    Unknown(String),
    Guarded {
        policy: Box<ServerPolicy>,
        tls: bool,
    },
}

impl Door {
    fn of(index: &Index, pod: &Called) -> Self {
        let Called { of, namespace, name, port, dialled: _, at: _, guard } = pod;
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
            Guard::OfThisMesh => {}
        }
        let question = Question::Inbound { namespace: namespace.clone(), of: *of, name: name.clone(), port };
        match index.answer(&question).answer {
            Ok(Known::Inbound(policy)) => {
                let tls = index.is_reached_by_tls(*of, &(namespace.clone(), name.clone()), port);
                Self::Guarded { policy: Box::new(policy), tls }
            }
            Ok(_) => Self::Unknown("the index has no policy of the port".to_owned()),
            Err(refusal) => Self::Unknown(refusal.to_string()),
        }
    }

    /// One thing, unless it says the same for another reason where another host is asked for.
    fn says(&self, index: &Index, pod: &Called, caller: &Caller, request: &Request) -> Vec<Said> {
        let each = match self {
            Self::Guarded { policy, .. } => hosts::each(request, &policy.protocol),
            Self::Open(_) | Self::Unknown(_) => vec![request.clone()],
        };
        let said = each.iter().map(|asked| self.says_to(index, pod, caller, asked));
        let mut said: Vec<Said> = said.collect();
        let differ = hosts::differ(each.iter().zip(said.iter().map(|said| said.verdict)));
        if let (Some(why), Some(first)) = (differ, said.first()) {
            let (route, by, nearest, why) = (None, None, None, Some(why));
            return vec![Said { verdict: Verdict::Unknown, route, by, nearest, why, ..first.clone() }];
        }
        said.sort_unstable();
        said.dedup();
        said
    }

    fn says_to(&self, index: &Index, pod: &Called, caller: &Caller, request: &Request) -> Said {
        let (policy, reached_by_tls) = match self {
            Self::Open(why) => return Said::of(Verdict::Allowed, pod.port, (*why).to_owned()),
            Self::Unknown(why) => return Said::of(Verdict::Unknown, pod.port, why.clone()),
            Self::Guarded { policy, tls } => (&**policy, *tls),
        };
        let identity = caller.identity.as_ref().filter(|_| reached_by_tls && !caller.skip.contains(pod.dialled));
        let tls = identity.map_or(ClientTls::None, ClientTls::Identity);
        let everywhere = || representatives(policy, &index.settings().cluster_networks);
        let anywhere = caller.addresses.is_empty();
        let addresses = if anywhere { everywhere() } else { caller.addresses.clone() };
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
        let judged: Vec<(IpAddr, Judged)> = addresses
            .into_iter()
            .filter(comes_from)
            .map(|addr| (addr, Judged::of(policy, &authorize::Client { addr, tls }, request, anywhere, in_vain)))
            .collect();
        let known = |verdict, route, by, nearest, why| Said {
            verdict,
            port: pod.port,
            identity: identity.map(ToString::to_string),
            via: None,
            server: Some(Shown::of(&policy.meta)),
            route,
            by,
            nearest,
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
                let why = format!(
                    "it depends on the client's address: {inside} is allowed{by} and {outside} is denied; say which it has (--address)"
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
                let Judged { verdict, route, by, nearest, unmet: _, why } = judged.clone();
                known(verdict, route, by, nearest, why)
            }
            (None, None) => {
                let why = "the client has no address of the family by which the pod is reached";
                known(Verdict::Unknown, None, None, None, Some(why.to_owned()))
            }
        }
    }
}

/// What is said to a client at one address.
#[derive(Clone)]
struct Judged {
    verdict: Verdict,
    route: Option<Shown>,
    by: Option<Shown>,
    nearest: Option<Nearest>,
    unmet: Option<Unmet>,
    why: Option<String>,
}

impl Judged {
    /// `anywhere`: the address stands for all that a pod may have.
    fn of(
        policy: &ServerPolicy,
        client: &authorize::Client<'_>,
        request: &Request,
        anywhere: bool,
        in_vain: impl Fn(&Meta) -> Option<String>,
    ) -> Self {
        let judged = |verdict, route: Option<&_>| Self {
            verdict,
            route: route.map(Shown::of),
            by: None,
            nearest: None,
            unmet: None,
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
                let why =
                    "the request follows no route of the port, and a port with routes serves no others".to_owned();
                Self { why: Some(why), ..judged(Verdict::Denied, None) }
            }
            Admission::Denied { route } => {
                let all = considered(policy, client, request);
                let nearest = all.into_iter().map(|a| (unmet(a, client), a)).min_by_key(|(unmet, _)| unmet.count());
                let nobody = || nearest.is_none().then(|| "nothing lets anybody in there".to_owned());
                let why = in_vain(route).or_else(nobody);
                Self {
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

fn explained(unmet: Unmet, authorization: &Authorization, client: &authorize::Client<'_>, anywhere: bool) -> String {
    let Unmet { network, tls, identity } = unmet;
    let mut parts = vec![];
    if network {
        let networks: Vec<String> = authorization.networks.iter().map(network_text).collect();
        // Were it met at one of the addresses, it would be told of that one, where less is missing.
        let addr = if anywhere { "any address of the cluster's networks".to_owned() } else { client.addr.to_string() };
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
