//! `weft version`: of this command, of the control plane, and of the proxies that run.

use super::{
    cluster,
    meant::{self, Folder, Meant},
};
use crate::{
    args::{ToCluster, Version},
    print,
};
use anyhow::{Context, anyhow};
use std::{collections::BTreeMap, fmt::Write as _, future::Future, net::SocketAddr, process::ExitCode, time::Duration};
use weft_cluster::{
    install::{proxy_versions, told},
    kubernetes::Error,
};
use weft_local::Client;
use weft_model::names::port;
use weft_viz::{exposition, scrape};

/// How long a mesh may take to say it.
const ANSWER: Duration = Duration::from_secs(5);

pub(crate) async fn run(folder: &Folder, args: Version) -> anyhow::Result<ExitCode> {
    let mut asked = Asked::default();
    if !args.client {
        let to = &args.of.to;
        let of = args.namespace.as_deref();
        match meant::mesh(folder, &args.of).await? {
            Meant::Local(client) => {
                asked.server = Some(asked.got(in_time(of_the_machine(&client)).await));
                if args.proxy {
                    let proxies = asked.got(in_time(of_its_proxies(&client, of)).await);
                    asked.proxies = Some(proxies.map(|proxies| {
                        proxies.silent.into_iter().for_each(|error| asked.lacks(&error));
                        proxies.versions
                    }));
                }
            }
            Meant::Cluster => {
                asked.server = Some(asked.got(in_time(of_the_control_plane(to)).await));
                if args.proxy {
                    asked.proxies = Some(asked.got(in_time(of_proxies(to, of)).await));
                }
            }
        }
    }
    let told =
        text(args.short, asked.server.as_ref().map(Option::as_deref), asked.proxies.as_ref().map(Option::as_ref));
    print::text(&told)?;
    asked.lacking.iter().for_each(|why| print::error(why));
    Ok(if asked.lacking.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is known by now.
#[derive(Default)]
struct Asked {
    server: Option<Option<String>>,
    proxies: Option<Option<BTreeMap<String, usize>>>,
    /// Why the rest is not.
    lacking: Vec<String>,
}

impl Asked {
    /// Who does not answer has no version.
    fn got<T>(&mut self, answer: anyhow::Result<Option<T>>) -> Option<T> {
        answer.unwrap_or_else(|error| {
            self.lacks(&error);
            None
        })
    }

    /// Where no cluster is configured there is nobody whose version it would be.
    fn lacks(&mut self, error: &anyhow::Error) {
        if !matches!(error.downcast_ref(), Some(Error::NoCluster(_))) {
            let why = format!("weft: {error:#}");
            if !self.lacking.contains(&why) {
                self.lacking.push(why);
            }
        }
    }
}

async fn in_time<T>(asked: impl Future<Output = anyhow::Result<Option<T>>>) -> anyhow::Result<Option<T>> {
    tokio::time::timeout(ANSWER, asked).await.map_err(|_| anyhow!("no version was told within {ANSWER:?}"))?
}

async fn of_the_machine(client: &Client) -> anyhow::Result<Option<String>> {
    Ok(Some(client.status().await?.version).filter(|version| !version.is_empty()))
}

/// Of a mesh of this machine.
#[derive(Default)]
struct Proxies {
    versions: BTreeMap<String, usize>,
    /// Why some say nothing.
    silent: Vec<anyhow::Error>,
}

/// What each says of itself in its metrics.
async fn of_its_proxies(client: &Client, of: Option<&str>) -> anyhow::Result<Option<Proxies>> {
    let mut proxies = Proxies::default();
    for workload in client.status().await?.workloads {
        if of.is_some_and(|of| of != workload.namespace) {
            continue;
        }
        for pod in workload.pods.iter().filter(|pod| pod.meshed) {
            let Some(ip) = pod.ips.first() else { continue };
            let asked = async {
                let text = scrape::scrape(client.dial(SocketAddr::new(*ip, port::ADMIN)).await?).await?;
                let info =
                    exposition::parse(&text).samples.into_iter().find(|sample| sample.name == "proxy_build_info");
                let version = info.and_then(|mut info| info.labels.remove("version"));
                version.context("its metrics say no version")
            };
            let version = asked.await.unwrap_or_else(|error: anyhow::Error| {
                proxies.silent.push(error.context(format!("the proxy of pod {}/{}", workload.namespace, pod.name)));
                "unavailable".to_owned()
            });
            *proxies.versions.entry(version).or_default() += 1;
        }
    }
    Ok(Some(proxies))
}

async fn of_the_control_plane(to: &ToCluster) -> anyhow::Result<Option<String>> {
    let (cluster, namespace) = (cluster(to).await?, &to.linkerd_namespace);
    let wanted = || format!("the control plane's version, by get configmaps in the namespace {namespace}");
    let values = told(&cluster, namespace).await.with_context(wanted)?;
    Ok(values.and_then(|values| Some(values.get("linkerdVersion")?.as_str()?.to_owned())))
}

async fn of_proxies(to: &ToCluster, namespace: Option<&str>) -> anyhow::Result<Option<BTreeMap<String, usize>>> {
    let cluster = cluster(to).await?;
    let wanted = || {
        let within = namespace.map_or_else(|| "all namespaces".to_owned(), |name| format!("the namespace {name}"));
        format!("the proxies' versions, by list pods in {within}")
    };
    Ok(Some(proxy_versions(&cluster, &to.linkerd_namespace, namespace).await.with_context(wanted)?))
}

/// What was asked for, each of which may be unavailable.
fn text(short: bool, server: Option<Option<&str>>, proxies: Option<Option<&BTreeMap<String, usize>>>) -> String {
    let label = |name: &str| if short { String::new() } else { format!("{name}: ") };
    let mut out = format!("{}{}\n", label("Client version"), env!("CARGO_PKG_VERSION"));
    if let Some(server) = server {
        let _ = writeln!(out, "{}{}", label("Server version"), server.unwrap_or("unavailable"));
    }
    match proxies {
        None => {}
        Some(Some(versions)) if !versions.is_empty() => {
            out += "Proxy versions:\n";
            for (version, pods) in versions {
                let _ = writeln!(out, "\t{version} ({pods} pods)");
            }
        }
        Some(_) => out += "Proxy versions: unavailable\n",
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_in_linkerds_words() {
        let own = env!("CARGO_PKG_VERSION");
        assert_eq!(text(false, None, None), format!("Client version: {own}\n"));
        assert_eq!(text(true, Some(Some("v2")), None), format!("{own}\nv2\n"));
        let versions = BTreeMap::from([("v1".to_owned(), 2), ("v2".to_owned(), 30)]);
        assert_eq!(
            text(false, Some(None), Some(Some(&versions))),
            format!(
                "Client version: {own}\nServer version: unavailable\nProxy versions:\n\tv1 (2 pods)\n\tv2 (30 pods)\n"
            )
        );
        assert!(text(false, Some(None), Some(None)).ends_with("Proxy versions: unavailable\n"));
    }
}
