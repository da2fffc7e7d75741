//! The gRPC health check, for readiness probes of that kind.

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// `SERVING`, as field 1 of the answer.
const SERVING: &[u8] = &[0x08, 0x01];
/// Of the answer; a healthy one has seven bytes.
const ANSWER: usize = 1024;

/// Asks for the health of a service; the empty name is the whole server.
pub(super) async fn ask(stream: TcpStream, service: &str) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| format!("gRPC health: {e}");
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|e| text(&e))?;
    tokio::spawn(connection);
    let request = http::Request::post("http://localhost/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(message(service)))
        .map_err(|e| text(&e))?;
    let response = client.send_request(request).await.map_err(|e| text(&e))?;
    let mut body = http_body_util::Limited::new(response.into_body(), ANSWER);
    let mut data = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(part) = frame.map_err(|e| text(&e))?.into_data() {
            data.put(part);
        }
    }
    match data.get(5..) {
        Some(SERVING) => Ok(()),
        _ => Err(format!("gRPC health: service {service:?} is not serving")),
    }
}

fn message(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        message.put_u8(u8::try_from(length).unwrap_or_default());
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or_default());
    framed.put(message);
    framed.freeze()
}
