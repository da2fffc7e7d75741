//! First stage: where the client wanted to go, and whether that is here.
//!
//! Reads no byte.

use crate::{
    direction::Direction,
    error::{Code, ProxyError},
    process::worker::Context,
};
use std::net::{IpAddr, SocketAddr};
use tokio::net::TcpStream;
use weft_transport::socket::{self, AcceptOptions};

/// What the client dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialled {
    /// A port of the application, from which the connection was redirected here.
    Port(SocketAddr),
    /// This proxy's own port, at this address: the client names the target by a transport header.
    Direct(IpAddr),
}

/// # Errors
/// The connection was not for this workload, or has ended already.
pub(super) fn dialled(context: &Context, tcp: &TcpStream) -> Result<Dialled, ProxyError> {
    let inbound = &context.config.inbound;
    let gone = |error| ProxyError::new(Code::BadRequest, format!("the connection ended at once: {error}"));
    let options = AcceptOptions { keepalive: inbound.accept.keepalive, user_timeout: inbound.accept.user_timeout };
    socket::accepted(tcp, &options).map_err(gone)?;
    let target = (context.original_dst)(Direction::Inbound, tcp)
        .map_err(|error| ProxyError::new(Code::Loop, format!("the connection was not redirected here: {error}")))?;
    let ip = target.ip().to_canonical();
    if !inbound.ips.is_empty() && !inbound.ips.contains(&ip) {
        return Err(ProxyError::new(Code::Loop, format!("{ip} is not an address of this workload")));
    }
    if target.port() == context.inbound_port {
        Ok(Dialled::Direct(ip))
    } else {
        Ok(Dialled::Port(SocketAddr::new(ip, target.port())))
    }
}
