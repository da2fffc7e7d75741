//! Worker threads, the accept loops, and who gets an accepted connection.
//!
//! ```text
//! listeners (worker 0) ─► accept ─► fewest open? ─┬─► here: a task
//!                                                 └─► another worker's channel ─► a task there
//! ```
//! Nothing is accepted before the first certificate; the kernel's queue holds what comes early.

use super::{identity::Certified, worker::Context};
use crate::{
    direction::Direction,
    error::Code,
    inbound::Inbound,
    metrics::{labels, proxy_errors},
    outbound::Outbound,
    records::Records,
    turn,
};
use futures_util::FutureExt;
use std::{
    future::poll_fn,
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::{
    net::TcpStream,
    sync::{Notify, mpsc},
    task::{LocalSet, spawn_local},
};
use weft_telemetry::{CounterFamily, Labels, Registry, Shard, metrics::Sample};
use weft_transport::{drain, socket, stream};

/// Connections on their way to another worker; when it is full the accepting worker serves them itself.
const HAND_OFF: usize = 1024;
/// How long accepting pauses after a failure and when descriptors are short: the kernel keeps who connects meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often it is logged that descriptors are short.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// How long the sockets stay open for those who are connecting when the drain begins.
const LAST_LOOK: Duration = Duration::from_millis(5);

/// What all workers and their watcher see.
pub(super) struct Shared {
    workers: Vec<Slot>,
    /// Listeners that still take connections.
    accepting: AtomicUsize,
    /// A connection or a listener has ended.
    closed: Notify,
}

/// What the process sees of one worker.
#[derive(Default)]
struct Slot {
    /// Open connections, those on their way included.
    open: AtomicUsize,
    /// Asked for a sign of life this many times, and answered as often.
    asked: AtomicU64,
    answered: AtomicU64,
    wake: Notify,
}

/// Counts one listener that takes connections as long as it lives.
struct Accepting(Arc<Shared>);

/// A listener of one direction.
pub(super) struct Listener {
    pub(super) direction: Direction,
    pub(super) socket: TcpListener,
}

/// An accepted connection that another worker shall serve.
struct Accepted {
    direction: Direction,
    tcp: std::net::TcpStream,
    client: SocketAddr,
    counted: Counted,
}

/// Counts one open connection as long as it lives.
struct Counted {
    shared: Arc<Shared>,
    worker: usize,
}

impl Shared {
    pub(super) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            workers: (0..workers).map(|_| Slot::default()).collect(),
            accepting: AtomicUsize::new(0),
            closed: Notify::new(),
        })
    }

    /// The worker with the fewest open connections, the first of several; it counts one more from now on.
    fn choose(self: &Arc<Self>) -> Counted {
        let least = self.workers.iter().enumerate().min_by_key(|(_, w)| w.open.load(Relaxed)).map_or(0, |(at, _)| at);
        Counted::new(self, least)
    }

    pub(super) fn open(&self) -> usize {
        self.workers.iter().map(|w| w.open.load(Relaxed)).sum()
    }

    /// Waits until nothing is accepted any more and no connection is open.
    pub(super) async fn all_closed(&self) {
        loop {
            let closed = self.closed.notified();
            tokio::pin!(closed);
            closed.as_mut().enable();
            if self.accepting.load(Relaxed) == 0 && self.open() == 0 {
                return;
            }
            closed.await;
        }
    }

    /// Adds how many connections each worker has open.
    pub(super) fn register(self: &Arc<Self>, registry: &Registry) {
        let shared = self.clone();
        registry.collector(move |out| {
            out.extend(shared.workers.iter().enumerate().map(|(index, worker)| {
                let open = worker.open.load(Relaxed);
                Sample::gauge("weft_proxy_worker_connections", "Accepted connections that a worker has open", open)
                    .labels(Labels::new().with("worker", index))
            }));
        });
    }

    /// Asks each worker for a sign of life. The result is the most asks that any of them has left unanswered.
    pub(super) fn ask(&self) -> (usize, u64) {
        let unanswered = self.workers.iter().enumerate().map(|(at, worker)| {
            let asked = worker.asked.fetch_add(1, Relaxed);
            worker.wake.notify_one();
            (at, asked - worker.answered.load(Relaxed).min(asked))
        });
        unanswered.max_by_key(|(_, n)| *n).unwrap_or_default()
    }
}

impl Counted {
    fn new(shared: &Arc<Shared>, worker: usize) -> Self {
        if let Some(slot) = shared.workers.get(worker) {
            slot.open.fetch_add(1, Relaxed);
        }
        Self { shared: shared.clone(), worker }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(slot) = self.shared.workers.get(self.worker) {
            slot.open.fetch_sub(1, Relaxed);
        }
        self.shared.closed.notify_waiters();
    }
}

