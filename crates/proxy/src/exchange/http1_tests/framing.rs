//! Bodies of every framing, in both directions.

use super::{
    GET, OK,
    fake::{Fake, Origin, Seen, local},
};
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
    server.say(OK).await;
    client.hear(OK).await;
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
        client.say("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
        let mut server = origin.accept().await;
        server.hear("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
        server.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n").await;
        client.hear("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n").await;
        client.say("1\r\nb\r\n").await;
        server.hear("1\r\nb\r\n").await;
        server.say("1\r\nB\r\n").await;
        client.hear("1\r\nB\r\n").await;
        client.say("0\r\n\r\n").await;
        server.hear("0\r\n\r\n").await;
        server.say("0\r\n\r\n").await;
        client.hear("0\r\n\r\n").await;
    });
}

#[test]
fn a_body_that_ends_with_the_connection_is_chunked_for_the_client() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        for line in ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 200 OK\r\n"] {
            let mut client = proxy.client().await;
            client.say(GET).await;
            let mut server = origin.accept().await;
            server.hear(GET).await;
            server.say(format!("{line}A: 1\r\n\r\nhello ")).await;
            client.hear("HTTP/1.1 200 OK\r\nA: 1\r\ntransfer-encoding: chunked\r\n\r\n6\r\nhello \r\n").await;
            server.say("world").await;
            drop(server);
            client.hear("5\r\nworld\r\n0\r\n\r\n").await;
            assert!(proxy.kept.borrow().is_empty());
            client.say(GET).await;
            let mut server = origin.accept().await;
            server.hear(GET).await;
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
            client.say(&request).await;
            let mut server = origin.accept().await;
            server.hear(&request).await;
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
    });
}

#[test]
fn a_client_may_wait_for_100_continue() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
        let mut client = proxy.client().await;
        client.say(head).await;
        let mut server = origin.accept().await;
        server.hear(head).await;
        server.say("HTTP/1.1 100 Continue\r\n\r\n").await;
        client.hear("HTTP/1.1 100 Continue\r\n\r\n").await;
        client.say("abc").await;
        server.hear("abc").await;
        server.say(["HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", OK].concat()).await;
        client.hear(["HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", OK].concat()).await;
        // Refused instead: nobody can tell whether the body still comes.
        client.say(head).await;
        server.hear(head).await;
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
