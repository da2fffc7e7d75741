//! The question itself: where each client's proxy sends the request, and what each pod's port there says to it, by the functions that
//! the proxies run.

use super::{
    Client, Request, Target, Untold,
    door::Door,
    hosts,
    name::Port,
    people::{self, Called, Caller, Place, Reach},
    told::{Answer, Said, Shown, Told, Verdict, worst},
    way::{self, To, Way},
};
use crate::{
    Index,
    index::{Refusal, WorkloadKind},
    workload::Others,
};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{IpAddr, SocketAddr},
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
    let mut asking = Asking { index, place: &place, request: asked.request, met: BTreeMap::new() };
    let mut by_pod: BTreeMap<String, BTreeMap<Said, Vec<String>>> = BTreeMap::new();
    let mut to_itself: BTreeMap<Said, BTreeSet<String>> = BTreeMap::new();
    for caller in &callers {
        let said = asking.says(caller)?;
        let said = match &caller.unsure.proxy {
            Some(unsure) => either(said, &asking.says(&caller.bare())?, unsure),
            None => said,
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

/// The question, and what those meet whose proxies follow the routes of one namespace, and those past whose proxy it goes.
struct Asking<'a> {
    index: &'a Index,
    place: &'a Place,
    request: &'a Request,
    met: BTreeMap<Option<String>, Vec<(Request, Vec<Met>)>>,
}

impl Asking<'_> {
    /// What is said to a caller, each beside the pod that says it.
    fn says(&mut self, caller: &Caller) -> Result<Vec<(String, Said)>, Untold> {
        let (index, place, request) = (self.index, self.place, self.request);
        let follows =
            caller.follows.as_deref().filter(|_| !place.dialled().is_some_and(|port| caller.skip.contains(port)));
        let met = match self.met.entry(follows.map(str::to_owned)) {
            Entry::Occupied(met) => met.into_mut(),
            Entry::Vacant(new) => new.insert(Met::all(index, place, follows, request)?),
        };
        let said: Vec<(&Request, Vec<(String, Said)>)> = met
            .iter()
            .map(|(asked, met)| (asked, met.iter().flat_map(|met| met.says(index, caller)).collect()))
            .collect();
        let verdicts =
            said.iter().filter_map(|(asked, said)| Some((*asked, worst(said.iter().map(|(_, said)| said))?)));
        Ok(match hosts::differ(verdicts) {
            Some(why) => vec![(String::new(), Said::nobody(caller, None, Verdict::Unknown, why))],
            None => said.into_iter().flat_map(|(_, said)| said).collect(),
        })
    }
}

