//! From names to those who call and are called: workloads, with what they prove and where they are.

use super::{
    Asked, Untold,
    name::{Called as Named, Client, POD, Pods, Port, Target, is_of},
};
use crate::{
    Index,
    index::{Backing, Known, Missing, WorkloadKind},
    workload::Unsure,
};
use std::net::{IpAddr, SocketAddr};
use weft_model::{Identity, ports::PortRanges};

/// Why a label says nothing yet.
pub(super) const GIVEN_LATER: &str = "whose value a pod has only once a cluster runs it";
/// Callers, and pods that are called: a question about more is one about the whole mesh.
const MAX_PODS: usize = 500;

/// One who calls.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// How it is told of.
    pub(super) name: String,
    /// The workload that it is, if that is known.
    pub(super) of: Option<WorkloadKind>,
    /// What it proves where it may.
    pub(super) identity: Option<Identity>,
    /// None: every one that a pod may have.
    pub(super) addresses: Vec<IpAddr>,
    /// The namespace whose routes its own proxy follows; `None`: it has no proxy. No namespace's are called empty.
    pub(super) follows: Option<String>,
    /// It connects to these ports past its proxy, and proves nothing there.
    pub(super) skip: PortRanges,
    /// Its proxy is in ingress mode, and sends the request where that says.
    pub(super) elsewhere: bool,
    /// The namespace of the control plane that names it, where that is another one: what it proves is not known.
    pub(super) mesh: Option<String>,
    /// What else is not known of it.
    pub(super) unsure: Unsure,
}

/// What is called.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// At their own addresses.
    Pods(Vec<Called>),
    Service {
        id: (String, String),
        port: u16,
    },
    Address(SocketAddr),
}

/// A port of one workload that is called.
#[derive(Clone, Debug)]
pub(super) struct Called {
    pub(super) of: WorkloadKind,
    pub(super) namespace: String,
    pub(super) name: String,
    /// `None`: it has no such port.
    pub(super) port: Option<u16>,
    /// What the client connects to, which is the Service's port where one is asked for.
    pub(super) dialled: u16,
    /// The addresses at which it is reached; none where they are not known.
    pub(super) at: Vec<IpAddr>,
    /// The node brings the connection there.
    pub(super) by_node: bool,
    /// The node takes it in at an address from outside: it proves nothing, and comes from whatever address the node gives it.
    pub(super) from_outside: bool,
    /// Whose proxy stands before the port.
    pub(super) guard: Guard,
    /// What is not known of it.
    pub(super) unsure: Unsure,
}

/// By which of their addresses the pods behind a Service are reached.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reach {
    Any,
    /// The node's kube-proxy chooses, among those of the family of the Service's own address if that is known. Who comes to itself so
    /// comes from outside.
    Node(Option<IpAddr>),
    /// The same at an address of the Service that is none of the cluster's.
    Outside(IpAddr),
    /// Those that the clients' proxies choose.
    Balanced,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    OfThisMesh,
    /// Of the control plane in another namespace.
    OfAnother(String),
    NoProxy,
    /// It has one, past which connections to the port go.
    Skipped,
    /// It has one, whose own the port is.
    Proxys,
}

pub(super) fn callers(index: &Index, asked: &Asked<'_>) -> Result<Vec<Caller>, Untold> {
    let settings = index.settings();
    let somebody = |name: String, identity: Identity, namespace: String| Caller {
        name,
        of: None,
        identity: Some(identity),
        addresses: vec![],
        follows: Some(namespace),
        skip: PortRanges::default(),
        elsewhere: false,
        mesh: None,
        unsure: Unsure::default(),
    };
    let caller = |known: Known<'_>| {
        let elsewhere = known.ingress && asked.request.names_target();
        Caller { elsewhere, ..caller(known, &settings.control_namespace) }
    };
    let mut callers = match asked.client {
        Client::Pods(pods) => running(index, pods)?.into_iter().map(caller).collect(),
        Client::Account { namespace, name } => {
            let (control, domain) = (&settings.control_namespace, &settings.trust_domain);
            let identity = Identity::of_service_account(name, namespace, control, domain)
                .map_err(|error| Untold::new(error.to_string(), "use another name"))?;
            vec![somebody(format!("sa/{name} in the namespace {namespace}"), identity, namespace.clone())]
        }
        Client::Identity(identity) => {
            vec![somebody(identity.to_string(), identity.clone(), namespace_of(identity).to_owned())]
        }
        Client::Address(ip) => {
            let pods: Vec<Caller> = index.known_at(*ip).map(caller).collect();
            let stranger = || {
                let (name, skip, unsure) = (format!("somebody at {ip}"), PortRanges::default(), Unsure::default());
                vec![Caller {
                    name,
                    of: None,
                    identity: None,
                    addresses: vec![],
                    follows: None,
                    skip,
                    elsewhere: false,
                    mesh: None,
                    unsure,
                }]
            };
            let found = if pods.is_empty() { stranger() } else { pods };
            found.into_iter().map(|caller| Caller { addresses: vec![*ip], ..caller }).collect()
        }
    };
    if let Some(address) = asked.address {
        callers.iter_mut().for_each(|caller| caller.addresses = vec![address]);
    }
    bounded(callers)
}

