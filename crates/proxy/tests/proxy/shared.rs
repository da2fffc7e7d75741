//! Clients whose requests share the connection between two proxies, and that from the server's proxy to its application: what one
//! of them does wrong costs the others nothing.

use crate::{
    harness::soon,
    mesh::{Mesh, Service},
};
use bytes::Bytes;
use http::{Request, Response};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use weft_model::ProtocolHint;
use weft_testkit::{
    frames::{PREFACE, frame},
    http2,
};

/// A mesh, a service, and what lets go of the requests that are held there.
struct Shared {
    mesh: Mesh,
    service: Service,
    /// How many requests the application has seen.
    seen: watch::Receiver<usize>,
    release: watch::Sender<bool>,
    app: JoinHandle<()>,
}

impl Shared {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let ((release, held), (count, seen)) = (watch::channel(false), watch::channel(0));
        let app = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                connections.spawn(application(tcp, held.clone(), count.clone()));
            }
        });
        let mesh = Mesh::start().await;
        let service = mesh.service(&[mesh.endpoint(addr, ProtocolHint::H2)]);
        Self { mesh, service, seen, release, app }
    }

    /// A request of an honest client that is under way until it is let go.
    async fn honest(&self) -> JoinHandle<u16> {
        let (mut seen, before) = (self.seen.clone(), *self.seen.borrow());
        let mut client = self.mesh.http2(&self.service).await;
        let asking = tokio::spawn(async move {
            let request = Request::get("http://app.ns/held").body(http2::full("")).unwrap();
            client.call(request).await.map_or(0, |answer| answer.head.status.as_u16())
        });
        soon(seen.wait_for(|now| *now > before)).await.unwrap();
        asking
    }

    /// The honest client gets its answer, over the connection on which it asked.
    async fn ends_well(self, honest: JoinHandle<u16>) {
        self.release.send_replace(true);
        assert_eq!(soon(honest).await.unwrap(), 200, "it cost another client its request");
        self.app.abort();
    }

    async fn abuser(&self) -> Abuser {
        let (from, to) = self.mesh.connect(&self.service).await.into_split();
        let mut abuser = Abuser { heard: tokio::spawn(frames(from)), to, next: 1 };
        abuser.say(&[PREFACE, &frame(4, 0, 0, &[])].concat()).await;
        abuser
    }
}

/// An application that has no limits of its own, and of a request that it holds takes little: what ends is ended by a proxy.
async fn application(tcp: TcpStream, held: watch::Receiver<bool>, count: watch::Sender<usize>) {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1000).data_frame_budget(1 << 30).max_pending_accept_reset_streams(100_000);
    let Ok(mut connection) = builder.max_local_error_reset_streams(None).handshake::<_, Bytes>(tcp).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        count.send_modify(|count| *count += 1);
        let mut held = held.clone();
        tokio::spawn(async move {
            let status = match request.uri().path() {
                "/held" => held.wait_for(|over| *over).await.map_or(500, |_| 200),
                "/early" => 413,
                _ => 200,
            };
            let head = Response::builder().status(status).body(()).unwrap();
            // Whoever has gone needs no answer.
            let _ = respond.send_response(head, true);
        });
    }
}

/// An HTTP/2 client that says what it likes.
struct Abuser {
    to: OwnedWriteHalf,
    heard: JoinHandle<usize>,
    next: u32,
}

impl Abuser {
    async fn say(&mut self, bytes: &[u8]) {
        // It may have been cut off, which is what it deserves.
        let _ = soon(self.to.write_all(bytes)).await;
    }

    /// Begins a request without its end; its stream.
    fn request(&mut self, path: &str, more: &[u8]) -> (u32, Vec<u8>) {
        let stream = self.next;
        self.next += 2;
        // GET or POST, http, the path, and an authority.
        let mut block = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
        block.extend(path.as_bytes());
        block.extend([0x01, 6]);
        block.extend(b"app.ns");
        block.extend(more);
        (stream, block)
    }
}

/// A header block in frames of 16 KB.
fn head(stream: u32, block: &[u8], flags: u8) -> Vec<u8> {
    let mut pieces = block.chunks(16_384).peekable();
    let (mut all, mut kind, mut flags) = (vec![], 1, flags);
    while let Some(piece) = pieces.next() {
        let last = if pieces.peek().is_none() { 4 } else { 0 };
        all.extend(frame(kind, flags | last, stream, piece));
        (kind, flags) = (9, 0);
    }
    all
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(3, 0, stream, &code.to_be_bytes())
}

