//! The origins and clients understand each other, to the byte.

use http::{HeaderMap, Request, Response};
use weft_testkit::{
    http1::{self, Reply},
    http2,
};

#[tokio::test]
async fn http1_keeps_every_byte() {
    let origin = http1::Origin::start(|request| match request.first_line().as_str() {
        "GET /chunks HTTP/1.1" => Reply::Bytes(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n".into(),
        ),
        "GET /eof HTTP/1.1" => Reply::Last(b"HTTP/1.1 200 OK\r\n\r\nuntil the end".into()),
        "HEAD / HTTP/1.1" => Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n".into()),
        _ => Reply::ok(&request.body),
    })
    .await
    .unwrap();
    let mut client = http1::Client::connect(origin.addr()).await.unwrap();

    let sent = "POST /a HTTP/1.1\r\nHost:  x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let response = client.call(sent).await.unwrap();
    assert_eq!((response.status(), response.body.as_slice()), (Some(200), b"hi".as_slice()));
    assert_eq!(origin.seen().requests[0].raw, sent.as_bytes());
    assert_eq!(origin.seen().connections, [sent.as_bytes()]);

    let response = client.call("GET /chunks HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(response.body, b"abc");
    assert!(response.raw.ends_with(b"0\r\nT: v\r\n\r\n"));
    assert_eq!(client.call("HEAD / HTTP/1.1\r\n\r\n").await.unwrap().header("content-length").unwrap(), "10");
    assert_eq!(client.call("GET /eof HTTP/1.1\r\n\r\n").await.unwrap().body, b"until the end");
    drop(client);
    origin.saw(|seen| seen.closed == 1).await.unwrap();
    assert_eq!(origin.seen().requests.len(), 4);
}

#[tokio::test]
async fn http1_origins_can_reset() {
    let origin = http1::Origin::start(|_| Reply::Reset).await.unwrap();
    let mut client = http1::Client::connect(origin.addr()).await.unwrap();
    let error = client.call("GET / HTTP/1.1\r\n\r\n").await.unwrap_err();
    assert!(format!("{error:#}").contains("reset"), "{error:#}");
}

#[tokio::test]
async fn http2_carries_bodies_and_trailers() {
    let origin = http2::Origin::start(|request| async {
        let message = http2::complete((), request.into_body()).await?;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse()?);
        Ok(Response::new(http2::with_trailers(message.body, trailers)))
    })
    .await
    .unwrap();
    let mut client = http2::Client::connect(origin.addr()).await.unwrap();
    let request = Request::post("http://web/a").body(http2::full("hello")).unwrap();
    let response = client.call(request).await.unwrap();
    assert_eq!(&response.body[..], b"hello");
    assert_eq!(response.trailers.unwrap()["grpc-status"], "0");
    let seen = origin.saw(|seen| seen.requests.len() == 1).await.unwrap();
    assert_eq!(seen.requests[0].uri.path(), "/a");
}
