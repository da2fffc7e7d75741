//! Golden transcripts of the hop between two proxies. Each part of a transcript says which lines of the data plane's
//! facts it holds: what stands in the snapshots is what a proxy of Linkerd's expects, or sends.

use crate::{
    harness::{elsewhere, identity, nobody, soon},
    mesh::{Mesh, Service, naming},
    transcript::{Copy, Tee, escaped, frames, hello, record, transport_header},
};
use bytes::Bytes;
use http::{Request, Response};
use std::{fmt::Write, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};
use weft_model::{Endpoint, ProtocolHint, policy::inbound::DefaultPolicy};
use weft_testkit::{http1, policy::inbound};
use weft_transport::{Stream, tls::Store};
use weft_wire::transport_header::{SessionProtocol, TransportHeader};

/// The port of the application that transport headers name.
const PORT: u16 = 8080;

/// A transcript: parts under headings that say what they hold.
#[derive(Default)]
struct Transcript(String);

impl Transcript {
    /// `holds` names the section and what it says.
    fn part(&mut self, what: &str, holds: &str, lines: impl AsRef<str>) {
        let _ = write!(self.0, "## {what}\nholds: {holds}\n\n{}\n\n", lines.as_ref().trim_end());
    }
}

/// The server's proxy, played by the test.
struct Peer {
    listener: TcpListener,
    store: Store,
}

impl Peer {
    async fn start(mesh: &Mesh) -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), store: mesh.store("app") }
    }

    fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// An endpoint behind it: the dialled port is that of its proxy.
    fn endpoint(&self, mesh: &Mesh, hint: ProtocolHint) -> Endpoint {
        let addr = SocketAddr::from(([127, 0, 0, 1], PORT));
        Endpoint { transport_port: Some(self.addr().port()), ..mesh.endpoint(addr, hint) }
    }

    /// The next connection: its ClientHello, and what is inside. `transport` takes transport headers.
    async fn accept(&self, transport: bool) -> (String, Tee<Stream>) {
        let (mut tcp, _) = soon(self.listener.accept()).await.unwrap();
        let first = soon(record(&mut tcp)).await;
        let (stream, peer) = soon(self.store.accept(tcp, first.clone().into(), transport)).await.unwrap();
        assert_eq!(peer.identity, Some(identity("web")), "the client proves who it is");
        (hello(&first), Tee::new(stream))
    }
}

/// Serves one request of HTTP/2 with 200 and no body, and shows the frames up to it and its fields.
async fn one_request(stream: Tee<Stream>, answer: Response<()>) -> String {
    let read = stream.read.clone();
    let header_ends = read.bytes().len();
    let mut connection = soon(h2::server::handshake(stream)).await.unwrap();
    let (request, mut respond) = soon(connection.accept()).await.unwrap().unwrap();
    respond.send_response(answer, true).unwrap();
    tokio::spawn(async move { while connection.accept().await.is_some() {} });
    let frames = frames(&read.bytes()[header_ends..], |line| line.starts_with("HEADERS"));
    format!("{}\n{}", frames.join("\n"), fields(&request))
}

fn fields(request: &Request<impl Sized>) -> String {
    let mut lines = format!(":method {}\n", request.method());
    let _ = writeln!(lines, ":scheme {}", request.uri().scheme_str().unwrap_or("-"));
    let _ = writeln!(lines, ":authority {}", request.uri().authority().map_or("-", |a| a.as_str()));
    let _ = writeln!(lines, ":path {}", request.uri().path_and_query().map_or("-", |p| p.as_str()));
    for (name, value) in request.headers() {
        let _ = writeln!(lines, "{name}: {}", escaped(value.as_bytes()));
    }
    lines
}

fn answered(response: &Response<impl Sized>) -> String {
    let mut lines = format!(":status {}\n", response.status().as_u16());
    for (name, value) in response.headers() {
        let value = if name == "date" { "DATE".to_owned() } else { escaped(value.as_bytes()) };
        let _ = writeln!(lines, "{name}: {value}");
    }
    lines
}

