//! Second stage: TLS that is for this proxy is ended here; what is not is left as it came.

use crate::{
    error::{Code, ProxyError},
    metrics::labels::AcceptedTls,
    prefix::{self, Seen},
    process::identity::Lifetimes,
    protocol,
};
use bytes::BytesMut;
use std::time::Duration;
use tokio::net::TcpStream;
use weft_model::DnsName;
use weft_transport::{
    Stream,
    detect::{self, Tls},
    tls::{Peer, Store, TlsError},
};

/// A connection after this stage.
pub(crate) struct Arrived {
    /// What was read and not used is put back.
    pub(crate) stream: Stream,
    pub(crate) tls: AcceptedTls,
    /// The client announced a transport header.
    pub(crate) transport: bool,
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Until it has sent enough to tell what it speaks.
    pub(crate) first: Duration,
    /// Until the handshake is done.
    pub(crate) whole: Duration,
}

/// What the first bytes say.
enum First {
    /// A ClientHello for this proxy.
    Ours,
    Other(Option<DnsName>),
    NotTls,
}

/// Looks for a ClientHello and, if it names this proxy, performs the handshake. `None` if the client closed without having
/// sent anything.
///
/// # Errors
/// The client was too slow, or the handshake failed.
pub(crate) async fn terminate(
    store: &Store,
    lifetimes: &Lifetimes,
    mut tcp: TcpStream,
    transport: bool,
    patience: Patience,
) -> Result<Option<Arrived>, ProxyError> {
    let started = tokio::time::Instant::now();
    let mut bytes = BytesMut::new();
    let Some(first) = first(store, &mut tcp, &mut bytes, patience.first).await? else { return Ok(None) };
    let bytes = bytes.freeze();
    let as_it_came = |tcp, tls| {
        let mut stream = Stream::tcp(tcp);
        stream.unread(bytes.clone());
        Ok(Some(Arrived { stream, tls, transport: false }))
    };
    match first {
        First::NotTls => as_it_came(tcp, AcceptedTls::NotFromRemote),
        First::Other(sni) => as_it_came(tcp, AcceptedTls::Passthrough(sni)),
        First::Ours => {
            let left = patience.whole.saturating_sub(started.elapsed());
            let handshake = tokio::time::timeout(left, store.accept(tcp, bytes.clone(), transport)).await;
            let (mut stream, Peer { identity, transport }) =
                handshake.map_err(|_| too_slow("finish its TLS handshake"))?.map_err(|error| refused(&error))?;
            lifetimes.accepted(&mut stream);
            Ok(Some(Arrived { stream, tls: AcceptedTls::Terminated(identity), transport }))
        }
    }
}

async fn first(
    store: &Store,
    tcp: &mut TcpStream,
    bytes: &mut BytesMut,
    timeout: Duration,
) -> Result<Option<First>, ProxyError> {
    let seen = prefix::read(tcp, bytes, timeout, |bytes| match detect::tls(bytes) {
        Tls::NeedMore => None,
        Tls::No => Some(First::NotTls),
        Tls::ClientHello { sni } if sni.as_ref() == Some(store.server_name()) => Some(First::Ours),
        Tls::ClientHello { sni } => Some(First::Other(sni)),
    })
    .await
    .map_err(|error| protocol::broken("client", &error))?;
    match seen {
        Seen::Answer(first) => Ok(Some(first)),
        Seen::Eof if bytes.is_empty() => Ok(None),
        Seen::Eof => Ok(Some(First::NotTls)),
        Seen::Timeout => Err(too_slow("send anything by which its protocol could be detected")),
    }
}

fn too_slow(what: &str) -> ProxyError {
    ProxyError::new(Code::DetectTimeout, format!("the client did not {what} in time"))
}

fn refused(error: &TlsError) -> ProxyError {
    ProxyError::new(Code::TlsFailed, format!("the client's TLS failed: {error}"))
}
