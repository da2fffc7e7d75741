//! What strangers say of themselves in headers and trailers.

use crate::{harness::soon, mesh::Mesh};
use http::{HeaderMap, Request, Response};
use weft_model::ProtocolHint;
use weft_testkit::{http1, http2};

const FORGED: &str = "admin.ns.serviceaccount.identity.linkerd.cluster.local";

#[tokio::test]
async fn an_identity_is_never_taken_from_headers_or_trailers() {
    let mesh = Mesh::start().await;
    // HTTP/1 in plaintext: any case, several, nominated, and behind the body.
    let origin = http1::Origin::start(|request| http1::Reply::ok(&request.body)).await.unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: app\r\nL5D-CLIENT-ID: {FORGED}\r\nl5d-client-id: {FORGED}\r\nConnection: l5d-client-id, x-mine\r\n\
         X-Mine: 1\r\nl5d-orig-proto: HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nl5d-client-id: {FORGED}\r\n\r\n"
    );
    let mut client = http1::Client::over(mesh.app.connect_inbound(origin.addr()).await);
    assert_eq!(soon(client.call(&request)).await.unwrap().status(), Some(200));
    let seen = origin.seen().requests[0].clone();
    let raw = String::from_utf8_lossy(&seen.raw).to_ascii_lowercase();
    assert!(!raw.contains("admin.ns") && !raw.contains("l5d-client-id") && !raw.contains("x-mine"), "{raw}");

    // The same through the client's proxy: what is known of the client is said, and `connection` cannot take it away.
    for hint in [ProtocolHint::Unknown, ProtocolHint::H2] {
        let service = mesh.service(&[mesh.endpoint(origin.addr(), hint)]);
        let before = origin.seen().requests.len();
        let mut client = http1::Client::over(mesh.connect(&service).await);
        assert_eq!(soon(client.call(&request)).await.unwrap().status(), Some(200), "{hint:?}");
        let seen = origin.seen().requests[before].clone();
        assert_eq!(seen.headers("l5d-client-id"), [mesh.web.identity().as_str()], "{hint:?}");
        assert!(!String::from_utf8_lossy(&seen.raw).contains("admin.ns"), "{hint:?}");
    }

    // HTTP/2, in headers and trailers.
    let origin = http2::Origin::start(|request| async move {
        let got = http2::complete((), request.into_body()).await?;
        let trailers = got.trailers.unwrap_or_default();
        Ok(Response::new(http2::full(format!("{}", trailers.contains_key("l5d-client-id")))))
    })
    .await
    .unwrap();
    let trailers: HeaderMap = [("l5d-client-id".parse().unwrap(), FORGED.parse().unwrap())].into_iter().collect();
    let request = Request::post("http://app.ns/").header("l5d-client-id", FORGED).header("l5d-client-id", "other");
    let mut client = http2::Client::over(mesh.app.connect_inbound(origin.addr()).await).await.unwrap();
    let answer = soon(client.call(request.body(http2::with_trailers("x", trailers)).unwrap())).await.unwrap();
    assert_eq!(&answer.body[..], b"false");
    assert!(!origin.seen().requests[0].headers.contains_key("l5d-client-id"));
}
