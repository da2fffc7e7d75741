//! From names to those who call and are called: workloads, with what they prove and where they are.

use super::{
    Asked, Untold,
    name::{Called as Named, Client, POD, Pods, Port},
};
use crate::{
    Index,
    index::{Known, Missing, WorkloadKind},
};
use std::net::IpAddr;
use weft_model::{Identity, ports::PortRanges};

/// Callers, and pods that are called: a question about more is one about the whole mesh.
const MAX_PODS: usize = 500;

/// One who calls.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// How it is told of.
    pub(super) name: String,
    /// What it proves where it may.
    pub(super) identity: Option<Identity>,
    /// None: every one that a pod may have.
    pub(super) addresses: Vec<IpAddr>,
    /// It connects to these ports past its proxy, and proves nothing there.
    pub(super) skip: PortRanges,
    /// The namespace of the control plane that names it, where that is another one: what it proves is not known.
    pub(super) mesh: Option<String>,
}

/// A port of one workload that is called.
#[derive(Clone, Debug)]
pub(super) struct Called {
    pub(super) of: WorkloadKind,
    pub(super) namespace: String,
    pub(super) name: String,
    /// `None`: it has no port of that name.
    pub(super) port: Option<u16>,
    /// What the client connects to, which is the Service's port where one is asked for.
    pub(super) dialled: u16,
    /// Whose proxy stands before the port.
    pub(super) guard: Guard,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    OfThisMesh,
    /// Of the control plane in another namespace.
    OfAnother(String),
    NoProxy,
    /// It has one, past which connections to the port go.
    Skipped,
}

pub(super) fn callers(index: &Index, asked: &Asked<'_>) -> Result<Vec<Caller>, Untold> {
    let settings = index.settings();
    let nobody =
        |name: String, identity| Caller { name, identity, addresses: vec![], skip: PortRanges::default(), mesh: None };
    let caller = |known| caller(known, &settings.control_namespace);
    let mut callers = match asked.client {
        Client::Pods(pods) => running(index, pods)?.into_iter().map(caller).collect(),
        Client::Account { namespace, name } => {
            let (control, domain) = (&settings.control_namespace, &settings.trust_domain);
            let identity = Identity::of_service_account(name, namespace, control, domain)
                .map_err(|error| Untold::new(error.to_string(), "use another name"))?;
            vec![nobody(format!("sa/{name} in the namespace {namespace}"), Some(identity))]
        }
        Client::Identity(identity) => vec![nobody(identity.to_string(), Some(identity.clone()))],
        Client::Address(ip) => {
            let pods: Vec<Caller> = index.known_at(*ip).map(caller).collect();
            let stranger = || vec![nobody(format!("somebody at {ip}"), None)];
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
    let Known { id: (namespace, name), addresses, identity, skip_outbound, control_namespace, .. } = known;
    let mesh = control_namespace.filter(|of| *of != own).map(str::to_owned);
    Caller { name: format!("{namespace}/{name}"), identity, addresses, skip: skip_outbound, mesh }
}

pub(super) fn called(index: &Index, asked: &Asked<'_>) -> Result<Vec<Called>, Untold> {
    let own = &index.settings().control_namespace;
    let port = &asked.target.port;
    let found = match &asked.target.of {
        Named::Pods(pods) => {
            let number = |known: &Known<'_>| match port {
                Port::Number(number) => Some(*number),
                Port::Name(name) => known.ports.iter().find(|p| p.name.as_ref() == Some(name)).map(|p| p.number),
            };
            let pods = running(index, pods)?.into_iter().map(|known| (number(&known), known));
            pods.map(|(number, known)| workload(known, number, number.unwrap_or_default(), own)).collect()
        }
        Named::Service { namespace, name } => {
            let behind = index.behind(namespace, name, |number, name| port.is(number, name));
            let behind = behind.map_err(|missing| not_there(namespace, name, port, &missing))?;
            let dialled = behind.port;
            behind
                .workloads
                .into_iter()
                .map(|(known, number)| workload(known, number, dialled, own))
                .collect::<Vec<_>>()
        }
    };
    if found.is_empty() {
        let Named::Service { namespace, name } = &asked.target.of else { return Ok(found) };
        let message = format!("nothing runs behind svc/{name} in the namespace {namespace}");
        return Err(Untold::new(message, "check its selector, and the labels of pods and ExternalWorkloads"));
    }
    bounded(found)
}

fn workload(known: Known<'_>, port: Option<u16>, dialled: u16, own: &str) -> Called {
    let guard = match known.control_namespace {
        None => Guard::NoProxy,
        Some(namespace) if namespace != own => Guard::OfAnother(namespace.to_owned()),
        Some(_) if port.is_some_and(|port| known.skip_inbound.contains(port)) => Guard::Skipped,
        Some(_) => Guard::OfThisMesh,
    };
    let (of, (namespace, name)) = (known.of, known.id.clone());
    Called { of, namespace, name, port, dialled, guard }
}

fn not_there(namespace: &str, name: &str, port: &Port, missing: &Missing) -> Untold {
    let service = format!("svc/{name} in the namespace {namespace}");
    match missing {
        Missing::Service => {
            Untold::new(format!("there is no {service}"), "correct the name, or give the namespace by -n")
        }
        Missing::Port(ports) => {
            Untold::new(format!("{service} has no port {port}"), format!("it has {}", ports.join(", ")))
        }
        Missing::Selector => {
            Untold::new(format!("{service} selects no pods"), "name the workload or the pods that are meant")
        }
    }
}

/// The pods that run; at least one.
fn running<'i>(index: &'i Index, pods: &Pods) -> Result<Vec<Known<'i>>, Untold> {
    let Pods { kind, namespace, name } = pods;
    // The metric label of its workload's kind, and its name.
    let is_owner = |owner: Option<&(String, String)>| owner.is_some_and(|(of, owner)| of == kind && owner == name);
    let is_meant = |id: &(String, String), owner: Option<&(String, String)>| {
        id.0 == *namespace && if *kind == POD { id.1 == *name } else { is_owner(owner) }
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
