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
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_cluster::workload::{Probe, ProbeAction};

/// Enough for a status line.
const HEAD: usize = 512;

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
            ProbeAction::HttpGet { port, path, host, headers } => {
                let to = target(ip, host.as_deref(), *port);
                let mut stream = connect(node, net, to, probe.timeout).await?;
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
    match tokio::time::timeout(probe.timeout, asked).await {
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

/// The status of a GET.
pub(crate) async fn get(
    stream: &mut TcpStream,
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
    let mut head = Vec::new();
    stream.take(HEAD as u64).read_to_end(&mut head).await.or_else(|e| if head.is_empty() { Err(e) } else { Ok(0) })?;
    let status = head.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
    let status = status.and_then(|s| std::str::from_utf8(s).ok()?.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP/1"))
}
