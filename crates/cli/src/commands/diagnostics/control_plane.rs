//! `endpoints`, `profile` and `policy`: a destination pod of a cluster is asked; of the mesh on one machine its objects are.

use crate::{
    args::{Ask, DiagnosticsPolicy as Policy, DiagnosticsProfile as Profile, Endpoints, MessageOutput, TextOutput},
    commands::{
        cluster,
        meant::{self, Folder, Meant},
        policy::of_mesh,
    },
    print,
};
use anyhow::{Context, anyhow, bail};
use std::process::ExitCode;
use weft_cluster::{Index, index::WorkloadKind, install::told, kubernetes::Cluster, object::DEFAULT_NAMESPACE, yaml};
use weft_control::diagnostics::{Asking, LISTEN, Row, Unanswered, of_index};
use weft_model::names::{CLUSTER_DOMAIN, port};

/// The pods that serve both services.
const DESTINATION: &str = "linkerd.io/control-plane-component=destination";
/// Who asks for outbound policies.
const TOKEN: &str = "default:diagnostics";

/// Who answers.
enum Answering {
    Cluster { cluster: Cluster, control: String, pod: Option<String> },
    Machine(Box<Index>),
}

impl Answering {
    async fn new(folder: &Folder, ask: &Ask) -> anyhow::Result<Self> {
        Ok(match meant::mesh(folder, &ask.of).await? {
            Meant::Local(_) if ask.destination_pod.is_some() || ask.token.is_some() => {
                bail!(
                    "--destination-pod and --token are of a control plane in a cluster: the mesh on this machine has neither"
                )
            }
            Meant::Local(_) => Self::Machine(Box::new(of_mesh(folder, &ask.of).await?.index)),
            Meant::Cluster => Self::Cluster {
                cluster: cluster(&ask.of.to).await?,
                control: ask.of.to.linkerd_namespace.clone(),
                pod: ask.destination_pod.clone(),
            },
        })
    }

    fn namespace(&self) -> &str {
        match self {
            Self::Cluster { cluster, .. } => cluster.own_namespace(),
            Self::Machine(_) => DEFAULT_NAMESPACE,
        }
    }
}

/// Over a connection to a port of the destination pod that is named, or of one that runs.
async fn asking(cluster: &Cluster, control: &str, pod: Option<&str>, port: u16) -> anyhow::Result<Asking> {
    let found = match pod {
        Some(pod) => pod.to_owned(),
        None => {
            let pods = cluster.pods(Some(control), DESTINATION).await?;
            let running = |phase: Option<&str>| phase == Some("Running");
            let pod = pods.into_iter().find(|pod| running(pod.status.as_ref().and_then(|s| s.phase.as_deref())));
            pod.and_then(|pod| pod.metadata.name)
                .with_context(|| format!("no pod with the label {DESTINATION} runs in the namespace {control}"))?
        }
    };
    Ok(Asking::new(cluster.forward(control, &found, port).await?).await?)
}

fn failed(error: Unanswered) -> anyhow::Error {
    let error = anyhow::Error::from(error);
    anyhow!("Destination API error: {error:#}")
}

