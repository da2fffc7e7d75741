//! First stage: where the application wanted to go, and whether that may be dialled at all.
//!
//! Reads no byte.

use crate::{
    direction::Direction,
    error::{Code, ProxyError},
    process::worker::Context,
};
use std::net::SocketAddr;
use tokio::net::TcpStream;
use weft_transport::socket::{self, AcceptOptions};

/// The original destination of an accepted connection.
///
/// # Errors
/// It cannot be found out, or is loopback: there only this proxy's own listener would be met (data plane 2.4).
pub(super) fn target(context: &Context, tcp: &TcpStream) -> Result<SocketAddr, ProxyError> {
    let options = context.config.outbound.accept;
    let gone = |error| ProxyError::new(Code::BadRequest, format!("the connection ended at once: {error}"));
    socket::accepted(tcp, &AcceptOptions { keepalive: options.keepalive, user_timeout: options.user_timeout })
        .map_err(gone)?;
    let target = (context.original_dst)(Direction::Outbound, tcp)
        .map_err(|error| ProxyError::new(Code::Loop, format!("the connection was not redirected here: {error}")))?;
    check(target)
}

fn check(target: SocketAddr) -> Result<SocketAddr, ProxyError> {
    let target = SocketAddr::new(target.ip().to_canonical(), target.port());
    if is_own(target) {
        return Err(ProxyError::new(Code::Loop, format!("{target} is not dialled from the outbound side")));
    }
    Ok(target)
}

/// Whether this workload alone could be met at `addr`, or nobody.
pub(super) fn is_own(addr: SocketAddr) -> bool {
    let ip = addr.ip().to_canonical();
    ip.is_loopback() || ip.is_unspecified() || addr.port() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_are_refused_in_every_notation() {
        for bad in ["127.0.0.1:80", "127.8.8.8:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "0.0.0.0:80", "10.0.0.1:0"] {
            assert!(check(bad.parse().unwrap()).is_err(), "{bad}");
        }
        assert_eq!(check("[::ffff:10.0.0.1]:80".parse().unwrap()).unwrap().to_string(), "10.0.0.1:80");
    }
}
