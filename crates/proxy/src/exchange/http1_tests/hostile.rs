//! What could be read in two ways is refused, before a byte of it goes on.

use super::{
    GET, OK,
    fake::{Origin, local},
};
use crate::{error::Code, http1::limits::MAX_HEAD};
use proptest::prelude::*;

#[test]
fn smuggling_corpus() {
    let request = |headers: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    let host = |line: &str| format!("GET / HTTP/1.1\r\n{line}\r\n");
    let corpus = [
        request("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
        request("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"),
        request("Content-Length: 3\r\nContent-Length: 4\r\n"),
        request("Content-Length: 3\r\ncontent-length: 3\r\n"),
        request("Content-Length: 3, 3\r\n"),
        request("Content-Length: +3\r\n"),
        request("Content-Length: -3\r\n"),
        request("Content-Length: 0x3\r\n"),
        request("Content-Length: 3 3\r\n"),
        request("Content-Length: 3.0\r\n"),
        request("Content-Length:\r\n"),
        request("Content-Length: 99999999999999999999\r\n"),
        request("Content-Length: \u{0663}\r\n"),
        request("Transfer-Encoding: gzip, chunked\r\n"),
        request("Transfer-Encoding: chunked, chunked\r\n"),
        request("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        request("Transfer-Encoding: identity\r\n"),
        request("Transfer-Encoding: xchunked\r\n"),
        request("Transfer-Encoding: \u{b}chunked\r\n"),
        request("Transfer-Encoding: chunked;q=1\r\n"),
        request("Transfer-Encoding: \"chunked\"\r\n"),
        request("Transfer-Encoding:\r\n chunked\r\n"),
        request("Transfer-Encoding\t: chunked\r\n"),
        request("Transfer-Encoding : chunked\r\n"),
        request("Content-Length : 3\r\n"),
        request("X: a\r\n b\r\n"),
        request(" X: a\r\n"),
        request("X: a\rb\r\n"),
        request("X: a\nY: b\r\n"),
        request("X: a\0\r\n"),
        request("X\0: a\r\n"),
        request("X y: a\r\n"),
        request(": a\r\n"),
        request("no colon\r\n"),
        request("X: a\r\n").replace("\r\n", "\n"),
        "GET / HTTP/1.1\nHost: a\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nHost: a\r\n\n".into(),
        "GET / HTTP/1.1\r\nHost: a\n\r\n".into(),
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        host(""),
        host("Host: a\r\nHost: a\r\n"),
        host("Host: a\r\nhost: b\r\n"),
        host("Host: a,b\r\n"),
        host("Host: a/b\r\n"),
        host("Host: u@a\r\n"),
        host("Host: a:99999\r\n"),
        host("Host: a:80:80\r\n"),
        host("Host: a b\r\n"),
        "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n".into(),
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET /\t HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET a HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n".into(),
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(),
        "GET / http/1.1\r\nHost: a\r\n\r\n".into(),
        "GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "GET /\r\n\r\n".into(),
        "G(T / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
        "CONNECT a:1 HTTP/1.0\r\nHost: a\r\n\r\n".into(),
        "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n".into(),
        "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
        "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n".into(),
    ];
    local(async {
        let (_origin, proxy) = Origin::start().await;
        for (n, text) in corpus.iter().enumerate() {
            let mut client = proxy.client().await;
            client.say([text, GET].concat()).await;
            let reply = client.head().await;
            assert!(reply.starts_with("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n"), "{text:?}: {reply}");
            assert!(reply.contains("connection: close\r\n"), "{text:?}: {reply}");
            client.end().await;
            assert_eq!(proxy.refused.borrow().len(), n + 1, "{text:?}");
        }
        assert!(proxy.views.borrow().is_empty(), "nothing of it was even decided: {:?}", proxy.views.borrow());
    });
}

#[test]
fn chunks_that_lie_end_the_request() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        for body in ["x\r\n", "ffffffffffffffff1\r\n", "1\r\nab\r\n", "1\nx\r\n", "1;\u{1}\r\n", "0\r\na : b\r\n\r\n"] {
            let mut client = proxy.client().await;
            client.say(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}{GET}")).await;
            let mut server = origin.accept().await;
            assert!(client.head().await.starts_with("HTTP/1.1 400"), "{body:?}");
            client.end().await;
            let heard = server.rest().await;
            assert!(!heard.windows(4).any(|four| four == b"GET "), "{body:?}");
        }
    });
}

#[test]
fn servers_are_held_to_the_same_rules() {
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nContent-Length: 2,2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nX : a\r\n\r\nhi",
        "HTTP/1.1 099 No\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "junk\r\n\r\n",
    ];
    local(async {
        let (origin, proxy) = Origin::start().await;
        for answer in answers {
            let mut client = proxy.client().await;
            let mut server = origin.asked(&mut client, GET).await;
            server.say(answer).await;
            let reply = client.head().await;
            assert!(reply.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{answer:?}: {reply}");
            client.end().await;
        }
        assert_eq!(*proxy.refused.borrow(), vec![Code::UpstreamProtocol; answers.len()]);
        assert!(proxy.kept.borrow().is_empty());
    });
}