fn caller(known: Known<'_>, own: &str) -> Caller {
    let Known { of, id: (namespace, name), addresses, identity, skip_outbound, control_namespace, unsure, .. } = known;
    let unsure = unsure.cloned().unwrap_or_default();
    let mesh = control_namespace.filter(|of| *of != own).map(str::to_owned);
    let follows = control_namespace.map(|_| namespace.clone());
    let (name, of, skip) = (format!("{namespace}/{name}"), Some(of), skip_outbound);
    Caller { name, of, identity, addresses, follows, skip, elsewhere: false, mesh, unsure }
}

impl Caller {
    /// The same without a proxy.
    pub(super) fn bare(&self) -> Self {
        Self { identity: None, follows: None, skip: PortRanges::default(), mesh: None, ..self.clone() }
    }
}

/// Of a ServiceAccount's identity. Of another it is not known, and follows what everybody does.
fn namespace_of(identity: &Identity) -> &str {
    let account = identity.as_str().split_once(".serviceaccount.identity.").map(|(account, _)| account);
    account.and_then(|account| account.rsplit_once('.')).map(|(_, namespace)| namespace).unwrap_or_default()
}

/// What a target is.
///
/// # Errors
/// There is none.
pub(super) fn place(index: &Index, target: &Target) -> Result<Place, Untold> {
    let port = &target.port;
    match &target.of {
        Named::Pods(pods) => {
            let number = |known: &Known<'_>| match port {
                Port::Number(number) => Some(*number),
                Port::Name(name) => known.ports.iter().find(|p| p.name.as_ref() == Some(name)).map(|p| p.number),
            };
            let pods = running(index, pods)?.into_iter().map(|known| (number(&known), known));
            let own = &index.settings().control_namespace;
            let pods = pods.map(|(number, known)| workload(known, number, number.unwrap_or_default(), own));
            bounded(pods.collect()).map(Place::Pods)
        }
        Named::Service { namespace, name } => {
            let id = (namespace.clone(), name.clone());
            let port = match port {
                Port::Number(number) if index.is_headless(&id) => *number,
                port => index
                    .service_port(&id, |number, name| port.is(number, name))
                    .map_err(|missing| not_there(&id, port, &missing))?,
            };
            Ok(Place::Service { id, port })
        }
        Named::Address(ip) => match port {
            Port::Number(number) => Ok(Place::Address(SocketAddr::new(*ip, *number))),
            Port::Name(_) => Err(Untold::new(format!("{ip} has no ports with names"), "use 1 to 65535")),
        },
    }
}

/// The pods behind a port of a Service, reached by who connects to the port `dialled`; at least one.
///
/// # Errors
/// There is none.
pub(super) fn behind(
    index: &Index,
    id: &(String, String),
    port: u16,
    dialled: u16,
    reach: Reach,
) -> Result<Vec<Called>, Untold> {
    found(index, id, port, reach, |_, number| number.map(|number| (Some(number), dialled)))
}

/// The pods of a Service without an address, at least one: by its name clients get the pods' own addresses, and connect there to the port
/// as they say it, whatever port of the pods the Service means by it.
///
/// # Errors
/// There is none.
pub(super) fn named(index: &Index, id: &(String, String), port: u16) -> Result<Vec<Called>, Untold> {
    found(index, id, port, Reach::Any, |known, _| Some((Some(port).filter(|port| is_at(known, *port)), port)))
}

/// `ports`: the pod's, and the one that is dialled, where the Service means this port of the pod; `None`: it is none of the endpoints.
fn found(
    index: &Index,
    id: &(String, String),
    port: u16,
    reach: Reach,
    ports: impl Fn(&Known<'_>, Option<u16>) -> Option<(Option<u16>, u16)>,
) -> Result<Vec<Called>, Untold> {
    let own = &index.settings().control_namespace;
    let behind = index.behind(id, port).map_err(|missing| not_there(id, &Port::Number(port), &missing))?;
    if behind.is_empty() {
        return Err(nothing_behind(id));
    }
    if behind.iter().all(|of| ports(&of.known, of.port).is_none()) {
        return Err(nothing_at(id, port));
    }
    let called = |Backing { known, port, reached, balanced }: Backing<'_>| {
        let (number, dialled) = ports(&known, port)?;
        let called = workload(known, number, dialled, own);
        let at: Vec<IpAddr> = match reach {
            Reach::Node(Some(addr)) | Reach::Outside(addr) => {
                reached.into_iter().filter(|at| at.is_ipv4() == addr.is_ipv4()).collect()
            }
            Reach::Any | Reach::Node(None) => reached,
            Reach::Balanced => balanced.into_iter().collect(),
        };
        // Where no address is known, it may have one of any family.
        let is_reached = called.at.is_empty() || !at.is_empty();
        let from_outside = matches!(reach, Reach::Outside(_));
        let by_node = from_outside || matches!(reach, Reach::Node(_));
        is_reached.then_some(Called { at, by_node, from_outside, ..called })
    };
    let found: Vec<Called> = behind.into_iter().filter_map(called).collect();
    if found.is_empty() {
        let message = format!("nothing behind {} has an address of the family by which it is reached", service(id));
        let remedy = "compare the families of the Service with those of its pods, and with the value disableIPv6";
        return Err(Untold::new(message, remedy));
    }
    bounded(found)
}

