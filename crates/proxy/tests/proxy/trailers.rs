//! Trailers through the pair: up to the bytes that they may have, and one more. What is too large is refused with a reason; nothing
//! of it is dropped silently, and the connection goes on; but one whose block is longer than all that h2 would keep ends.

use crate::{
    explain::explained,
    harness::soon,
    mesh::{Mesh, Service},
};
use bytes::Bytes;
use h2::{Reason, RecvStream, client::SendRequest};
use http::{HeaderMap, HeaderValue, Request, Response};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use weft_model::ProtocolHint;
use weft_testkit::http1;

/// The largest list of trailers (RFC 9113 6.5.2) of an answer, and of a request.
const MOST: usize = 72 * 1024;
const MOST_OF_REQUEST: usize = 36 * 1024;
/// The largest section of HTTP/1, the empty line included.
const MOST_OF_HTTP1: usize = 32 * 1024;
/// What `h2` takes at the ends, where it is not what is tested.
const BOUNDLESS: u32 = 1 << 20;

/// Trailers of a call of gRPC that make a list of so many bytes.
fn fields(list: usize) -> HeaderMap {
    const PIECE: usize = 1000;
    let mut fields = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
    let mut left = list - 44;
    while left > 0 {
        let length = if left > 2 * PIECE { PIECE } else { left } - 38;
        let value = "v".repeat(length);
        fields.insert(http::HeaderName::try_from(format!("x-{:04}", fields.len())).unwrap(), value.parse().unwrap());
        left -= length + 38;
    }
    fields
}

