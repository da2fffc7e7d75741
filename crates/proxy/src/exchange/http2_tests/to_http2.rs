//! HTTP/2 carried on HTTP/2.

use super::fake::{Fake, Seen, client, get, grpc, local, ok, read, server, until, write};
use crate::error::{Code, ProxyError};
use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use std::{cell::Cell, rc::Rc};
use tokio::{io::AsyncReadExt, net::TcpListener};

fn trailers(status: &'static str) -> HeaderMap {
    [("grpc-status".parse().unwrap(), HeaderValue::from_static(status))].into_iter().collect()
}

#[test]
fn a_unary_call_carries_trailers_and_its_status_is_recorded() {
    local(async {
        let server = server(|request, mut respond| async move {
            assert_eq!(request.uri().authority().unwrap(), "voting.test");
            let (body, _) = read(&mut request.into_body()).await.unwrap();
            assert_eq!(body, "ask");
            let mut send = respond.send_response(ok(), false).unwrap();
            send.send_data("answer".into(), false).unwrap();
            send.send_trailers(trailers("2")).unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let (response, mut send) = fake.client().await.send_request(grpc(), false).unwrap();
        send.send_data("ask".into(), true).unwrap();
        let (body, got) = read(response.await.unwrap().body_mut()).await.unwrap();
        assert_eq!((body, got), ("answer".into(), Some(trailers("2"))));
        assert_eq!(fake.record().await, [Seen::Head(200), Seen::FirstByte, Seen::End(Some(2), None)]);
        assert_eq!(fake.rtts.get(), 1);
    });
}

#[test]
fn a_trailers_only_reply_stays_one_frame() {
    local(async {
        let server = server(|_, mut respond| async move {
            respond.send_response(Response::builder().header("grpc-status", "5").body(()).unwrap(), true).unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let (response, _send) = fake.client().await.send_request(grpc(), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "5");
        assert!(response.body().is_end_stream());
        assert_eq!(fake.record().await, [Seen::Head(200), Seen::FirstByte, Seen::End(Some(5), None)]);
    });
}

#[test]
fn streams_run_both_ways_at_once() {
    local(async {
        let server = server(|request, mut respond| async move {
            let mut send = respond.send_response(ok(), false).unwrap();
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                write(&mut send, data, false).await.unwrap();
            }
            send.send_trailers(trailers("0")).unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let (response, mut send) = fake.client().await.send_request(grpc(), false).unwrap();
        let mut response = response.await.unwrap();
        for n in 0..100 {
            let message = Bytes::from(format!("message {n}"));
            send.send_data(message.clone(), false).unwrap();
            assert_eq!(response.body_mut().data().await.unwrap().unwrap(), message);
        }
        send.send_data(Bytes::new(), true).unwrap();
        assert_eq!(read(response.body_mut()).await.unwrap().1, Some(trailers("0")));
    });
}

#[test]
fn ten_megabytes_go_both_ways_unchanged() {
    local(async {
        let server = server(|request, mut respond| async move {
            let (body, _) = read(&mut request.into_body()).await.unwrap();
            let mut send = respond.send_response(ok(), false).unwrap();
            write(&mut send, body, true).await.unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let (response, mut send) = fake.client().await.send_request(grpc(), false).unwrap();
        let data: Bytes = (0..10_000_000_u32).map(|n| (n % 251) as u8).collect();
        write(&mut send, data.clone(), true).await.unwrap();
        let (got, _) = read(response.await.unwrap().body_mut()).await.unwrap();
        assert!(got == data);
    });
}

#[test]
fn a_reader_that_stops_stops_the_writer() {
    local(async {
        let sent = Rc::new(Cell::new(0));
        let counted = sent.clone();
        let server = server(move |_, mut respond| {
            let sent = counted.clone();
            async move {
                let mut send = respond.send_response(ok(), false).unwrap();
                loop {
                    write(&mut send, Bytes::from_static(&[7; 10_000]), false).await.unwrap();
                    sent.set(sent.get() + 10_000);
                }
            }
        });
        let fake = Fake::to_http2(server.await);
        let (response, _send) = fake.client().await.send_request(get("/"), true).unwrap();
        let _response = response.await.unwrap();
        let mut before = 0;
        let mut still = 0;
        while still < 50 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            still = if sent.get() == before { still + 1 } else { 0 };
            before = sent.get();
        }
        // One window at the client, one in the proxy, and what the server holds back itself.
        assert!(sent.get() < 4 * 65_535 + 400_000, "{} bytes in flight", sent.get());
    });
}

#[test]
fn resets_of_the_server_keep_their_code() {
    local(async {
        let server = server(|request, mut respond| async move {
            if request.uri().path() == "/head" {
                respond.send_reset(Reason::ENHANCE_YOUR_CALM);
            } else {
                let mut send = respond.send_response(ok(), false).unwrap();
                send.send_data("half".into(), false).unwrap();
                send.send_reset(Reason::HTTP_1_1_REQUIRED);
            }
        });
        let fake = Fake::to_http2(server.await);
        let mut client = fake.client().await;
        let (response, _send) = client.send_request(get("/head"), true).unwrap();
        assert_eq!(response.await.unwrap_err().reason(), Some(Reason::ENHANCE_YOUR_CALM));
        let (response, _send) = client.send_request(get("/body"), true).unwrap();
        let reason = match response.await {
            Ok(mut response) => read(response.body_mut()).await.unwrap_err().reason(),
            Err(error) => error.reason(),
        };
        assert_eq!(reason, Some(Reason::HTTP_1_1_REQUIRED));
        until(|| fake.seen.borrow().iter().filter(|seen| matches!(seen, Seen::End(..))).count() == 2).await;
    });
}

#[test]
fn resets_of_the_client_keep_their_code() {
    for path in ["/before", "/during"] {
        local(async {
            let (reset, asked) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(false)));
            let (told, asking) = (reset.clone(), asked.clone());
            let server = server(move |request, mut respond| {
                let told = told.clone();
                asking.set(true);
                async move {
                    let reason = if request.uri().path() == "/before" {
                        std::future::poll_fn(|cx| respond.poll_reset(cx)).await
                    } else {
                        let mut send = respond.send_response(ok(), false).unwrap();
                        std::future::poll_fn(|cx| send.poll_reset(cx)).await
                    };
                    told.set(Some(reason.unwrap()));
                }
            });
            let fake = Fake::to_http2(server.await);
            let (response, mut send) = fake.client().await.send_request(get(path), false).unwrap();
            if path == "/during" {
                response.await.unwrap();
            } else {
                until(|| asked.get()).await;
            }
            send.send_reset(Reason::INADEQUATE_SECURITY);
            until(|| reset.get().is_some()).await;
            assert_eq!(reset.get(), Some(Reason::INADEQUATE_SECURITY));
            assert_eq!(fake.record().await.last(), Some(&Seen::Aborted));
        });
    }
}

#[test]
fn an_early_response_ends_the_request_without_an_error() {
    local(async {
        let server = server(|request, mut respond| async move {
            respond.send_response(Response::builder().status(413).body(()).unwrap(), true).unwrap();
            drop(request); // Dropped unread: the server resets with NO_ERROR.
        });
        let fake = Fake::to_http2(server.await);
        let (response, mut send) = fake.client().await.send_request(grpc(), false).unwrap();
        send.send_data("part".into(), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 413);
        let reason = std::future::poll_fn(|cx| send.poll_reset(cx)).await.unwrap();
        assert_eq!(reason, Reason::NO_ERROR);
    });
}

#[test]
fn informational_responses_are_passed_on() {
    local(async {
        let server = server(|_, mut respond| async move {
            respond.send_informational(Response::builder().status(103).header("link", "x").body(()).unwrap()).unwrap();
            tokio::task::yield_now().await;
            respond.send_response(ok(), true).unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let (mut response, _send) = fake.client().await.send_request(get("/"), true).unwrap();
        let early = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(
            (early.status(), &early.headers()["link"]),
            (StatusCode::EARLY_HINTS, &HeaderValue::from_static("x"))
        );
        assert_eq!(response.await.unwrap().status(), 200);
    });
}

#[test]
fn a_refusal_is_a_status_or_a_grpc_status() {
    local(async {
        let fake = Fake::to_http2(([127, 0, 0, 1], 1).into());
        fake.refusal.replace(Some(ProxyError::new(Code::Unauthorized, "unauthorized request on route")));
        let mut client = fake.client().await;
        let (response, _send) = client.send_request(get("/"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 403);
        assert_eq!(response.headers()["l5d-proxy-error"], "unauthorized request on route [UNAUTHORIZED]");
        assert_eq!(response.headers()["content-length"], "0");
        assert_eq!(response.headers().get("l5d-proxy-connection"), None);
        let (response, _send) = client.send_request(grpc(), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!((response.status(), &response.headers()["grpc-status"]), (StatusCode::OK, &HeaderValue::from(7)));
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert!(response.body().is_end_stream());
        assert_eq!(*fake.refused.borrow(), [Code::Unauthorized; 2]);
    });
}

#[test]
fn a_refusal_that_closes_ends_the_connection_after_the_open_streams() {
    local(async {
        let server = server(|request, mut respond| async move {
            read(&mut request.into_body()).await.unwrap();
            respond.send_response(ok(), true).unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let mut client = fake.client().await;
        let (open, mut send) = client.send_request(get("/"), false).unwrap();
        until(|| fake.connections.get() == 1).await;
        fake.refusal.replace(Some(ProxyError::new(Code::Failfast, "no endpoint")));
        let (response, _send) = client.send_request(get("/"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["l5d-proxy-connection"]),
            (504, &HeaderValue::from_static("close"))
        );
        send.send_data(Bytes::new(), true).unwrap();
        assert_eq!(open.await.unwrap().status(), 200);
        closed(&mut client).await;
    });
}

#[test]
fn an_endpoint_that_cannot_be_connected_is_a_502() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Fake::to_http2(listener.local_addr().unwrap());
        drop(listener);
        let (response, _send) = fake.client().await.send_request(get("/"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 502);
        assert_eq!(fake.record().await, [Seen::Head(502), Seen::FirstByte, Seen::End(None, Some(Code::ConnectFailed))]);
    });
}

/// A server that closes the connection after the first bytes of each.
async fn breaks(after: usize) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut bytes = vec![0; after];
            tcp.read_exact(&mut bytes).await.unwrap();
        }
    });
    addr
}

#[test]
fn a_connection_that_breaks_before_the_response_is_a_502() {
    local(async {
        let fake = Fake::to_http2(breaks(60).await);
        let mut client = fake.client().await;
        let (response, _send) = client.send_request(get("/"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 502);
    });
}

/// A server whose connection breaks in the middle of each response.
async fn breaks_off() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let mut connection = h2::server::handshake(tcp).await.unwrap();
                let (request, mut respond) = connection.accept().await.unwrap().unwrap();
                let mut send = respond.send_response(ok(), false).unwrap();
                send.send_data("half".into(), false).unwrap();
                let gone = async {
                    // The client has the first half once it sends the second of its own.
                    request.into_body().data().await
                };
                tokio::select! { _ = gone => {}, _ = connection.accept() => {} }
            });
        }
    });
    addr
}

