//! `weft version`: of this command, of the control plane, and of the proxies that run.

use super::cluster;
use crate::args::{ToCluster, Version};
use std::{collections::BTreeMap, fmt::Write as _, future::Future, process::ExitCode, time::Duration};
use weft_cluster::{
    install::{CONFIG, proxy_versions},
    values::Values,
};

/// How long a cluster may take to say it.
const ANSWER: Duration = Duration::from_secs(5);

pub(crate) async fn run(args: Version) -> anyhow::Result<ExitCode> {
    let server = if args.client { None } else { Some(in_time(of_the_control_plane(&args.to)).await) };
    let proxies = if args.proxy { Some(in_time(of_proxies(&args.to, args.namespace.as_deref())).await) } else { None };
    let told = text(args.short, server.as_ref().map(Option::as_deref), proxies.as_ref().map(Option::as_ref));
    super::print_text(&told);
    Ok(ExitCode::SUCCESS)
}

/// Who does not answer has no version.
async fn in_time<T>(asked: impl Future<Output = anyhow::Result<Option<T>>>) -> Option<T> {
    tokio::time::timeout(ANSWER, asked).await.ok()?.ok()?
}

async fn of_the_control_plane(to: &ToCluster) -> anyhow::Result<Option<String>> {
    let config = cluster(to).await?.config_map(&to.linkerd_namespace, CONFIG).await?;
    let values = config.and_then(|config| Values::layer(config.get("values")?).ok());
    Ok(values.and_then(|values| Some(values.get("linkerdVersion")?.as_str()?.to_owned())))
}

async fn of_proxies(to: &ToCluster, namespace: Option<&str>) -> anyhow::Result<Option<BTreeMap<String, usize>>> {
    Ok(Some(proxy_versions(&cluster(to).await?, &to.linkerd_namespace, namespace).await?))
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