/// A server on HTTP/2 that ends each answer with trailers as large as its path says, and keeps those of requests.
struct Server {
    addr: SocketAddr,
    got: Arc<Mutex<Vec<HeaderMap>>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, got) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<HeaderMap>>>::default());
        let kept = Arc::clone(&got);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                connections.spawn(async move {
                    let mut builder = h2::server::Builder::new();
                    builder.max_header_list_size(BOUNDLESS);
                    let mut connection = builder.handshake::<_, Bytes>(tcp).await.unwrap();
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        let kept = Arc::clone(&kept);
                        tokio::spawn(async move {
                            let size = request.uri().path()[1..].parse().unwrap();
                            let content = request.headers()["content-type"].clone();
                            // Of a request that is taken back there are none.
                            let (_, Ok(trailers)) = read(request.into_body()).await else { return };
                            kept.lock().unwrap().extend(trailers);
                            let head = Response::builder().header("content-type", content).body(()).unwrap();
                            let mut body = respond.send_response(head, false).unwrap();
                            body.send_data("answer".into(), false).unwrap();
                            let _ = body.send_trailers(fields(size));
                        });
                    }
                });
            }
        });
        Self { addr, got, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The content, and how it ends.
async fn read(mut body: RecvStream) -> (Vec<u8>, Result<Option<HeaderMap>, h2::Error>) {
    let mut content = vec![];
    while let Some(data) = body.data().await {
        match data {
            Ok(data) => content.extend_from_slice(&data),
            Err(error) => return (content, Err(error)),
        }
    }
    let trailers = body.trailers().await;
    (content, trailers)
}

async fn client(mesh: &Mesh, known: &Service) -> SendRequest<Bytes> {
    let mut builder = h2::client::Builder::new();
    builder.max_header_list_size(BOUNDLESS);
    let (client, connection) = builder.handshake(mesh.connect(known).await).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Asks for trailers of so many bytes, by a request that ends with `sent`; how the answer ends.
async fn call(
    client: &SendRequest<Bytes>,
    size: usize,
    content: &str,
    sent: Option<HeaderMap>,
) -> Result<Option<HeaderMap>, h2::Error> {
    let mut client = soon(client.clone().ready()).await?;
    let request = Request::post(format!("http://app.ns/{size}")).header("content-type", content).body(()).unwrap();
    let (response, mut body) = client.send_request(request, false)?;
    match sent {
        Some(trailers) => body.send_trailers(trailers)?,
        None => body.send_data(Bytes::new(), true)?,
    }
    let (content, end) = soon(read(soon(response).await?.into_body())).await;
    assert_eq!(content, b"answer");
    end
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_of_an_answer_pass_whole_or_are_refused() {
    let mesh = Mesh::start().await;
    let server = Server::start().await;
    let mut refused = 0;
    for hint in [ProtocolHint::H2, ProtocolHint::Unknown] {
        let known = mesh.service(&[mesh.endpoint(server.addr, hint)]);
        let client = client(&mesh, &known).await;
        for size in [100, 1 << 10, 8 << 10, 17 << 10, 64 << 10, MOST] {
            for content in ["application/grpc", "text/plain"] {
                let got = call(&client, size, content, None).await.unwrap().unwrap();
                assert!(got == fields(size), "{size} bytes of {content}: {} fields", got.len());
            }
        }
        for size in [MOST + 1, 80_000, 90_000] {
            // Without trailers a call would have no status, with a part of them perhaps a wrong one.
            let told = call(&client, size, "application/grpc", None).await.unwrap().unwrap();
            assert_eq!(told["grpc-status"], "8", "{size}: {told:?}");
            let message = told["grpc-message"].to_str().unwrap();
            assert!(message.contains("trailers are larger than the 73728 bytes"), "{message}");
            let error = call(&client, size, "text/plain", None).await.unwrap_err();
            assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{size}");
            refused += 2;
            explained(&mesh.app, "kind=request&code=UPSTREAM_PROTOCOL", refused).await;
        }
        // None of it has cost a connection.
        call(&client, 100, "application/grpc", None).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_of_a_request_pass_whole_or_are_refused() {
    let mesh = Mesh::start().await;
    let server = Server::start().await;
    let known = mesh.service(&[mesh.endpoint(server.addr, ProtocolHint::H2)]);
    let client = client(&mesh, &known).await;
    for size in [100, 17 << 10, MOST_OF_REQUEST] {
        call(&client, 100, "application/grpc", Some(fields(size))).await.unwrap();
        let got = server.got.lock().unwrap().pop().unwrap();
        assert!(got == fields(size), "{size} bytes: {} fields", got.len());
    }
    for (n, size) in [MOST_OF_REQUEST + 1, 45_000, 50_000].into_iter().enumerate() {
        let error = call(&client, 100, "application/grpc", Some(fields(size))).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM), "gRPC's RESOURCE_EXHAUSTED");
        explained(&mesh.web, "kind=request&code=HEAD_TOO_LARGE", n + 1).await;
        let counted = "weft_proxy_errors_total{direction=\"outbound\",code=\"HEAD_TOO_LARGE\"}";
        mesh.web.reaches(counted, (n + 1) as f64).await;
    }
    assert_eq!(*server.got.lock().unwrap(), [], "no part of them");
    call(&client, 100, "application/grpc", None).await.unwrap();
}

/// What another proxy carries for a client of HTTP/1 to its server is refused in the same way.
#[tokio::test]
async fn trailers_that_go_on_in_http1_pass_whole_or_are_refused() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|_| http1::Reply::ok(b"answer")).await.unwrap();
    let tcp = mesh.app.connect_inbound(origin.addr()).await;
    let (stream, _) = soon(mesh.store("web").connect(tcp, &mesh.server(), false)).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let post = async |sent: HeaderMap| {
        let mut client = soon(client.clone().ready()).await?;
        let request = Request::post("http://app.ns/").header("l5d-orig-proto", "HTTP/1.1").body(()).unwrap();
        let (response, mut body) = client.send_request(request, false)?;
        body.send_data("hello".into(), false)?;
        body.send_trailers(sent)?;
        soon(response).await.map(|response| response.status())
    };
    assert_eq!(post(fields(MOST_OF_REQUEST)).await.unwrap(), 200);
    let before = origin.seen().requests.len();
    let error = post(fields(MOST_OF_REQUEST + 1)).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM), "gRPC's RESOURCE_EXHAUSTED");
    explained(&mesh.app, "kind=request&code=HEAD_TOO_LARGE", 1).await;
    assert_eq!(origin.seen().requests.len(), before, "no request without its end");
    assert_eq!(post(fields(100)).await.unwrap(), 200, "the connection goes on");
    connection.abort();
}