#[test]
fn a_body_that_breaks_off_is_a_reset_or_grpc_trailers() {
    for (request, grpc) in [(grpc(), true), (Request::post("http://web.test/").body(()).unwrap(), false)] {
        local(async {
            let fake = Fake::to_http2(breaks_off().await);
            let (response, mut send) = fake.client().await.send_request(request, false).unwrap();
            let mut response = response.await.unwrap();
            assert_eq!(response.body_mut().data().await.unwrap().unwrap(), "half");
            send.send_data("go".into(), false).unwrap();
            let end = read(response.body_mut()).await;
            if grpc {
                let trailers = end.unwrap().1.unwrap();
                assert_eq!(trailers["grpc-status"], "14");
                assert!(trailers.contains_key("grpc-message"));
                assert_eq!(fake.record().await.last(), Some(&Seen::End(Some(14), Some(Code::UpstreamProtocol))));
            } else {
                assert_eq!(end.unwrap_err().reason(), Some(Reason::INTERNAL_ERROR));
                assert_eq!(fake.record().await.last(), Some(&Seen::End(None, Some(Code::UpstreamProtocol))));
            }
        });
    }
}

#[test]
fn a_client_that_goes_away_while_the_direction_decides_ends_the_wait() {
    local(async {
        let fake = Fake::to_http2(([127, 0, 0, 1], 1).into());
        fake.stuck.set(true);
        let (response, mut send) = fake.client().await.send_request(get("/"), false).unwrap();
        until(|| !fake.stuck.get()).await;
        send.send_reset(Reason::CANCEL);
        drop(response);
        assert_eq!(fake.record().await, [Seen::Aborted]);
    });
}

