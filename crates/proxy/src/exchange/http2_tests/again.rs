//! Requests on HTTP/2 that are sent once more though nobody asks for that: nobody has looked at them, or doing it twice does no
//! harm. What is sent is the same, byte for byte.

use super::fake::{Fake, client, get, grpc, local, ok, read, server, until};
use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue, Response};
use std::{cell::Cell, net::SocketAddr, rc::Rc};
use tokio::{io::AsyncReadExt, net::TcpListener, sync::Notify};

/// A server that says of two requests that it has not looked at them.
async fn refusing() -> SocketAddr {
    let left = Rc::new(Cell::new(2));
    server(move |request, mut respond| {
        let left = left.clone();
        async move {
            let mut body = request.into_body();
            while let Some(data) = body.data().await {
                body.flow_control().release_capacity(data.unwrap().len()).unwrap();
                if left.get() > 0 {
                    break;
                }
            }
            if left.get() > 0 {
                left.set(left.get() - 1);
                respond.send_reset(Reason::REFUSED_STREAM);
            } else {
                respond.send_response(ok(), true).unwrap();
            }
        }
    })
    .await
}

#[test]
fn what_nobody_has_seen_is_asked_again() {
    for request in [get("/"), grpc()] {
        local(async move {
            let fake = Fake::to_http2(refusing().await);
            let (response, _send) = fake.client().await.send_request(request, true).unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
            assert_eq!(fake.connections.get(), 1, "the connection is good");
        });
    }
    local(async move {
        let fake = Fake::to_http2(refusing().await);
        let (response, mut send) = fake.client().await.send_request(grpc(), false).unwrap();
        send.send_data("of which a part is gone".into(), false).unwrap();
        assert_eq!(
            response.await.unwrap_err().reason(),
            Some(Reason::REFUSED_STREAM),
            "which the client may send again"
        );
    });
}

/// Somebody may have acted on it.
#[test]
fn what_does_no_harm_is_asked_again() {
    for (request, status) in [(get("/"), 200), (grpc(), 502)] {
        local(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let fake = Fake::to_http2(listener.local_addr().unwrap());
            tokio::task::spawn_local(async move {
                let (mut tcp, _) = listener.accept().await.unwrap();
                // The request's head is among it: the preface alone has 24 bytes, the settings some more.
                tcp.read_exact(&mut [0; 80]).await.unwrap();
                drop(tcp);
                let (tcp, _) = listener.accept().await.unwrap();
                let mut connection = h2::server::handshake(tcp).await.unwrap();
                let mut held = vec![];
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_response(ok(), true).unwrap();
                    held.push(respond);
                }
            });
            let (response, _send) = fake.client().await.send_request(request, true).unwrap();
            let response = response.await.unwrap();
            let grpc = response.headers().contains_key("grpc-status");
            assert_eq!(if grpc { 502 } else { response.status().as_u16() }, status);
        });
    }
}

/// Servers that end at a request for `/end`, without a word, and answer all others; how many have ended.
pub(super) async fn mortal() -> (SocketAddr, Rc<Cell<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let ended = Rc::new(Cell::new(0));
    let counted = ended.clone();
    tokio::task::spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let ended = counted.clone();
            tokio::task::spawn_local(async move {
                let mut connection = h2::server::handshake(tcp).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    if request.uri().path() == "/end" {
                        ended.set(ended.get() + 1);
                        return;
                    }
                    respond.send_response(ok(), true).unwrap();
                }
            });
        }
    });
    (addr, ended)
}

/// Whether the connection was made for it or had served others before.
#[test]
fn a_request_that_ends_servers_ends_two_of_them() {
    for before in [0, 1] {
        local(async move {
            let (server, ended) = mortal().await;
            let fake = Fake::to_http2(server);
            let mut client = fake.client().await;
            for _ in 0..before {
                let (response, _send) = client.send_request(get("/"), true).unwrap();
                assert_eq!(response.await.unwrap().status(), 200);
            }
            let (response, _send) = client.send_request(get("/end"), true).unwrap();
            assert_eq!((response.await.unwrap().status().as_u16(), ended.get()), (502, 2), "{before} before");
        });
    }
}

fn sums() -> HeaderMap {
    [("x-sum".parse().unwrap(), HeaderValue::from_static("7"))].into_iter().collect()
}

