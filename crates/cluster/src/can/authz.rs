//! Which objects let somebody in to the pods of a workload: `weft authz`, in Linkerd's columns.

use super::{
    Untold,
    name::{POD, kind_label, short},
};
use crate::{
    Index, Object,
    index::{Answer, Known, Platform, Question, Settings},
};
use k8s_openapi::api::core::v1::Pod;
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

/// What counts at the ports that the pods of `KIND/NAME` declare, or of every workload of a `KIND`.
///
/// # Errors
/// There is no such kind, or no such pod runs.
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

/// The pods of `KIND/NAME`, or of every workload of a `KIND`, that run.
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

/// The same of pods that were asked for one by one.
///
/// # Errors
/// As [`authorizations`].
pub fn pods_among(all: Vec<Pod>, resource: &str, namespace: &str) -> Result<Vec<Pod>, Untold> {
    let objects = all.iter().cloned().map(|pod| Object::Pod(Box::new(pod)));
    let index = super::of_objects(objects, Settings { platform: Platform::Kubernetes, ..Settings::default() });
    let found = pods(&index, resource, namespace)?;
    let is_found = |pod: &Pod| found.iter().any(|found| Some(&found.name) == pod.metadata.name.as_ref());
    Ok(all.into_iter().filter(is_found).collect())
}

fn known<'i>(index: &'i Index, resource: &str, namespace: &str) -> Result<Vec<Known<'i>>, Untold> {
    let refused = || {
        let message = format!("{:?} is no resource", short(resource));
        Untold::new(message, "use KIND/NAME or KIND with deploy, sts, ds, rs, rc, job or po")
    };
    let (kind, name) = match resource.split_once('/') {
        Some((kind, name)) if !name.is_empty() && !name.contains('/') => (kind, Some(name)),
        Some(_) => return Err(refused()),
        None => (resource, None),
    };
    let kind = kind_label(&kind.to_lowercase()).ok_or_else(refused)?;
    let is_named = |own: &str| name.is_none_or(|name| name == own);
    let pods: Vec<_> = index
        .known(|(own, pod), owner| {
            own == namespace
                && match kind {
                    POD => is_named(pod),
                    _ => owner.is_some_and(|(of, owner)| of == kind && is_named(owner)),
                }
        })
        .collect();
    if pods.is_empty() && name.is_some() {
        let message = format!("no pod of {resource} runs in the namespace {namespace}");
        return Err(Untold::new(message, "correct the name, or give the namespace by -n"));
    }
    Ok(pods)
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