/// A section of HTTP/1 of so many bytes.
fn section(bytes: usize) -> String {
    const LINE: usize = 1000;
    let (mut section, mut left) = (String::new(), bytes - 2);
    while left > 0 {
        let length = if left > 2 * LINE { LINE } else { left };
        let line = format!("x-{:04}: \r\n", section.len() / LINE);
        section.push_str(&line.replace("\r\n", &format!("{}\r\n", "v".repeat(length - line.len()))));
        left -= length;
    }
    section + "\r\n"
}

/// On the way between the proxies they are HTTP/2's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_of_http1_pass_whole_or_are_refused() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|request| {
        let size = request.first_line().split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nanswer\r\n0\r\n";
        http1::Reply::Bytes(format!("{head}{}", section(size)).into_bytes())
    });
    let origin = origin.await.unwrap();
    let ask = |sent: usize, wanted: usize| {
        let head = format!("POST /{wanted} HTTP/1.1\r\nHost: app.ns\r\nTransfer-Encoding: chunked\r\n\r\n");
        format!("{head}5\r\nhello\r\n0\r\n{}", section(sent))
    };
    let ends = |raw: &[u8], size: usize| raw.ends_with(format!("\r\n0\r\n{}", section(size)).as_bytes());
    for (before_it, hint) in [ProtocolHint::H2, ProtocolHint::Unknown].into_iter().enumerate() {
        let known = mesh.service(&[mesh.endpoint(origin.addr(), hint)]);
        let client = async || http1::Client::over(mesh.connect(&known).await);
        for size in [100, 17 << 10, MOST_OF_HTTP1] {
            let answer = soon(client().await.call(ask(size, size))).await.unwrap();
            assert_eq!((answer.status(), &answer.body[..]), (Some(200), &b"answer"[..]), "{hint:?} {size}");
            assert!(ends(&answer.raw, size), "{hint:?}: the answer's {size} bytes");
            assert!(ends(&origin.seen().requests.last().unwrap().raw, size), "{hint:?}: the request's {size} bytes");
        }
        let before = origin.seen().requests.len();
        let broken = soon(client().await.call(ask(100, MOST_OF_HTTP1 + 1))).await;
        // It may be told before anything has gone on.
        let whole = broken.as_ref().is_ok_and(|answer| answer.status() != Some(502));
        assert!(!whole, "{hint:?}: it looks whole: {broken:?}");
        explained(&mesh.app, "kind=request&code=UPSTREAM_PROTOCOL", before_it + 1).await;
        // By themselves, or as HTTP/2 counts them, which adds to every field.
        let mut passed = 0;
        let many = (0..1200).map(|n| format!("x-{n:04}: v\r\n")).collect::<String>() + "\r\n";
        for (n, trailers) in [section(MOST_OF_HTTP1 + 1), many].into_iter().enumerate() {
            let head = "POST /100 HTTP/1.1\r\nHost: app.ns\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n";
            let refused = soon(client().await.call(format!("{head}{trailers}"))).await;
            let status = refused.map_or(431, |answer| answer.status().unwrap());
            let is_bytes = n == 1 && hint == ProtocolHint::Unknown;
            assert_eq!(status, if is_bytes { 200 } else { 431 }, "{hint:?}");
            passed += usize::from(is_bytes);
        }
        let code = "weft_proxy_errors_total{direction=\"outbound\",code=\"HEAD_TOO_LARGE\"}";
        mesh.web.reaches(code, (2 + before_it) as f64).await;
        assert_eq!(origin.seen().requests.len(), before + 1 + passed, "{hint:?}: no request without its end");
    }
}