/// A client of HTTP/1 asks, and gets what comes back until `end`.
async fn asks(mesh: &Mesh, service: &Service, request: &str) -> String {
    let mut client = http1::Client::over(mesh.connect(service).await);
    let response = soon(client.call(request)).await.unwrap();
    response.head_text().replace("\r\n", "\n")
}

const HELLO: &str = "4.7: SNI = server_name; 4.7: ALPN transport.l5d.io/v1 with an opaque-transport port; 5: TLS 1.3 only, \
    AES-128-GCM, AES-256-GCM, ChaCha20, X25519MLKEM768 before X25519, P-256 and P-384; 5: resumption disabled on the client's side";
const HEADER: &str = "3.9: 23 bytes, a length of 4 bytes, a message with port (1) and session protocol (3); 4.7: written only if \
    the peer negotiated it; 10.3: byte-exact";
const PREFACE: &str = "10.3: HTTP/2 prior knowledge right after the header; 1.2: windows of 65535 and 1048576 on the client's side; \
    10.3: windows of at least 64 KiB and frames of 16 KiB are accepted";
const CARRIED: &str = "4.8: version rewritten, l5d-orig-proto added, hop-by-hop headers stripped; 4.3: no l5d-dst-canonical without a profile";

/// What our outbound side sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_clients_proxy_sends() {
    let mesh = Mesh::start().await;
    let peer = Peer::start(&mesh).await;
    let mut transcript = Transcript::default();

    let h2 = mesh.service(&[peer.endpoint(&mesh, ProtocolHint::H2)]);
    let request =
        "GET /path?q=1 HTTP/1.1\r\nHost: app.ns\r\nConnection: x-hop, keep-alive\r\nX-Hop: 1\r\nX-Kept: 1\r\n\r\n";
    let server = async {
        let (hello, mut stream) = peer.accept(true).await;
        transcript.part("ClientHello", HELLO, hello);
        transcript.part("transport header", HEADER, soon(transport_header(&mut stream)).await);
        let orig = Response::builder().header("l5d-orig-proto", "HTTP/1.1").header("l5d-proxy-error", "theirs");
        one_request(stream, orig.body(()).unwrap()).await
    };
    let (sent, got) = tokio::join!(server, asks(&mesh, &h2, request));
    transcript.part("HTTP/1.1 on HTTP/2", &format!("{PREFACE}; {CARRIED}"), sent);
    transcript.part(
        "what the application gets",
        "4.8: version and headers restored, l5d-orig-proto removed; 4.3: l5d-proxy-error removed from meshed responses",
        got,
    );

    let peer = Peer::start(&mesh).await;
    let h2 = mesh.service(&[peer.endpoint(&mesh, ProtocolHint::H2)]);
    let request = "GET http://app.ns/ HTTP/1.0\r\nHost: app.ns\r\n\r\n";
    let server = async {
        let (_, mut stream) = peer.accept(true).await;
        soon(transport_header(&mut stream)).await;
        one_request(stream, Response::builder().header("l5d-orig-proto", "HTTP/1.0").body(()).unwrap()).await
    };
    let (sent, _) = tokio::join!(server, asks(&mesh, &h2, request));
    transcript.part("HTTP/1.0 in absolute form on HTTP/2", "4.8: l5d-orig-proto: HTTP/1.0; absolute-form", sent);

    let peer = Peer::start(&mesh).await;
    let native = mesh.service(&[peer.endpoint(&mesh, ProtocolHint::Unknown)]);
    let server = async {
        let (_, mut stream) = peer.accept(true).await;
        let header = soon(transport_header(&mut stream)).await;
        let mut client = http1_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        client.insert_str(0, &format!("{header}\n\n"));
        client
    };
    let request = "POST / HTTP/1.1\r\nHost: app.ns\r\nContent-Length: 0\r\nTE: trailers\r\nConnection: te\r\n\r\n";
    let (sent, _) = tokio::join!(server, asks(&mesh, &native, request));
    let holds = "4.7: session protocol http1 according to the variant; 4.8: hint Unknown is native HTTP/1; 3.7: te is not stripped \
        by itself, what Connection names is";
    transcript.part("HTTP/1.1 as it is", holds, sent);

    let peer = Peer::start(&mesh).await;
    let native = mesh.service(&[peer.endpoint(&mesh, ProtocolHint::Unknown)]);
    let server = async {
        let (_, mut stream) = peer.accept(true).await;
        let header = soon(transport_header(&mut stream)).await;
        let sent = one_request(stream, Response::new(())).await;
        format!("{header}\n\n{sent}")
    };
    let client = async { soon(mesh.http2(&native).await.call(crate::mesh::get())).await.unwrap() };
    let (sent, _) = tokio::join!(server, client);
    transcript.part(
        "HTTP/2",
        "4.7: session protocol http2; 4.8: HTTP/2 always uses HTTP/2, without l5d-orig-proto",
        sent,
    );

    let peer = Peer::start(&mesh).await;
    let opaque = mesh.opaque(&[peer.endpoint(&mesh, ProtocolHint::Opaque)]);
    let server = async {
        let (_, mut stream) = peer.accept(true).await;
        let header = soon(transport_header(&mut stream)).await;
        let mut bytes = [0; 3];
        soon(stream.read_exact(&mut bytes)).await.unwrap();
        format!("{header}\n{}", escaped(&bytes))
    };
    let client = async {
        let mut tcp = mesh.connect(&opaque).await;
        tcp.write_all(b"\x00\xffa").await.unwrap();
        tcp
    };
    let (sent, _tcp) = tokio::join!(server, client);
    transcript.part("bytes", "4.7: no session protocol for TCP; 3.9: application bytes follow at once", sent);

    let over = Endpoint {
        authority_override: Some("app.elsewhere.example:443".to_owned()),
        ..peer.endpoint(&mesh, ProtocolHint::H2)
    };
    let gateway = mesh.service(&[over]);
    let server = async {
        let (_, mut stream) = peer.accept(true).await;
        let header = soon(transport_header(&mut stream)).await;
        let sent = one_request(stream, Response::new(())).await;
        format!("{header}\n\n{sent}")
    };
    let (sent, _) = tokio::join!(server, asks(&mesh, &gateway, "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n"));
    let holds = "4.7: the name only when an authority override contains a port; 4.3: Host and l5d-dst-canonical removed, authority replaced";
    transcript.part("authority override", holds, sent);
    insta::assert_snapshot!("sent", transcript.0);
}

