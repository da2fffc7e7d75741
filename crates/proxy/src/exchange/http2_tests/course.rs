//! Timeouts and retries of requests that are carried on HTTP/2, or come on it.

use super::fake::{Fake, Seen, get, grpc, local, ok, read, server, until, write};
use crate::{
    error::Code,
    exchange::{Carrier, Retried, ServerConnection, serve_http1},
};
use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Request, Response};
use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use weft_model::{decide::retry::RetryTerms, policy::outbound::Timeouts};
use weft_transport::stream::Stream;

const SHORT: Duration = Duration::from_millis(50);

fn retry(limit: u32) -> RetryTerms {
    let (statuses, codes) = (vec![503..=503], vec![14]);
    RetryTerms { limit, body: 64 * 1024, statuses, codes, timeout: None, backoff: None }
}

fn post() -> Request<()> {
    Request::post("http://web.test/").body(()).unwrap()
}

fn status(status: u16) -> Response<()> {
    Response::builder().status(status).body(()).unwrap()
}

fn trailers(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(code))])
}

fn trailers_only(code: &'static str) -> (Response<()>, &'static str, Option<HeaderMap>) {
    let mut head = ok();
    *head.headers_mut() = trailers(code);
    (head, "", None)
}

/// What a server heard of each request: body and trailers.
type Heard = Rc<RefCell<Vec<(Bytes, Option<HeaderMap>)>>>;

/// A server that answers its `n`th request, once it has read it, with `answers(n)`: head, body, trailers.
async fn answering(
    answers: impl Fn(usize) -> (Response<()>, &'static str, Option<HeaderMap>) + Clone + 'static,
) -> (SocketAddr, Heard) {
    let heard = Heard::default();
    let told = heard.clone();
    let addr = server(move |request, mut respond| {
        let (answers, told) = (answers.clone(), told.clone());
        async move {
            let request = read(&mut request.into_body()).await.unwrap();
            let n = told.borrow().len();
            told.borrow_mut().push(request);
            let (head, body, trailers) = answers(n);
            let empty = body.is_empty() && trailers.is_none();
            let mut send = respond.send_response(head, empty).unwrap();
            if !body.is_empty() {
                send.send_data(Bytes::from_static(body.as_bytes()), trailers.is_none()).unwrap();
            }
            if let Some(trailers) = trailers {
                send.send_trailers(trailers).unwrap();
            }
        }
    });
    (addr.await, heard)
}

/// A server that answers nothing, or a head with a part of the body.
async fn stalling(head: bool) -> SocketAddr {
    server(move |_request, mut respond| async move {
        let mut send = None;
        if head {
            let mut response = ok();
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            let body = send.insert(respond.send_response(response, false).unwrap());
            body.send_data(Bytes::from_static(b"part"), false).unwrap();
        }
        std::future::pending::<()>().await;
        drop((send, respond));
    })
    .await
}

#[test]
fn a_response_that_does_not_come_is_a_504() {
    local(async {
        let fake = Fake::to_http2(stalling(false).await);
        fake.timeouts.set(Timeouts { request: Some(SHORT), ..Timeouts::default() });
        let mut client = fake.client().await;
        for request in [get("/"), grpc()] {
            client = client.ready().await.unwrap();
            let is_grpc = request.headers().contains_key("content-type");
            let (response, _send) = client.send_request(request, true).unwrap();
            let response = response.await.unwrap();
            let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(response.status(), if is_grpc { 200 } else { 504 });
            assert_eq!(header("grpc-status").as_deref(), is_grpc.then_some("4"));
            assert_eq!(header("l5d-proxy-error").as_deref(), Some("request timeout [REQUEST_TIMEOUT]"));
            assert_eq!(header("l5d-proxy-connection"), None);
        }
        assert_eq!(*fake.refused.borrow(), [Code::RequestTimeout; 2]);
    });
}

#[test]
fn a_connection_that_does_not_come_about_is_a_504() {
    for carrier in [Carrier::Http1, Carrier::Http2] {
        local(async move {
            let fake = Fake::new(([127, 0, 0, 1], 1).into(), carrier);
            fake.unreachable.set(true);
            fake.timeouts.set(Timeouts { request: Some(SHORT), ..Timeouts::default() });
            let (response, _send) = fake.client().await.send_request(get("/"), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 504, "{carrier:?}");
            assert_eq!(*fake.refused.borrow(), [Code::RequestTimeout]);
        });
    }
}

/// The attempt's time runs on while another connection is made in the place of one that has closed.
#[test]
fn another_connection_that_does_not_come_about_is_left_for_another_attempt() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Fake::new(listener.local_addr().unwrap(), Carrier::Http1);
        fake.retry.replace(Some(RetryTerms { timeout: Some(SHORT), ..retry(1) }));
        let (response, _send) = fake.client().await.send_request(get("/"), true).unwrap();
        let (mut first, _) = listener.accept().await.unwrap();
        until_end(&mut first, "\r\n\r\n").await;
        fake.unreachable.set(true);
        drop(first);
        let ended = [Seen::Head(504), Seen::FirstByte, Seen::End(None, Some(Code::ResponseHeadersTimeout))];
        assert_eq!(fake.record().await, ended);
        fake.unreachable.set(false);
        let (mut last, _) = listener.accept().await.unwrap();
        until_end(&mut last, "\r\n\r\n").await;
        last.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        assert_eq!(response.await.unwrap().status(), 204);
    });
}

