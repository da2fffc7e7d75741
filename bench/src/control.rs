//! `weft-bench control`: the control plane below many proxies.
//!
//! ```text
//! fake API server ── lists, watches ──► weft control-plane destination (measured) ── streams ──► clients, as many as proxies
//!       ▲ changes: a pod is replaced by another one ────────────── how long until each stream tells it ─┘
//! ```
//! The API server and the clients are this process, on one thread, so that they leave a core to what is measured. Everything is on loopback, in a network namespace of its own.

use crate::{
    lab::sh,
    messages,
    process::{Running, wait_for},
    report::{commit, machine},
};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::json;
use std::{
    collections::HashMap,
    fmt::Write,
    net::Ipv4Addr,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tonic::transport::Endpoint;
use weft_testkit::api_server::FakeApi;

/// Of each service.
const ENDPOINTS: u32 = 50;
/// Streams of each proxy.
const STREAMS: u32 = 10;
/// The smallest of the sizes; the others are twice and four times as large in everything.
const PROXIES: u32 = 500;
const SERVICES: u32 = 250;
/// Changes a second: what a real API server of one machine managed, and what is reached for.
const RATES: [u32; 2] = [174, 500];
/// Nothing more is told when nothing was for so long.
const QUIET: Duration = Duration::from_secs(1);
/// Nothing takes longer, or the measurement has failed.
const PATIENCE: Duration = Duration::from_secs(120);

const DESTINATION: &str = "127.0.0.1:8086";
const ADMIN: &str = "127.0.0.1:9996";

#[derive(Args)]
pub(crate) struct Options {
    /// Seconds of changes at each rate.
    #[arg(long, default_value_t = 20)]
    change: u32,
    /// Only these sizes, of 1, 2 and 4; the report is printed and not written then.
    #[arg(long)]
    only: Vec<u32>,
    /// Prints the report without writing bench/CONTROL.md.
    #[arg(long)]
    dry: bool,
}

/// One size.
struct Row {
    proxies: u32,
    services: u32,
    /// Until it was ready, and what it cost by then.
    ready: Cost,
    /// Until every stream was answered, and what that cost.
    answered: Cost,
    /// Bytes behind all of that.
    rss: u64,
    changed: Vec<Changed>,
}

struct Cost {
    took: Duration,
    cpu: Duration,
    rss: u64,
}

/// What became of changes at one rate.
struct Changed {
    /// Really made each second.
    made: f64,
    cores: f64,
    told: usize,
    /// From the change to the stream.
    delays: [Duration; 3],
}

pub(crate) fn run(options: &Options) -> Result<()> {
    sh("mount -t tmpfs tmpfs /run && ip link set lo up")?;
    weft_transport::socket::raise_open_files()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = vec![];
    for times in [1, 2, 4].into_iter().filter(|times| options.only.is_empty() || options.only.contains(times)) {
        let row = runtime.block_on(size(PROXIES * times, SERVICES * times, options.change))?;
        println!("{}", line(&row));
        rows.push(row);
    }
    let text = render(&rows, options)?;
    println!("{text}");
    if !options.dry && options.only.is_empty() {
        std::fs::write("bench/CONTROL.md", text).context("writing bench/CONTROL.md")?;
    }
    Ok(())
}

async fn size(proxies: u32, services: u32, seconds: u32) -> Result<Row> {
    let api = FakeApi::start().await?;
    for service in 0..services {
        api.put(json!({"kind": "Service", "metadata": {"name": name(service), "namespace": "load"},
            "spec": {"clusterIP": address(96, service), "ports": [{"name": "http", "port": 80}]}}));
        for pod in 0..ENDPOINTS {
            api.put(pod_of(service, service * ENDPOINTS + pod));
        }
        api.put(slice(service, service * ENDPOINTS..(service + 1) * ENDPOINTS));
    }
    // Nobody has to be told of how it came to be.
    api.compact();
    std::fs::write("/run/kubeconfig", api.kubeconfig())?;
    let weft =
        std::env::var_os("WEFT_BENCH_WEFT").context("WEFT_BENCH_WEFT names the program; cargo xtask bench sets it")?;
    let mut command = Command::new(weft);
    command.args([
        "control-plane",
        "destination",
        "--destination-addr",
        DESTINATION,
        "--policy-addr",
        "127.0.0.1:8090",
    ]);
    command.args(["--admin-addr", ADMIN, "--kubeconfig", "/run/kubeconfig", "--log-level", "warn"]);
    let start = Instant::now();
    let control = Running::start("destination", &mut command)?;
    until_ready().await?;
    let ready = cost(&control, start, Duration::ZERO)?;

    let told = Arc::new(Told::default());
    let (start, before) = (Instant::now(), control.cpu()?);
    let mut streams = JoinSet::new();
    for proxy in 0..proxies {
        let channel = Endpoint::from_shared(format!("http://{DESTINATION}"))?.connect_lazy();
        for stream in 0..STREAMS {
            let target = format!("{}.load.svc.cluster.local:80", name((proxy * STREAMS + stream * 7) % services));
            streams.spawn(follow(channel.clone(), target, told.clone()));
        }
    }
    let all = (proxies * STREAMS) as usize;
    told.until("answers to all streams", |told| told.answered.load(Relaxed) == all).await?;
    let answered = cost(&control, start, before)?;
    let mut changed = vec![];
    let mut last = HashMap::new();
    for rate in RATES {
        changed.push(change(&api, &control, &told, services, rate, seconds, &mut last).await?);
    }
    if let Some(ended) = streams.try_join_next() {
        ended??;
        bail!("a stream has ended");
    }
    let rss = control.rss()?;
    Ok(Row { proxies, services, ready, answered, rss, changed })
}

/// What streams have told so far.
#[derive(Default)]
struct Told {
    answered: AtomicUsize,
    messages: AtomicUsize,
    /// When a pod was made that nobody has been told of, and how often each was told of late.
    made: Mutex<HashMap<Ipv4Addr, Instant>>,
    delays: Mutex<Vec<Duration>>,
}

impl Told {
    async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) -> Result<()> {
        let start = Instant::now();
        while !is(self) {
            ensure!(start.elapsed() < PATIENCE, "{what} did not come within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Waits until nothing more is told.
    async fn quiet(&self) -> Result<()> {
        let (start, mut last) = (Instant::now(), (self.messages.load(Relaxed), Instant::now()));
        while last.1.elapsed() < QUIET {
            ensure!(start.elapsed() < PATIENCE, "something is still told after {PATIENCE:?}");
            tokio::time::sleep(QUIET / 20).await;
            let messages = self.messages.load(Relaxed);
            if messages != last.0 {
                last = (messages, Instant::now());
            }
        }
        Ok(())
    }

    fn came(&self, addr: Ipv4Addr) {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(&addr).copied();
        if let Some(made) = made {
            self.delays.lock().unwrap_or_else(PoisonError::into_inner).push(made.elapsed());
        }
    }
}

/// A stream of one proxy, to its end.
async fn follow(channel: tonic::transport::Channel, target: String, told: Arc<Told>) -> Result<()> {
    let context = r#"{"ns":"load","nodeName":"n1","pod":"client"}"#;
    let mut messages = messages::of_endpoints(channel, &target, context).await?;
    let mut first = true;
    while let Some(message) = messages.message().await? {
        told.messages.fetch_add(1, Relaxed);
        if std::mem::take(&mut first) {
            told.answered.fetch_add(1, Relaxed);
        } else {
            messages::added(&message).for_each(|addr| told.came(addr));
        }
    }
    Ok(())
}

/// Pods are replaced, each of another service, at a fixed rate.
async fn change(
    api: &FakeApi,
    control: &Running,
    told: &Told,
    services: u32,
    rate: u32,
    seconds: u32,
    last: &mut HashMap<u32, u32>,
) -> Result<Changed> {
    // New pods have numbers that none has had.
    let first = last.values().max().map_or(services * ENDPOINTS, |newest| newest + 1);
    let (start, before) = (Instant::now(), control.cpu()?);
    let all = rate * seconds;
    for n in 0..all {
        tokio::time::sleep_until((start + Duration::from_secs(1) * n / rate).into()).await;
        let (service, new) = (n % services, first + n);
        api.put(pod_of(service, new));
        let addr = pod_address(new);
        told.made.lock().unwrap_or_else(PoisonError::into_inner).insert(addr, Instant::now());
        // It comes in the place of one: the set stays as large as it was.
        let others = service * ENDPOINTS + 1..(service + 1) * ENDPOINTS;
        api.put(slice(service, others.chain([new])));
        let old = last.insert(service, new).unwrap_or(service * ENDPOINTS);
        api.delete("Pod", "load", &format!("pod-{old}"));
    }
    let took = start.elapsed();
    // Of a set that changes again before a stream comes to it, only the newest is told.
    told.quiet().await?;
    let cores = (control.cpu()? - before).as_secs_f64() / took.as_secs_f64();
    let mut delays = std::mem::take(&mut *told.delays.lock().unwrap_or_else(PoisonError::into_inner));
    told.made.lock().unwrap_or_else(PoisonError::into_inner).clear();
    delays.sort();
    let at =
        |part: f64| delays.get(((delays.len() as f64 * part) as usize).min(delays.len().saturating_sub(1))).copied();
    let percentiles = [at(0.5), at(0.99), delays.last().copied()].map(|d| d.context("no change was told"));
    let [p50, p99, most] = percentiles;
    Ok(Changed { made: f64::from(all) / took.as_secs_f64(), cores, told: delays.len(), delays: [p50?, p99?, most?] })
}

fn cost(control: &Running, start: Instant, before: Duration) -> Result<Cost> {
    Ok(Cost { took: start.elapsed(), cpu: control.cpu()? - before, rss: control.rss()? })
}

async fn until_ready() -> Result<()> {
    tokio::task::spawn_blocking(|| {
        wait_for("the control plane", || {
            let Ok(mut tcp) = std::net::TcpStream::connect(ADMIN) else { return false };
            let mut answer = String::new();
            std::io::Write::write_all(&mut tcp, b"GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").is_ok()
                && std::io::Read::read_to_string(&mut tcp, &mut answer).is_ok()
                && answer.starts_with("HTTP/1.1 200")
        })
    })
    .await?
}

fn name(service: u32) -> String {
    format!("svc-{service}")
}

/// Of a block of 2^20 addresses.
fn address(block: u8, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, block, 0, 0)) + n + 1)
}

