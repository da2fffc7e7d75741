//! HTTP/1 carried on HTTP/2: the client's side of two proxies, and both in a row.

use super::{
    again::mortal,
    fake::{Fake, Seen, local, ok, read, server, until, write},
};
use crate::{
    error::Code,
    exchange::{Carrier, Edits, ServerConnection, serve_http1},
};
use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Response};
use std::{cell::Cell, net::SocketAddr, rc::Rc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use weft_transport::stream::Stream;

/// A client's connection whose requests are all carried on HTTP/2.
async fn proxy(fake: &Rc<Fake>) -> TcpStream {
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

async fn exchange(client: &mut TcpStream, request: &str, end: &str) -> String {
    client.write_all(request.as_bytes()).await.unwrap();
    until_end(client, end).await
}

async fn until_end(client: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let byte =
            client.read_u8().await.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&text)));
        text.push(byte);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn the_request_says_what_it_was() {
    // Request, then what goes on: authority, path, orig-proto, headers.
    let cases: &[(&str, &str, &str, &str)] = &[
        ("GET /a?b HTTP/1.1\r\nHost: web.test\r\nX: 1\r\nConnection: close, x\r\n\r\n", "web.test", "/a?b", "HTTP/1.1"),
        ("GET http://other.test/a HTTP/1.1\r\nHost: web.test\r\n\r\n", "other.test", "/a", "HTTP/1.1; absolute-form"),
        ("GET http://web.test?q HTTP/1.1\r\nHost: web.test\r\n\r\n", "web.test", "/?q", "HTTP/1.1; absolute-form"),
        ("GET / HTTP/1.0\r\nHost: web.test\r\nKeep-Alive: 1\r\n\r\n", "web.test", "/", "HTTP/1.0"),
        ("OPTIONS * HTTP/1.1\r\nHost: web.test\r\nTE: trailers\r\n\r\n", "web.test", "*", "HTTP/1.1"),
    ];
    for (request, authority, path, orig) in cases {
        local(async {
            let server = server(|request, mut respond| async move {
                let mut response = Response::new(());
                let headers = response.headers_mut();
                let seen = |text: &str| HeaderValue::from_str(text).unwrap();
                headers.insert("seen-authority", seen(request.uri().authority().unwrap().as_str()));
                headers.insert("seen-path", seen(request.uri().path_and_query().unwrap().as_str()));
                headers.insert("seen-orig", request.headers()["l5d-orig-proto"].clone());
                let rest = request.headers().keys().filter(|name| !["l5d-orig-proto", "te"].contains(&name.as_str()));
                assert_eq!(rest.count(), 0, "{:?}", request.headers());
                respond.send_response(response, true).unwrap();
            });
            let fake = Fake::to_http2(server.await);
            let response = exchange(&mut proxy(&fake).await, request, "\r\n\r\n").await;
            for line in [
                format!("seen-authority: {authority}\r\n"),
                format!("seen-path: {path}\r\n"),
                format!("seen-orig: {orig}\r\n"),
            ] {
                assert!(response.contains(&line), "{request}: {response}");
            }
        });
    }
}