#[test]
fn what_a_server_says_unasked_answers_nobody() {
    local(async {
        let (origin, proxy, mut client) = Origin::begin().await;
        let mut server = origin.asked(&mut client, GET).await;
        server.say([OK, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"].concat()).await;
        client.hear(OK).await;
        let _server = origin.asked(&mut client, GET).await;
        assert!(proxy.kept.borrow().is_empty());
    });
}

#[test]
fn heads_are_bounded_on_both_sides() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        let padded = |line: &str, size: usize| {
            let fixed = line.len() + "x: \r\n\r\n".len();
            format!("{line}x: {}\r\n\r\n", "a".repeat(size - fixed))
        };
        let request = "GET / HTTP/1.1\r\nHost: a\r\n";
        let response = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n";
        let mut client = proxy.client().await;
        let mut server = origin.asked(&mut client, padded(request, MAX_HEAD)).await;
        server.answers(&mut client, padded(response, MAX_HEAD)).await;
        server.asked(&mut client, GET).await;
        server.say(padded(response, MAX_HEAD + 1)).await;
        assert!(client.head().await.starts_with("HTTP/1.1 502"));
        for head in [padded(request, MAX_HEAD + 1), format!("{request}{}\r\n", "a: b\r\n".repeat(128))] {
            let mut client = proxy.client().await;
            client.say(head).await;
            assert!(client.head().await.starts_with("HTTP/1.1 431 "));
            client.end().await;
        }
    });
}

/// Heads that are nearly in order: a few lines, of which at most two bytes are changed.
fn heads() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just("Content-Length: 1\r\n"),
        Just("Content-Length: 0\r\n"),
        Just("Transfer-Encoding: chunked\r\n"),
        Just("Connection: keep-alive, x\r\n"),
        Just("X: \t a b \t\r\n"),
        Just("x:\r\n"),
    ];
    let byte = prop_oneof![prop::sample::select(b"\r\n :\t,;\0\x0b+-_01chunked".to_vec()), any::<u8>(),];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), byte), 0..3);
    (prop::collection::vec(line, 0..5), changes).prop_map(|(lines, changes)| {
        let mut text = ["GET / HTTP/1.1\r\nHost: b\r\n", &lines.concat(), "\r\n"].concat().into_bytes();
        for (at, byte) in changes {
            let at = at.index(text.len());
            text[at] = byte;
        }
        text
    })
}

/// What hyper's server takes `bytes` for: the path and the body of each request.
fn as_hyper_reads(bytes: Vec<u8>) -> Vec<(String, Vec<u8>)> {
    use http_body_util::BodyExt;
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let told = seen.clone();
    local(async move {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let told = told.clone();
            async move {
                let path = request.uri().to_string();
                let body = request.into_body().collect().await?.to_bytes().to_vec();
                told.borrow_mut().push((path, body));
                Ok::<_, hyper::Error>(http::Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
            }
        });
        tokio::io::AsyncWriteExt::write_all(&mut client, &bytes).await.unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut client).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(server);
        // Why it stopped shows in what it saw.
        let _ = hyper::server::conn::http1::Builder::new().half_close(true).serve_connection(io, service).await;
    });
    seen.take()
}

proptest! {

    /// Where we see a request end, another server sees it end too: nothing can hide behind it.
    #[test]
    fn hyper_agrees_where_a_request_ends(text in heads()) {
        use crate::http1::{framing::Body, request::RequestHead};
        let mut head = RequestHead::default();
        if let Ok(true) = head.parse(&text)
            && !head.is_connect()
            && head.keeps_alive()
        {
            let mut written = Vec::new();
            head.write(&text, &crate::exchange::Edits::default(), &mut written);
            let body: &[u8] = match head.body {
                Body::Length(1) => b"x",
                Body::Chunked => b"1\r\nx\r\n0\r\n\r\n",
                Body::Empty => b"",
                // A changed digit.
                Body::Length(_) | Body::UntilClose => return Ok(()),
            };
            written.extend_from_slice(body);
            let first = written.len();
            written.extend_from_slice(GET.as_bytes());
            let seen = as_hyper_reads(written.clone());
            let content: &[u8] = if body.is_empty() { b"" } else { b"x" };
            prop_assert_eq!(seen.len(), 2, "{:?} then {:?}", String::from_utf8_lossy(&written[..first]), seen);
            prop_assert_eq!(&seen[0].1[..], content);
            prop_assert_eq!(&seen[1].0, "/a?b=c");
        }
    }

    /// What is accepted reads the same after it was written, and to a parser that repairs nothing.
    #[test]
    fn what_goes_on_is_what_was_read(text in heads()) {
        use crate::http1::request::RequestHead;
        let mut head = RequestHead::default();
        if let Ok(true) = head.parse(&text) {
            let mut written = Vec::new();
            head.write(&text, &crate::exchange::Edits::default(), &mut written);
            let mut again = RequestHead::default();
            prop_assert_eq!(again.parse(&written), Ok(true), "{:?}", String::from_utf8_lossy(&written));
            prop_assert_eq!(again.len, written.len());
            prop_assert_eq!(again.body, head.body);
            let lines = std::str::from_utf8(&written).unwrap_or("\n").matches('\n').count();
            prop_assert!(lines == written.windows(2).filter(|two| two == b"\r\n").count() || std::str::from_utf8(&written).is_err());
        }
    }
}