#[test]
fn a_server_that_drains_loses_nothing() {
    local(async {
        let served = Rc::new(Cell::new(0_u32));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let count = served.clone();
        tokio::task::spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let served = count.clone();
                tokio::task::spawn_local(async move {
                    let mut connection = h2::server::handshake(tcp).await.unwrap();
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        served.set(served.get() + 1);
                        if served.get().is_multiple_of(50) {
                            connection.graceful_shutdown();
                        }
                        tokio::task::spawn_local(async move {
                            tokio::task::yield_now().await;
                            let _ = respond.send_response(ok(), true);
                        });
                    }
                });
            }
        });
        let fake = Fake::to_http2(addr);
        let mut client = fake.client().await;
        for _ in 0..100 {
            let mut responses = Vec::new();
            for _ in 0..10 {
                client = client.ready().await.unwrap();
                responses.push(client.send_request(get("/"), true).unwrap().0);
            }
            for response in responses {
                assert_eq!(response.await.unwrap().status(), 200);
            }
        }
        assert!(fake.connections.get() > 10, "the server did drain");
    });
}

#[test]
fn a_goaway_that_names_the_request_as_unprocessed_refuses_it() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Fake::to_http2(listener.local_addr().unwrap());
        tokio::task::spawn_local(async move {
            use tokio::io::AsyncWriteExt;
            let (mut tcp, _) = listener.accept().await.unwrap();
            // Until some of the body is gone, which cannot be sent again.
            let mut heard = vec![];
            while !heard.ends_with(b"~~~~") {
                heard.push(tcp.read_u8().await.unwrap());
            }
            tcp.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            tcp.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
            std::future::pending::<()>().await;
        });
        let (response, mut send) = fake.client().await.send_request(grpc(), false).unwrap();
        send.send_data("~~~~".into(), false).unwrap();
        assert_eq!(response.await.unwrap_err().reason(), Some(Reason::REFUSED_STREAM));
    });
}