#[test]
fn responses_are_framed_for_the_client() {
    // The response's headers, its body, whether HTTP/1.0 asked, and what the client sees.
    type Case = (&'static [(&'static str, &'static str)], &'static str, &'static str, &'static str);
    const CASES: &[Case] = &[
        (&[("content-length", "2")], "ok", "1.1", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        (
            &[("l5d-orig-proto", "HTTP/1.1")],
            "ok",
            "1.1",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        (&[("x", "y")], "", "1.1", "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 0\r\n\r\n"),
        (&[], "ok", "1.0", "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nok"),
        (
            &[("content-length", "2")],
            "ok",
            "1.0",
            "HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        ),
    ];
    for (headers, body, version, expected) in CASES {
        local(async {
            let server = server(move |_, mut respond| async move {
                let mut response = Response::new(());
                for (name, value) in *headers {
                    response.headers_mut().insert(*name, HeaderValue::from_static(value));
                }
                let mut send = respond.send_response(response, body.is_empty()).unwrap();
                if !body.is_empty() {
                    send.send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
                }
            });
            let fake = Fake::to_http2(server.await);
            let request = format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n");
            assert_eq!(exchange(&mut proxy(&fake).await, &request, expected).await, *expected);
            assert_eq!(fake.record().await, [Seen::Head(200), Seen::FirstByte, Seen::End(None, None)]);
        });
    }
}

#[test]
fn many_requests_share_one_connection_to_the_endpoint() {
    local(async {
        let server = server(|request, mut respond| async move {
            let (body, _) = read(&mut request.into_body()).await.unwrap();
            let mut send = respond.send_response(ok(), false).unwrap();
            send.send_data(body, true).unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let mut client = proxy(&fake).await;
        for n in 0..50 {
            let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{n:02}");
            let response = exchange(&mut client, &request, "0\r\n\r\n").await;
            assert!(response.ends_with(&format!("\r\n\r\n2\r\n{n:02}\r\n0\r\n\r\n")), "{response}");
        }
        assert_eq!(fake.connections.get(), 1);
    });
}

#[test]
fn bodies_and_trailers_go_both_ways() {
    local(async {
        let server = server(|request, mut respond| async move {
            assert_eq!(request.headers().get("transfer-encoding"), None);
            let (body, trailers) = read(&mut request.into_body()).await.unwrap();
            assert_eq!((body, &trailers.unwrap()["x-sum"]), ("hello".into(), &HeaderValue::from(7)));
            let mut send = respond.send_response(ok(), false).unwrap();
            send.send_data("world".into(), false).unwrap();
            let trailers: HeaderMap =
                [("grpc-status".parse().unwrap(), HeaderValue::from_static("3"))].into_iter().collect();
            send.send_trailers(trailers).unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 7\r\n\r\n";
        let response = exchange(&mut proxy(&fake).await, request, "0\r\ngrpc-status: 3\r\n\r\n").await;
        assert!(response.contains("5\r\nworld\r\n"), "{response}");
        assert_eq!(fake.record().await.last(), Some(&Seen::End(Some(3), None)));
    });
}

#[test]
fn ten_megabytes_go_both_ways_unchanged() {
    local(async {
        const LENGTH: usize = 10_000_000;
        let server = server(|request, mut respond| async move {
            let (body, _) = read(&mut request.into_body()).await.unwrap();
            let response = Response::builder().header("content-length", LENGTH).body(()).unwrap();
            let mut send = respond.send_response(response, false).unwrap();
            write(&mut send, body, true).await.unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let (mut from, mut to) = proxy(&fake).await.into_split();
        let data: Vec<u8> = (0..LENGTH).map(|n| (n % 251) as u8).collect();
        let sent = data.clone();
        tokio::task::spawn_local(async move {
            to.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n").await.unwrap();
            to.write_all(&sent).await.unwrap();
            std::future::pending::<()>().await;
        });
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n";
        let mut got = vec![0; head.len() + LENGTH];
        from.read_exact(&mut got).await.unwrap();
        assert!(got.starts_with(head) && got[head.len()..] == data);
    });
}

#[test]
fn a_client_that_asks_is_told_to_continue() {
    local(async {
        let server = server(|request, mut respond| async move {
            assert_eq!(request.headers().get("expect"), None);
            respond.send_informational(Response::builder().status(100).body(()).unwrap()).unwrap();
            read(&mut request.into_body()).await.unwrap();
            respond.send_response(ok(), true).unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let mut client = proxy(&fake).await;
        let asked = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        let told = "HTTP/1.1 100 Continue\r\n\r\n";
        assert_eq!(exchange(&mut client, asked, told).await, told);
        assert!(exchange(&mut client, "ok", "\r\n\r\n").await.starts_with("HTTP/1.1 200 OK\r\n"));
    });
}

/// A client that has asked for nothing else would take what follows for another protocol.
#[test]
fn a_server_that_switches_protocols_is_a_502() {
    local(async {
        let server = server(|_, mut respond| async move {
            respond.send_informational(Response::builder().status(101).body(()).unwrap()).unwrap();
            tokio::task::yield_now().await;
            // By then the proxy has given the stream up, or not.
            let _ = respond.send_response(ok(), true);
        });
        let fake = Fake::to_http2(server.await);
        let response = exchange(&mut proxy(&fake).await, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\n").await;
        assert!(response.starts_with("HTTP/1.1 502 ") && response.contains("[UPSTREAM_PROTOCOL]"), "{response}");
    });
}

#[test]
fn a_204_has_no_length() {
    local(async {
        let server = server(|_, mut respond| async move {
            let response = Response::builder().status(204).header("content-length", "0").header("x", "y");
            respond.send_response(response.body(()).unwrap(), true).unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let mut client = proxy(&fake).await;
        let expected = "HTTP/1.1 204 No Content\r\nx: y\r\n\r\n";
        for _ in 0..2 {
            assert_eq!(exchange(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\n").await, expected);
        }
    });
}

/// The length is that of the body that a 200 would have; what comes behind the head all the same is kept from the client, who would
/// take it for the next response.
#[test]
fn a_304_has_a_length_and_no_body() {
    for body in ["", "hello"] {
        local(async move {
            let server = server(move |_, mut respond| async move {
                let response = Response::builder().status(304).header("content-length", "5").body(()).unwrap();
                let mut send = respond.send_response(response, body.is_empty()).unwrap();
                if !body.is_empty() {
                    // By then the proxy has given the stream up, or not.
                    let _ = send.send_data(body.into(), true);
                }
            });
            let fake = Fake::to_http2(server.await);
            let mut client = proxy(&fake).await;
            let expected = "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n";
            for _ in 0..2 {
                assert_eq!(exchange(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\n").await, expected);
            }
        });
    }
}

#[test]
fn failures_of_the_stream_are_a_502() {
    for reason in [Reason::INTERNAL_ERROR, Reason::ENHANCE_YOUR_CALM] {
        local(async move {
            let server = server(move |_, mut respond| async move { respond.send_reset(reason) });
            let fake = Fake::to_http2(server.await);
            let response = exchange(&mut proxy(&fake).await, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\n").await;
            assert!(response.starts_with("HTTP/1.1 502 "), "{response}");
            assert!(response.contains("[UPSTREAM_PROTOCOL]"), "{response}");
        });
    }
}

#[test]
fn a_refused_request_is_asked_elsewhere() {
    for (refusals, status) in [(1, "200"), (3, "200"), (4, "502")] {
        local(async move {
            let left = Rc::new(Cell::new(refusals));
            let server = server(move |_, mut respond| {
                let left = left.clone();
                async move {
                    if left.get() > 0 {
                        left.set(left.get() - 1);
                        respond.send_reset(Reason::REFUSED_STREAM);
                    } else {
                        respond.send_response(ok(), true).unwrap();
                    }
                }
            });
            let fake = Fake::to_http2(server.await);
            let response = exchange(&mut proxy(&fake).await, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\n").await;
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
        });
    }
}

#[test]
fn a_request_that_ends_servers_ends_two_of_them() {
    for before in [0, 1] {
        local(async move {
            let (server, ended) = mortal().await;
            let fake = Fake::to_http2(server);
            let mut client = proxy(&fake).await;
            for _ in 0..before {
                let response = exchange(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\n").await;
                assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
            }
            let response = exchange(&mut client, "GET /end HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\n").await;
            assert!(response.starts_with("HTTP/1.1 502 "), "{response}");
            assert_eq!(ended.get(), 2, "{before} before");
        });
    }
}

#[test]
fn a_body_that_comes_after_the_refusal_is_sent_whole() {
    for (framing, body) in [("Content-Length: 5", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")] {
        local(async move {
            let seen = Rc::new(Cell::new(0));
            let counted = seen.clone();
            let server = server(move |request, mut respond| {
                let seen = counted.clone();
                async move {
                    seen.set(seen.get() + 1);
                    if seen.get() == 1 {
                        respond.send_reset(Reason::REFUSED_STREAM);
                        return;
                    }
                    assert_eq!(read(&mut request.into_body()).await.unwrap().0, "hello");
                    respond.send_response(ok(), true).unwrap();
                }
            });
            let fake = Fake::to_http2(server.await);
            let mut client = proxy(&fake).await;
            client.write_all(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").as_bytes()).await.unwrap();
            until(|| seen.get() == 2).await;
            let response = exchange(&mut client, body, "\r\n\r\n").await;
            assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        });
    }
}

#[test]
fn a_response_that_breaks_off_is_seen_to_be_incomplete() {
    local(async {
        let server = server(|request, mut respond| async move {
            let mut send = respond.send_response(ok(), false).unwrap();
            send.send_data("half".into(), false).unwrap();
            let _ = request.into_body().data().await;
            send.send_reset(Reason::INTERNAL_ERROR);
        });
        let fake = Fake::to_http2(server.await);
        let mut client = proxy(&fake).await;
        exchange(&mut client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n", "4\r\nhalf\r\n").await;
        client.write_all(b"go").await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.expect_err("the connection is reset");
        assert_eq!(rest, b"");
        assert_eq!(fake.record().await.last(), Some(&Seen::End(None, Some(Code::UpstreamProtocol))));
        assert_eq!(*fake.refused.borrow(), [Code::UpstreamProtocol]);
    });
}

/// It says nothing of the endpoint, whose circuit breaker hears of it.
#[test]
fn a_body_that_is_malformed_amid_the_response_is_the_clients_mistake() {
    local(async {
        let server = server(|request, mut respond| async move {
            let mut send = respond.send_response(ok(), false).unwrap();
            send.send_data("half".into(), false).unwrap();
            // It ends with a reset.
            let _ = read(&mut request.into_body()).await;
        });
        let fake = Fake::to_http2(server.await);
        let mut client = proxy(&fake).await;
        let asked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        exchange(&mut client, asked, "4\r\nhalf\r\n").await;
        client.write_all(b"no size\r\n").await.unwrap();
        client.read_to_end(&mut vec![]).await.expect_err("the connection is reset");
        assert_eq!(fake.record().await.last(), Some(&Seen::End(None, Some(Code::BadRequest))));
        assert_eq!(*fake.refused.borrow(), [Code::BadRequest]);
    });
}

/// By a reset, or by an orderly end that looks as if it had closed its side only; before the response, or amid it.
#[test]
fn a_client_that_goes_away_cancels_the_stream() {
    for (resets, begun) in [(true, false), (false, false), (true, true), (false, true)] {
        local(async move {
            let (cancelled, asked) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(false)));
            let (told, asking) = (cancelled.clone(), asked.clone());
            let server = server(move |_, mut respond| {
                let told = told.clone();
                asking.set(true);
                async move {
                    let reset = if begun {
                        let mut send = respond.send_response(ok(), false).unwrap();
                        send.send_data("half".into(), false).unwrap();
                        std::future::poll_fn(|cx| send.poll_reset(cx)).await
                    } else {
                        std::future::poll_fn(|cx| respond.poll_reset(cx)).await
                    };
                    told.set(reset.ok());
                }
            });
            let fake = Fake::to_http2(server.await);
            let mut client = proxy(&fake).await;
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            if begun {
                until_end(&mut client, "half\r\n").await;
            } else {
                until(|| asked.get()).await;
            }
            if resets {
                Stream::from(client).reset_on_close();
            } else {
                drop(client);
            }
            until(|| cancelled.get().is_some()).await;
            assert_eq!(cancelled.get(), Some(Reason::CANCEL), "{resets} {begun}");
            assert_eq!(fake.record().await.last(), Some(&Seen::Aborted));
        });
    }
}

#[test]
fn a_client_that_goes_away_is_noticed_while_the_endpoint_is_connected() {
    local(async {
        let fake = Fake::to_http2(([127, 0, 0, 1], 1).into());
        fake.unreachable.set(true);
        let mut client = proxy(&fake).await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        until(|| fake.connections.get() == 1).await;
        drop(client);
        assert_eq!(fake.record().await, [Seen::Aborted]);
    });
}

/// An HTTP/1 client, two proxies, an HTTP/1 application: what arrives is what a direct connection would carry.
#[test]
fn two_proxies_in_a_row_change_nothing() {
    local(async {
        let request = "POST /vote?x=1 HTTP/1.1\r\nhost: web.test\r\nx-one: 1\r\ncontent-length: 5\r\n\r\nhello";
        let response = "HTTP/1.1 200 OK\r\nx-two: 2\r\ncontent-length: 5\r\n\r\nworld";
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::task::spawn_local(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            loop {
                assert_eq!(until_end(&mut tcp, "hello").await, request);
                tcp.write_all(response.as_bytes()).await.unwrap();
            }
        });
        let inbound = Fake::new(addr, Carrier::Http1);
        inbound.edits.replace(Edits { restore_orig_proto: true, ..Edits::default() });
        let inbound_addr: SocketAddr = inbound.serve_http2().await;
        let outbound = Fake::to_http2(inbound_addr);
        outbound.edits.replace(Edits { strip_mesh_response: true, ..Edits::default() });
        let mut client = proxy(&outbound).await;
        for _ in 0..3 {
            assert_eq!(exchange(&mut client, request, "world").await, response);
        }
    });
}