fn pod_address(pod: u32) -> Ipv4Addr {
    address(128, pod)
}

fn pod_of(service: u32, pod: u32) -> serde_json::Value {
    json!({"kind": "Pod",
        "metadata": {"name": format!("pod-{pod}"), "namespace": "load",
            "labels": {"app": name(service), "linkerd.io/control-plane-ns": "linkerd", "pod-template-hash": "5d4f8c7b9"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{}-5d4f8c7b9", name(service)),
                "controller": true, "uid": "0"}]},
        "spec": {"serviceAccountName": name(service), "nodeName": "n1",
            "containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}]},
                {"name": "linkerd-proxy", "ports": [{"name": "linkerd-proxy", "containerPort": 4143}]}]},
        "status": {"phase": "Running", "podIP": pod_address(pod), "podIPs": [{"ip": pod_address(pod)}]}})
}

fn slice(service: u32, pods: impl IntoIterator<Item = u32>) -> serde_json::Value {
    let endpoint = |pod: u32| {
        json!({"addresses": [pod_address(pod)], "nodeName": "n1", "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "namespace": "load", "name": format!("pod-{pod}")}})
    };
    let endpoints: Vec<_> = pods.into_iter().map(endpoint).collect();
    json!({"kind": "EndpointSlice", "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints,
        "metadata": {"name": format!("{}-x", name(service)), "namespace": "load",
            "labels": {"kubernetes.io/service-name": name(service)}}})
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn line(row: &Row) -> String {
    let Row { proxies, services, ready, answered, rss, changed } = row;
    let mut text = format!(
        "| {proxies} | {services} | {} | {:.1} s, {:.1} s, {:.0} MB | {} | {:.1} s, {:.1} s, {:.0} MB | {:.0} MB |",
        services * ENDPOINTS,
        ready.took.as_secs_f64(),
        ready.cpu.as_secs_f64(),
        mb(ready.rss),
        proxies * STREAMS,
        answered.took.as_secs_f64(),
        answered.cpu.as_secs_f64(),
        mb(answered.rss),
        mb(*rss),
    );
    for Changed { made, cores, told, delays } in changed {
        let [p50, p99, most] = delays.map(|d| d.as_secs_f64() * 1e3);
        let _ = write!(text, " {made:.0}/s, {told} | {cores:.2} | {p50:.1}, {p99:.1}, {most:.0} ms |");
    }
    text
}

fn render(rows: &[Row], options: &Options) -> Result<String> {
    let rates = RATES.map(|rate| format!(" changes, told at {rate}/s | cores | p50, p99, most |")).concat();
    let head = format!(
        "| proxies | services | endpoints | ready: time, CPU, RSS | streams | answered: time, CPU, RSS | RSS at the end |{rates}"
    );
    let mut text = format!(
        "# The control plane\n\nWritten by `cargo xtask bench control` on {} of {}. Machine: {}. `weft control-plane destination` below a fake API server;\n\
         each proxy has one connection with {STREAMS} streams, each service {ENDPOINTS} endpoints. A change replaces a pod of a service (three objects), for {} s\n\
         at each rate; its delay is from the API server to the stream of a client, in the same process and on the same thread as the API server.\n\n{head}\n|{}\n",
        jiff::Zoned::now().date(),
        commit(),
        machine()?.0,
        options.change,
        "--:|".repeat(head.matches('|').count() - 1),
    );
    for row in rows {
        let _ = writeln!(text, "{}", line(row));
    }
    Ok(text)
}