pub(super) async fn endpoints(folder: &Folder, args: Endpoints) -> anyhow::Result<ExitCode> {
    let authorities = &args.authorities;
    let rows = match Answering::new(folder, &args.ask).await? {
        Answering::Machine(index) => of_index::endpoints(&index, authorities),
        Answering::Cluster { cluster, control, pod } => {
            let token = args.ask.token.as_deref().unwrap_or_default();
            asking(&cluster, &control, pod.as_deref(), port::DESTINATION)
                .await?
                .endpoints(authorities, token, LISTEN)
                .await
        }
    }
    .map_err(failed)?;
    match args.output {
        TextOutput::Json => print::line(&serde_json::to_string_pretty(&rows)?),
        TextOutput::Table if rows.is_empty() => print::error("No endpoints found."),
        TextOutput::Table => print::text(&table(&rows))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// One table per namespace.
fn table(rows: &[Row]) -> String {
    let mut namespaces: Vec<&str> = rows.iter().map(|row| row.namespace.as_str()).collect();
    namespaces.dedup();
    let tables = namespaces.into_iter().map(|namespace| {
        let of_namespace = rows.iter().filter(|row| row.namespace == namespace);
        let cells = of_namespace.map(|row| {
            let Row { namespace, ip, port, pod, service, .. } = row;
            [namespace.clone(), ip.to_string(), port.to_string(), pod.clone(), service.clone()]
        });
        columns(["NAMESPACE", "IP", "PORT", "POD", "SERVICE"], cells, 3)
    });
    tables.collect::<Vec<_>>().join("\n")
}

/// Left-aligned, so many spaces apart.
pub(in crate::commands) fn columns<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    apart: usize,
) -> String {
    let lines: Vec<[String; N]> = std::iter::once(header.map(str::to_owned)).chain(rows).collect();
    let widths: [usize; N] =
        std::array::from_fn(|i| lines.iter().filter_map(|line| line.get(i)).map(String::len).max().unwrap_or_default());
    let line = |line: &[String; N]| {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}{:apart$}", ""));
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}

pub(super) async fn profile(folder: &Folder, args: Profile) -> anyhow::Result<ExitCode> {
    let message = match Answering::new(folder, &args.ask).await? {
        Answering::Machine(index) => of_index::profile(&index, &args.address),
        Answering::Cluster { cluster, control, pod } => {
            let token = args.ask.token.as_deref().unwrap_or_default();
            asking(&cluster, &control, pod.as_deref(), port::DESTINATION).await?.profile(&args.address, token).await
        }
    };
    print::line(&message.map_err(failed)?);
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn policy(folder: &Folder, args: Policy) -> anyhow::Result<ExitCode> {
    let answering = Answering::new(folder, &args.ask).await?;
    let namespace = args.namespace.clone().unwrap_or_else(|| answering.namespace().to_owned());
    let (kind, name) = args.resource.split_once('/').unwrap_or(("", &args.resource));
    // None is a Service.
    let of = match kind {
        "po" | "pod" | "pods" => Some(WorkloadKind::Pod),
        "externalworkload" | "externalworkloads" => Some(WorkloadKind::ExternalWorkload),
        "svc" | "service" | "services" => None,
        _ => bail!(
            "{:?} is no pod, ExternalWorkload or Service; use po/NAME, externalworkload/NAME or svc/NAME",
            args.resource
        ),
    };
    let message = match (answering, of) {
        (Answering::Machine(index), None) => {
            let domain = index.settings().cluster_domain.clone();
            of_index::outbound(&index, &format!("{name}.{namespace}.svc.{domain}:{}", args.port))
        }
        (Answering::Machine(index), Some(of)) => of_index::inbound(&index, &namespace, of, name, args.port),
        (Answering::Cluster { cluster, control, pod }, of) => {
            let asking = asking(&cluster, &control, pod.as_deref(), port::POLICY).await?;
            if let Some(of) = of {
                asking.inbound(&namespace, of, name, args.port).await
            } else {
                let values = told(&cluster, &control).await?.unwrap_or_default();
                let domain = values["clusterDomain"].as_str().filter(|d| !d.is_empty()).unwrap_or(CLUSTER_DOMAIN);
                let authority = format!("{name}.{namespace}.svc.{domain}:{}", args.port);
                asking.outbound(&authority, args.ask.token.as_deref().unwrap_or(TOKEN)).await
            }
        }
    }
    .map_err(|error| anyhow!("Policy API error: {error}"))?;
    match args.output {
        MessageOutput::Json => print::line(&message),
        MessageOutput::Yaml => print::text(&yaml::text(&serde_json::from_str(&message)?))?,
    }
    Ok(ExitCode::SUCCESS)
}
