//! What a workload presents and whom it believes, and the handshakes made with it.

use super::{
    AnchorsError, CertificateError, Key, TlsError, handshake,
    verify::{self, KeyExchange, Nobody, ServerIdentity, Servers},
};
use crate::Stream;
use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    crypto::CryptoProvider,
    pki_types::CertificateDer,
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};
use tokio::net::TcpStream;
use weft_model::{DnsName, Identity, endpoint::ServerTls, names::TRANSPORT_ALPN};

/// The TLS state of one workload. Cheap to clone: the clones are one.
#[derive(Clone, Debug)]
pub struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    server_name: DnsName,
    identity: Identity,
    provider: Arc<CryptoProvider>,
    /// What handshakes use.
    current: ArcSwap<Current>,
    certificate: ArcSwapOption<Certificate>,
    /// Held by writers only, so that no change is lost between two.
    writing: Mutex<()>,
}

/// Configurations, all derived from the anchors and the certificate.
#[derive(Debug)]
struct Current {
    anchors: Arc<RootCertStore>,
    /// They trust nobody: each connection adds the verifier that knows whom it expects.
    client: Offer<ClientConfig>,
    /// Absent until there is a certificate.
    server: Option<Offer<Arc<ServerConfig>>>,
}

/// A configuration without and with the offer of a transport header.
#[derive(Debug)]
struct Offer<C> {
    plain: C,
    transport: C,
}

#[derive(Debug)]
struct Certificate {
    key: Arc<CertifiedKey>,
    not_after: SystemTime,
}

/// Who is at the other end of an accepted connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The first DNS or URI name of its certificate; `None` when it presented none, or one whose first name is no identity.
    pub identity: Option<Identity>,
    /// It announced a transport header.
    pub transport: bool,
}

impl Store {
    /// A store that trusts `anchors_pem` and has no certificate yet: it can connect, but not accept.
    ///
    /// `server_name` is the SNI by which clients ask for this workload, `identity` the name its certificate must carry.
    ///
    /// # Errors
    /// The anchors are no certificates.
    pub fn new(anchors_pem: &str, server_name: DnsName, identity: Identity) -> Result<Self, AnchorsError> {
        Self::with_exchange(anchors_pem, server_name, identity, KeyExchange::default())
    }

    /// As [`Store::new`], with keys agreed on as `exchange` says.
    ///
    /// # Errors
    /// As [`Store::new`].
    pub fn with_exchange(
        anchors_pem: &str,
        server_name: DnsName,
        identity: Identity,
        exchange: KeyExchange,
    ) -> Result<Self, AnchorsError> {
        let anchors = verify::anchors(anchors_pem)?;
        let provider = verify::provider(exchange);
        // The process's first random number takes some 20 ms of CPU, for the provider gathers the jitter of the clock for it: that shall
        // be now, and not within the first handshake. Should it fail, so will every handshake, and say so.
        let _ = provider.secure_random.fill(&mut [0; 1]);
        let current = Current::new(&provider, Arc::new(anchors), None)?;
        Ok(Self(Arc::new(Shared {
            server_name,
            identity,
            provider,
            current: ArcSwap::from_pointee(current),
            certificate: ArcSwapOption::empty(),
            writing: Mutex::new(()),
        })))
    }

    /// The SNI by which clients ask for this workload.
    pub fn server_name(&self) -> &DnsName {
        &self.0.server_name
    }

    /// The name that this workload's certificate carries.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// Replaces the trust anchors for handshakes that begin from now on.
    ///
    /// The certificate stays in force even if it does not chain to the new anchors: peers decide, and the new one is on its way.
    ///
    /// # Errors
    /// The anchors are no certificates; the present ones stay.
    pub fn set_anchors(&self, anchors_pem: &str) -> Result<(), AnchorsError> {
        let anchors = Arc::new(verify::anchors(anchors_pem)?);
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let certificate = self.0.certificate.load();
        let key = certificate.as_ref().map(|c| c.key.clone());
        self.0.current.store(Arc::new(Current::new(&self.0.provider, anchors, key)?));
        Ok(())
    }

    /// Presents this certificate in handshakes that begin from now on. `leaf` and `intermediates` (nearest to the leaf first) are DER.
    ///
    /// # Errors
    /// It does not chain to the anchors, does not name this workload, is out of its time, or is of another key; the
    /// present one stays.
    pub fn set_certificate(&self, key: &Key, leaf: &[u8], intermediates: &[Vec<u8>]) -> Result<(), CertificateError> {
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.0.current.load();
        let chain: Vec<CertificateDer<'static>> = std::iter::once(leaf)
            .chain(intermediates.iter().map(Vec::as_slice))
            .map(|der| der.to_vec().into())
            .collect();
        let not_after = verify::own_certificate(&current.anchors, &self.0.provider, &self.0.identity, &chain)?;
        let certified = Arc::new(CertifiedKey::new(chain, key.signing()));
        certified.keys_match().map_err(|_| CertificateError::Key)?;
        let next = Current::new(&self.0.provider, current.anchors.clone(), Some(certified.clone()))
            .map_err(|e| CertificateError::Untrusted(e.to_string()))?;
        self.0.certificate.store(Some(Arc::new(Certificate { key: certified, not_after })));
        self.0.current.store(Arc::new(next));
        Ok(())
    }

