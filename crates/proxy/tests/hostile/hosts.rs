//! Names that a client makes up (CVE-2025-43915): a million of them leave metric series and memory as they are.
//!
//! Budget: no series (but a stray one) and 2 MiB more than after the first third, and little more processor time than requests for
//! one and the same host.

use crate::{
    cost::Cost,
    harness::{Dialler, soon},
    measure::{alone, resident, say},
    mesh::Mesh,
    plain,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_model::ProtocolHint;

/// Requests that are sent before their answers are read.
const PIPELINED: usize = 50;
/// Bytes.
const GROWTH: usize = 2 << 20;
/// As many requests for one host are an ordinary exchange, and what as many for hosts that are made up may cost in them.
const ORDINARY: usize = 25;
const MOST: f64 = 2.0;
/// Lines that come with time, such as the first of a rare kind.
const STRAY: usize = 20;
/// So few series are kept apart that the cap is reached.
const CAP: &str = "500";

/// How the requests are framed: a host is a header, or `:authority`.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Http1,
    Http2,
}

/// The name and port that a number has: numbers far apart, so that nothing is sorted by chance.
fn name_of(n: usize) -> String {
    let name = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("h{name:x}.{:x}.example:{}", name >> 40, 1 + n % 65535)
}

async fn ask(framing: Framing, dialler: &Dialler, numbers: std::ops::Range<usize>, host: fn(usize) -> usize) {
    match framing {
        Framing::Http1 => ask_on_http1(dialler, numbers, host).await,
        Framing::Http2 => ask_on_http2(dialler, numbers, host).await,
    }
}

async fn ask_on_http2(dialler: &Dialler, numbers: std::ops::Range<usize>, host: fn(usize) -> usize) {
    let (mut client, connection) = h2::client::handshake(dialler.connect().await).await.unwrap();
    let connection = tokio::spawn(connection);
    for first in numbers.clone().step_by(PIPELINED) {
        let mut answers = vec![];
        for n in first..numbers.end.min(first + PIPELINED) {
            client = soon(client.ready()).await.unwrap();
            let request = http::Request::get(format!("http://{}/", name_of(host(n)))).body(()).unwrap();
            answers.push(client.send_request(request, true).unwrap().0);
        }
        for answer in answers {
            assert_eq!(soon(answer).await.unwrap().status(), 200);
        }
    }
    drop(client);
    let _: Result<(), h2::Error> = soon(connection).await.unwrap();
}

/// Sends as many requests, each for the host that its number has, and reads their answers.
async fn ask_on_http1(dialler: &Dialler, numbers: std::ops::Range<usize>, host: fn(usize) -> usize) {
    let (mut from, mut to) = dialler.connect().await.into_split();
    let asked = numbers.len();
    let asking = tokio::spawn(async move {
        for first in numbers.clone().step_by(PIPELINED) {
            let mut requests = String::new();
            for n in first..numbers.end.min(first + PIPELINED) {
                requests.push_str(&format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", name_of(host(n))));
            }
            to.write_all(requests.as_bytes()).await.unwrap();
        }
        to
    });
    let (mut answered, mut buffer) = (0, vec![0; 64 * 1024]);
    let mut held = 0;
    while answered < asked {
        let n = soon(from.read(&mut buffer[held..])).await.unwrap();
        assert!(n > 0, "closed after {answered} answers");
        let text = &buffer[..held + n];
        answered += text.windows(13).filter(|part| part == b"HTTP/1.1 200 ").count();
        // What may be the beginning of the next.
        let keep = text.len().min(12);
        let from = text.len() - keep;
        buffer.copy_within(from..from + keep, 0);
        held = keep;
    }
    drop(asking.await.unwrap());
}

/// Asks for as many hosts, directly at the server's proxy and through both.
async fn make_up(framing: Framing, hosts: usize) {
    // By default no series names a host; where some do, the cap holds.
    let named = [("LINKERD2_PROXY_OUTBOUND_METRICS_HOSTNAME_LABELS", "true"), ("WEFT_PROXY_METRICS_SERIES_CAP", CAP)];
    for env in [&[][..], &named[..]] {
        let mesh = Mesh::with(env, env).await;
        let addr = match framing {
            Framing::Http1 => plain::application().await,
            Framing::Http2 => plain::application_on_http2().await,
        };
        let service = mesh.service(&[mesh.endpoint(addr, ProtocolHint::Unknown)]);
        for (way, dialler) in [("inbound", mesh.app.inbound(addr)), ("pair", mesh.web.outbound(service.addr))] {
            let first = hosts / 3;
            ask(framing, &dialler, 0..first, |n| n).await;
            let before = (series(&mesh), resident());
            let cost = Cost::begin(async || ask(framing, &dialler, 0..ORDINARY, |_| 0).await).await;
            ask(framing, &dialler, first..hosts, |n| n).await;
            let way = format!("{way}, {framing:?}");
            let what = format!("{ORDINARY} hosts, {way}, named: {}", !env.is_empty());
            cost.end_beside(0, &what, (hosts - first) / ORDINARY, MOST);
            let (kept, grown) = (series(&mesh), resident().saturating_sub(before.1));
            say(&format!(
                "{hosts} hosts, {way}, named: {}: {kept:?} series, {} KiB more",
                !env.is_empty(),
                grown / 1024
            ));
            assert!(grown <= GROWTH, "{way}: {grown} bytes more");
            for (kept, before) in kept.iter().zip(before.0) {
                assert!(*kept <= before + STRAY, "{way}: {kept} series, {before} before");
            }
        }
        let dropped = mesh.web.metric("weft_metrics_series_dropped_total");
        assert_eq!(dropped > 0.0, !env.is_empty(), "the cap is reached where hosts are named: {dropped}");
    }
}

/// Lines that the proxies' scrapes have.
fn series(mesh: &Mesh) -> [usize; 2] {
    [&mesh.web, &mesh.app].map(|proxy| proxy.handle().metrics().lines().count())
}

#[test]
fn names_that_are_made_up_leave_nothing_behind() {
    alone(module_path!(), "names_that_are_made_up_leave_nothing_behind", async || {
        for framing in [Framing::Http1, Framing::Http2] {
            make_up(framing, 1_500).await;
        }
    });
}

#[test]
#[ignore = "minutes: run by cargo xtask soak"]
fn a_million_names_leave_nothing_behind() {
    alone(module_path!(), "a_million_names_leave_nothing_behind", async || {
        make_up(Framing::Http1, 1_000_000).await;
    });
}

/// So many that a thousandth of them kept for each would show.
#[test]
#[ignore = "a minute: run by cargo xtask soak"]
fn many_names_on_http2_leave_nothing_behind() {
    alone(module_path!(), "many_names_on_http2_leave_nothing_behind", async || {
        make_up(Framing::Http2, 50_000).await;
    });
}
