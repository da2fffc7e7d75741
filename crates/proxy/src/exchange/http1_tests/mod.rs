//! HTTP/1 exchanges between real sockets: what one side says byte for byte, and what the other hears.

mod course;
mod ends;
mod fake;
mod framing;
mod hostile;

use fake::{Origin, Seen, local};
use std::rc::Rc;

const GET: &str = "GET /a?b=c HTTP/1.1\r\nHost: app.ns\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn requests_follow_one_another_on_two_connections() {
    local(async {
        let (origin, proxy, mut client) = Origin::begin().await;
        client.say(GET).await;
        let mut server = origin.accept().await;
        for _ in 0..3 {
            server.hear(GET).await;
            server.answers(&mut client, OK).await;
            client.say(GET).await;
        }
        assert_eq!(proxy.record().await[..3], [Seen::Head(200), Seen::FirstByte, Seen::End(None, None)]);
        assert_eq!(proxy.connections.get(), 1, "the endpoint's connection is kept");
        assert_eq!(proxy.views.borrow()[0], "GET app.ns /a b=c");
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    local(async {
        let (origin, _proxy, mut client) = Origin::begin().await;
        let post = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        client.say([GET, post, "\r\n", GET].concat()).await;
        let mut server = origin.accept().await;
        for request in [GET, post, GET] {
            server.hear(request).await;
            server.say(OK).await;
        }
        client.hear([OK; 3].concat()).await;
        client.finish().await;
        client.end().await;
    });
}

#[test]
fn heads_are_edited_and_otherwise_byte_for_byte_the_same() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        {
            let mut edits = proxy.edits.borrow_mut();
            edits.remove = &["l5d-require-id"];
            edits.set.push(("l5d-client-id", Rc::from("web.ns.serviceaccount")));
            edits.strip_mesh_response = true;
        }
        let mut client = proxy.client().await;
        client
            .say(
                "GET / HTTP/1.1\r\nHost: a\r\nX-Case: Kept  \r\nConnection: keep-alive, x-hop\r\nL5D-Client-Id: forged\r\n\
                 Keep-Alive: 5\r\nx-hop: 1\r\nProxy-Connection: x\r\nl5d-require-id: y\r\naccept:*/*\r\nTE: trailers\r\n\r\n",
            )
            .await;
        let mut server = origin.accept().await;
        server
            .hear(
                "GET / HTTP/1.1\r\nHost: a\r\nX-Case: Kept  \r\naccept:*/*\r\nTE: trailers\r\n\
                 l5d-client-id: web.ns.serviceaccount\r\n\r\n",
            )
            .await;
        server
            .say(
                "HTTP/1.1 404 Nope, really\r\nl5d-proxy-error: x\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\
                 X-A: é\r\nL5d-Proxy-Connection: close\r\nl5d-orig-proto: x\r\n\r\n",
            )
            .await;
        client.hear("HTTP/1.1 404 Nope, really\r\nContent-Length: 0\r\nX-A: é\r\n\r\n").await;
    });
}

#[test]
fn the_target_decides_over_the_host_and_an_edit_over_both() {
    local(async {
        let (origin, proxy, mut client) = Origin::begin().await;
        client.say("GET http://real:80/x HTTP/1.1\r\nHost: other\r\nA: 1\r\n\r\n").await;
        let mut server = origin.accept().await;
        server.hear("GET http://real:80/x HTTP/1.1\r\nhost: real:80\r\nA: 1\r\n\r\n").await;
        server.answers(&mut client, OK).await;
        assert_eq!(proxy.views.borrow()[0], "GET real:80 /x -");
        proxy.edits.borrow_mut().authority = Some(Rc::from("edited:1"));
        client.say("GET http://real:80/x HTTP/1.1\r\nHost: other\r\nA: 1\r\n\r\n").await;
        server.hear("GET http://edited:1/x HTTP/1.1\r\nhost: edited:1\r\nA: 1\r\n\r\n").await;
        server.answers(&mut client, OK).await;
        client.say(GET).await;
        server.hear("GET /a?b=c HTTP/1.1\r\nhost: edited:1\r\n\r\n").await;
    });
}

/// What each connection costs while it waits; the number may fall, and must not grow unnoticed.
#[test]
fn the_future_of_a_connection_is_small() {
    local(async {
        let (_origin, proxy) = Origin::start().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let connection =
            super::ServerConnection { stream: weft_transport::stream::Stream::from(tcp), prefix: bytes::Bytes::new() };
        let (_signal, watch) = weft_transport::drain::channel();
        let size = size_of_val(&super::serve_http1(connection, &*proxy, watch));
        assert!(size <= 1024, "{size} bytes");
    });
}
