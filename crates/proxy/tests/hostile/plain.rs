//! An application that keeps nothing of what it saw, so that the memory of its process is the proxies'.

use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The body of `/large`: more than the proxy may hold of it.
const LARGE: usize = 256 * 1024;
/// The longest request that it reads.
const REQUEST: usize = 8 * 1024;

/// Answers each GET with 200, and `/large` with a large body. A POST it reads to the end of the connection.
pub(crate) async fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let body: &'static [u8] = Box::leak(vec![b'x'; LARGE].into_boxed_slice());
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let _ = tcp.set_nodelay(true);
            tokio::spawn(serve(tcp, body));
        }
    });
    addr
}

/// The same on HTTP/2: each request is answered with 200 and nothing.
pub(crate) async fn application_on_http2() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let _ = tcp.set_nodelay(true);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(tcp).await?;
                while let Some(request) = connection.accept().await {
                    request?.1.send_response(http::Response::new(()), true)?;
                }
                Ok::<_, h2::Error>(())
            });
        }
    });
    addr
}

/// Until either side ends: a client that is gone is no failure.
async fn serve(mut tcp: TcpStream, large: &'static [u8]) -> std::io::Result<()> {
    let mut held = vec![];
    loop {
        while let Some(end) = held.windows(4).position(|part| part == b"\r\n\r\n") {
            let head: Vec<u8> = held.drain(..end + 4).collect();
            if head.starts_with(b"POST ") {
                let mut buffer = [0; 512];
                while tcp.read(&mut buffer).await? > 0 {}
                return Ok(());
            }
            let body = if head.starts_with(b"GET /large ") { large } else { b"fine" };
            tcp.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes()).await?;
            // Behind an answer to HEAD bytes would be taken for a part of the next one.
            if !head.starts_with(b"HEAD ") {
                tcp.write_all(body).await?;
            }
        }
        if held.len() > REQUEST || tcp.read_buf(&mut held).await? == 0 {
            return Ok(());
        }
    }
}