impl Accepting {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.accepting.fetch_add(1, Relaxed);
        Self(shared.clone())
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.accepting.fetch_sub(1, Relaxed);
        self.0.closed.notify_waiters();
    }
}

/// Starts one thread per context. The first one accepts. `died` is called by a thread that unwinds.
pub(super) fn spawn(
    contexts: Vec<Context>,
    listeners: Vec<Listener>,
    shared: &Arc<Shared>,
    certified: &Certified,
    registry: &Registry,
    died: impl Fn(usize) + Clone + Send + 'static,
) -> io::Result<Vec<JoinHandle<()>>> {
    let (senders, receivers): (Vec<_>, Vec<_>) = contexts.iter().map(|_| mpsc::channel(HAND_OFF)).unzip();
    // Counted from now on, so that a drain that begins at once waits for them.
    let listeners: Vec<_> = listeners.into_iter().map(|listener| (listener, Accepting::new(shared))).collect();
    let mut listeners = Some(listeners);
    let failures = registry.counter("weft_proxy_accept_errors_total", "Failures to accept a connection");
    let codes = proxy_errors(registry);
    let mut threads = vec![];
    for (index, (context, receiver)) in contexts.into_iter().zip(receivers).enumerate() {
        let listeners = listeners.take().unwrap_or_default();
        let (shared, senders) = (shared.clone(), senders.clone());
        let acceptor = Acceptor { shared, senders, index, failures: failures.clone(), codes: codes.clone() };
        let (certified, died) = (certified.clone(), died.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let died = OnPanic(move || died(index));
            let local = LocalSet::new();
            local.block_on(&runtime, run(context, acceptor, listeners, receiver, certified));
            drop(died);
        })?;
        threads.push(thread);
    }
    Ok(threads)
}

/// Calls when the thread unwinds; an end in order is no news.
struct OnPanic<F: Fn()>(F);

impl<F: Fn()> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)();
        }
    }
}

/// Hands accepted connections to workers.
#[derive(Clone)]
struct Acceptor {
    shared: Arc<Shared>,
    senders: Vec<mpsc::Sender<Accepted>>,
    index: usize,
    failures: CounterFamily,
    codes: CounterFamily,
}

/// Both directions of one worker.
struct Sides {
    inbound: Rc<Inbound>,
    outbound: Rc<Outbound>,
    context: Context,
}

/// The life of one worker: until the process closes.
async fn run(
    context: Context,
    acceptor: Acceptor,
    listeners: Vec<(Listener, Accepting)>,
    mut handed: mpsc::Receiver<Accepted>,
    certified: Certified,
) {
    let drain = context.drain.clone();
    let (shared, index) = (acceptor.shared.clone(), acceptor.index);
    let records = Records::new(context.config.process.records, context.sinks.clone());
    context.readers.register(index, &records);
    let outbound = Outbound::new(context.clone(), &records);
    let sides = Rc::new(Sides { inbound: Inbound::new(context.clone(), &outbound, &records), outbound, context });
    spawn_local(async move { answer_asks(&shared, index).await });
    for (listener, accepting) in listeners {
        let accept = accept(listener, acceptor.clone(), sides.clone(), certified.clone());
        spawn_local(async move {
            accept.await;
            drop(accepting);
        });
    }
    spawn_local(async move {
        while let Some(Accepted { direction, tcp, client, counted }) = handed.recv().await {
            match TcpStream::from_std(tcp) {
                Ok(tcp) => sides.serve(direction, tcp, client, counted),
                Err(error) => tracing::warn!(%error, "A connection cannot be taken over"),
            }
        }
    });
    drain.closing().await;
    if drain.is_closing() {
        // The deadline has passed: what is still open is dropped behind this, amid whatever it was doing.
        stream::reset_from_now_on();
    }
}

/// Says that this worker lives whenever it is asked.
async fn answer_asks(shared: &Shared, index: usize) {
    let Some(slot) = shared.workers.get(index) else { return };
    loop {
        slot.wake.notified().await;
        slot.answered.store(slot.asked.load(Relaxed), Relaxed);
    }
}

