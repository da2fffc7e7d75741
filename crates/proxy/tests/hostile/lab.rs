//! A mesh under attack: what the attacker gets, what the origin sees, what it costs, and that others are served meanwhile.

use crate::{
    frames::{GOAWAY, Heard, flood, frame},
    harness::{Dialler, eventually, soon},
    measure::{Meter, Spent, say},
    mesh::Mesh,
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use weft_model::ProtocolHint;
use weft_testkit::http2;

/// Ordinary requests by which processor time is measured.
const ORDINARY: u32 = 50;
/// Bytes that a proxy throws away behind its GOAWAY, so that closing does not become a reset: how many of them are there by then
/// is chance. They are 256 KiB at most, and the rest of one read.
const DISCARDED: f64 = 260.0 * 1024.0;

/// The attacked proxies, before an origin of HTTP/2 that never answers requests for `/`.
pub(crate) struct Lab {
    pub(crate) mesh: Mesh,
    open: Arc<Open>,
    ways: [(Way, Dialler); 2],
    ordinary: [Duration; 2],
    faults: Mutex<Vec<String>>,
    origin: http2::Origin,
}

/// Requests that the origin has before it.
#[derive(Default)]
struct Open {
    now: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

struct Held(Arc<Open>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A stranger without TLS at the server's proxy.
    Inbound,
    /// The client's application, through both proxies.
    Pair,
}

/// What one attacking connection may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Requests before the origin, at once.
    pub(crate) open: usize,
    /// Frames that it is sent.
    pub(crate) answers: usize,
    /// Bytes that are read from it, besides those thrown away at the end: how soon it ends.
    pub(crate) read: f64,
    /// Processor time, in ordinary requests the same way.
    pub(crate) requests: u32,
    /// Bytes of memory of the whole process.
    pub(crate) memory: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { open: 1000, answers: 1200, read: 300e3, requests: 300, memory: 8 << 20 }
    }
}

