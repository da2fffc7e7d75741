//! `controller-metrics` and `proxy-metrics`: expositions one after the other, each under a head of comments.

use crate::{
    args::{ControllerMetrics, ProxyMetrics},
    commands::{
        cluster, identity,
        meant::{self, Folder, Meant},
        policy::of_mesh,
    },
    print,
};
use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use std::{net::SocketAddr, process::ExitCode, time::Duration};
use tokio::task::JoinSet;
use weft_cluster::{
    can,
    k8s::api::core::v1::Pod,
    kubernetes::{Cluster, Resource},
    object,
};
use weft_control::diagnostics::obfuscated;
use weft_local::Client;
use weft_model::names::port;
use weft_viz::scrape;

/// How long all proxies together may take.
const PROXIES: Duration = Duration::from_secs(30);
/// Proxies that are asked at a time.
const AT_ONCE: usize = 16;
/// The end of the names of ports where processes answer for their metrics.
const ADMIN: &str = "admin";
const POD: Resource = Resource::new("", "v1", "Pod", "pods");
const SERVICE: Resource = Resource::new("", "v1", "Service", "services");

/// A server of metrics.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    namespace: String,
    pod: String,
    container: String,
    at: At,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    /// Of the pod's own loopback.
    Port(u16),
    /// Inside the mesh of this machine.
    Addr(SocketAddr),
    /// It has none, or does not run.
    Nowhere(&'static str),
}

#[derive(Clone)]
enum Through {
    Cluster(Cluster),
    Machine(Client),
}

impl Through {
    async fn ask(self, place: Place) -> anyhow::Result<String> {
        Ok(match (self, place.at) {
            (_, At::Nowhere(why)) => bail!("{why}"),
            (Self::Cluster(cluster), At::Port(port)) => {
                let by = || format!("its metrics, by get pods/portforward in the namespace {}", place.namespace);
                let connection = cluster.forward(&place.namespace, &place.pod, port).await.with_context(by)?;
                scrape::scrape(connection).await?
            }
            (Self::Machine(client), At::Addr(addr)) => scrape::scrape(client.dial(addr).await?).await?,
            _ => bail!("it is somewhere else"),
        })
    }
}

/// What each says, in their order; who has not answered by then is told of.
async fn asked(through: Through, mut places: Vec<Place>, wait: Duration) -> Vec<(Place, Result<String, String>)> {
    places.sort();
    let (until, mut waiting) = (tokio::time::Instant::now() + wait, JoinSet::new());
    let mut told: Vec<(Place, Result<String, String>)> =
        places.iter().map(|place| (place.clone(), Err(format!("no answer within {wait:?}")))).collect();
    let mut next = places.into_iter().enumerate();
    loop {
        while waiting.len() < AT_ONCE
            && let Some((i, place)) = next.next()
        {
            let through = through.clone();
            waiting.spawn(async move { (i, through.ask(place).await.map_err(|error| format!("{error:#}"))) });
        }
        match tokio::time::timeout_at(until, waiting.join_next()).await {
            Ok(Some(Ok((i, answer)))) => {
                if let Some((_, slot)) = told.get_mut(i) {
                    *slot = answer;
                }
            }
            Ok(Some(Err(_))) => {}
            Ok(None) | Err(_) => return told,
        }
    }
}

pub(super) async fn of_the_control_plane(folder: &Folder, args: ControllerMetrics) -> anyhow::Result<ExitCode> {
    let (through, places) = match meant::mesh(folder, &args.of).await? {
        Meant::Local(client) => {
            let admin = client.status().await?.control_plane.admin.context("the control plane does not run yet")?;
            let name = "control-plane".to_owned();
            let at = At::Addr(admin);
            (Through::Machine(client), vec![Place { namespace: String::new(), pod: name.clone(), container: name, at }])
        }
        Meant::Cluster => {
            let cluster = cluster(&args.of.to).await?;
            let namespace = &args.of.to.linkerd_namespace;
            let pods: Vec<Pod> = listed(&cluster, namespace).await?.into_iter().filter(|pod| !has_ended(pod)).collect();
            if pods.is_empty() {
                bail!("there are no pods in the namespace {namespace}; name another by --linkerd-namespace");
            }
            (Through::Cluster(cluster), pods.iter().flat_map(admins).collect())
        }
    };
    let told = asked(through, places, args.wait).await;
    let (count, mut silent) = (told.len(), Silent::default());
    for (i, (place, answer)) in told.into_iter().enumerate() {
        let mut text = format!("#\n# POD {} ({} of {count})\n", place.pod, i + 1);
        match answer {
            Ok(exposition) => text += &format!("# CONTAINER {} \n#\n{exposition}", place.container),
            Err(error) => text += &silent.of(&place, &error),
        }
        print::text(&text)?;
    }
    Ok(silent.told())
}

/// Those that have not said anything.
#[derive(Default)]
struct Silent(Vec<String>);