    /// Presents a certificate that [`Store::set_certificate`] would refuse.
    #[cfg(test)]
    pub(crate) fn force_certificate(&self, key: &Key, chain: &[Vec<u8>]) {
        let chain = chain.iter().map(|der| der.clone().into()).collect();
        let certified = Arc::new(CertifiedKey::new(chain, key.signing()));
        let anchors = self.0.current.load().anchors.clone();
        self.0.current.store(Arc::new(Current::new(&self.0.provider, anchors, Some(certified)).unwrap()));
    }

    /// When the certificate in force expires; `None` before the first.
    pub fn expiry(&self) -> Option<SystemTime> {
        self.0.certificate.load().as_ref().map(|c| c.not_after)
    }

    /// Terminates TLS on an accepted connection of which `read` has been read already. `transport` offers the transport
    /// header, which is for connections made straight to the inbound port.
    ///
    /// There is no time limit in here: the caller's timeout drops the future.
    ///
    /// # Errors
    /// See [`TlsError`]; the peer has been told by an alert where the protocol allows.
    pub async fn accept(&self, tcp: TcpStream, read: Bytes, transport: bool) -> Result<(Stream, Peer), TlsError> {
        let config = {
            let current = self.0.current.load();
            let servers = current.server.as_ref().ok_or(TlsError::NotCertified)?;
            servers.choose(transport).clone()
        };
        handshake::accept(config, tcp, read).await
    }

    /// Opens TLS on a connected socket. When this returns, the server has proven the identity asked for; not a byte of the
    /// application is written before. The flag says whether the server takes a transport header, if `transport` offers one.
    ///
    /// # Errors
    /// See [`TlsError`]; the server has been told by an alert where the protocol allows.
    pub async fn connect(
        &self,
        tcp: TcpStream,
        server: &ServerTls,
        transport: bool,
    ) -> Result<(Stream, bool), TlsError> {
        let (config, own) = {
            let current = self.0.current.load();
            // A copy of some pointers: the expected identity belongs to this connection alone.
            let mut config = current.client.choose(transport).clone();
            let expected = ServerIdentity { anchors: current.anchors.clone(), expected: server.identity.clone() };
            config.dangerous().set_certificate_verifier(Servers::new(&self.0.provider, expected));
            // After a long sleep of the machine the certificate is over. Presenting it would end every handshake, also the
            // one in which a new certificate is asked for.
            let own = self.expiry();
            if own.is_some_and(|end| end <= SystemTime::now()) {
                config.client_auth_cert_resolver = Arc::new(NoCertificate);
                (config, None)
            } else {
                (config, own)
            }
        };
        handshake::connect(Arc::new(config), tcp, server, own).await
    }
}

/// Presents nothing.
#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

impl Current {
    fn new(
        provider: &Arc<CryptoProvider>,
        anchors: Arc<RootCertStore>,
        key: Option<Arc<CertifiedKey>>,
    ) -> Result<Self, AnchorsError> {
        let unusable = |reason: String| AnchorsError::Unusable { reason };
        let client = || {
            let builder = ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[&TLS13])
                .map_err(|e| unusable(e.to_string()))?
                .dangerous()
                .with_custom_certificate_verifier(Servers::new(provider, Nobody));
            let mut config = match &key {
                Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone()))),
                None => builder.with_no_client_auth(),
            };
            // The identity is checked in full on every connection.
            config.resumption = Resumption::disabled();
            // Records are sealed and opened by `session`, with the keys that the handshake ends with.
            config.enable_secret_extraction = true;
            Ok(config)
        };
        let mut client_transport = client()?;
        client_transport.alpn_protocols = vec![TRANSPORT_ALPN.to_vec()];
        let server = match &key {
            None => None,
            Some(key) => {
                let server = || {
                    let mut config = ServerConfig::builder_with_provider(provider.clone())
                        .with_protocol_versions(&[&TLS13])
                        .map_err(|e| unusable(e.to_string()))?
                        .with_client_cert_verifier(
                            verify::clients(anchors.clone(), provider).map_err(|e| unusable(e.to_string()))?,
                        )
                        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
                    config.session_storage = Arc::new(NoServerSessionStorage {});
                    config.send_tls13_tickets = 0;
                    config.enable_secret_extraction = true;
                    Ok(config)
                };
                let mut transport = server()?;
                transport.alpn_protocols = vec![TRANSPORT_ALPN.to_vec()];
                Some(Offer { plain: Arc::new(server()?), transport: Arc::new(transport) })
            }
        };
        Ok(Self { client: Offer { plain: client()?, transport: client_transport }, server, anchors })
    }
}

impl<C> Offer<C> {
    fn choose(&self, transport: bool) -> &C {
        if transport { &self.transport } else { &self.plain }
    }
}