/// A server that refuses one request by its head alone, and answers the next with what it was sent; how many have come.
async fn refusing_heads() -> (SocketAddr, Rc<Cell<usize>>) {
    let seen = Rc::new(Cell::new(0));
    let counted = seen.clone();
    let addr = server(move |request, mut respond| {
        let seen = counted.clone();
        async move {
            seen.set(seen.get() + 1);
            if seen.get() == 1 {
                respond.send_reset(Reason::REFUSED_STREAM);
                return;
            }
            let (body, trailers) = read(&mut request.into_body()).await.unwrap();
            let mut send = respond.send_response(ok(), false).unwrap();
            send.send_data(body, false).unwrap();
            send.send_trailers(trailers.unwrap_or_default()).unwrap();
        }
    });
    (addr.await, seen)
}

#[test]
fn a_body_that_comes_after_the_refusal_is_sent_whole() {
    for late in [true, false] {
        // Node ends a request without a body by an empty frame.
        for (pieces, trailers) in [(&["hel", "lo"][..], None), (&["hello"], Some(sums())), (&[""], None)] {
            local(async move {
                let (server, seen) = refusing_heads().await;
                let fake = Fake::to_http2(server);
                let (response, mut send) = fake.client().await.send_request(grpc(), false).unwrap();
                if late {
                    until(|| seen.get() == 2).await;
                }
                for (n, piece) in pieces.iter().enumerate() {
                    let end = trailers.is_none() && n + 1 == pieces.len();
                    send.send_data(Bytes::from_static(piece.as_bytes()), end).unwrap();
                }
                if let Some(trailers) = trailers.clone() {
                    send.send_trailers(trailers).unwrap();
                }
                match response.await {
                    Ok(mut response) => {
                        let (body, got) = read(response.body_mut()).await.unwrap();
                        assert_eq!(
                            (&body[..], got.unwrap_or_default()),
                            (pieces.concat().as_bytes(), trailers.unwrap_or_default())
                        );
                    }
                    // Some of it was gone when the refusal came: the client may send it again.
                    Err(error) => assert_eq!((late, error.reason()), (false, Some(Reason::REFUSED_STREAM))),
                }
            });
        }
    }
}

/// It was read, and the server that then refuses it had opened no window for it.
#[test]
fn a_body_that_waits_for_the_refusing_server_is_not_lost() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Fake::to_http2(listener.local_addr().unwrap());
        let refuse = Rc::new(Notify::new());
        let refusing = refuse.clone();
        tokio::task::spawn_local(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut builder = h2::server::Builder::new();
            let mut connection = builder.initial_window_size(0).handshake::<_, Bytes>(tcp).await.unwrap();
            // The settings come with the first answer.
            let (_, mut first) = connection.accept().await.unwrap().unwrap();
            first.send_response(ok(), true).unwrap();
            let (_request, mut refused) = connection.accept().await.unwrap().unwrap();
            let (_, mut other) = connection.accept().await.unwrap().unwrap();
            other.send_response(ok(), true).unwrap();
            tokio::select! { () = refusing.notified() => {}, _ = connection.accept() => panic!("too early") }
            refused.send_reset(Reason::REFUSED_STREAM);
            connection.set_initial_window_size(65_535).unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::task::spawn_local(async move {
                    let (body, _) = read(&mut request.into_body()).await.unwrap();
                    respond.send_response(Response::new(()), false).unwrap().send_data(body, true).unwrap();
                });
            }
        });
        let mut client = client(fake.serve_http2().await).await;
        let (first, _send) = client.send_request(get("/"), true).unwrap();
        first.await.unwrap();
        let (response, mut send) = client.send_request(grpc(), false).unwrap();
        send.send_data("held, ".into(), false).unwrap();
        // What came before this has come.
        let (other, _send) = client.send_request(get("/"), true).unwrap();
        other.await.unwrap();
        refuse.notify_one();
        send.send_data("and more".into(), true).unwrap();
        let (body, _) = read(response.await.unwrap().body_mut()).await.unwrap();
        assert_eq!(body, "held, and more");
    });
}

#[test]
fn a_request_whose_trailers_are_gone_is_left_to_its_client() {
    local(async {
        let fake = Fake::to_http2(refusing().await);
        let (response, mut send) = fake.client().await.send_request(grpc(), false).unwrap();
        send.send_trailers(sums()).unwrap();
        assert_eq!(response.await.unwrap_err().reason(), Some(Reason::REFUSED_STREAM));
    });
}
