//! What certificates a server shows, for people who want to look at them (`weft identity`).
//!
//! Nobody is believed: nothing is sent over the connection, which ends with the handshake.

use super::{KeyExchange, TlsError, verify};
use rustls::{ClientConnection, pki_types::ServerName};
use std::{io, sync::Arc};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const READ: usize = 4 * 1024;

/// A question that is ready to be asked. Servers wait a second for the first word, and making it takes time.
pub struct Asking(ClientConnection);

impl Asking {
    /// Asks for `name`.
    ///
    /// # Errors
    /// The name cannot be sent.
    pub fn new(name: &str) -> Result<Self, TlsError> {
        let config = verify::unproven(KeyExchange::default())?;
        let name = ServerName::try_from(name.to_owned())
            .map_err(|e| TlsError::Protocol(format!("the server name cannot be sent: {e}")))?;
        Ok(Self(ClientConnection::new(Arc::new(config), name)?))
    }

    /// The certificates, DER, that the server shows, its own first.
    ///
    /// There is no time limit in here: the caller's timeout drops the future.
    ///
    /// # Errors
    /// The server does not speak TLS 1.3, or refuses who has no certificate before it shows its own.
    pub async fn shown(self, mut io: impl AsyncRead + AsyncWrite + Unpin) -> Result<Vec<Vec<u8>>, TlsError> {
        let mut connection = self.0;
        let mut buffer = vec![0; READ];
        while connection.is_handshaking() {
            write(&mut connection, &mut io).await?;
            let read = io.read(&mut buffer).await.map_err(TlsError::Io)?;
            if read == 0 {
                return Err(TlsError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            let mut rest = buffer.get(..read).unwrap_or_default();
            while !rest.is_empty() {
                connection.read_tls(&mut rest).map_err(TlsError::Io)?;
                connection.process_new_packets()?;
            }
        }
        connection.send_close_notify();
        // It has been seen, whether the server hears the end or not.
        let _ = write(&mut connection, &mut io).await;
        let certificates = connection.peer_certificates().unwrap_or_default();
        Ok(certificates.iter().map(|certificate| certificate.to_vec()).collect())
    }
}

async fn write(connection: &mut ClientConnection, io: &mut (impl AsyncWrite + Unpin)) -> Result<(), TlsError> {
    let mut out = vec![];
    while connection.wants_write() {
        connection.write_tls(&mut out).map_err(TlsError::Io)?;
    }
    io.write_all(&out).await.map_err(TlsError::Io)?;
    io.flush().await.map_err(TlsError::Io)
}

#[cfg(test)]
mod tests {
    use super::super::test::{Ca, tcp_pair};
    use super::*;
    use bytes::Bytes;
    use tokio::net::TcpStream;

    async fn ask(io: TcpStream) -> Result<Vec<Vec<u8>>, TlsError> {
        Asking::new("server.test")?.shown(io).await
    }

    #[tokio::test]
    async fn a_server_shows_its_certificate_to_anybody() {
        let server = Ca::new("mesh").store("server.test");
        let (near, far) = tcp_pair().await;
        let accept = async {
            // Held, so that the end is the client's.
            let accepted = server.accept(far, Bytes::new(), false).await;
            accepted.map(|(mut stream, peer)| async move {
                let mut nothing = vec![];
                assert_eq!(stream.read_to_end(&mut nothing).await.unwrap(), 0);
                peer
            })
        };
        let (found, accepted) = tokio::join!(ask(near), accept);
        let found = found.unwrap();
        assert_eq!(accepted.unwrap().await.identity, None);
        let (_, leaf) = x509_parser::parse_x509_certificate(&found[0]).unwrap();
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert!(format!("{:?}", names.value.general_names).contains("server.test"), "{names:?}");
    }

    #[tokio::test]
    async fn who_does_not_speak_tls_shows_nothing() {
        let (near, mut far) = tcp_pair().await;
        let answer = async { far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await };
        let (found, _) = tokio::join!(ask(near), answer);
        assert!(found.is_err());
        let (near, far) = tcp_pair().await;
        drop(far);
        assert!(matches!(ask(near).await, Err(TlsError::Io(_))));
    }
}