/// Those that have an address.
pub(super) fn at(index: &Index, addr: SocketAddr) -> Vec<Called> {
    let own = &index.settings().control_namespace;
    let there = index.known_at(addr.ip()).filter(|known| is_at(known, addr.port()));
    let called = |known| Called { at: vec![addr.ip()], ..workload(known, Some(addr.port()), addr.port(), own) };
    there.map(called).collect()
}

/// An ExternalWorkload is at the ports that it declares; at others its address is any server's.
fn is_at(known: &Known<'_>, port: u16) -> bool {
    known.of == WorkloadKind::Pod || known.ports.iter().any(|declared| declared.number == port)
}

fn workload(known: Known<'_>, port: Option<u16>, dialled: u16, own: &str) -> Called {
    let guard = match known.control_namespace {
        None => Guard::NoProxy,
        Some(namespace) if namespace != own => Guard::OfAnother(namespace.to_owned()),
        Some(_) if port.is_some_and(|port| known.proxy_ports.contains(&port)) => Guard::Proxys,
        Some(_) if port.is_some_and(|port| known.skip_inbound.contains(port)) => Guard::Skipped,
        Some(_) => Guard::OfThisMesh,
    };
    let (of, (namespace, name), unsure) = (known.of, known.id.clone(), known.unsure.cloned().unwrap_or_default());
    Called {
        of,
        namespace,
        name,
        port,
        dialled,
        at: known.addresses,
        by_node: false,
        from_outside: false,
        guard,
        unsure,
    }
}

pub(super) fn not_there(id: &(String, String), port: &Port, missing: &Missing) -> Untold {
    match missing {
        Missing::Service => no_service(id),
        Missing::Port(ports) => {
            let has = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
            Untold::new(format!("{} has no port {port}", service(id)), format!("it has {has}"))
        }
        Missing::Selector => no_selector(id),
        Missing::Label { pod, label } => by_label(id, pod, label),
    }
}

fn service((namespace, name): &(String, String)) -> String {
    format!("svc/{name} in the namespace {namespace}")
}

pub(super) fn no_service(id: &(String, String)) -> Untold {
    Untold::new(format!("there is no {}", service(id)), "correct the name, or give the namespace by -n")
}

pub(super) fn no_selector(id: &(String, String)) -> Untold {
    Untold::new(format!("{} selects no pods", service(id)), "name the workload or the pods that are meant")
}

pub(super) fn by_label(id: &(String, String), (_, pod): &(String, String), label: &str) -> Untold {
    let message = format!("{} may select {pod}: it names {label}, {}", service(id), GIVEN_LATER);
    Untold::new(message, "ask of the pods themselves, or ask the cluster that runs them")
}

pub(super) fn nothing_behind(id: &(String, String)) -> Untold {
    let message = format!("nothing runs behind {}", service(id));
    Untold::new(message, "check its selector, and the labels of pods and ExternalWorkloads")
}

fn nothing_at(id: &(String, String), port: u16) -> Untold {
    let message = format!("no pod of {} has the port that is meant by its port {port}", service(id));
    Untold::new(message, "give the pods a port of the name that stands in its targetPort")
}

/// The pods that run; at least one.
fn running<'i>(index: &'i Index, pods: &Pods) -> Result<Vec<Known<'i>>, Untold> {
    let Pods { kind, namespace, name } = pods;
    let is_meant = |id: &(String, String), owner: Option<&(String, String)>| {
        let is_owner = || owner.is_some_and(|owner| is_of(kind, Some(name.as_str()), owner));
        id.0 == *namespace && if *kind == POD { id.1 == *name } else { is_owner() }
    };
    let found: Vec<Known<'_>> = index.known(is_meant).collect();
    if found.is_empty() {
        let message = match *kind {
            POD => format!("there is no {pods} that runs"),
            _ => format!("no pod of {pods} runs"),
        };
        return Err(Untold::new(message, "correct the name, or give the namespace by -n"));
    }
    Ok(found)
}

fn bounded<T>(all: Vec<T>) -> Result<Vec<T>, Untold> {
    if all.len() > MAX_PODS {
        return Err(Untold::new(format!("that are {} pods, more than {MAX_PODS}", all.len()), "name some of them"));
    }
    Ok(all)
}
