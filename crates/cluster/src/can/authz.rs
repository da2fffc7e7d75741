//! Which objects let somebody in to the pods of a workload: `weft authz`, in Linkerd's columns.

use super::{
    Untold,
    name::{POD, SERVICES, is_of, kind_label, short},
    people::{by_label, no_selector, no_service, nothing_behind},
};
use crate::{
    Index, Object,
    index::{Answer, Known, Missing, Platform, Question, Settings},
};
use k8s_openapi::api::core::v1::{Pod, Service};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use weft_model::{
    Meta, ServerPolicy,
    policy::inbound::{Authorization, ServerProtocol},
};

/// One object that lets somebody in, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Granted {
    pub server: String,
    /// `None`: everywhere at the Server's port.
    pub route: Option<String>,
    pub authorization_policy: Option<String>,
    pub server_authorization: Option<String>,
}

/// Whose pods are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A pod's or a workload's, by the metric label of its kind; without a name, those of every one.
    Workload { kind: &'static str, name: Option<String> },
    /// Those that it selects.
    Service(String),
    /// All of it; without a name, of the one that is asked for.
    Namespace(Option<String>),
}

const NAMESPACES: [&str; 3] = ["ns", "namespace", "namespaces"];

impl Resource {
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, Untold> {
        let refused = || {
            let message = format!("{:?} is no resource", short(text));
            let kinds = "deploy, sts, ds, rs, rc, job, cj, po or ns";
            Untold::new(message, format!("use KIND/NAME or KIND with {kinds}, or svc/NAME"))
        };
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) if !name.is_empty() && !name.contains('/') => (kind, Some(name.to_owned())),
            Some(_) => return Err(refused()),
            None => (text, None),
        };
        let kind = kind.to_lowercase();
        if NAMESPACES.contains(&kind.as_str()) {
            return Ok(Self::Namespace(name));
        }
        if SERVICES.contains(&kind.as_str()) {
            return name.map(Self::Service).ok_or_else(refused);
        }
        let kind = kind_label(&kind).ok_or_else(refused)?;
        Ok(Self::Workload { kind, name })
    }

    /// In which namespace its pods are, where this one is asked for.
    pub fn namespace<'n>(&'n self, asked: &'n str) -> &'n str {
        match self {
            Self::Namespace(Some(name)) => name,
            Self::Workload { .. } | Self::Service(_) | Self::Namespace(None) => asked,
        }
    }
}

/// What counts at the ports that the pods of a resource declare.
///
/// # Errors
/// There is no such resource, or no such pod runs.
pub fn authorizations(index: &Index, resource: &str, namespace: &str) -> Result<Vec<Granted>, Untold> {
    let pods = known(index, resource, namespace)?;
    let mut granted = BTreeSet::new();
    for pod in &pods {
        for port in pod.ports {
            let (namespace, name) = pod.id.clone();
            let question = Question::Inbound { namespace, of: pod.of, name, port: port.number };
            if let Ok(Answer::Inbound(policy)) = index.answer(&question).answer {
                of_policy(&policy, &mut granted);
            }
        }
    }
    Ok(granted.into_iter().collect())
}

/// A pod, for who asks it something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub namespace: String,
    pub name: String,
    pub addresses: Vec<IpAddr>,
    /// Whether it has a proxy of this mesh.
    pub meshed: bool,
}

/// The pods of a resource that run.
///
/// # Errors
/// As [`authorizations`].
pub fn pods(index: &Index, resource: &str, namespace: &str) -> Result<Vec<Found>, Untold> {
    let found = known(index, resource, namespace)?.into_iter().map(|known| {
        let (namespace, name) = known.id.clone();
        Found { namespace, name, addresses: known.addresses, meshed: known.identity.is_some() }
    });
    Ok(found.collect())
}