/// Waits until the connection takes no new streams.
async fn closed(client: &mut h2::client::SendRequest<Bytes>) {
    while std::future::poll_fn(|cx| client.poll_ready(cx)).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[test]
fn a_drain_lets_open_streams_finish_and_takes_no_more() {
    local(async {
        let server = server(|request, mut respond| async move {
            read(&mut request.into_body()).await.unwrap();
            respond.send_response(ok(), true).unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let addr = fake.serve_http2().await;
        let mut client = client(addr).await;
        let (open, mut send) = client.send_request(get("/"), false).unwrap();
        until(|| fake.connections.get() == 1).await;
        fake.drain.notify_waiters();
        closed(&mut client).await;
        send.send_data(Bytes::new(), true).unwrap();
        assert_eq!(open.await.unwrap().status(), 200);
    });
}

#[test]
fn mesh_headers_of_the_response_are_removed_where_the_direction_says_so() {
    local(async {
        let server = server(|request, mut respond| async move {
            assert_eq!(request.headers()["l5d-client-id"], "web.default");
            assert_eq!(request.headers().get("l5d-forged"), None);
            let response = Response::builder()
                .header("l5d-proxy-error", "x")
                .header("l5d-proxy-connection", "close")
                .header("x", "y")
                .body(())
                .unwrap();
            respond.send_response(response, true).unwrap();
        });
        let fake = Fake::to_http2(server.await);
        fake.edits.replace(crate::exchange::Edits {
            remove: &["l5d-forged"],
            set: [("l5d-client-id", Rc::from("web.default"))].into_iter().collect(),
            strip_mesh_response: true,
            ..Default::default()
        });
        let mut request = get("/");
        request.headers_mut().insert("l5d-forged", HeaderValue::from_static("1"));
        request.headers_mut().insert("l5d-client-id", HeaderValue::from_static("forged"));
        let (response, _send) = fake.client().await.send_request(request, true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers().len(), 1, "{:?}", response.headers());
    });
}

#[test]
fn malformed_requests_are_refused_before_policy() {
    local(async {
        let fake = Fake::to_http2(([127, 0, 0, 1], 1).into());
        let mut client = fake.client().await;
        for (name, value) in [("x", " a"), ("x", "a "), ("host", "other.test")] {
            let mut request = get("/");
            request.headers_mut().insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            let (response, _send) = client.send_request(request, true).unwrap();
            assert_eq!(response.await.unwrap_err().reason(), Some(Reason::PROTOCOL_ERROR), "{name}: {value:?}");
        }
        assert_eq!(*fake.refused.borrow(), [Code::BadRequest; 3]);
        assert_eq!(fake.connections.get(), 0);
    });
}