/// What it sends to who does not take headers: an endpoint without a port for them, and a peer that does not negotiate them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_transport_header() {
    let mesh = Mesh::start().await;
    let mut transcript = Transcript::default();
    let peer = Peer::start(&mesh).await;
    let plain = mesh.service(&[Endpoint { transport_port: None, ..mesh.endpoint(peer.addr(), ProtocolHint::H2) }]);
    let server = async {
        let (hello, stream) = peer.accept(true).await;
        let alpn = if hello.contains("extension 16") { "ALPN" } else { "no ALPN" };
        format!("{alpn}\n{}", one_request(stream, Response::new(())).await)
    };
    let (sent, _) = tokio::join!(server, asks(&mesh, &plain, "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n"));
    transcript.part("an endpoint without an opaque-transport port", "4.7, second row: mTLS, no ALPN, then HTTP", sent);

    let peer = Peer::start(&mesh).await;
    let older = mesh.service(&[peer.endpoint(&mesh, ProtocolHint::H2)]);
    let server = async {
        let (_, stream) = peer.accept(false).await;
        one_request(stream, Response::new(())).await
    };
    let (sent, _) = tokio::join!(server, asks(&mesh, &older, "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n"));
    transcript.part("a peer without that ALPN", "4.7: otherwise the client silently goes on without it", sent);
    insta::assert_snapshot!("without_header", transcript.0);
}

/// The head of an HTTP/1 request.
async fn http1_head(stream: &mut Tee<Stream>) -> String {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap().replace("\r\n", "\n")
}

