//! HTTP/1 that came on HTTP/2, given to the application as what it was.

use super::fake::{Fake, Seen, get, grpc, local, read, until, write};
use crate::{
    error::Code,
    exchange::{Carrier, Edits, course::MAX_AGAIN},
};
use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::sleep,
};
use weft_model::decide::retry::RetryTerms;

/// An HTTP/1 application: each connection is given to `handle`.
async fn application<F, Fut>(handle: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::task::spawn_local(handle(tcp));
        }
    });
    addr
}

/// Reads until what was read ends with `end`.
async fn until_end(tcp: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let byte = tcp.read_u8().await.unwrap_or_else(|error| panic!("{error} after {text:?}"));
        text.push(byte);
    }
    String::from_utf8(text).unwrap()
}

fn to_http1(server: SocketAddr) -> Rc<Fake> {
    let fake = Fake::new(server, Carrier::Http1);
    fake.edits.replace(Edits { restore_orig_proto: true, ..Edits::default() });
    fake
}

/// An application that expects `request` and answers with `response`, over and over.
async fn exactly(request: &'static str, response: &'static str) -> SocketAddr {
    application(move |mut tcp| async move {
        loop {
            let mut got = vec![0; request.len()];
            if tcp.read_exact(&mut got).await.is_err() {
                return;
            }
            assert_eq!(String::from_utf8(got).unwrap(), request);
            tcp.write_all(response.as_bytes()).await.unwrap();
        }
    })
    .await
}

