//! Bodies of every framing, in both directions.

use super::{
    GET, OK,
    fake::{Fake, Origin, Seen, local},
};
use proptest::prelude::*;
use std::rc::Rc;

/// One exchange: `request` is heard as it is, `response` is heard as `heard`.
async fn exchange(origin: &Origin, proxy: &Rc<Fake>, request: &[u8], response: &[u8], heard: &[u8]) {
    let mut client = proxy.client().await;
    let answering = async {
        let mut server = origin.accept().await;
        server.hear(request).await;
        server.say(response).await;
        server
    };
    let (mut server, ()) = tokio::join!(answering, async {
        client.say(request).await;
        client.hear(heard).await;
    });
    client.say(GET).await;
    if proxy.kept.borrow().is_empty() && proxy.connections.get() > 1 {
        return;
    }
    server.hear(GET).await;
    server.answers(&mut client, OK).await;
    proxy.kept.borrow_mut().clear();
}

#[test]
fn lengths_chunks_and_trailers() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        let post = |head: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n{body}");
        let cases = [
            (post("Content-Length: 5\r\n", "hello"), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nworld"),
            (
                post("Transfer-Encoding: chunked\r\n", "5;x=y\r\nhello\r\n0\r\n\r\n"),
                "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            ),
            (post("Content-Length: 0\r\n", ""), "HTTP/1.1 204 No Content\r\n\r\n"),
            (post("", ""), "HTTP/1.1 304 Not Modified\r\nContent-Length: 700\r\n\r\n"),
            ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "HTTP/1.1 200 OK\r\nContent-Length: 700\r\n\r\n"),
            ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".into(), "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"),
            (
                post("Transfer-Encoding: chunked\r\n", "1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n"),
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\ngrpc-status: 3\r\n\r\n",
            ),
        ];
        for (request, response) in &cases {
            exchange(&origin, &proxy, request.as_bytes(), response.as_bytes(), response.as_bytes()).await;
        }
        assert!(proxy.seen.borrow().contains(&Seen::End(Some(3), None)));
        assert_eq!(proxy.connections.get(), cases.len());
    });
}

#[test]
fn a_204_loses_its_framing_and_forbidden_trailers_are_dropped() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        let bare = b"HTTP/1.1 204 No Content\r\nA: 1\r\n\r\n";
        exchange(
            &origin,
            &proxy,
            GET.as_bytes(),
            b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nA: 1\r\n\r\n",
            bare,
        )
        .await;
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n";
        let response = format!("{head}A: 1\r\nContent-Length: 3\r\nl5d-client-id: x\r\n\r\n");
        let heard = format!("{head}A: 1\r\n\r\n");
        exchange(&origin, &proxy, GET.as_bytes(), response.as_bytes(), heard.as_bytes()).await;
    });
}

#[test]
fn ten_megabytes_both_ways_at_once() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        let body: Vec<u8> = (0..10_000_000_u32).map(|n| (n % 253) as u8).collect();
        let with = |line: &str, chunked: bool| {
            let mut message = line.as_bytes().to_vec();
            if chunked {
                message.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for piece in body.chunks(70_001) {
                    message.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    message.extend_from_slice(piece);
                    message.extend_from_slice(b"\r\n");
                }
                message.extend_from_slice(b"0\r\n\r\n");
            } else {
                message.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                message.extend_from_slice(&body);
            }
            message
        };
        for chunked in [false, true] {
            let request = with("POST / HTTP/1.1\r\nHost: a\r\n", chunked);
            let response = with("HTTP/1.1 200 OK\r\n", chunked);
            exchange(&origin, &proxy, &request, &response, &response).await;
        }
        // The answer comes while the request is still on its way, and neither waits for the other.
        let mut client = proxy.client().await;
        let mut server = origin
            .asked(&mut client, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
            .await;
        server.answers(&mut client, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n").await;
        server.asked(&mut client, "1\r\nb\r\n").await;
        server.answers(&mut client, "1\r\nB\r\n").await;
        server.asked(&mut client, "0\r\n\r\n").await;
        server.answers(&mut client, "0\r\n\r\n").await;
    });
}

#[test]
fn a_body_that_ends_with_the_connection_is_chunked_for_the_client() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        for line in ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 200 OK\r\n"] {
            let mut client = proxy.client().await;
            let mut server = origin.asked(&mut client, GET).await;
            server.say(format!("{line}A: 1\r\n\r\nhello ")).await;
            client.hear("HTTP/1.1 200 OK\r\nA: 1\r\ntransfer-encoding: chunked\r\n\r\n6\r\nhello \r\n").await;
            server.say("world").await;
            drop(server);
            client.hear("5\r\nworld\r\n0\r\n\r\n").await;
            assert!(proxy.kept.borrow().is_empty());
            let mut server = origin.asked(&mut client, GET).await;
            drop(client);
            server.end().await;
        }
    });
}