/// The client's proxy, played by the test: a connection straight to the inbound port behind `header`, and a copy of the bytes
/// before decryption.
async fn dial(mesh: &Mesh, header: Option<TransportHeader>) -> (Stream, Copy) {
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpStream::connect(relay.local_addr().unwrap()).await.unwrap();
    let (client, _) = relay.accept().await.unwrap();
    // Who comes from loopback is let in whatever the policy says.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((elsewhere(), 0).into()).unwrap();
    let mut proxy = Tee::new(socket.connect(mesh.app.addrs().inbound).await.unwrap());
    let seen = proxy.read.clone();
    tokio::spawn(async move {
        let mut client = client;
        let _ = tokio::io::copy_bidirectional(&mut client, &mut proxy).await;
    });
    let (mut stream, transport) = soon(mesh.store("web").connect(dialled, &mesh.server(), true)).await.unwrap();
    assert!(transport, "3.3: the direct stack negotiates transport.l5d.io/v1");
    if let Some(header) = header {
        stream.write_all(&header.encode()).await.unwrap();
        stream.flush().await.unwrap();
    }
    (stream, seen)
}

/// One request behind a header; the frames of the server up to the head of its response, and its fields.
async fn answers(mesh: &Mesh, port: u16, request: Request<()>) -> String {
    let header = TransportHeader { port, name: None, protocol: Some(SessionProtocol::Http2) };
    let (stream, _) = dial(mesh, Some(header)).await;
    let tee = Tee::new(stream);
    let read = tee.read.clone();
    let (sender, connection) = soon(h2::client::handshake(tee)).await.unwrap();
    tokio::spawn(connection);
    let mut sender = soon(sender.ready()).await.unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    let mut response = soon(response).await.unwrap();
    while let Some(data) = soon(response.body_mut().data()).await {
        let _: Bytes = data.unwrap();
    }
    // The body may come in one frame or several.
    let mut lines = frames(&read.bytes(), |line| line.contains("END_STREAM"));
    lines.retain(|line| !line.starts_with("DATA"));
    format!("{}\n{}", lines.join("\n"), answered(&response))
}

