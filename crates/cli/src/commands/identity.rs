//! `weft identity`: the certificates that pods' proxies show at their admin ports.

use super::meant::{self, Folder, Meant};
use crate::{
    args::{Identity as Args, ToCluster},
    print,
};
use anyhow::{Context, anyhow, bail};
use std::{net::SocketAddr, process::ExitCode, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};
use weft_cluster::{
    install::{self, CONFIG},
    k8s::api::core::v1::Pod,
    kubernetes::{Cluster, Resource},
    object,
};
use weft_control::certificate;
use weft_local::Client;
use weft_model::{
    Identity,
    names::{CLUSTER_DOMAIN, CONTROL_NAMESPACE, port},
};
use weft_transport::tls::Asking;

/// How long one proxy may take.
const ANSWER: Duration = Duration::from_secs(10);
const POD: Resource = Resource::new("", "v1", "Pod", "pods");
/// The name of the port in a pod's specification.
const ADMIN: &str = "linkerd-admin";

pub(crate) async fn run(folder: &Folder, args: Args) -> anyhow::Result<ExitCode> {
    let failed = match meant::mesh(folder, &args.of).await? {
        Meant::Local(client) => of_the_machine(&client, &args).await?,
        Meant::Cluster => of_a_cluster(&args).await?,
    };
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What each pod shows; whether one shows nothing.
async fn of_the_machine(client: &Client, args: &Args) -> anyhow::Result<bool> {
    if args.selector.is_some() {
        bail!(
            "--selector: a mesh on one machine does not tell the labels of its pods; name them, `weft ps` lists them"
        );
    }
    let workloads = client.status().await?.workloads;
    let of = args.namespace.as_ref();
    let all: Vec<_> = workloads
        .iter()
        .filter(|workload| of.is_none_or(|of| *of == workload.namespace))
        .flat_map(|workload| workload.pods.iter().map(|pod| (&workload.namespace, pod)))
        .collect();
    let mut told = Told { of: args.pods.len(), ..Told::default() };
    for name in &args.pods {
        let asked = async {
            let found = all.iter().find(|(_, pod)| pod.name == *name);
            let (namespace, pod) = found.ok_or_else(|| anyhow!("there is no such pod; `weft ps` lists them"))?;
            let ip = pod.ips.first().filter(|_| pod.meshed).ok_or_else(|| anyhow!("it has no proxy"))?;
            let identity =
                Identity::of_service_account(&pod.service_account, namespace, CONTROL_NAMESPACE, CLUSTER_DOMAIN)?;
            let asking = Asking::new(&identity.to_string())?;
            certificates(asking, client.dial(SocketAddr::new(*ip, port::ADMIN)).await?).await
        };
        told.pod(name, in_time(asked).await);
    }
    Ok(told.failed)
}

async fn of_a_cluster(args: &Args) -> anyhow::Result<bool> {
    let to = &args.of.to;
    let cluster = super::cluster(to).await?;
    let namespace = args.namespace.clone().unwrap_or_else(|| cluster.own_namespace().to_owned());
    let domain = trust_domain(&cluster, to).await?;
    let mut pods: Vec<(String, anyhow::Result<Pod>)> = vec![];
    match &args.selector {
        Some(labels) => {
            let found = cluster.pods(Some(&namespace), labels).await?;
            if found.is_empty() {
                bail!("no pod in the namespace {namespace} has the labels {labels}");
            }
            pods.extend(found.into_iter().map(|pod| (pod.metadata.name.clone().unwrap_or_default(), Ok(pod))));
        }
        None => {
            for name in &args.pods {
                let found = cluster.object(POD, Some(&namespace), name).await?;
                let found = found.ok_or_else(|| anyhow!("there is no such pod in the namespace {namespace}"));
                pods.push((name.clone(), found.and_then(|pod| Ok(serde_json::from_value(pod)?))));
            }
        }
    }
    let mut told = Told { of: pods.len(), ..Told::default() };
    for (name, pod) in pods {
        let asked = async {
            let pod = pod?;
            let port = admin(&pod).ok_or_else(|| anyhow!("it has no proxy: none of its ports is called {ADMIN}"))?;
            let account = pod.spec.and_then(|spec| spec.service_account_name).unwrap_or_else(|| "default".to_owned());
            let identity = Identity::of_service_account(&account, &namespace, &to.linkerd_namespace, &domain)?;
            let asking = Asking::new(&identity.to_string())?;
            certificates(asking, cluster.forward(&namespace, &name, port).await?).await
        };
        told.pod(&name, in_time(asked).await);
    }
    Ok(told.failed)
}

/// The end of all identities.
async fn trust_domain(cluster: &Cluster, to: &ToCluster) -> anyhow::Result<String> {
    let namespace = &to.linkerd_namespace;
    let values = install::told(cluster, namespace).await?;
    let values =
        values.with_context(|| format!("there is no mesh: the namespace {namespace} has no ConfigMap {CONFIG}"))?;
    Ok(install::trust_domain(&values))
}

/// Where the proxy of a pod listens for such questions.
pub(super) fn admin(pod: &Pod) -> Option<u16> {
    let spec = pod.spec.as_ref()?;
    let containers = object::containers(spec);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    u16::try_from(ports.find(|port| port.name.as_deref() == Some(ADMIN))?.container_port).ok()
}

/// What of the chain is not a CA's, as text.
async fn certificates(asking: Asking, connection: impl AsyncRead + AsyncWrite + Unpin) -> anyhow::Result<Vec<String>> {
    certificate::texts(&asking.shown(connection).await?).map_err(|why| anyhow!("{why}"))
}

async fn in_time<T>(asked: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(ANSWER, asked).await.map_err(|_| anyhow!("no answer within {ANSWER:?}"))?
}

#[derive(Default)]
struct Told {
    of: usize,
    count: usize,
    failed: bool,
}

impl Told {
    fn pod(&mut self, name: &str, certificates: anyhow::Result<Vec<String>>) {
        self.count += 1;
        match certificates {
            Ok(texts) => {
                print::line(&format!("POD {name} ({} of {})\n", self.count, self.of));
                texts.iter().for_each(|text| print::line(text));
            }
            Err(error) => {
                self.failed = true;
                print::error(&format!("weft: pod {name} ({} of {}): {error:#}", self.count, self.of));
            }
        }
    }
}
