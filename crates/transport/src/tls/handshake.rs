//! The two handshakes, done by rustls on buffers of ours; afterwards its keys go to a [`Session`].

use super::{
    Peer, TlsError,
    control::{Control, Kernel},
    session::Session,
    verify,
};
use crate::Stream;
use bytes::Bytes;
use rustls::{
    ClientConfig, CommonState, Error, ServerConfig,
    client::{ClientConnectionData, UnbufferedClientConnection},
    pki_types::ServerName,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, UnbufferedStatus},
};
use std::{io, ops::Deref, sync::Arc, time::SystemTime};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_model::{endpoint::ServerTls, names::TRANSPORT_ALPN};

/// The most bytes of a flight that rustls has not taken: two certificate chains of a generous size.
const MAX_INCOMING: usize = 64 * 1024;
const READ: usize = 4 * 1024;

/// The server's side. `read` are the bytes that detection has taken from the socket.
pub(super) async fn accept(
    config: Arc<ServerConfig>,
    mut tcp: TcpStream,
    read: Bytes,
) -> Result<(Stream, Peer), TlsError> {
    let mut connection = UnbufferedServerConnection::new(config)?;
    let mut flights = Flights { incoming: read.into(), ..Flights::default() };
    flights.run(&mut connection, &mut tcp).await?;
    let leaf = connection.peer_certificates().and_then(<[_]>::first);
    let presented = leaf.map(verify::presented);
    if presented.as_ref().is_some_and(|p| p.nameless) {
        return Err(TlsError::Untrusted("it names nobody".to_owned()));
    }
    let verify::Presented { identity, expires, .. } = presented.unwrap_or_default();
    let transport = connection.alpn_protocol() == Some(TRANSPORT_ALPN);
    let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
    let stream = flights.into_stream(tcp, Control::new(Kernel::Server(kernel), secrets)?, expires)?;
    Ok((stream, Peer { identity, transport }))
}

/// The client's side; `config` holds the verifier that knows whom to expect. `own` is when the certificate that it presents is
/// over.
pub(super) async fn connect(
    config: Arc<ClientConfig>,
    tcp: TcpStream,
    server: &ServerTls,
    own: Option<SystemTime>,
) -> Result<(Stream, bool), TlsError> {
    let name = ServerName::try_from(server.server_name.as_str().to_owned())
        .map_err(|e| TlsError::Protocol(format!("the server name cannot be sent: {e}")))?;
    connect_to(config, tcp, name, own).await
}

/// The same for any name that rustls takes. The flag says whether the transport header was agreed upon.
pub(super) async fn connect_to(
    config: Arc<ClientConfig>,
    mut tcp: TcpStream,
    name: ServerName<'static>,
    own: Option<SystemTime>,
) -> Result<(Stream, bool), TlsError> {
    let mut connection = UnbufferedClientConnection::new(config, name)?;
    let mut flights = Flights::default();
    flights.run(&mut connection, &mut tcp).await?;
    let transport = connection.alpn_protocol() == Some(TRANSPORT_ALPN);
    let leaf = connection.peer_certificates().and_then(<[_]>::first);
    let expires = leaf.and_then(|leaf| verify::presented(leaf).expires).into_iter().chain(own).min();
    let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
    let stream = flights.into_stream(tcp, Control::new(Kernel::Client(kernel), secrets)?, expires)?;
    Ok((stream, transport))
}

/// Both ends, the client's first, of a handshake in memory.
#[cfg(feature = "fuzzing")]
pub(super) fn without_sockets(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<[Control; 2], Error> {
    /// Until this side waits for the other one; whether it is done.
    fn fly<C: Unbuffered>(side: &mut C, own: &mut Flights, other: &mut Flights) -> Result<bool, Error> {
        loop {
            let next = own.step(side)?;
            other.incoming.append(&mut own.outgoing);
            match next {
                Next::Again => {}
                Next::Read => return Ok(false),
                Next::Done => return Ok(true),
            }
        }
    }
    let mut client =
        UnbufferedClientConnection::new(client, ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into()))?;
    let mut server = UnbufferedServerConnection::new(server)?;
    let (mut near, mut far) = (Flights::default(), Flights::default());
    loop {
        let done = fly(&mut client, &mut near, &mut far)?;
        if fly(&mut server, &mut far, &mut near)? && done {
            break;
        }
    }
    let (secrets, kernel) = client.dangerous_into_kernel_connection()?;
    let near = Control::new(Kernel::Client(kernel), secrets)?;
    let (secrets, kernel) = server.dangerous_into_kernel_connection()?;
    Ok([near, Control::new(Kernel::Server(kernel), secrets)?])
}

