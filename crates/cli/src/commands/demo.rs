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
use weft_viz::{Edge, Edges, table};

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
    let terminal = print::terminal();
    let text = page(status, &live.edges(), live.silent(), terminal);
    match terminal {
        Some(_) => print::replace(&text),
        None => print::line(&text),
    }
}

/// What is shown. On a small terminal the table comes first and what does not fit is left out.
fn page(status: &Status, edges: &Edges, silent: usize, terminal: Option<(u16, u16)>) -> String {
    let ready: u32 = status.workloads.iter().map(|w| w.ready).sum();
    let replicas: u32 = status.workloads.iter().map(|w| w.replicas).sum();
    let page = status.published.first().map_or_else(|| "–".to_owned(), |p| format!("http://{}", p.listen));
    let width = terminal.map(|(width, _)| width);
    let mut text = format!(
        "weft demo: {ready} of {replicas} replicas ready\n{}\n\n{}\n{}\nVote at {page} and choose the doughnut:\nits failures show in the row of their origin.\nCtrl-C ends the mesh.\n",
        table::share(edges),
        table::edges(edges, width.unwrap_or(140), width.is_some()),
        table::origins(edges)
    );
    if silent > 0 {
        text.push_str(&format!("{silent} proxies that are ready did not answer the last scrape.\n"));
    }
    match terminal {
        Some((width, height)) if !fits(&text, width, height) => {
            let mut text = table::compact(edges, width, height.saturating_sub(1), true);
            let rest = [format!("{ready} of {replicas} replicas ready; vote at {page}"), table::share(edges)];
            for line in rest {
                let longer = format!("{text}\n{line}");
                if fits(&longer, width, height) {
                    text = longer;
                }
            }
            text
        }
        _ => text,
    }
}

/// Whether it can be seen whole; colours take no room.
fn fits(text: &str, width: u16, height: u16) -> bool {
    let visible = |line: &str| {
        let mut parts = line.split('\u{1b}');
        let first = parts.next().map_or(0, |p| p.chars().count());
        // Each sequence ends with its letter.
        first + parts.map(|p| p.split_once('m').map_or(0, |(_, rest)| rest.chars().count())).sum::<usize>()
    };
    // The cursor stands below a text that ends its last line.
    text.split('\n').count() <= usize::from(height) && text.lines().all(|l| visible(l) <= usize::from(width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use weft_local::Client;

    /// As many edges as the voting app has.
    fn edges() -> Edges {
        let edge = |from: &str, to: &str| Edge {
            from: from.into(),
            from_namespace: "emojivoto".into(),
            to: to.into(),
            to_namespace: "emojivoto".into(),
            protocol: "grpc".into(),
            success_rate: Some(0.842),
            rps: 12.5,
            p50_ms: Some(1.0),
            p95_ms: Some(4.2),
            p99_ms: Some(112.0),
            mtls: true,
            client_id: "web.emojivoto.serviceaccount.identity.linkerd.cluster.local".into(),
            server_id: "web.emojivoto.serviceaccount.identity.linkerd.cluster.local".into(),
        };
        let names = [("vote-bot", "web"), ("web", "emoji"), ("web", "voting"), ("voting", "db")];
        Edges { edges: names.map(|(from, to)| edge(from, to)).into(), mtls_share: Some(1.0) }
    }

    #[test]
    fn the_table_is_what_a_small_terminal_shows() {
        let (status, edges) = (Status::default(), edges());
        for (width, height) in [(60, 10), (80, 24), (60, 6), (40, 3), (120, 40), (60, 24), (200, 8)] {
            let text = page(&status, &edges, 1, Some((width, height)));
            assert!(fits(&text, width, height), "{width}×{height}:\n{text}");
            let rows = text.lines().filter(|l| l.contains("84.2 %")).count();
            let expected = edges.edges.len().min(usize::from(height).saturating_sub(2));
            assert!(rows >= expected, "{width}×{height}:\n{text}");
        }
        let large = page(&status, &edges, 0, Some((120, 40)));
        assert!(large.contains("Ctrl-C") && !large.contains("scrape"), "{large}");
        assert!(page(&status, &edges, 2, None).contains("2 proxies that are ready did not answer the last scrape"));
    }

    #[test]
    fn nothing_is_claimed_before_anything_has_connected() {
        let live = Live::new(Client::new(Some("no-such-folder".into())).unwrap(), WINDOW);
        let document: Value = serde_json::to_value(document(&Status::default(), &live)).unwrap();
        assert_eq!(document, json!({ "workloads": [], "edges": [], "mtls_share": null }));
    }
}
