//! Requests that go nowhere, and what the client is told.

use super::{
    endings::closed,
    fake::{Fake, Seen, get, grpc, local, ok, read, server, until},
};
use crate::error::{Code, ProxyError};
use bytes::Bytes;
use h2::Reason;
use http::{HeaderValue, StatusCode};
use tokio::net::TcpListener;

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