/// What our inbound side answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_servers_proxy_answers() {
    let mesh = Mesh::start().await;
    let mut transcript = Transcript::default();
    let origin = http1::Origin::start(|_| http1::Reply::ok("one")).await.unwrap();
    let port = origin.addr().port();
    mesh.control.set_inbound(port, inbound(DefaultPolicy::AllUnauthenticated));

    let (mut stream, seen) = dial(&mesh, None).await;
    let first = record(&mut &seen.bytes()[..]).await;
    let holds = "5: TLS 1.3 with the client's first group; 3.3: ALPN transport.l5d.io/v1 on the direct stack";
    transcript.part("ServerHello", holds, hello(&first));
    stream.write_all(b"GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n").await.unwrap();
    let mut rest = vec![];
    // Whether it looks like an end or a cut depends on what was read by then.
    let _ = soon(stream.read_to_end(&mut rest)).await;
    transcript.part(
        "no transport header",
        "3.9: header present, else error",
        format!("closed after {} bytes", rest.len()),
    );

    let carried = |orig: &str| Request::get("http://app.ns/path?q=1").header("l5d-orig-proto", orig);
    for orig in ["HTTP/1.1", "HTTP/1.0", "HTTP/1.1; absolute-form"] {
        let request = carried(orig).header("l5d-client-id", "forged").header("x-kept", "1").body(()).unwrap();
        let answer = answers(&mesh, port, request).await;
        let at_the_origin = origin.seen().requests.last().unwrap().head_text().replace("\r\n", "\n");
        let holds = "3.7: l5d-orig-proto consumed, the request turned back into that version; 3.7: l5d-client-id removed, then set; \
            3.7: l5d-orig-proto added to the response; 1.2: windows of the server's side";
        transcript.part(orig, holds, format!("{at_the_origin}{answer}"));
    }

    let native = naming("app").await;
    mesh.control.set_inbound(native.addr().port(), inbound(DefaultPolicy::AllUnauthenticated));
    let answer = answers(&mesh, native.addr().port(), Request::get("http://app.ns/").body(()).unwrap()).await;
    let at_the_origin = native.seen().requests.last().unwrap().clone();
    let headers: String =
        at_the_origin.headers.iter().map(|(n, v)| format!("{n}: {}\n", escaped(v.as_bytes()))).collect();
    transcript.part(
        "HTTP/2",
        "3.9: session protocol http2 without detection; 3.7: l5d-client-id",
        format!("{headers}{answer}"),
    );

    mesh.control.set_inbound(port, inbound(DefaultPolicy::Deny));
    // The policy is on its way to the proxy.
    let denied = soon(async {
        loop {
            let denied = answers(&mesh, port, carried("HTTP/1.1").body(()).unwrap()).await;
            if !denied.contains(":status 200") {
                break denied;
            }
        }
    })
    .await;
    let holds = "3.8: unauthorised is 403, content-length 0, with l5d-proxy-error as the client is meshed with an identity; \
        DESIGN 7: the code behind Linkerd's text";
    transcript.part("not let in", holds, denied);
    let grpc = Request::post("http://app.ns/S/M").header("content-type", "application/grpc").body(()).unwrap();
    let denied = answers(&mesh, port, grpc).await;
    transcript.part("not let in, gRPC", "3.8: status 200 with grpc-status 7, grpc-message and l5d-proxy-error", denied);

    // Nothing listens there.
    let gone = nobody();
    mesh.control.set_inbound(gone.port(), inbound(DefaultPolicy::AllUnauthenticated));
    let holds = "3.8: a connect error is 502; 3.8 and 3.7: errors that close set l5d-proxy-connection: close for a client with an identity";
    let grpc = || Request::post("http://app.ns/S/M").header("content-type", "application/grpc");
    for (what, request) in [
        ("an error that closes", Request::get("http://app.ns/").body(())),
        ("an error that closes, of what was HTTP/1.1", carried("HTTP/1.1").body(())),
        ("an error that closes, gRPC", grpc().body(())),
    ] {
        let failed = answers(&mesh, gone.port(), request.unwrap()).await;
        transcript.part(what, holds, failed.replace(&gone.to_string(), "APPLICATION"));
    }
    let header = TransportHeader { port: gone.port(), name: None, protocol: Some(SessionProtocol::Http1) };
    let (stream, _) = dial(&mesh, Some(header)).await;
    let mut client = http1::Client::over(stream);
    let failed = soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap().head_text();
    assert_eq!(soon(client.rest()).await.unwrap_or_default(), b"", "it closes");
    let failed = failed.replace("\r\n", "\n").replace(&gone.to_string(), "APPLICATION");
    let dated = failed.lines().map(|line| if line.starts_with("date: ") { "date: DATE" } else { line });
    transcript.part("an error that closes, HTTP/1.1", holds, dated.collect::<Vec<_>>().join("\n"));
    insta::assert_snapshot!("answered", transcript.0);
}

/// A drain is told by GOAWAY.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_is_told() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|_| http1::Reply::ok("one")).await.unwrap();
    let port = origin.addr().port();
    mesh.control.set_inbound(port, inbound(DefaultPolicy::AllUnauthenticated));
    let header = TransportHeader { port, name: None, protocol: Some(SessionProtocol::Http2) };
    let (stream, _) = dial(&mesh, Some(header)).await;
    let tee = Tee::new(stream);
    let read = tee.read.clone();
    let (sender, connection) = soon(h2::client::handshake(tee)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut sender = soon(sender.ready()).await.unwrap();
    let request = Request::get("http://app.ns/").header("l5d-orig-proto", "HTTP/1.1").body(()).unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    assert_eq!(soon(response).await.unwrap().status(), 200);
    let Mesh { app, .. } = mesh;
    app.shutdown().await;
    let _ = soon(connection).await;
    let mut transcript = Transcript::default();
    let all = frames(&read.bytes(), |_| false);
    // The last one, which names what was served, may find the client gone.
    let first = all.into_iter().find(|line| line.starts_with("GOAWAY")).unwrap_or_default();
    transcript.part("drain", "1.6: HTTP/2 sends GOAWAY; 10.3: GOAWAY on drain", first);
    insta::assert_snapshot!("drain", transcript.0);
}
