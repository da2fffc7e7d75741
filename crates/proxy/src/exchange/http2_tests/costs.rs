//! What an exchange costs: writes, and bytes of state.

use super::fake::{Fake, get, local, ok, read, server};
use crate::{
    exchange::{Carrier, serve_http2},
    http2::ServerSettings,
};
use bytes::Bytes;
use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

/// Counts the writes that reach the socket.
struct Counted(TcpStream, Rc<Cell<usize>>);

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.1.set(self.1.get() + 1);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.1.set(self.1.get() + 1);
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[test]
fn responses_that_come_together_leave_together() {
    local(async {
        let server = server(|_, mut respond| async move {
            let mut send = respond.send_response(ok(), false).unwrap();
            send.send_data(Bytes::from_static(b"hello"), true).unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let writes = Rc::new(Cell::new(0));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (director, count) = (fake.clone(), writes.clone());
        tokio::task::spawn_local(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            serve_http2(Counted(tcp, count), &ServerSettings::default(), director, std::future::pending()).await;
        });
        let mut client = super::fake::client(addr).await;
        let (first, _send) = client.send_request(get("/"), true).unwrap();
        read(first.await.unwrap().body_mut()).await.unwrap();
        let before = writes.get();
        const ROUNDS: usize = 20;
        for _ in 0..ROUNDS {
            let mut responses = Vec::new();
            for _ in 0..16 {
                client = client.ready().await.unwrap();
                responses.push(client.send_request(get("/"), true).unwrap().0);
            }
            for response in responses {
                read(response.await.unwrap().body_mut()).await.unwrap();
            }
        }
        let per_round = (writes.get() - before) as f64 / ROUNDS as f64;
        assert!(per_round <= 3.0, "{per_round} writes for 16 responses");
    });
}

#[test]
fn state_of_streams_and_connections_is_small() {
    local(async {
        for (carrier, limit) in [(Carrier::Http2, 2200), (Carrier::Http1, 2200)] {
            let fake = Fake::new(([127, 0, 0, 1], 1).into(), carrier);
            let stream = super::super::serve_http2::size_of_stream(&fake);
            println!("stream task: {stream} bytes");
            assert!(stream <= limit, "a stream's task takes {stream} bytes");
        }
        let fake = Fake::to_http2(([127, 0, 0, 1], 1).into());
        let (io, _) = tokio::io::duplex(1);
        let connection = size_of_val(&serve_http2(io, &ServerSettings::default(), fake, std::future::pending()));
        println!("connection: {connection} bytes");
        assert!(connection <= 2600, "a connection's future takes {connection} bytes");
    });
}