/// rustls has the same method on two types.
trait Unbuffered: Deref<Target: Deref<Target = CommonState>> {
    type Data;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Unbuffered for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Unbuffered for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

/// Bytes on their way during the handshake.
#[derive(Default)]
struct Flights {
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// Data that came in the same flight as the peer's last handshake message.
    early: Vec<u8>,
    /// And its end.
    ended: bool,
}

enum Next {
    Again,
    Read,
    Done,
}

impl Flights {
    async fn run<C: Unbuffered>(&mut self, connection: &mut C, tcp: &mut TcpStream) -> Result<(), TlsError> {
        loop {
            let next = match self.step(connection) {
                Ok(next) => next,
                Err(error) => {
                    self.alert(connection);
                    let _ = tcp.write_all(&self.outgoing).await;
                    return Err(error.into());
                }
            };
            if let Next::Again = next {
                continue;
            }
            tcp.write_all(&self.outgoing).await.map_err(TlsError::Io)?;
            self.outgoing.clear();
            if let Next::Done = next {
                return Ok(());
            }
            if self.incoming.len() >= MAX_INCOMING {
                return Err(TlsError::Protocol("the handshake is longer than 64 KiB".to_owned()));
            }
            self.incoming.reserve(READ);
            if tcp.read_buf(&mut self.incoming).await.map_err(TlsError::Io)? == 0 {
                return Err(TlsError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn step<C: Unbuffered>(&mut self, connection: &mut C) -> Result<Next, Error> {
        let UnbufferedStatus { mut discard, state } = connection.process(&mut self.incoming);
        let next = match state {
            Ok(ConnectionState::EncodeTlsData(mut record)) => {
                encode(&mut self.outgoing, |out| record.encode(out))?;
                Next::Again
            }
            Ok(ConnectionState::TransmitTlsData(transmit)) => {
                // Written before anything is read, and before the handshake counts as done.
                transmit.done();
                Next::Again
            }
            Ok(ConnectionState::BlockedHandshake) => Next::Read,
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    self.early.extend_from_slice(record.payload);
                }
                Next::Again
            }
            Ok(ConnectionState::PeerClosed) => {
                self.ended = true;
                Next::Again
            }
            Ok(ConnectionState::WriteTraffic(_)) => Next::Done,
            Ok(_) => return Err(Error::General("the connection ended within the handshake".to_owned())),
            Err(error) => {
                self.discard(discard);
                return Err(error);
            }
        };
        self.discard(discard);
        if matches!(next, Next::Done) && connection.is_handshaking() { Ok(Next::Read) } else { Ok(next) }
    }

    /// Collects the alert by which rustls tells the peer of an error. While it has something to send it looks at nothing
    /// received, which after an error it must not do again.
    fn alert<C: Unbuffered>(&mut self, connection: &mut C) {
        while connection.wants_write() {
            let UnbufferedStatus { discard, state } = connection.process(&mut self.incoming);
            let Ok(ConnectionState::EncodeTlsData(mut record)) = state else { return };
            if encode(&mut self.outgoing, |out| record.encode(out)).is_err() {
                return;
            }
            self.discard(discard);
        }
    }

    fn discard(&mut self, n: usize) {
        self.incoming.drain(..n.min(self.incoming.len()));
    }

    fn into_stream(self, tcp: TcpStream, control: Control, expires: Option<SystemTime>) -> Result<Stream, TlsError> {
        let mut stream = Stream::tls(Session::new(tcp, control, &self.incoming, self.ended, expires)?);
        if !self.early.is_empty() {
            stream.unread(self.early.into());
        }
        Ok(stream)
    }
}

/// Appends what `encode` writes.
fn encode(
    outgoing: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), Error> {
    let failed = |error: EncodeError| Error::General(error.to_string());
    // The first try asks how much room is needed.
    let needed = match encode(&mut []) {
        Err(EncodeError::InsufficientSize(needed)) => needed.required_size,
        Err(error) => return Err(failed(error)),
        Ok(_) => return Ok(()),
    };
    let begin = outgoing.len();
    outgoing.resize(begin + needed, 0);
    encode(outgoing.get_mut(begin..).unwrap_or_default()).map_err(failed)?;
    Ok(())
}
