//! `weft demo`: the voting app in a mesh, and a table of who talks to whom.

use super::{asked_to_end, up};
use crate::{
    args::{self, Host, Switch},
    live::Live,
    print,
};
use anyhow::{Context, bail};
use serde::Serialize;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tokio::time::Instant;
use weft_cluster::{Object, manifest};
use weft_local::{Error, Mesh, Options, Publish, Status};
use weft_viz::{Edge, table};

/// The app's manifests; `WEFT_DEMO` stands for the program.
const MANIFESTS: &str = include_str!("demo.yaml");
/// How often the proxies are asked, and what the table looks back on.
const EVERY: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(30);

/// What `--json` prints.
#[derive(Serialize)]
struct Document {
    workloads: Vec<Workload>,
    edges: Vec<Edge>,
    /// `null` until something has connected.
    mtls_share: Option<f64>,
}

#[derive(Serialize)]
struct Workload {
    namespace: String,
    name: String,
    replicas: u32,
    ready: u32,
}

pub(crate) fn run(state: Option<PathBuf>, args: args::Demo) -> anyhow::Result<ExitCode> {
    let program = weft_local::find_program("weft-demo")?;
    let listen = free(&args.publish)?;
    let publish = Publish { listen, namespace: "emojivoto".into(), service: "web".into(), port: 80 };
    let host = Host { publish: vec![publish], host_service: vec![], egress: Switch::On, proxy_log: None };
    let options = Options { objects: objects(&program)?, ..up::options(state, host) };
    let mesh = match weft_local::up(options.clone()) {
        // Somebody took the port after the look at it.
        Err(Error::Io { error, .. }) if error.kind() == io::ErrorKind::AddrInUse => {
            let mut options = options;
            options.publish.iter_mut().for_each(|p| p.listen.set_port(0));
            weft_local::up(options)?
        }
        mesh => mesh?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(show(mesh, &args))
}

fn objects(program: &Path) -> anyhow::Result<Vec<Object>> {
    let program = program.to_str().context("the path of weft-demo is no text")?;
    let text = MANIFESTS.replace("WEFT_DEMO", &serde_json::to_string(program)?);
    let loaded = manifest::load_text(Path::new("demo.yaml"), &text);
    if let Some(problem) = loaded.problems.first() {
        bail!("the demo's manifests are refused: {problem}");
    }
    Ok(loaded.objects.into_iter().map(|located| located.object).collect())
}

/// The address asked for, or one with another port if that is in use.
fn free(publish: &str) -> anyhow::Result<SocketAddr> {
    let text = if publish.contains(':') { publish.to_owned() } else { format!("127.0.0.1:{publish}") };
    let addr: SocketAddr = text.parse().with_context(|| format!("--publish {publish:?} is no [ADDRESS:]PORT"))?;
    Ok(match TcpListener::bind(addr) {
        Ok(_) => addr,
        Err(_) => SocketAddr::new(addr.ip(), 0),
    })
}

async fn show(mut mesh: Mesh, args: &args::Demo) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let end = async {
        match args.length {
            Some(length) => tokio::time::sleep_until(start + length).await,
            None => std::future::pending().await,
        }
    };
    let client = mesh.client().clone();
    let mut live = Live::new(client.clone(), WINDOW.max(args.length.unwrap_or_default()));
    let shown = async {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let status = client.status().await?;
            live.scrape(&status).await;
            if !args.json {
                draw(&status, &live);
            }
        }
        #[expect(unreachable_code, reason = "names the type of the loop's error")]
        Ok::<(), anyhow::Error>(())
    };
    tokio::select! {
        ended = mesh.ended() => {
            ended?;
            bail!("the mesh has ended");
        }
        failed = shown => failed?,
        () = end => {}
        () = asked_to_end() => {
            mesh.stop().await?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    let status = client.status().await?;
    live.scrape(&status).await;
    if args.json {
        print::line(&serde_json::to_string_pretty(&document(&status, &live))?);
    } else {
        draw(&status, &live);
    }
    mesh.stop().await?;
    Ok(ExitCode::SUCCESS)
}

fn document(status: &Status, live: &Live) -> Document {
    let edges = live.edges();
    let workloads = status.workloads.iter().map(|w| Workload {
        namespace: w.namespace.clone(),
        name: w.name.clone(),
        replicas: w.replicas,
        ready: w.ready,
    });
    Document { workloads: workloads.collect(), edges: edges.edges, mtls_share: edges.mtls_share }
}

/// In place on a terminal; elsewhere one table after the other.
fn draw(status: &Status, live: &Live) {
    let width = print::terminal();
    let edges = live.edges();
    let ready: u32 = status.workloads.iter().map(|w| w.ready).sum();
    let replicas: u32 = status.workloads.iter().map(|w| w.replicas).sum();
    let page = status.published.first().map_or_else(|| "–".to_owned(), |p| format!("http://{}", p.listen));
    let mut text = format!(
        "weft demo: {ready} of {replicas} replicas ready\n{}\n\n{}\n{}\nVote at {page} and choose the doughnut:\nits failures show in the row of their origin.\nCtrl-C ends the mesh.\n",
        table::share(&edges),
        table::edges(&edges, width.unwrap_or(140), width.is_some()),
        table::origins(&edges)
    );
    if live.failed() > 0 {
        text.push_str(&format!("{} scrapes of proxies failed.\n", live.failed()));
    }
    match width {
        Some(_) => print::replace(&text),
        None => print::line(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use weft_local::Client;

    #[test]
    fn nothing_is_claimed_before_anything_has_connected() {
        let live = Live::new(Client::new(Some("no-such-folder".into())).unwrap(), WINDOW);
        let document: Value = serde_json::to_value(document(&Status::default(), &live)).unwrap();
        assert_eq!(document, json!({ "workloads": [], "edges": [], "mtls_share": null }));
    }
}