impl Silent {
    /// What stands in the place of the metrics.
    fn of(&mut self, place: &Place, error: &str) -> String {
        let Place { namespace, pod, container, .. } = place;
        let [namespace, container] =
            [(namespace, format!("{namespace}/")), (container, format!(", container {container}"))]
                .map(|(name, shown)| if name.is_empty() { String::new() } else { shown });
        self.0.push(format!("weft: pod {namespace}{pod}{container}: {error}"));
        format!("# ERROR {error}\n")
    }

    /// What whoever reads the metrics alone sees in the status.
    fn told(self) -> ExitCode {
        self.0.iter().for_each(|line| print::error(line));
        if self.0.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

async fn listed(cluster: &Cluster, namespace: &str) -> anyhow::Result<Vec<Pod>> {
    let by = || format!("the pods, by list pods in the namespace {namespace}");
    cluster.pods(Some(namespace), "").await.with_context(by)
}

/// A job's, which has nothing more to say.
fn has_ended(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Where a pod of the control plane answers for its metrics.
fn admins(pod: &Pod) -> Vec<Place> {
    let place = |container: &str, at| Place {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        pod: pod.metadata.name.clone().unwrap_or_default(),
        container: container.to_owned(),
        at,
    };
    if pod.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Running") {
        return vec![place("", At::Nowhere("the pod does not run"))];
    }
    let spec = pod.spec.iter();
    let containers = spec.flat_map(object::containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten().map(move |port| (container, port)));
    let admin = ports.filter(|(_, port)| port.name.as_deref().is_some_and(|name| name.ends_with(ADMIN)));
    let numbered = admin.filter_map(|(c, port)| Some((c, u16::try_from(port.container_port).ok()?)));
    numbered.map(|(container, port)| place(&container.name, At::Port(port))).collect()
}

async fn one(cluster: &Cluster, of: Resource, what: &str, namespace: &str, name: &str) -> anyhow::Result<Value> {
    let by = || format!("the {what} {name}, by get {what}s in the namespace {namespace}");
    let found = cluster.object(of, Some(namespace), name).await.with_context(by)?;
    found.ok_or_else(|| anyhow!("there is no {what} {name} in the namespace {namespace}"))
}

pub(super) async fn of_proxies(folder: &Folder, args: ProxyMetrics) -> anyhow::Result<ExitCode> {
    let resource = &args.resource;
    let (through, places) = match meant::mesh(folder, &args.of).await? {
        Meant::Local(client) => {
            let source = of_mesh(folder, &args.of).await?;
            let namespace = args.namespace.as_deref().unwrap_or(&source.namespace);
            let places = can::pods(&source.index, resource, namespace)?.into_iter().map(|found| {
                let address = found.addresses.first().filter(|_| found.meshed);
                let at = address
                    .map_or(At::Nowhere("the pod has no proxy"), |ip| At::Addr(SocketAddr::new(*ip, port::ADMIN)));
                Place { namespace: found.namespace, pod: found.name, container: String::new(), at }
            });
            (Through::Machine(client), places.collect::<Vec<_>>())
        }
        Meant::Cluster => {
            let cluster = cluster(&args.of.to).await?;
            let namespace = args.namespace.clone().unwrap_or_else(|| cluster.own_namespace().to_owned());
            let meant = can::Resource::parse(resource)?;
            let namespace = meant.namespace(&namespace).to_owned();
            let pods = match &meant {
                can::Resource::Workload { kind: "pod", name: Some(name) } => {
                    vec![serde_json::from_value::<Pod>(one(&cluster, POD, "pod", &namespace, name).await?)?]
                }
                can::Resource::Service(name) => {
                    let service = serde_json::from_value(one(&cluster, SERVICE, "service", &namespace, name).await?)?;
                    can::pods_among(listed(&cluster, &namespace).await?, Some(service), resource, &namespace)?
                }
                can::Resource::Workload { .. } | can::Resource::Namespace(_) => {
                    can::pods_among(listed(&cluster, &namespace).await?, None, resource, &namespace)?
                }
            };
            let places = pods.iter().map(|pod| Place {
                namespace: namespace.clone(),
                pod: pod.metadata.name.clone().unwrap_or_default(),
                container: String::new(),
                at: identity::admin(pod).map_or(At::Nowhere("the pod has no proxy"), At::Port),
            });
            (Through::Cluster(cluster), places.collect())
        }
    };
    let told = asked(through, places, PROXIES).await;
    let (count, mut silent) = (told.len(), Silent::default());
    for (i, (place, answer)) in told.into_iter().enumerate() {
        let head = format!("#\n# POD {} ({} of {count})\n", place.pod, i + 1);
        print::text(&match answer {
            Ok(exposition) if args.obfuscate => format!("{head}#\n{}", obfuscated(&exposition)),
            Ok(exposition) => format!("{head}#\n{exposition}"),
            Err(error) => format!("{head}{}", silent.of(&place, &error)),
        })?;
    }
    Ok(silent.told())
}