/// What is said to a client of which it is not known whether it has a proxy: what a pod says in either case.
fn either(with: Vec<(String, Said)>, without: &[(String, Said)], unsure: &str) -> Vec<(String, Said)> {
    let of_pod = |all: &[(String, Said)], pod: &str| {
        let said = all.iter().filter(|(of, _)| of == pod).map(|(_, said)| said);
        worst(said)
    };
    let pods: BTreeSet<String> = with.iter().chain(without).map(|(pod, _)| pod.clone()).collect();
    let (same, other): (BTreeSet<_>, BTreeSet<_>) =
        pods.into_iter().partition(|pod| of_pod(&with, pod) == of_pod(without, pod));
    let why = format!("it is not known whether the client has a proxy: {unsure}");
    let unknown = other.into_iter().map(|pod| {
        let port = with.iter().chain(without).find(|(of, _)| *of == pod).and_then(|(_, said)| said.port);
        (pod, Said::of(Verdict::Unknown, port, why.clone()))
    });
    let unknown: Vec<(String, Said)> = unknown.collect();
    with.into_iter().filter(|(pod, _)| same.contains(pod)).chain(unknown).collect()
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

/// Of a client whose proxy is in ingress mode.
const ELSEWHERE: &str =
    "the client's proxy sends the request where its l5d-dst-override says; ask of that target, without the header";

/// What a request meets on one of the ways that it may take.
struct Met {
    /// The client's route.
    by: Option<Shown>,
    /// What is to be known of it.
    note: Option<String>,
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
        let of_pods = |pods: Vec<Called>| alone(Self::doors(index, None, None, request, pods));
        let nobody = |verdict, why: String| alone(Self::nobody(None, verdict, why));
        let ways = match (place, follows) {
            (Place::Pods(pods), _) => return Ok(of_pods(pods.clone())),
            (Place::Service { id, port }, Some(from)) if index.is_addressed(id) => {
                way::to_service(index, from, id, *port, request)
            }
            (Place::Service { id, port }, _) if index.is_addressed(id) => {
                return people::behind(index, id, *port, *port, Reach::Node(None)).map(of_pods);
            }
            (Place::Service { id, port }, _) => return people::named(index, id, *port).map(of_pods),
            (Place::Address(addr), follows) => {
                let pods = people::at(index, *addr);
                if pods.is_empty()
                    && index.service_at(addr.ip()).is_none()
                    && let Some(id) = index.service_from_outside(addr.ip())
                {
                    return Self::from_outside(index, id, *addr, follows, request);
                }
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
                        let (port, reach) = (addr.port(), Reach::Node(Some(addr.ip())));
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
            To::Nobody(verdict, why) => Ok(Self::nobody(by, verdict, why)),
            To::Service { id, port, request, note } => {
                let itself = matches!(place, Place::Service { id: asked, .. } if *asked == id);
                match people::behind(index, &id, port, place.dialled().unwrap_or(port), Reach::Balanced) {
                    Ok(pods) => Ok(Self::doors(index, by, note, &request, pods)),
                    Err(untold) if itself => Err(untold),
                    Err(untold) => {
                        let why = way::together(note.as_deref(), Some(&untold.message)).unwrap_or_default();
                        Ok(Self::nobody(by, Verdict::Unknown, why))
                    }
                }
            }
        };
        ways.into_iter()
            .map(|(asked, ways)| Ok((asked, ways.into_iter().map(met).collect::<Result<_, _>>()?)))
            .collect()
    }

    /// At an address of a Service that is none of the cluster's: the client's proxy knows no more of it than of any other outside.
    fn from_outside(
        index: &Index,
        id: &(String, String),
        addr: SocketAddr,
        follows: Option<&str>,
        request: &Request,
    ) -> Result<Vec<(Request, Vec<Self>)>, Untold> {
        let port = addr.port();
        index
            .service_port(id, |declared, _| declared == port)
            .map_err(|missing| people::not_there(id, &Port::Number(port), &missing))?;
        let ways = follows.map(|from| way::to_address(index, from, addr, request));
        let stays = match ways {
            None | Some(Err(Refusal::NotFound(_))) => false,
            Some(Err(_)) => true,
            Some(Ok(ways)) => {
                let mut all = ways.iter().flat_map(|(_, ways)| ways);
                all.any(|way| !matches!(way.to, To::Nobody(Verdict::Allowed, _)))
            }
        };
        let met = if stays {
            let (namespace, name) = id;
            let why = format!(
                "{} is an address from outside of svc/{name} in the namespace {namespace}, and the client's proxy follows routes there",
                addr.ip()
            );
            Self::nobody(None, Verdict::Unknown, why)
        } else {
            let pods = people::behind(index, id, port, port, Reach::Outside(addr.ip()))?;
            Self::doors(index, None, None, request, pods)
        };
        Ok(vec![(request.clone(), vec![met])])
    }

    /// What is said to a caller, each beside the pod that says it; none's where the request comes to none.
    fn says(&self, index: &Index, caller: &Caller) -> Vec<(String, Said)> {
        let Self { by, note, doors } = self;
        if caller.elsewhere {
            return vec![(String::new(), Said::nobody(caller, None, Verdict::Unknown, ELSEWHERE.to_owned()))];
        }
        match doors {
            Err((verdict, why)) => {
                vec![(String::new(), Said::nobody(caller, by.clone(), *verdict, why.clone()))]
            }
            Ok((request, doors)) => {
                let of_pod = |(pod, door): &(Called, Door)| {
                    let name = format!("{}/{}", pod.namespace, pod.name);
                    let to_itself = to_itself(pod, caller);
                    let said = match to_itself {
                        Some(Others::None) if doors.len() == 1 => vec![],
                        _ => door.says(index, pod, caller, request),
                    };
                    let said = match to_itself {
                        // Others of it would be refused, and it alone is let in.
                        Some(Others::Unknown) if worst(&said) == Some(Verdict::Denied) => {
                            let why = "a pod comes to itself past its proxy, and it is not known whether there are others that it may come to";
                            vec![Said::of(Verdict::Unknown, pod.port, why.to_owned())]
                        }
                        _ => said,
                    };
                    let itself = matches!(to_itself, Some(Others::None)).then(|| Said::to_itself(pod));
                    let said = said.into_iter().chain(itself);
                    said.map(move |said| {
                        let why = way::together(note.as_deref(), said.why.as_deref());
                        (name.clone(), Said { via: by.clone(), why, ..said })
                    })
                    .collect::<Vec<_>>()
                };
                doors.iter().flat_map(of_pod).collect()
            }
        }
    }

    fn nobody(by: Option<Shown>, verdict: Verdict, why: String) -> Self {
        Self { by, note: None, doors: Err((verdict, why)) }
    }

    fn doors(index: &Index, by: Option<Shown>, note: Option<String>, request: &Request, pods: Vec<Called>) -> Self {
        let doors: Doors = pods
            .into_iter()
            .map(|pod| {
                let door = Door::of(index, &pod);
                (pod, door)
            })
            .collect();
        Self { by, note, doors: Ok((request.clone(), doors)) }
    }
}

/// Whether a caller is the pod that is called, and if so, for which others it stands.
fn to_itself(pod: &Called, caller: &Caller) -> Option<Others> {
    let is_pod = caller.name == format!("{}/{}", pod.namespace, pod.name) && caller.of == Some(pod.of);
    // An address alone says nothing: who shares the node's network has it as well.
    let is_there = match (pod.at.as_slice(), caller.addresses.as_slice()) {
        ([], []) => true,
        (at, own) => at.iter().any(|at| own.contains(at)),
    };
    (is_pod && is_there && pod.port.is_some() && !pod.by_node).then_some(pod.unsure.others)
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
    pub(super) fn of(verdict: Verdict, port: Option<u16>, why: String) -> Self {
        let (identity, via, server, route, by, nearest) = (None, None, None, None, None, None);
        Self { verdict, port, identity, via, server, route, by, nearest, why: Some(why), to_itself: false }
    }

    fn answer(self, clients: Vec<String>, pods: Vec<String>) -> Answer {
        let Self { verdict, port, identity, via, server, route, by, nearest, why, to_itself: _ } = self;
        Answer { verdict, clients, identity, via, pods, port, server, route, by, nearest, why }
    }
}