impl Held {
    fn new(open: &Arc<Open>) -> Self {
        open.all.fetch_add(1, Ordering::Relaxed);
        let now = open.now.fetch_add(1, Ordering::Relaxed) + 1;
        open.most.fetch_max(now, Ordering::Relaxed);
        Self(open.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lab {
    pub(crate) async fn start() -> Self {
        let mesh = Mesh::start().await;
        let open = Arc::new(Open::default());
        let counted = open.clone();
        let origin = http2::Origin::start(move |request| {
            let held = (request.uri().path() == "/").then(|| Held::new(&counted));
            async move {
                if let Some(_held) = held {
                    std::future::pending::<()>().await;
                }
                http2::complete((), request.into_body()).await?;
                Ok(http::Response::new(http2::full("fine")))
            }
        });
        let origin = origin.await.unwrap();
        let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
        let ways = [(Way::Inbound, mesh.app.inbound(origin.addr())), (Way::Pair, mesh.web.outbound(service.addr))];
        let mut ordinary = [Duration::ZERO; 2];
        for ((_, dialler), each) in ways.iter().zip(&mut ordinary) {
            let mut client = http2::Client::over(dialler.connect().await).await.unwrap();
            for warm in [true, false] {
                let meter = Meter::start();
                for _ in 0..ORDINARY {
                    assert_eq!(status(&mut client).await, Some(200));
                }
                if !warm {
                    *each = meter.stop().cpu / ORDINARY;
                }
            }
        }
        say(&format!("an ordinary request: {ordinary:?}"));
        Self { mesh, open, ways, ordinary, faults: Mutex::default(), origin }
    }

    pub(crate) fn way(&self, way: Way) -> &Dialler {
        &self.ways.iter().find(|(w, _)| *w == way).unwrap().1
    }

    /// Processor time of an ordinary request the same way.
    pub(crate) fn ordinary(&self, way: Way) -> Duration {
        self.ordinary[usize::from(way == Way::Pair)]
    }

    /// Requests for `/` that the origin saw so far.
    pub(crate) fn seen(&self) -> usize {
        self.open.all.load(Ordering::Relaxed)
    }

    /// The origin keeps the heads of all requests: of very many that would be more than what is measured.
    pub(crate) fn forget(&self) {
        self.origin.forget();
    }

    /// Requests for `/` that are before the origin.
    pub(crate) fn now(&self) -> usize {
        self.open.now.load(Ordering::Relaxed)
    }

    /// Attacks both ways with `first` and then `again`, which is told the number; each must end with one of `codes` within the
    /// budget, while others are served. Whether it did, [`Lab::verdict`] says.
    pub(crate) async fn attack(
        &self,
        what: &str,
        budget: Budget,
        codes: &[u32],
        first: &[u8],
        again: impl Fn(u32) -> Vec<u8> + Copy + Send,
    ) {
        for ((way, dialler), ordinary) in self.ways.iter().zip(self.ordinary) {
            let bytes = std::iter::once(first.to_vec()).chain((0..1_000_000).map(again));
            let (heard, spent, served, read) = self.measured(*way, dialler, bytes).await;
            let requests = spent.cpu.as_secs_f64() / ordinary.as_secs_f64() - f64::from(served);
            let most = self.open.most.swap(0, Ordering::Relaxed);
            let told = format!(
                "{what}, {way:?}: {:?} after {read} bytes, {} frames and {} resets heard, {most} requests open; cost {requests:.0} \
                 requests and {} KiB; {served} others served",
                heard.goaway,
                heard.frames,
                heard.resets,
                spent.resident / 1024
            );
            say(&told);
            let held = [
                ("ends", heard.code().is_some_and(|code| codes.contains(&code))),
                ("open", most <= budget.open),
                ("answers", heard.frames <= budget.answers),
                ("read", read <= budget.read + DISCARDED),
                ("processor time", requests <= f64::from(budget.requests)),
                ("memory", spent.resident <= budget.memory),
            ];
            let broken = held.iter().filter(|(_, held)| !held).map(|(bound, _)| format!("{bound}: {told}"));
            self.faults.lock().unwrap().extend(broken);
            eventually("the origin is left in peace", || self.now() == 0).await;
        }
    }

    /// Every budget has held.
    pub(crate) fn verdict(self) {
        let faults = self.faults.into_inner().unwrap();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }

    /// What was heard for `bytes`, behind which the client says goodbye, and what it cost, in ordinary requests and in all.
    pub(crate) async fn costs(&self, way: Way, bytes: impl Iterator<Item = Vec<u8>> + Send) -> (Heard, f64, Spent) {
        let bytes = bytes.chain([frame(GOAWAY, 0, 0, &[0; 8])]);
        let (heard, spent, served, _) = self.measured(way, self.way(way), bytes).await;
        (heard, spent.cpu.as_secs_f64() / self.ordinary(way).as_secs_f64() - f64::from(served), spent)
    }

    /// What was heard, what it cost, how many others were served meanwhile, and how many bytes were read.
    async fn measured(
        &self,
        way: Way,
        dialler: &Dialler,
        bytes: impl Iterator<Item = Vec<u8>> + Send,
    ) -> (Heard, Spent, u32, f64) {
        let (proxy, direction) = match way {
            Way::Inbound => (&self.mesh.app, "inbound"),
            Way::Pair => (&self.mesh.web, "outbound"),
        };
        let series = |name: &str| format!("{name}{{direction=\"{direction}\",peer=\"src\"");
        let (read, closed) = (series("tcp_read_bytes_total"), series("tcp_close_total"));
        let mut other = http2::Client::over(dialler.connect().await).await.unwrap();
        assert_eq!(status(&mut other).await, Some(200));
        let before = (proxy.metric(&read), proxy.metric(&closed));
        let meter = Meter::start();
        let over = AtomicBool::new(false);
        let attack = async {
            let heard = soon(flood(dialler.connect().await, bytes)).await;
            proxy.at_least(&closed, before.1 + 1.0).await;
            over.store(true, Ordering::Relaxed);
            heard
        };
        let others = async {
            let mut served = 0;
            while !over.load(Ordering::Relaxed) {
                assert_eq!(status(&mut other).await, Some(200), "others are served");
                served += 1;
            }
            served
        };
        let (heard, served) = tokio::join!(attack, others);
        (heard, meter.stop(), served, proxy.metric(&read) - before.0)
    }
}

/// The status of an ordinary request.
pub(crate) async fn status(client: &mut http2::Client) -> Option<u16> {
    let request = http::Request::get("http://app.ns/ordinary").body(http2::full("")).unwrap();
    Some(soon(client.call(request)).await.ok()?.head.status.as_u16())
}
