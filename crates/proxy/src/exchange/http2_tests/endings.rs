//! Connections that end under their streams: by accident, or with a goodbye.

use super::fake::{Fake, Seen, client, get, grpc, local, ok, read, server, until};
use crate::error::Code;
use bytes::Bytes;
use h2::Reason;
use http::Request;
use std::{cell::Cell, rc::Rc};
use tokio::{io::AsyncReadExt, net::TcpListener};

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
            assert_eq!(*fake.refused.borrow(), [Code::UpstreamProtocol]);
        });
    }
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
pub(super) async fn closed(client: &mut h2::client::SendRequest<Bytes>) {
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
