//! What goes wrong with keys, certificates and handshakes, and whose fault it is.

use rustls::CertificateError as Certificate;
use std::{fmt, io, sync::Arc};
use weft_model::Identity;

/// A key that cannot be made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the key is no ECDSA P-256 key in PKCS#8: {0}")]
    Invalid(String),
    #[error("making a key failed: {0}")]
    Generate(String),
    #[error("making a certificate signing request failed: {0}")]
    Request(String),
}

/// Trust anchors that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnchorsError {
    #[error("the trust anchors hold no certificate")]
    Empty,
    #[error("the trust anchors are no PEM: {0}")]
    Pem(String),
    #[error("certificate {index} of the trust anchors is refused: {reason}")]
    Certificate { index: usize, reason: String },
    #[error("the trust anchors cannot be used: {reason}")]
    Unusable { reason: String },
}

/// A certificate that the workload cannot use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("the certificate cannot be parsed: {0}")]
    Parse(String),
    #[error("the certificate does not belong to the key")]
    Key,
    #[error("the certificate names {presented:?}, not {expected}")]
    Identity { expected: Identity, presented: Vec<String> },
    #[error("the certificate has expired")]
    Expired,
    #[error("the certificate is not valid yet")]
    NotValidYet,
    #[error("the certificate does not chain to the trust anchors: {0}")]
    Untrusted(String),
}

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("this workload has no certificate yet")]
    NotCertified,
    #[error("the server is not {expected}: its certificate names {presented:?}")]
    Identity { expected: Identity, presented: Vec<String> },
    #[error("the peer's certificate has expired")]
    Expired,
    #[error("the peer's certificate is not valid yet")]
    NotValidYet,
    #[error("the peer's certificate does not chain to the trust anchors: {0}")]
    Untrusted(String),
    /// The peer sent an alert: it refuses what this side presented.
    #[error("the peer refused the handshake: {0}")]
    Refused(String),
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    #[error("the connection failed during the handshake: {0}")]
    Io(#[source] io::Error),
}

impl TlsError {
    /// A short, stable name for metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotCertified => "not_certified",
            Self::Identity { .. } => "identity_mismatch",
            Self::Expired => "expired",
            Self::NotValidYet => "not_valid_yet",
            Self::Untrusted(_) => "untrusted",
            Self::Refused(_) => "refused",
            Self::Protocol(_) => "protocol",
            Self::Io(_) => "io",
        }
    }
}

/// The server's names, none of which is the expected one. Travels through rustls from the verifier to [`TlsError`].
#[derive(Clone, Debug)]
pub(super) struct Mismatch {
    pub(super) expected: Identity,
    pub(super) presented: Vec<String>,
}

impl std::error::Error for Mismatch {}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the certificate names {:?}, not {}", self.presented, self.expected)
    }
}

impl From<Mismatch> for rustls::Error {
    fn from(mismatch: Mismatch) -> Self {
        Certificate::Other(rustls::OtherError(Arc::new(mismatch))).into()
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(certificate) => match certificate {
                Certificate::Expired | Certificate::ExpiredContext { .. } => Self::Expired,
                Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => Self::NotValidYet,
                Certificate::Other(other) => match other.0.downcast_ref::<Mismatch>() {
                    Some(m) => Self::Identity { expected: m.expected.clone(), presented: m.presented.clone() },
                    None => Self::Untrusted(other.to_string()),
                },
                other => Self::Untrusted(rustls::Error::from(other).to_string()),
            },
            rustls::Error::AlertReceived(alert) => Self::Refused(format!("{alert:?}")),
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// A session wraps what rustls says into an I/O error.
impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(inner) => inner.clone().into(),
            None => Self::Io(error),
        }
    }
}

impl From<rustls::Error> for CertificateError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
                Self::Expired
            }
            rustls::Error::InvalidCertificate(Certificate::NotValidYet | Certificate::NotValidYetContext { .. }) => {
                Self::NotValidYet
            }
            rustls::Error::InvalidCertificate(Certificate::BadEncoding) => Self::Parse("bad encoding".to_owned()),
            other => Self::Untrusted(other.to_string()),
        }
    }
}