/// How many frames with a code, resets and goodbyes, come until the end.
async fn frames(mut from: OwnedReadHalf) -> usize {
    let (mut codes, mut head) = (0, [0; 9]);
    while from.read_exact(&mut head).await.is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if from.read_exact(&mut payload).await.is_err() {
            break;
        }
        codes += usize::from(matches!(head[3], 3 | 7));
    }
    codes
}

/// As hedging clients do, or such as mean no good: each request is taken back once it is under way, with a code that blames the
/// other side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_taken_back_cost_no_other_client() {
    let shared = Shared::start().await;
    let honest = shared.honest().await;
    let mut abuser = shared.abuser().await;
    for _ in 0..40 {
        let begun: Vec<_> = (0..50).map(|_| abuser.request("/held", &[])).collect();
        let heads: Vec<u8> = begun.iter().flat_map(|(stream, block)| head(*stream, block, 1)).collect();
        abuser.say(&heads).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let resets: Vec<u8> = begun.iter().flat_map(|(stream, _)| reset(*stream, 1)).collect();
        abuser.say(&resets).await;
    }
    shared.ends_well(honest).await;
}

/// Rapid reset: the abuser's own connection ends, and no server hears of its requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_taken_back_at_once_end_at_the_clients_own_connection() {
    let shared = Shared::start().await;
    let honest = shared.honest().await;
    let mut abuser = shared.abuser().await;
    for _ in 0..200 {
        let pairs: Vec<u8> = (0..100)
            .flat_map(|_| {
                let (stream, block) = abuser.request("/held", &[]);
                [head(stream, &block, 1), reset(stream, 8)].concat()
            })
            .collect();
        abuser.say(&pairs).await;
    }
    shared.mesh.web.at_least("weft_proxy_errors_total{direction=\"outbound\",code=\"HTTP2_VIOLATION\"}", 1.0).await;
    assert_eq!(shared.mesh.app.metric("weft_proxy_errors_total{direction=\"inbound\",code=\"HTTP2_VIOLATION\"}"), 0.0);
    shared.ends_well(honest).await;
}

/// A header that is small as it comes and large as `h2` writes it: the server's proxy would end the connection for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_grows_on_its_way_costs_no_other_client() {
    let shared = Shared::start().await;
    let honest = shared.honest().await;
    let mut abuser = shared.abuser().await;
    // A literal without Huffman's code, whose length takes three bytes.
    let length = 50_000_usize;
    let mut field = vec![0, 1, b'x', 0x7f];
    let rest = length - 127;
    field.extend([(rest & 0x7f) as u8 | 0x80, (rest >> 7 & 0x7f) as u8 | 0x80, (rest >> 14) as u8]);
    field.extend(std::iter::repeat_n(0xff, length));
    let (stream, block) = abuser.request("/", &field);
    abuser.say(&head(stream, &block, 1)).await;
    shared.mesh.web.reaches("weft_proxy_errors_total{direction=\"outbound\",code=\"HEAD_TOO_LARGE\"}", 1.0).await;
    shared.ends_well(honest).await;
}

/// A body in very small pieces that nobody reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_pieces_that_nobody_reads_cost_no_other_client() {
    let shared = Shared::start().await;
    let honest = shared.honest().await;
    let mut abuser = shared.abuser().await;
    let (stream, block) = abuser.request("/held", &[]);
    abuser.say(&head(stream, &block, 0)).await;
    for _ in 0..300 {
        abuser.say(&frame(0, 0, stream, b"x").repeat(100)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // All of it has come to the server's proxy when this is answered.
    let (mut client, request) = (shared.mesh.http2(&shared.service).await, Request::get("http://app.ns/"));
    assert_eq!(soon(client.call(request.body(http2::full("")).unwrap())).await.unwrap().head.status, 200);
    assert!(!abuser.heard.is_finished(), "nor itself: it did nothing that is forbidden");
    shared.ends_well(honest).await;
}

/// Uploads that are refused while they come: what is still on its way to them is nobody's fault.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_answers_cost_no_other_client() {
    let shared = Shared::start().await;
    let honest = shared.honest().await;
    let mut abuser = shared.abuser().await;
    for _ in 0..300 {
        let (stream, block) = abuser.request("/early", &[]);
        let pieces = frame(0, 0, stream, &[b'x'; 1000]).repeat(16);
        abuser.say(&[head(stream, &block, 0), pieces.clone()].concat()).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        abuser.say(&frame(0, 0, stream, &[b'x'; 100]).repeat(8)).await;
    }
    let (mut client, request) = (shared.mesh.http2(&shared.service).await, Request::get("http://app.ns/"));
    assert_eq!(soon(client.call(request.body(http2::full("")).unwrap())).await.unwrap().head.status, 200);
    shared.ends_well(honest).await;
}
