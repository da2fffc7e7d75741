//! The two handshakes.

use super::{Peer, TlsError, verify};
use crate::Stream;
use bytes::Bytes;
use rustls::{
    ClientConfig, ServerConfig,
    pki_types::ServerName,
    server::{Accepted, Acceptor},
};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, TlsAcceptor, TlsConnector};
use weft_model::{endpoint::ServerTls, names::TRANSPORT_ALPN};

/// The server's side. `read` are the bytes that detection has taken from the socket.
pub(super) async fn accept(config: Arc<ServerConfig>, tcp: TcpStream, read: Bytes) -> Result<(Stream, Peer), TlsError> {
    let tls = if read.is_empty() {
        TlsAcceptor::from(config).accept(tcp).await?
    } else {
        let start = match feed(&read)? {
            Fed::Complete(accepted) => StartHandshake::from_parts(*accepted, tcp),
            Fed::Partial(acceptor) => LazyConfigAcceptor::new(*acceptor, tcp).await?,
        };
        start.into_stream(config).await?
    };
    let session = tls.get_ref().1;
    let identity = session.peer_certificates().and_then(<[_]>::first).and_then(|leaf| verify::peer_identity(leaf));
    let transport = session.alpn_protocol() == Some(TRANSPORT_ALPN);
    Ok((Stream::tls(tls), Peer { identity, transport }))
}

enum Fed {
    Complete(Box<Accepted>),
    Partial(Box<Acceptor>),
}

/// Gives rustls what was read before it existed.
fn feed(mut read: &[u8]) -> Result<Fed, TlsError> {
    let mut acceptor = Acceptor::default();
    while !read.is_empty() {
        acceptor.read_tls(&mut read)?;
    }
    match acceptor.accept() {
        Ok(Some(accepted)) => Ok(Fed::Complete(Box::new(accepted))),
        Ok(None) => Ok(Fed::Partial(Box::new(acceptor))),
        Err((error, _alert)) => Err(error.into()),
    }
}

/// The client's side; `config` holds the verifier that knows whom to expect.
pub(super) async fn connect(
    config: Arc<ClientConfig>,
    tcp: TcpStream,
    server: &ServerTls,
) -> Result<(Stream, bool), TlsError> {
    let name = ServerName::try_from(server.server_name.as_str().to_owned())
        .map_err(|e| TlsError::Protocol(format!("the server name cannot be sent: {e}")))?;
    let tls = TlsConnector::from(config).connect(name, tcp).await?;
    let transport = tls.get_ref().1.alpn_protocol() == Some(TRANSPORT_ALPN);
    Ok((Stream::tls(tls), transport))
}