async fn accept(listener: Listener, acceptor: Acceptor, sides: Rc<Sides>, certified: Certified) {
    let Listener { direction, socket } = listener;
    let drain: drain::Watch = sides.context.drain.clone();
    let ready = tokio::select! {
        certified = certified.wait() => certified,
        () = drain.leaving() => false,
    };
    let Some(listener) = ready.then(|| tokio::net::TcpListener::from_std(socket)) else { return };
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "A listening socket cannot be used"),
    };
    let reserve = match socket::Reserve::of_this_process() {
        Ok(reserve) => reserve,
        Err(error) => return tracing::error!(%error, "The limit of open files cannot be read"),
    };
    let failed = acceptor.failures.pinned(sides.context.shard, &Labels::new().with("direction", direction.as_str()));
    let mut limit = AtLimit { direction, codes: acceptor.codes.clone(), shard: sides.context.shard, logged: None };
    let leaving = drain.leaving();
    tokio::pin!(leaving);
    'accepting: loop {
        // Dropping the accept is safe: a connection that was not taken stays in the kernel's queue.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut leaving => break,
        };
        let at_limit = match &accepted {
            Ok((tcp, _)) => reserve.is_reached_by(tcp),
            Err(error) => socket::is_descriptor_limit(error),
        };
        let mut pause = at_limit || accepted.is_err();
        match accepted {
            Ok((tcp, client)) => acceptor.hand(direction, tcp, client, &sides),
            Err(error) => {
                failed.inc();
                tracing::debug!(%error, direction = direction.as_str(), "A connection cannot be accepted");
            }
        }
        if at_limit {
            limit.say();
        }
        while pause {
            tokio::select! {
                () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                () = &mut leaving => break 'accepting,
            }
            pause = !reserve.is_whole(&listener);
            if pause {
                limit.say();
            }
        }
    }
    // The kernel has connected some clients that nobody has accepted: closing the socket would reset them.
    tokio::time::sleep(LAST_LOOK).await;
    while let Some(Ok((tcp, client))) = listener.accept().now_or_never() {
        acceptor.hand(direction, tcp, client, &sides);
    }
}

/// Says that accepting pauses because descriptors are short.
struct AtLimit {
    direction: Direction,
    codes: CounterFamily,
    shard: Shard,
    /// When it was logged last.
    logged: Option<Instant>,
}

impl AtLimit {
    fn say(&mut self) {
        self.codes.pinned(self.shard, &labels::code(self.direction, Code::DescriptorLimit)).inc();
        if self.logged.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            self.logged = Some(Instant::now());
            let (direction, code) = (self.direction.as_str(), Code::DescriptorLimit.as_str());
            tracing::warn!(direction, code, "Only the reserve of descriptors is left: accepting pauses until more are");
        }
    }
}

impl Acceptor {
    fn hand(&self, direction: Direction, tcp: TcpStream, client: SocketAddr, here: &Sides) {
        // A socket for both families shows v4 clients as mapped addresses.
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let counted = self.shared.choose();
        if counted.worker == self.index {
            return here.serve(direction, tcp, client, counted);
        }
        let Some(sender) = self.senders.get(counted.worker) else { return };
        match sender.try_reserve() {
            Ok(place) => match tcp.into_std() {
                Ok(tcp) => place.send(Accepted { direction, tcp, client, counted }),
                Err(error) => tracing::warn!(%error, "A connection cannot be handed over"),
            },
            // That worker does not keep up.
            Err(_) => here.serve(direction, tcp, client, Counted::new(&self.shared, self.index)),
        }
    }
}

impl Sides {
    fn serve(&self, direction: Direction, tcp: TcpStream, client: SocketAddr, counted: Counted) {
        match direction {
            Direction::Inbound => {
                let inbound = Rc::clone(&self.inbound);
                spawn_local(task(move || inbound.serve(tcp, client), counted));
            }
            Direction::Outbound => {
                let outbound = Rc::clone(&self.outbound);
                spawn_local(task(move || outbound.serve(tcp, client), counted));
            }
        }
    }
}

/// The task of one connection. The future is made within: one that was given would be held twice.
async fn task<F: Future<Output = ()>>(serve: impl FnOnce() -> F, counted: Counted) {
    let mut served = pin!(serve());
    poll_fn(|cx| turn::poll(served.as_mut(), cx)).await;
    drop(counted);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_worker_with_the_fewest_connections_is_chosen() {
        let shared = Shared::new(3);
        let mut held: Vec<_> = (0..6).map(|_| shared.choose()).collect();
        assert_eq!(held.iter().map(|c| c.worker).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
        held.remove(1);
        assert_eq!(shared.choose().worker, 1);
        assert_eq!(shared.open(), 5);
        let waiter = tokio::spawn({
            let shared = shared.clone();
            async move { shared.all_closed().await }
        });
        tokio::task::yield_now().await;
        held.clear();
        waiter.await.unwrap();
    }

    #[test]
    fn unanswered_asks_are_counted() {
        let shared = Shared::new(2);
        for n in 0..3 {
            assert_eq!(shared.ask().1, n);
            shared.workers[0].answered.store(shared.workers[0].asked.load(Relaxed), Relaxed);
        }
        assert_eq!(shared.ask(), (1, 3));
    }
}
