//! Keep-alive connections that do nothing: what each of them costs the proxies in memory.

use anyhow::{Context, ensure};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

const CONNECTIONS: usize = 1000;

/// Opens connections one after the other, makes one request on each, prints how many there are, and waits to be killed.
pub(crate) fn wait(target: SocketAddr) -> anyhow::Result<()> {
    let connections = (0..CONNECTIONS).map(|_| used(target)).collect::<anyhow::Result<Vec<_>>>()?;
    println!("{}", connections.len());
    loop {
        std::thread::park();
    }
}

fn used(target: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut connection = TcpStream::connect(target).context("connecting an idle connection")?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    connection.write_all(b"GET / HTTP/1.1\r\nhost: idle\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    // The origin's body is all of one letter.
    while !answer.ends_with(b"xxxx") {
        let n = connection.read(&mut piece)?;
        ensure!(n > 0, "an idle connection was closed");
        answer.extend_from_slice(piece.get(..n).unwrap_or_default());
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "a request failed");
    Ok(connection)
}
