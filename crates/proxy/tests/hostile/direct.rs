//! Direct connections: to the proxies' own ports, without a header, with forged, cut, oversized and looping ones.
//!
//! Budget: none costs more than twice what one does that is in order, handshake and all; a stranger's less than a request.

use crate::{
    cost::Cost,
    harness::{eventually, identity, soon},
    measure::alone,
    mesh::{Mesh, get, naming, peer, shouting},
};
use std::net::Ipv4Addr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_model::policy::inbound::{DefaultPolicy, ServerProtocol};
use weft_testkit::{http2, policy::inbound};
use weft_wire::transport_header::{PREFACE, SessionProtocol, TransportHeader};

/// An integer of protobuf.
fn integer(mut n: usize) -> Vec<u8> {
    let mut bytes = vec![];
    while n >= 0x80 {
        bytes.push(u8::try_from(n & 0x7f).unwrap() | 0x80);
        n >>= 7;
    }
    bytes.push(u8::try_from(n).unwrap());
    bytes
}

/// What comes back for these bytes behind the handshake; `None` if the connection is only closed.
async fn answered(mesh: &Mesh, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut stream = peer(mesh).await;
    // Who is refused early may be reset while it writes.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = vec![];
    let _ = soon(stream.read_to_end(&mut answer)).await;
    (!answer.is_empty()).then_some(answer)
}

#[test]
fn forged_transport_headers_lead_nowhere() {
    alone(module_path!(), "forged_transport_headers_lead_nowhere", forged);
}

#[test]
fn direct_connections_need_the_mesh_and_outbound_ones_a_destination() {
    alone(module_path!(), "direct_connections_need_the_mesh_and_outbound_ones_a_destination", strangers);
}

async fn forged() {
    let mesh = Mesh::with(&[], &[("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", "300ms")]).await;
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let mut policy = inbound(DefaultPolicy::AllUnauthenticated);
    policy.protocol = ServerProtocol::Opaque;
    mesh.control.set_inbound(addr.port(), policy);
    let header = |port, protocol| TransportHeader { port, name: None, protocol }.encode();
    let whole = header(addr.port(), None);
    let in_order = async || {
        let answer = answered(&mesh, &[&whole[..], b"abc"].concat()).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), "hello\nABCbye\n");
    };

    let message = |bytes: &[u8]| [&PREFACE[..], &u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let own = mesh.app.addrs().inbound.port();
    let named = |name: &[u8]| {
        let port = TransportHeader { port: addr.port(), name: None, protocol: None }.encode();
        let field = [&[0x12][..], &integer(name.len()), name].concat();
        message(&[&port[PREFACE.len() + 4..], &field].concat())
    };
    let counted = format!(
        "inbound_tcp_transport_header_connections_total{{session_protocol=\"\",target_port=\"{}\",target_name=\"\",client_id=\"{}\"}}",
        addr.port(),
        identity("peer")
    );
    let accepted = || mesh.app.metric(&counted);
    let forged: [(&str, Vec<u8>); 13] = [
        ("nothing", vec![]),
        ("a request", b"GET / HTTP/1.1\r\nHost: app\r\n\r\n".to_vec()),
        ("a part of the preface", PREFACE[..10].to_vec()),
        ("a part of the header", whole[..whole.len() - 1].to_vec()),
        ("a length without end", [&PREFACE[..], &[0xff; 4]].concat()),
        ("no message", message(&[0xff; 8])),
        ("port 0", message(&[])),
        ("port 65536", message(&[0x08, 0x80, 0x80, 0x04])),
        ("a port below 0", message(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01])),
        ("a name that is no text", named(&[0xff, 0xfe])),
        ("a name with a line end", named(b"app.ns\r\nx")),
        ("a name of 70,000 bytes", named(&[b'a'; 70_000])),
        ("this proxy itself", header(own, Some(SessionProtocol::Http2))),
    ];
    let cost = Cost::begin(in_order).await;
    let before = accepted();
    for (what, bytes) in &forged {
        assert_eq!(answered(&mesh, bytes).await, None, "{what}");
    }
    cost.end("forged transport headers", forged.len(), 2.0);
    let code =
        |code: &str| mesh.app.metric(&format!("weft_proxy_errors_total{{direction=\"inbound\",code=\"{code}\"}}"));
    // Counted behind the end of the connection.
    eventually("each is counted", || (code("LOOP"), code("BAD_REQUEST")) == (1.0, 12.0)).await;
    // Every byte on its own is as good as all at once.
    let mut stream = peer(&mesh).await;
    for byte in &whole {
        stream.write_all(&[*byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    let mut hello = [0; 6];
    soon(stream.read_exact(&mut hello)).await.unwrap();
    mesh.app.reaches(&counted, before + 1.0).await;
    server.abort();
}

async fn strangers() {
    let mesh = Mesh::with(&[], &[("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", "300ms")]).await;
    let origin = naming("app").await;
    let request = async || {
        let mut client = http2::Client::over(mesh.app.connect_inbound(origin.addr()).await).await.unwrap();
        assert_eq!(soon(client.call(get())).await.unwrap().head.status, 200);
    };
    let cost = Cost::begin(request).await;
    for addr in [mesh.app.addrs().inbound, mesh.app.addrs().outbound[0]] {
        for bytes in [&b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0"] {
            let mut tcp = TcpStream::connect(addr).await.unwrap();
            // It may be closed already.
            let _ = tcp.write_all(bytes).await;
            let mut answer = vec![];
            let _ = soon(tcp.read_to_end(&mut answer)).await;
            assert!(answer.is_empty(), "{addr} {bytes:?}: {answer:?}");
        }
    }
    cost.end("strangers", 6, 1.0);
    // Counted behind the end of the connection.
    let counted = |series: &str| mesh.app.metric(&format!("weft_proxy_errors_total{{{series}}}")) == 3.0;
    eventually("strangers are counted", || counted("direction=\"inbound\",code=\"UNAUTHORIZED\"")).await;
    eventually("loops are counted", || counted("direction=\"outbound\",code=\"LOOP\"")).await;
}