#[test]
fn a_response_that_does_not_end_is_reset_or_ends_with_its_code() {
    local(async {
        let fake = Fake::to_http2(stalling(true).await);
        for timeouts in [
            Timeouts { response: Some(SHORT), ..Timeouts::default() },
            Timeouts { idle: Some(SHORT), ..Timeouts::default() },
        ] {
            fake.timeouts.set(timeouts);
            let code = if timeouts.idle.is_some() { Code::IdleTimeout } else { Code::ResponseTimeout };
            let mut client = fake.client().await;
            let (response, _send) = client.send_request(get("/"), true).unwrap();
            let error = read(response.await.unwrap().body_mut()).await.unwrap_err();
            assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
            client = client.ready().await.unwrap();
            let (response, _send) = client.send_request(grpc(), true).unwrap();
            let (body, trailers) = read(response.await.unwrap().body_mut()).await.unwrap();
            assert_eq!((&body[..], &trailers.unwrap()["grpc-status"]), (&b"part"[..], &HeaderValue::from_static("4")));
            assert_eq!(std::mem::take(&mut *fake.refused.borrow_mut()), [code; 2]);
        }
    });
}

/// The client has its answer by then: there is nothing that the mesh has failed.
#[test]
fn a_request_that_is_late_behind_its_response_is_not_counted() {
    local(async {
        let server = server(|request, mut respond| async move {
            respond.send_response(ok(), true).unwrap();
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.data().await {}
        });
        let fake = Fake::to_http2(server.await);
        fake.timeouts.set(Timeouts { idle: Some(SHORT), ..Timeouts::default() });
        let (response, mut send) = fake.client().await.send_request(post(), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        std::future::poll_fn(|cx| send.poll_reset(cx)).await.unwrap();
        assert_eq!(fake.record().await.last(), Some(&Seen::End(None, None)));
        assert_eq!(*fake.refused.borrow(), []);
    });
}

#[test]
fn bodies_and_trailers_are_sent_again_byte_for_byte() {
    local(async {
        let (addr, heard) =
            answering(|n| if n % 3 < 2 { (status(503), "busy", None) } else { (ok(), "done", None) }).await;
        let fake = Fake::to_http2(addr);
        fake.retry.replace(Some(retry(2)));
        let mut client = fake.client().await;
        let bytes: Vec<u8> = (0..64 * 1024_u32).map(|n| (n % 251) as u8).collect();
        for length in [0, 1, 4096, 64 * 1024] {
            for sum in [None, Some(trailers("7"))] {
                let body = Bytes::copy_from_slice(&bytes[..length]);
                client = client.ready().await.unwrap();
                let (response, mut send) = client.send_request(post(), false).unwrap();
                write(&mut send, body.clone(), sum.is_none()).await.unwrap();
                if let Some(trailers) = sum.clone() {
                    send.send_trailers(trailers).unwrap();
                }
                let mut response = response.await.unwrap();
                assert_eq!(
                    (response.status().as_u16(), read(response.body_mut()).await.unwrap().0),
                    (200, "done".into())
                );
                assert_eq!(std::mem::take(&mut *heard.borrow_mut()), vec![(body, sum); 3], "{length}");
            }
        }
        let counted = fake.route.counted.borrow();
        assert_eq!(*counted, [Retried::Requested, Retried::Requested, Retried::Succeeded].repeat(8));
    });
}

#[test]
fn what_is_too_long_or_not_whole_is_sent_once() {
    local(async {
        let (addr, heard) = answering(|_| (status(503), "busy", None)).await;
        let fake = Fake::to_http2(addr);
        fake.retry.replace(Some(retry(2)));
        let mut client = fake.client().await;
        let (response, mut send) = client.send_request(post(), false).unwrap();
        write(&mut send, vec![0; 64 * 1024 + 1].into(), true).await.unwrap();
        assert_eq!(response.await.unwrap().status(), 503);
        assert_eq!(heard.borrow().len(), 1);

        let early = server(|_request, mut respond| async move {
            respond.send_response(status(503), true).unwrap();
            std::future::pending::<()>().await;
        });
        let fake = Fake::to_http2(early.await);
        fake.retry.replace(Some(retry(2)));
        let mut client = fake.client().await;
        let (response, mut send) = client.send_request(post(), false).unwrap();
        write(&mut send, Bytes::from_static(b"part"), false).await.unwrap();
        assert_eq!(response.await.unwrap().status(), 503);
        assert_eq!(*fake.route.counted.borrow(), []);
    });
}

#[test]
fn grpc_codes_are_found_wherever_they_are() {
    // What the server answers first, and whether it is asked again.
    type Answer = fn() -> (Response<()>, &'static str, Option<HeaderMap>);
    let cases: [(Answer, bool); 5] = [
        (|| trailers_only("14"), true),
        (|| trailers_only("13"), false),
        (|| (ok(), "", Some(trailers("14"))), true),
        (|| (ok(), "", Some(trailers("13"))), false),
        // Some of it was passed on.
        (|| (ok(), "message", Some(trailers("14"))), false),
    ];
    for (case, (first, again)) in cases.into_iter().enumerate() {
        local(async move {
            let (addr, heard) =
                answering(move |n| if n == 0 { first() } else { (ok(), "", Some(trailers("0"))) }).await;
            let fake = Fake::to_http2(addr);
            fake.retry.replace(Some(retry(1)));
            let mut client = fake.client().await;
            let (response, mut send) = client.send_request(grpc(), false).unwrap();
            write(&mut send, Bytes::from_static(b"call"), true).await.unwrap();
            let mut response = response.await.unwrap();
            let (body, trailers) = read(response.body_mut()).await.unwrap();
            let (_, passed, ended) = first();
            let code = response.headers().get("grpc-status").or(trailers.as_ref().map(|t| &t["grpc-status"])).unwrap();
            if again {
                assert_eq!(code, "0", "{case}");
            } else {
                let expected = first().0.headers().get("grpc-status").cloned();
                assert_eq!(Some(code), expected.as_ref().or(ended.as_ref().map(|t| &t["grpc-status"])), "{case}");
                assert_eq!(body, passed);
            }
            assert_eq!(heard.borrow().len(), if again { 2 } else { 1 }, "{case}");
            assert!(heard.borrow().iter().all(|(body, _)| body == "call"));
        });
    }
}

#[test]
fn a_request_that_was_refused_is_sent_again_whatever_its_method() {
    local(async {
        let count = Rc::new(Cell::new(0));
        let seen = count.clone();
        let addr = server(move |request, mut respond| {
            let seen = seen.clone();
            async move {
                let n = seen.replace(seen.get() + 1);
                let (body, _) = read(&mut request.into_body()).await.unwrap();
                assert_eq!(body, "body");
                match n {
                    0 => respond.send_reset(Reason::REFUSED_STREAM),
                    _ => drop(respond.send_response(ok(), true).unwrap()),
                }
            }
        });
        let fake = Fake::to_http2(addr.await);
        fake.retry.replace(Some(retry(1)));
        let mut client = fake.client().await;
        let (response, mut send) = client.send_request(post(), false).unwrap();
        send.send_data(Bytes::from_static(b"body"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        assert_eq!((count.get(), fake.route.counted.borrow()[0]), (2, Retried::Requested));
        let ended = [Seen::Head(502), Seen::FirstByte, Seen::End(None, Some(Code::UpstreamProtocol))];
        assert_eq!(fake.record().await[..3], ended);
    });
}

#[test]
fn an_attempt_that_is_too_slow_is_left_for_another() {
    local(async {
        let count = Rc::new(Cell::new(0));
        let seen = count.clone();
        let addr = server(move |request, mut respond| {
            let seen = seen.clone();
            async move {
                let n = seen.replace(seen.get() + 1);
                read(&mut request.into_body()).await.unwrap();
                if n == 0 {
                    let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                    assert_eq!(reset.unwrap(), Reason::CANCEL);
                    return;
                }
                tokio::time::sleep(3 * SHORT).await;
                respond.send_response(ok(), true).unwrap();
            }
        });
        let fake = Fake::to_http2(addr.await);
        fake.retry.replace(Some(RetryTerms { timeout: Some(SHORT), ..retry(1) }));
        let mut client = fake.client().await;
        let (response, _send) = client.send_request(get("/"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        assert_eq!(count.get(), 2);
        let ended = [Seen::Head(504), Seen::FirstByte, Seen::End(None, Some(Code::ResponseHeadersTimeout))];
        assert_eq!(fake.record().await[..3], ended);
        assert_eq!(*fake.refused.borrow(), []);
    });
}

#[test]
fn a_client_that_goes_away_while_another_attempt_is_due_ends_it() {
    local(async {
        let (addr, heard) = answering(|_| (status(503), "", None)).await;
        let fake = Fake::to_http2(addr);
        let long = Duration::from_secs(3600);
        let backoff = weft_model::policy::outbound::Backoff { min: long, max: long, jitter: 0.0 };
        fake.retry.replace(Some(RetryTerms { backoff: Some(backoff), ..retry(1) }));
        let mut client = fake.client().await;
        let (response, mut send) = client.send_request(get("/"), true).unwrap();
        until(|| !fake.route.counted.borrow().is_empty()).await;
        send.send_reset(Reason::CANCEL);
        drop(response);
        until(|| Rc::strong_count(&fake.route) == 1).await;
        assert_eq!(heard.borrow().len(), 1);
    });
}

/// A client's HTTP/1 connection whose requests are carried on HTTP/2.
async fn http1(fake: &Rc<Fake>) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (tcp, _) = listener.accept().await.unwrap();
    let fake = fake.clone();
    tokio::task::spawn_local(async move {
        let (_signal, drain) = weft_transport::drain::channel();
        let connection = ServerConnection { stream: Stream::from(tcp), prefix: Bytes::new() };
        serve_http1(connection, &*fake, drain).await;
    });
    client
}

async fn until_end(client: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        text.push(client.read_u8().await.unwrap_or_else(|error| panic!("{error} after {text:?}")));
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn http1_on_http2_is_sent_again_byte_for_byte() {
    local(async {
        let (addr, heard) =
            answering(|n| if n % 3 < 2 { (status(503), "busy", None) } else { (ok(), "done", None) }).await;
        let fake = Fake::to_http2(addr);
        fake.retry.replace(Some(retry(2)));
        let mut client = http1(&fake).await;
        let text = "0123456789abcdef".repeat(4096);
        for length in [0, 1, 4096, 64 * 1024] {
            let body = &text[..length];
            let counted = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
            let (first, last) = body.split_at(length / 3);
            let chunk =
                |part: &str| if part.is_empty() { String::new() } else { format!("{:x}\r\n{part}\r\n", part.len()) };
            let chunked = format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}{}0\r\nGrpc-Status: 7\r\n\r\n",
                chunk(first),
                chunk(last)
            );
            for (request, sum) in [(counted, None), (chunked, Some(trailers("7")))] {
                client.write_all(request.as_bytes()).await.unwrap();
                assert!(until_end(&mut client, "done\r\n0\r\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
                let expected = vec![(Bytes::copy_from_slice(body.as_bytes()), sum); 3];
                assert_eq!(std::mem::take(&mut *heard.borrow_mut()), expected, "{length}");
            }
        }
        assert_eq!(fake.route.counted.borrow().len(), 3 * 8);
        fake.route.counted.borrow_mut().clear();
        for request in [
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n{text}x"),
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n{text}x\r\n0\r\n\r\n"),
        ] {
            heard.borrow_mut().clear();
            client.write_all(request.as_bytes()).await.unwrap();
            assert!(until_end(&mut client, "busy\r\n0\r\n\r\n").await.starts_with("HTTP/1.1 503 "));
        }
        assert_eq!(*fake.route.counted.borrow(), []);
    });
}

#[test]
fn http1_on_http2_has_its_timeouts() {
    local(async {
        let fake = Fake::to_http2(stalling(false).await);
        fake.timeouts.set(Timeouts { response: Some(SHORT), ..Timeouts::default() });
        let mut client = http1(&fake).await;
        let post = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n{}", "x".repeat(9000));
        for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", &post] {
            client.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(
                until_end(&mut client, "\r\n\r\n").await,
                "HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\nl5d-proxy-error: response timeout [RESPONSE_TIMEOUT]\r\n\r\n"
            );
        }
        let fake = Fake::to_http2(stalling(true).await);
        fake.timeouts.set(Timeouts { response: Some(SHORT), ..Timeouts::default() });
        let mut client = http1(&fake).await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        let error = client.read_to_end(&mut rest).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(rest.ends_with(b"\r\n4\r\npart\r\n"), "{}", String::from_utf8_lossy(&rest));
        assert_eq!(fake.record().await[2], Seen::End(None, Some(Code::ResponseTimeout)));
    });
}

#[test]
fn http2_on_http1_has_its_timeouts() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Fake::new(listener.local_addr().unwrap(), Carrier::Http1);
        fake.timeouts.set(Timeouts { request: Some(SHORT), ..Timeouts::default() });
        let mut client = fake.client().await;
        let (response, _send) = client.send_request(get("/"), true).unwrap();
        let (_tcp, _) = listener.accept().await.unwrap();
        assert_eq!(response.await.unwrap().status(), 504);
        client = client.ready().await.unwrap();
        let (response, _send) = client.send_request(get("/"), true).unwrap();
        let (mut tcp, _) = listener.accept().await.unwrap();
        until_end(&mut tcp, "\r\n\r\n").await;
        tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab").await.unwrap();
        let error = read(response.await.unwrap().body_mut()).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        assert_eq!(*fake.refused.borrow(), [Code::RequestTimeout; 2]);
    });
}