/// The same of pods that were asked for one by one, as was the Service if one is meant.
///
/// # Errors
/// As [`authorizations`].
pub fn pods_among(
    all: Vec<Pod>,
    service: Option<Service>,
    resource: &str,
    namespace: &str,
) -> Result<Vec<Pod>, Untold> {
    let objects = all.iter().cloned().map(|pod| Object::Pod(Box::new(pod)));
    let objects = objects.chain(service.map(|service| Object::Service(Box::new(service))));
    let index = super::of_objects(objects, Settings { platform: Platform::Kubernetes, ..Settings::default() });
    let found = pods(&index, resource, namespace)?;
    let is_found = |pod: &Pod| found.iter().any(|found| Some(&found.name) == pod.metadata.name.as_ref());
    Ok(all.into_iter().filter(is_found).collect())
}

fn known<'i>(index: &'i Index, resource: &str, namespace: &str) -> Result<Vec<Known<'i>>, Untold> {
    let parsed = Resource::parse(resource)?;
    let namespace = parsed.namespace(namespace);
    let none = |of: &str| {
        let message = format!("no pod{of} runs in the namespace {namespace}");
        Untold::new(message, "correct the name, or give the namespace by -n")
    };
    let (pods, missing): (Vec<_>, _) = match &parsed {
        Resource::Service(name) => {
            let id = (namespace.to_owned(), name.clone());
            let selected = index.selected_by(&id).map_err(|missing| match missing {
                Missing::Selector => no_selector(&id),
                Missing::Service | Missing::Port(_) => no_service(&id),
                Missing::Label { pod, label } => by_label(&id, &pod, &label),
            })?;
            (selected.collect(), Some(nothing_behind(&id)))
        }
        Resource::Namespace(name) => {
            let all = index.known(|(own, _), _| own == namespace);
            (all.collect(), name.as_ref().map(|_| none("")))
        }
        Resource::Workload { kind, name } => {
            let name = name.as_deref();
            let meant = index.known(|(own, pod), owner| {
                let is_named = || name.is_none_or(|name| name == pod);
                let is_owner = || owner.is_some_and(|owner| is_of(kind, name, owner));
                own == namespace && if *kind == POD { is_named() } else { is_owner() }
            });
            (meant.collect(), name.map(|_| none(&format!(" of {resource}"))))
        }
    };
    match missing {
        Some(missing) if pods.is_empty() => Err(missing),
        _ => Ok(pods),
    }
}

fn of_policy(policy: &ServerPolicy, granted: &mut BTreeSet<Granted>) {
    // A port without a Server has a default policy, and nothing that could be listed.
    let Meta::Resource(server) = &policy.meta else { return };
    let mut of_route: BTreeMap<Option<&str>, Vec<&Authorization>> = BTreeMap::new();
    of_route.insert(None, policy.authorizations.iter().collect());
    match &policy.protocol {
        ServerProtocol::Detect { routes, .. }
        | ServerProtocol::Http1 { routes, .. }
        | ServerProtocol::Http2 { routes, .. } => {
            for route in routes {
                let all = route.rules.iter().flat_map(|rule| &rule.does.authorizations);
                of_route.entry(Some(route.meta.name())).or_default().extend(all);
            }
        }
        ServerProtocol::Grpc { routes } => {
            for route in routes {
                let all = route.rules.iter().flat_map(|rule| &rule.does.authorizations);
                of_route.entry(Some(route.meta.name())).or_default().extend(all);
            }
        }
        ServerProtocol::Opaque | ServerProtocol::Tls => {}
    }
    for (route, authorizations) in of_route {
        for meta in authorizations.into_iter().map(|a| &a.meta) {
            let is = |kind: &str| (meta.kind() == kind).then(|| meta.name().to_owned());
            let (policy, older) = (is("authorizationpolicy"), is("serverauthorization"));
            if policy.is_some() || older.is_some() {
                granted.insert(Granted {
                    server: server.name.clone(),
                    route: route.map(str::to_owned),
                    authorization_policy: policy,
                    server_authorization: older,
                });
            }
        }
    }
}
