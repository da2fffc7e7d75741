//! TLS to a program of one's own pod, only to ask whether it is ready: like the kubelet, which checks no certificate.
//!
//! Who answers is not proven, so nothing but a probe may go over it. It presents no certificate and trusts no anchor; the
//! mesh's own connections are made by [`super::Store`].

use super::{KeyExchange, TlsError, handshake, verify};
use crate::Stream;
use rustls::pki_types::ServerName;
use std::{net::IpAddr, sync::Arc};
use tokio::net::TcpStream;

/// Probes speak HTTP/1.
const ALPN: &[u8] = b"http/1.1";

/// Opens TLS on a connected socket whatever certificate the server shows; no name is sent, since the address is what is asked.
///
/// There is no time limit in here: the caller's timeout drops the future.
///
/// # Errors
/// The server does not speak TLS 1.3, or not TLS at all.
pub async fn connect_unverified(tcp: TcpStream, ip: IpAddr) -> Result<Stream, TlsError> {
    let mut config = verify::unproven(KeyExchange::default())?;
    config.enable_secret_extraction = true;
    config.alpn_protocols = vec![ALPN.to_vec()];
    handshake::connect_to(Arc::new(config), tcp, ServerName::IpAddress(ip.into()), None).await.map(|(stream, _)| stream)
}

#[cfg(test)]
mod tests {
    use super::super::test::{Ca, tcp_pair};
    use super::*;
    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_program_may_have_any_certificate() {
        let server = Ca::new("somebody's own").store("server.test");
        let (near, far) = tcp_pair().await;
        let (probe, accepted) =
            tokio::join!(connect_unverified(near, [127, 0, 0, 1].into()), server.accept(far, Bytes::new(), false));
        let (mut probe, (mut program, peer)) = (probe.unwrap(), accepted.unwrap());
        assert_eq!(peer.identity, None, "a probe proves nothing either");
        probe.write_all(b"ping").await.unwrap();
        let mut got = [0; 4];
        program.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ping");
    }

    #[tokio::test]
    async fn a_program_without_tls_is_not_ready() {
        let (near, mut far) = tcp_pair().await;
        let answer = async { far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await };
        let (probe, _) = tokio::join!(connect_unverified(near, [127, 0, 0, 1].into()), answer);
        assert!(probe.is_err());
    }
}
