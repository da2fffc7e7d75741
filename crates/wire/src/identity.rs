//! Certificates for workloads: `io.linkerd.proxy.identity.Identity`.

use crate::{
    Error, GrpcServer, Transport,
    error::{Invalid, here, required},
    stream::{cannot_say, refused},
};
use bytes::Bytes;
use linkerd2_proxy_api::identity::{
    self as proto,
    identity_client::IdentityClient,
    identity_server::{self, IdentityServer},
};
use std::{future::Future, time::SystemTime};
use tonic::{Request, Response, Status, async_trait};

/// Seconds from 1970 to the end of 9999, which is as far as the protocol's timestamps go.
const TIMES: std::ops::RangeInclusive<i64> = 0..=253_402_300_799;

/// What a proxy asks for.
#[derive(Clone, PartialEq, Eq)]
pub struct CertifyRequest {
    pub identity: weft_model::Identity,
    /// Proves that the caller is that workload.
    pub token: Bytes,
    /// PKCS#10, DER.
    pub csr: Bytes,
}

/// A certificate for a workload; all certificates are DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub leaf: Bytes,
    /// From the leaf's issuer on, towards the trust anchor.
    pub intermediates: Vec<Bytes>,
    pub valid_until: SystemTime,
}

/// Asks an Identity service.
#[derive(Clone, Debug)]
pub struct Client<T>(IdentityClient<T>);

impl<T: Transport> Client<T> {
    pub fn new(transport: T) -> Self {
        Self(IdentityClient::new(transport))
    }

    /// Asks for a certificate of `identity` for the key that signed `csr` (DER).
    pub async fn certify(
        &mut self,
        identity: &weft_model::Identity,
        token: Bytes,
        csr: Bytes,
    ) -> Result<Certificate, Error> {
        let request = CertifyRequest { identity: identity.clone(), token, csr };
        Ok(decode_certificate(self.0.certify(encode_request(request)).await?.into_inner())?)
    }
}

/// An Identity service. The connection's extensions and the metadata are in the request.
pub trait Identity: Send + Sync + 'static {
    fn certify(&self, request: Request<CertifyRequest>) -> impl Future<Output = Result<Certificate, Status>> + Send;
}

/// Serves `service` as gRPC.
pub fn server(service: impl Identity) -> impl GrpcServer {
    IdentityServer::new(Adapter(service))
}

struct Adapter<S>(S);

#[async_trait]
impl<S: Identity> identity_server::Identity for Adapter<S> {
    async fn certify(
        &self,
        request: Request<proto::CertifyRequest>,
    ) -> Result<Response<proto::CertifyResponse>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let request = decode_request(request).map_err(|e| refused(&e))?;
        let certificate = self.0.certify(Request::from_parts(metadata, extensions, request)).await?;
        Ok(Response::new(encode_certificate(certificate).map_err(|e| cannot_say(&e))?))
    }
}

pub(crate) fn decode_request(request: proto::CertifyRequest) -> Result<CertifyRequest, Invalid> {
    let proto::CertifyRequest { identity, token, certificate_signing_request } = request;
    Ok(CertifyRequest {
        identity: identity.parse().map_err(|e| Invalid::new("identity", e))?,
        token: filled("token", token)?,
        csr: filled("certificate_signing_request", certificate_signing_request)?,
    })
}

pub(crate) fn encode_request(request: CertifyRequest) -> proto::CertifyRequest {
    let CertifyRequest { identity, token, csr } = request;
    proto::CertifyRequest {
        identity: identity.to_string(),
        token: token.into(),
        certificate_signing_request: csr.into(),
    }
}

pub(crate) fn decode_certificate(response: proto::CertifyResponse) -> Result<Certificate, Invalid> {
    let proto::CertifyResponse { leaf_certificate, intermediate_certificates, valid_until } = response;
    Ok(Certificate {
        leaf: filled("leaf_certificate", leaf_certificate)?,
        intermediates: intermediate_certificates.into_iter().map(Bytes::from).collect(),
        valid_until: required("valid_until", valid_until, decode_time)?,
    })
}

/// A time that can be reckoned with.
fn decode_time(time: prost_types::Timestamp) -> Result<SystemTime, Invalid> {
    if !TIMES.contains(&time.seconds) {
        return Err(here(format_args!("{} s after 1970 is no time between 1970 and 9999", time.seconds)));
    }
    SystemTime::try_from(time).map_err(here)
}

pub(crate) fn encode_certificate(certificate: Certificate) -> Result<proto::CertifyResponse, Invalid> {
    let Certificate { leaf, intermediates, valid_until } = certificate;
    Ok(proto::CertifyResponse {
        leaf_certificate: filled("leaf_certificate", leaf.into())?.into(),
        intermediate_certificates: intermediates.into_iter().map(Vec::from).collect(),
        valid_until: Some(valid_until.into()),
    })
}

fn filled(field: &str, bytes: Vec<u8>) -> Result<Bytes, Invalid> {
    if bytes.is_empty() { Err(Invalid::missing(field)) } else { Ok(bytes.into()) }
}

impl std::fmt::Debug for CertifyRequest {
    /// Leaves the token out: it is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertifyRequest").field("identity", &self.identity).finish_non_exhaustive()
    }
}