fn with(mut request: Request<()>, headers: &[(&'static str, &'static str)]) -> Request<()> {
    for (name, value) in headers {
        request.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    request
}

#[test]
fn the_request_is_what_it_was() {
    let asterisk = http::Uri::builder().scheme("http").authority("web.test").path_and_query("*").build().unwrap();
    let asterisk = Request::options(asterisk).body(()).unwrap();
    let cases = [
        (
            with(get("/a?b"), &[("l5d-orig-proto", "HTTP/1.1"), ("x", "1")]),
            "GET /a?b HTTP/1.1\r\nhost: web.test\r\nx: 1\r\n\r\n",
        ),
        (with(get("/a"), &[("l5d-orig-proto", "HTTP/1.0")]), "GET /a HTTP/1.0\r\nhost: web.test\r\n\r\n"),
        (
            with(get("/a"), &[("l5d-orig-proto", "HTTP/1.1; absolute-form")]),
            "GET http://web.test/a HTTP/1.1\r\nhost: web.test\r\n\r\n",
        ),
        (
            with(asterisk, &[("l5d-orig-proto", "HTTP/1.1; absolute-form")]),
            "OPTIONS * HTTP/1.1\r\nhost: web.test\r\n\r\n",
        ),
        (
            with(get("/"), &[("l5d-orig-proto", "HTTP/1.1"), ("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")]),
            "GET / HTTP/1.1\r\nhost: web.test\r\nte: trailers\r\ncookie: a=1; b=2\r\n\r\n",
        ),
        (
            with(get("/"), &[("l5d-orig-proto", "HTTP/1.1"), ("content-length", "0")]),
            "GET / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 0\r\n\r\n",
        ),
    ];
    for (request, expected) in cases {
        local(async move {
            let server = exactly(
                expected,
                "HTTP/1.1 201 Made\r\ncontent-length: 2\r\nX-Y: z\r\nconnection: keep-alive\r\n\r\nok",
            );
            let fake = to_http1(server.await);
            let (response, _send) = fake.client().await.send_request(request, true).unwrap();
            let mut response = response.await.unwrap();
            assert_eq!(response.status(), StatusCode::CREATED);
            assert_eq!(response.headers()["l5d-orig-proto"], "HTTP/1.1");
            assert_eq!(response.headers()["x-y"], "z");
            assert_eq!(response.headers()["content-length"], "2");
            assert_eq!(response.headers().get("connection"), None);
            assert_eq!(read(response.body_mut()).await.unwrap(), ("ok".into(), None));
            assert_eq!(fake.record().await, [Seen::Head(201), Seen::FirstByte, Seen::End(None, None)]);
        });
    }
}

#[test]
fn the_response_says_which_version_it_was() {
    local(async {
        let request = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";
        let server = application(move |mut tcp| async move {
            until_end(&mut tcp, request).await;
            tcp.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end").await.unwrap();
        });
        let fake = to_http1(server.await);
        let (response, _send) = fake.client().await.send_request(get("/"), true).unwrap();
        let mut response = response.await.unwrap();
        assert_eq!(response.headers()["l5d-orig-proto"], "HTTP/1.0");
        assert_eq!(read(response.body_mut()).await.unwrap().0, "until the end");
    });
}

#[test]
fn bodies_and_trailers_are_chunked_both_ways() {
    local(async {
        let server = application(|mut tcp| async move {
            let request = until_end(&mut tcp, "0\r\nx-sum: 7\r\n\r\n").await;
            assert!(request.contains("\r\ntransfer-encoding: chunked\r\n"), "{request}");
            assert!(request.ends_with("\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"), "{request}");
            tcp.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n3\r\nabc\r\n")
                .await
                .unwrap();
            tokio::task::yield_now().await;
            tcp.write_all(b"2;x=y\r\nde\r\n0\r\nGrpc-Status: 9\r\nHost: x\r\n\r\n").await.unwrap();
        });
        let fake = to_http1(server.await);
        let (response, mut send) = fake.client().await.send_request(grpc(), false).unwrap();
        send.send_data("hello".into(), false).unwrap();
        let trailers: HeaderMap = [("x-sum".parse().unwrap(), HeaderValue::from_static("7"))].into_iter().collect();
        send.send_trailers(trailers).unwrap();
        let mut response = response.await.unwrap();
        assert_eq!(response.headers().get("transfer-encoding"), None);
        let (body, trailers) = read(response.body_mut()).await.unwrap();
        let trailers = trailers.unwrap();
        assert_eq!((body, trailers.len(), &trailers["grpc-status"]), ("abcde".into(), 1, &HeaderValue::from(9)));
        assert_eq!(fake.record().await.last(), Some(&Seen::End(Some(9), None)));
    });
}

#[test]
fn ten_megabytes_go_both_ways_unchanged() {
    local(async {
        const LENGTH: usize = 10_000_000;
        let server = application(|mut tcp| async move {
            let head = until_end(&mut tcp, "\r\n\r\n").await;
            assert!(head.contains("content-length: 10000000\r\n"), "{head}");
            let mut body = vec![0; LENGTH];
            tcp.read_exact(&mut body).await.unwrap();
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n").await.unwrap();
            tcp.write_all(&body).await.unwrap();
        });
        let fake = to_http1(server.await);
        let request = with(grpc(), &[("content-length", "10000000")]);
        let (response, mut send) = fake.client().await.send_request(request, false).unwrap();
        let data: Bytes = (0..LENGTH).map(|n| (n % 251) as u8).collect();
        write(&mut send, data.clone(), true).await.unwrap();
        let (got, _) = read(response.await.unwrap().body_mut()).await.unwrap();
        assert!(got == data);
    });
}

#[test]
fn connections_are_kept_and_a_stale_one_is_replaced() {
    local(async {
        let request = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";
        let connections = Rc::new(Cell::new(0));
        let count = connections.clone();
        // Each connection closes, without saying so, once it has served two requests and seen a third.
        let server = application(move |mut tcp| {
            count.set(count.get() + 1);
            async move {
                for _ in 0..2 {
                    until_end(&mut tcp, request).await;
                    tcp.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                }
                until_end(&mut tcp, request).await;
            }
        });
        let fake = to_http1(server.await);
        let mut client = fake.client().await;
        for _ in 0..10 {
            let (response, _send) = client.send_request(get("/"), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 204);
            client = client.ready().await.unwrap();
        }
        assert_eq!(connections.get(), 5);
    });
}

/// A request may be what ends the server's workers, each of which has one of the connections.
#[test]
fn few_of_the_connections_that_are_kept_are_tried() {
    const KEPT: usize = 5;
    local(async {
        let (first, next) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (answered, closed) = (first.clone(), next.clone());
        // Answers as many requests once they are all there; then each connection closes behind its next.
        let server = application(move |mut tcp| {
            let (first, next) = (answered.clone(), closed.clone());
            async move {
                if first.get() < KEPT {
                    until_end(&mut tcp, "\r\n\r\n").await;
                    first.set(first.get() + 1);
                    until(|| first.get() == KEPT).await;
                    tcp.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                }
                until_end(&mut tcp, "\r\n\r\n").await;
                next.set(next.get() + 1);
            }
        });
        let fake = to_http1(server.await);
        let mut client = fake.client().await;
        let mut responses = Vec::new();
        for _ in 0..KEPT {
            client = client.ready().await.unwrap();
            responses.push(client.send_request(get("/"), true).unwrap().0);
        }
        for response in responses {
            assert_eq!(response.await.unwrap().status(), 204);
        }
        client = client.ready().await.unwrap();
        let (response, _send) = client.send_request(get("/"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 502);
        assert_eq!((next.get(), fake.connections.get()), (1 + MAX_AGAIN, KEPT));
    });
}

#[test]
fn a_body_that_comes_after_the_first_connection_closed_is_sent_whole() {
    local(async {
        let seen = Rc::new(Cell::new(0));
        let counted = seen.clone();
        let server = application(move |mut tcp| {
            let seen = counted.clone();
            async move {
                until_end(&mut tcp, "\r\n\r\n").await;
                seen.set(seen.get() + 1);
                if seen.get() == 1 {
                    return;
                }
                until_end(&mut tcp, "5\r\nhello\r\n0\r\n\r\n").await;
                tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            }
        });
        let fake = to_http1(server.await);
        let request = Request::put("http://web.test/").body(()).unwrap();
        let (response, mut send) = fake.client().await.send_request(request, false).unwrap();
        until(|| seen.get() == 2).await;
        send.send_data("hello".into(), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    });
}

#[test]
fn interim_responses_are_passed_on() {
    let heads = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    for piece in [1, heads.len()] {
        local(async move {
            let server = application(move |mut tcp| async move {
                tcp.set_nodelay(true).unwrap();
                until_end(&mut tcp, "\r\n\r\n").await;
                for piece in heads.as_bytes().chunks(piece) {
                    tcp.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            });
            let fake = to_http1(server.await);
            let (mut response, _send) = fake.client().await.send_request(get("/"), true).unwrap();
            let early = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
            assert_eq!(
                (early.status(), &early.headers()["link"]),
                (StatusCode::EARLY_HINTS, &HeaderValue::from_static("x"))
            );
            assert_eq!(response.await.unwrap().status(), 200);
        });
    }
}

/// What the client was told of the first attempt, it would be told again.
#[test]
fn who_sent_an_interim_response_is_not_asked_again() {
    local(async {
        let asked = Rc::new(Cell::new(0));
        let counted = asked.clone();
        let server = application(move |mut tcp| {
            let asked = counted.clone();
            async move {
                until_end(&mut tcp, "\r\n\r\n").await;
                asked.set(asked.get() + 1);
                tcp.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n").await.unwrap();
            }
        });
        let fake = to_http1(server.await);
        let (mut response, _send) = fake.client().await.send_request(get("/"), true).unwrap();
        let early = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(early.status(), StatusCode::EARLY_HINTS);
        assert_eq!(response.await.unwrap().status(), 502);
        assert_eq!(asked.get(), 1);
    });
}

#[test]
fn answers_to_head_have_a_length_and_no_body() {
    local(async {
        let server =
            exactly("HEAD / HTTP/1.1\r\nhost: web.test\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
        let fake = to_http1(server.await);
        let request = Request::head("http://web.test/").body(()).unwrap();
        let (response, _send) = fake.client().await.send_request(request, true).unwrap();
        let mut response = response.await.unwrap();
        assert_eq!(response.headers()["content-length"], "5");
        assert_eq!(read(response.body_mut()).await.unwrap().0, "");
    });
}

/// The length is that of the body that a 200 would have; what comes behind the head all the same goes to nobody.
#[test]
fn a_304_has_a_length_and_no_body() {
    for body in ["", "hello"] {
        local(async move {
            let server = application(move |mut tcp| async move {
                until_end(&mut tcp, "\r\n\r\n").await;
                let answer = format!("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n{body}");
                tcp.write_all(answer.as_bytes()).await.unwrap();
            });
            let fake = to_http1(server.await);
            let (response, _send) = fake.client().await.send_request(get("/"), true).unwrap();
            let mut response = response.await.unwrap();
            assert_eq!(
                (response.status(), &response.headers()["content-length"]),
                (StatusCode::NOT_MODIFIED, &"5".parse().unwrap())
            );
            assert!(response.body().is_end_stream());
            assert_eq!(read(response.body_mut()).await.unwrap().0, "");
        });
    }
}

#[test]
fn what_is_no_response_is_a_502() {
    for answer in [
        "",
        "HTTP/1.1 2",
        "nonsense\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    ] {
        local(async move {
            let server = application(move |mut tcp| async move {
                until_end(&mut tcp, "\r\n\r\n").await;
                tcp.write_all(answer.as_bytes()).await.unwrap();
            });
            let fake = to_http1(server.await);
            let (response, _send) = fake.client().await.send_request(get("/"), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 502, "{answer:?}");
            assert_eq!(fake.record().await.last(), Some(&Seen::End(None, Some(Code::UpstreamProtocol))));
        });
    }
}

#[test]
fn a_body_that_breaks_off_is_a_reset() {
    local(async {
        let server = application(|mut tcp| async move {
            until_end(&mut tcp, "\r\n\r\n").await;
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
        });
        let fake = to_http1(server.await);
        let (response, _send) = fake.client().await.send_request(get("/"), true).unwrap();
        // The reset may overtake the head.
        let error = match response.await {
            Ok(mut response) => read(response.body_mut()).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        assert_eq!(fake.record().await.last(), Some(&Seen::End(None, Some(Code::UpstreamProtocol))));
        assert_eq!(*fake.refused.borrow(), [Code::UpstreamProtocol]);
    });
}

/// The kernel tells of a reset only once. Here the request's body is told, while the client takes no more of the response.
#[test]
fn a_reset_that_the_request_meets_first_does_not_end_the_response() {
    local(async {
        let cut = Rc::new(Notify::new());
        let told = cut.clone();
        let server = application(move |mut tcp| {
            let told = told.clone();
            async move {
                until_end(&mut tcp, "\r\n\r\n").await;
                tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                tcp.write_all(&[7; 200_000]).await.unwrap();
                told.notified().await;
                tcp.set_zero_linger().unwrap();
            }
        });
        let fake = to_http1(server.await);
        let request = Request::post("http://web.test/").body(()).unwrap();
        let (response, mut send) = fake.client().await.send_request(request, false).unwrap();
        let mut response = response.await.unwrap();
        let body = response.body_mut();
        let mut held = 0;
        while held < 65_535 {
            held += body.data().await.unwrap().unwrap().len();
        }
        // Time for each to arrive: the client that makes room would let the proxy read as well.
        cut.notify_one();
        sleep(Duration::from_millis(200)).await;
        send.send_data("more".into(), false).unwrap();
        sleep(Duration::from_millis(200)).await;
        body.flow_control().release_capacity(held).unwrap();
        assert_eq!(read(body).await.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
        assert_eq!(fake.record().await.last(), Some(&Seen::End(None, Some(Code::UpstreamProtocol))));
    });
}

#[test]
fn a_client_that_resets_closes_the_connection() {
    local(async {
        let (closed, asked) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (told, asking) = (closed.clone(), asked.clone());
        let server = application(move |mut tcp| {
            let (told, asking) = (told.clone(), asking.clone());
            async move {
                until_end(&mut tcp, "\r\n\r\n").await;
                asking.set(true);
                assert_eq!(tcp.read(&mut [0]).await.unwrap_or(0), 0);
                told.set(true);
            }
        });
        let fake = to_http1(server.await);
        let (_response, mut send) = fake.client().await.send_request(grpc(), false).unwrap();
        until(|| asked.get()).await;
        send.send_reset(Reason::CANCEL);
        until(|| closed.get()).await;
        assert_eq!(fake.record().await, [Seen::Aborted]);
    });
}

#[test]
fn connect_is_refused() {
    local(async {
        let fake = to_http1(([127, 0, 0, 1], 1).into());
        let request = Request::connect("web.test:80").body(()).unwrap();
        let (response, _send) = fake.client().await.send_request(request, false).unwrap();
        assert_eq!(response.await.unwrap().status(), 400);
    });
}

/// A gateway's endpoint may speak HTTP/1 alone.
#[test]
fn what_a_policy_asks_for_is_sent_again_byte_for_byte() {
    for trailing in [false, true] {
        local(async move {
            let answered = Rc::new(Cell::new(0));
            let counted = answered.clone();
            let server = application(move |mut tcp| {
                let answered = counted.clone();
                async move {
                    let end = if trailing { "\r\n0\r\nx-sum: 7\r\n\r\n" } else { "\r\n0\r\n\r\n" };
                    loop {
                        let request = until_end(&mut tcp, end).await;
                        assert!(
                            request.starts_with("POST /Voting/Vote HTTP/1.1\r\nhost: voting.test\r\n"),
                            "{request}"
                        );
                        assert!(request.ends_with(&format!("\r\n\r\n5\r\nhello{end}")), "{request}");
                        answered.set(answered.get() + 1);
                        let answer = match answered.get() {
                            1 => "503 Busy\r\ncontent-length: 4\r\n\r\nbusy",
                            // Nothing: the next attempt comes when this one has taken too long.
                            2 => continue,
                            _ => "200 OK\r\ncontent-length: 2\r\n\r\nok",
                        };
                        tcp.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await.unwrap();
                    }
                }
            });
            let fake = to_http1(server.await);
            fake.retry.replace(Some(RetryTerms {
                limit: 3,
                body: 64 * 1024,
                statuses: vec![503..=503],
                codes: vec![],
                timeout: Some(Duration::from_secs(1)),
                backoff: None,
            }));
            let (response, mut send) = fake.client().await.send_request(grpc(), false).unwrap();
            send.send_data("hello".into(), !trailing).unwrap();
            if trailing {
                send.send_trailers([("x-sum".parse().unwrap(), HeaderValue::from_static("7"))].into_iter().collect())
                    .unwrap();
            }
            let mut response = response.await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert!(answered.get() >= 3, "{}", answered.get());
            assert_eq!(read(response.body_mut()).await.unwrap().0, "ok");
            assert!(fake.connections.get() < answered.get(), "the connection of the first answer is used again");
        });
    }
}

/// As many fields as the sections of HTTP/1 and the blocks of HTTP/2 hold.
#[test]
fn many_large_trailers_pass_both_ways() {
    local(async {
        let value = "v".repeat(100);
        let section: String = (0..200).map(|n| format!("x-{n}: {value}\r\n")).chain(["\r\n".to_owned()]).collect();
        let end = format!("5\r\nhello\r\n0\r\n{section}");
        let told = section.clone();
        let server = application(move |mut tcp| {
            let (end, section) = (end.clone(), told.clone());
            async move {
                until_end(&mut tcp, &end).await;
                let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n";
                tcp.write_all([head, &section].concat().as_bytes()).await.unwrap();
            }
        });
        let fake = to_http1(server.await);
        let (response, mut send) = fake.client().await.send_request(grpc(), false).unwrap();
        let fields = (0..200).map(|n| (format!("x-{n}").parse().unwrap(), value.parse().unwrap()));
        let fields: HeaderMap = fields.collect();
        send.send_data("hello".into(), false).unwrap();
        send.send_trailers(fields.clone()).unwrap();
        let (body, got) = read(response.await.unwrap().body_mut()).await.unwrap();
        assert_eq!(body, "ok");
        assert!(got == Some(fields), "{} fields", got.map_or(0, |got| got.len()));
    });
}

#[test]
fn malformed_trailers_end_the_request_and_are_not_left_out() {
    local(async {
        let server = application(|mut tcp| async move { while tcp.read_u8().await.is_ok() {} });
        let fake = to_http1(server.await);
        let (response, mut send) = fake.client().await.send_request(grpc(), false).unwrap();
        let blank: HeaderMap = [("x-sum".parse().unwrap(), HeaderValue::from_static("7 "))].into_iter().collect();
        send.send_trailers(blank).unwrap();
        assert_eq!(response.await.unwrap_err().reason(), Some(Reason::PROTOCOL_ERROR));
    });
}
