//! Asks a program whether it is ready, from within its pod, so that neither rules nor policies stand between.

use super::hands::Node;
use crate::node::protocol::Net;
use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use weft_cluster::workload::{Probe, ProbeAction};
use weft_transport::{Stream, tls::connect_unverified};

/// Bytes up to the end of a status: `HTTP/1.1 200`.
const STATUS: usize = 12;
/// Of what follows.
const BODY: u64 = 64 << 10;
/// Between its pieces; all of it may take ten times as long.
const REST: Duration = Duration::from_millis(100);

/// Why a program is not ready, for people.
pub(crate) type Unready = String;

/// Asks once; `exec` is the answer of the program's command, where that is what is asked.
pub(crate) async fn ask(
    node: &Node,
    net: Net,
    ip: IpAddr,
    probe: &Probe,
    exec: impl Future<Output = Result<(), Unready>>,
) -> Result<(), Unready> {
    let asked = async {
        match &probe.action {
            ProbeAction::Exec { .. } => exec.await,
            ProbeAction::Tcp { port, host } => {
                connect(node, net, target(ip, host.as_deref(), *port), probe.timeout).await.map(drop)
            }
            ProbeAction::HttpGet { port, tls, path, host, headers } => {
                let to = target(ip, host.as_deref(), *port);
                let stream = connect(node, net, to, probe.timeout).await?;
                let mut stream = if *tls {
                    let opened = connect_unverified(stream, to.ip()).await;
                    opened.map_err(|e| format!("readiness probe: {to}: TLS 1.3: {e}"))?
                } else {
                    Stream::tcp(stream)
                };
                match get(&mut stream, path, &to.to_string(), headers).await {
                    Ok(200..=399) => Ok(()),
                    Ok(status) => Err(format!("readiness probe: {path} answers {status}")),
                    Err(error) => Err(format!("readiness probe: {path}: {error}")),
                }
            }
            ProbeAction::Grpc { port, service } => {
                let stream = connect(node, net, SocketAddr::new(ip, *port), probe.timeout).await?;
                super::grpc_health::ask(stream, service).await.map_err(|e| format!("readiness probe: {e}"))
            }
        }
    };
    // A command is given its time by whoever starts it, and ended.
    let patience = if matches!(probe.action, ProbeAction::Exec { .. }) { Duration::MAX } else { probe.timeout };
    match tokio::time::timeout(patience, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("readiness probe: no answer within {:?}", probe.timeout)),
    }
}

/// Another host is asked only where the probe names its address; names are the pod's own.
fn target(ip: IpAddr, host: Option<&str>, port: u16) -> SocketAddr {
    SocketAddr::new(host.and_then(|h| h.parse().ok()).unwrap_or(ip), port)
}

async fn connect(node: &Node, net: Net, to: SocketAddr, timeout: Duration) -> Result<TcpStream, Unready> {
    node.dial(net, to, timeout).await.map_err(|e| format!("readiness probe: {to}: {e}"))
}

/// The status of a GET. What follows is taken, so that the program's own end of the connection is not cut, but hardly waited
/// for: some servers keep the connection open.
pub(crate) async fn get(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    path: &str,
    authority: &str,
    headers: &[(String, String)],
) -> io::Result<u16> {
    let host = if headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
        String::new()
    } else {
        format!("host: {authority}\r\n")
    };
    let more: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let request = format!("GET {path} HTTP/1.1\r\n{host}user-agent: weft-probe\r\n{more}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    while head.len() < STATUS && stream.read_buf(&mut head).await? > 0 {}
    let (mut rest, mut piece) = (stream.take(BODY), [0; 4096]);
    let taking = async { while let Ok(Ok(1..)) = tokio::time::timeout(REST, rest.read(&mut piece)).await {} };
    let _ = tokio::time::timeout(10 * REST, taking).await;
    let status = head.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
    let status = status.and_then(|s| std::str::from_utf8(s).ok()?.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP/1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(answer: &'static [u8], stays_open: bool) -> io::Result<u16> {
        let (mut probe, mut program) = tokio::io::duplex(1024);
        let serve = async {
            // The question first, as servers do it.
            assert!(program.read(&mut [0; 1024]).await.unwrap() > 0);
            program.write_all(answer).await.unwrap();
            if stays_open { Some(program) } else { None }
        };
        let (_open, status) = tokio::join!(serve, get(&mut probe, "ready", "10.99.1.0:80", &[]));
        status
    }

    #[tokio::test]
    async fn the_status_is_enough() {
        assert_eq!(answered(b"HTTP/1.1 204 No Content\r\n\r\n", true).await.unwrap(), 204);
        assert_eq!(answered(b"HTTP/1.0 503 \r\n\r\n", false).await.unwrap(), 503);
        for other in [&b"SSH-2.0-OpenSSH_9.2\r\n"[..], b"HTTP/1.1 2", b"", b"HTTP/1.1 2x0 \r\n"] {
            assert!(answered(other, false).await.is_err(), "{other:?}");
        }
    }
}