#[test]
fn http_1_0_clients_get_what_they_understand() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        let cases = [
            ("", "HTTP/1.0 200 OK\r\n\r\nbody", "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nbody"),
            (
                "",
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\nX: y\r\n\r\n",
                "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nbody",
            ),
            (
                "",
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nconnection: close\r\n\r\nbody",
            ),
        ];
        for (headers, response, heard) in cases {
            let mut client = proxy.client().await;
            let request = format!("GET / HTTP/1.0\r\n{headers}\r\n");
            let mut server = origin.asked(&mut client, &request).await;
            server.say(response).await;
            drop(server);
            client.hear(heard).await;
            client.end().await;
        }
        assert_eq!(proxy.views.borrow()[0], "GET - / -");
        let mut client = proxy.client().await;
        for _ in 0..2 {
            client.say("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
            let mut server = origin.accept().await;
            server.hear("GET / HTTP/1.0\r\n\r\n").await;
            server.say(OK).await;
            client.hear("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: keep-alive\r\n\r\nhi").await;
        }
        let mut server = origin.asked(&mut client, "HEAD / HTTP/1.0\r\n\r\n").await;
        server.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        client.hear("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await;
        client.end().await;
    });
}

#[test]
fn a_client_may_wait_for_100_continue() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
        let mut client = proxy.client().await;
        let mut server = origin.asked(&mut client, head).await;
        server.answers(&mut client, "HTTP/1.1 100 Continue\r\n\r\n").await;
        server.asked(&mut client, "abc").await;
        server.answers(&mut client, ["HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", OK].concat()).await;
        // Refused instead: nobody can tell whether the body still comes.
        server.asked(&mut client, head).await;
        server.say("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n").await;
        client.hear("HTTP/1.1 417 No\r\nContent-Length: 0\r\nconnection: close\r\n\r\n").await;
        client.end().await;
        server.end().await;
    });
}

#[test]
fn split_anywhere_a_message_is_the_same() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        let request = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n";
        let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n";
        let mut client = proxy.client().await;
        let mut server = None;
        for cut in 1..request.len() {
            client.say(&request[..cut]).await;
            tokio::task::yield_now().await;
            client.say(&request[cut..]).await;
            let server = match &mut server {
                Some(server) => server,
                none => none.insert(origin.accept().await),
            };
            server.hear(request).await;
            let cut = cut.min(response.len() - 1);
            server.say(&response[..cut]).await;
            tokio::task::yield_now().await;
            server.say(&response[cut..]).await;
            client.hear(response).await;
        }
        assert_eq!(proxy.connections.get(), 1);
    });
}

/// A body's framing headers and its bytes on the wire.
fn body() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let size = prop_oneof![0..20_usize, 4000..4200_usize, 8000..8400_usize, 60_000..140_000_usize];
    (size, prop::option::of((1..70_000_usize, any::<bool>()))).prop_map(|(size, chunked)| {
        let content: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let Some((piece, trailer)) = chunked else { return ("length", content) };
        let mut wire = Vec::new();
        for piece in content.chunks(piece.max(size / 50)) {
            wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            wire.extend_from_slice(piece);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(if trailer { b"0\r\nX-Sum: 1\r\n\r\n" } else { b"0\r\n\r\n" });
        ("chunked", wire)
    })
}

fn message(line: &str, (framing, wire): &(&str, Vec<u8>)) -> Vec<u8> {
    let header = match *framing {
        "chunked" => "Transfer-Encoding: chunked".to_owned(),
        _ => format!("Content-Length: {}", wire.len()),
    };
    [line.as_bytes(), header.as_bytes(), b"\r\n\r\n", wire].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 8, ..ProptestConfig::default() })]

    /// Whatever the framing, the sizes, and the pieces in which it comes: what is heard is what was said.
    #[test]
    fn any_exchanges_on_one_connection(
        exchanges in prop::collection::vec((body(), body()), 1..5),
        piece in 1..50_000_usize,
        pipelined: bool,
    ) {
        let requests: Vec<_> = exchanges.iter().map(|(body, _)| message("PUT / HTTP/1.1\r\nHost: a\r\n", body)).collect();
        let responses: Vec<_> = exchanges.iter().map(|(_, body)| message("HTTP/1.1 200 OK\r\n", body)).collect();
        local(async move {
            let (origin, proxy) = Origin::start().await;
            let (mut hears, mut says) = proxy.client().await.split();
            let said = tokio::sync::Semaphore::new(if pipelined { requests.len() } else { 1 });
            let client_says = async {
                for request in &requests {
                    said.acquire().await.unwrap().forget();
                    for piece in request.chunks(piece.max(request.len() / 100)) {
                        says.say(piece).await;
                    }
                }
            };
            let client_hears = async {
                for response in &responses {
                    hears.hear(response).await;
                    said.add_permits(1);
                }
            };
            let server = async {
                let mut server = origin.accept().await;
                for (request, response) in requests.iter().zip(&responses) {
                    server.hear(request).await;
                    for piece in response.chunks(piece.max(response.len() / 100)) {
                        server.say(piece).await;
                    }
                }
            };
            tokio::join!(client_says, client_hears, server);
            assert_eq!(proxy.connections.get(), 1);
        });
    }
}
