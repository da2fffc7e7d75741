//! Identities from a SPIFFE Workload API: `SpiffeWorkloadAPI/FetchX509SVID`, on a Unix socket of the machine.
//!
//! The messages in `gen/` were made from `proto/spiffe/workload.proto` as those of [`crate::trust`] were.

use crate::{
    Error, GrpcServer, Incoming, Outgoing, Transport,
    error::{Invalid, each},
    stream::{incoming, outgoing},
};
use bytes::Bytes;
use proto::{spiffe_workload_api_client::SpiffeWorkloadApiClient, spiffe_workload_api_server::SpiffeWorkloadApiServer};
use std::{collections::HashMap, fmt, future::Future};
use tonic::{Request, Response, Status, async_trait, metadata::MetadataValue};
use weft_model::Identity;
use zeroize::Zeroizing;

#[expect(unreachable_pub, clippy::allow_attributes, reason = "generated")]
mod proto {
    include!("gen/spiffe.workload.rs");
}

/// Servers refuse calls without it, so that no other request that a workload is made to send counts as one.
const HEADER: &str = "workload.spiffe.io";
/// The most certificates of one chain or bundle.
const MAX_CERTIFICATES: usize = 64;

/// One identity with everything that is needed to prove it.
#[derive(Clone, PartialEq, Eq)]
pub struct Svid {
    pub id: Identity,
    /// DER, the leaf first.
    pub chain: Vec<Bytes>,
    /// PKCS#8, DER. Cleared when dropped.
    pub key: Zeroizing<Vec<u8>>,
    /// The roots of its trust domain, DER.
    pub bundle: Vec<Bytes>,
}

/// Asks a Workload API.
#[derive(Clone, Debug)]
pub struct Client<T>(SpiffeWorkloadApiClient<T>);

impl<T: Transport> Client<T> {
    pub fn new(transport: T) -> Self {
        Self(SpiffeWorkloadApiClient::new(transport))
    }

    /// The caller's identities, and again whenever one changes. INVALID_ARGUMENT is final.
    pub async fn fetch(&mut self) -> Result<Incoming<Vec<Svid>>, Error> {
        let mut request = Request::new(proto::X509svidRequest {});
        request.metadata_mut().insert(HEADER, MetadataValue::from_static("true"));
        Ok(incoming(self.0.fetch_x509svid(request).await?.into_inner(), decode))
    }
}

/// A Workload API. The connection's extensions and the metadata are in the request.
pub trait WorkloadApi: Send + Sync + 'static {
    fn fetch(&self, request: Request<()>) -> impl Future<Output = Result<Outgoing<Vec<Svid>>, Status>> + Send;
}

/// Serves `service` as gRPC; callers without the header are refused.
pub fn server(service: impl WorkloadApi) -> impl GrpcServer {
    SpiffeWorkloadApiServer::new(Adapter(service))
}

struct Adapter<S>(S);

#[async_trait]
impl<S: WorkloadApi> proto::spiffe_workload_api_server::SpiffeWorkloadApi for Adapter<S> {
    type FetchX509SVIDStream = Outgoing<proto::X509svidResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<proto::X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        if request.metadata().get(HEADER).is_none_or(|value| value != "true") {
            return Err(Status::invalid_argument(format!("the metadata {HEADER}: true is missing")));
        }
        let svids = self.0.fetch(request.map(|proto::X509svidRequest {}| ())).await?;
        Ok(Response::new(outgoing(svids, |svids| encode(svids))))
    }
}

pub(crate) fn decode(response: proto::X509svidResponse) -> Result<Vec<Svid>, Invalid> {
    let proto::X509svidResponse { svids, crl: _, federated_bundles: _ } = response;
    each("svids", svids, decode_svid)
}

fn decode_svid(svid: proto::X509svid) -> Result<Svid, Invalid> {
    let proto::X509svid { spiffe_id, x509_svid, x509_svid_key, bundle, hint: _ } = svid;
    let key = Zeroizing::new(x509_svid_key);
    if key.is_empty() {
        return Err(Invalid::missing("x509_svid_key"));
    }
    let id = spiffe_id.parse().map_err(|e| Invalid::new("spiffe_id", e))?;
    if !matches!(id, Identity::Uri(_)) {
        return Err(Invalid::new("spiffe_id", "is no SPIFFE id"));
    }
    let chain = certificates("x509_svid", x509_svid.into())?;
    if chain.is_empty() {
        return Err(Invalid::missing("x509_svid"));
    }
    Ok(Svid { id, chain, key, bundle: certificates("bundle", bundle.into())? })
}

pub(crate) fn encode(svids: &[Svid]) -> Result<proto::X509svidResponse, Invalid> {
    let svids = svids.iter().map(|svid| {
        let Svid { id, chain, key, bundle } = svid;
        if !matches!(id, Identity::Uri(_)) {
            return Err(Invalid::new("spiffe_id", "is no SPIFFE id"));
        }
        Ok(proto::X509svid {
            spiffe_id: id.to_string(),
            x509_svid: chain.concat(),
            x509_svid_key: key.to_vec(),
            bundle: bundle.concat(),
            hint: String::new(),
        })
    });
    Ok(proto::X509svidResponse {
        svids: svids.collect::<Result<_, _>>()?,
        crl: vec![],
        federated_bundles: HashMap::new(),
    })
}

/// Takes certificates apart that stand one behind the other. They are not looked into: whoever uses them does.
fn certificates(field: &str, mut der: Bytes) -> Result<Vec<Bytes>, Invalid> {
    let mut found = vec![];
    while !der.is_empty() {
        if found.len() == MAX_CERTIFICATES {
            return Err(Invalid::new(field, format!("has more than {MAX_CERTIFICATES} certificates")));
        }
        let length = sequence(&der).filter(|n| *n <= der.len());
        let length = length.ok_or_else(|| Invalid::new(field, "is no row of certificates in DER"))?;
        found.push(der.split_to(length));
    }
    Ok(found)
}

/// How many bytes a DER SEQUENCE has, head included. Lengths beyond four bytes are no certificate's.
fn sequence(der: &[u8]) -> Option<usize> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if tag != 0x30 {
        return None;
    }
    if first < 0x80 {
        return Some(2 + usize::from(first));
    }
    let digits = rest.get(..usize::from(first & 0x7f)).filter(|digits| (1..=4).contains(&digits.len()))?;
    let length = digits.iter().fold(0_u64, |length, digit| length << 8 | u64::from(*digit));
    usize::try_from(length).ok()?.checked_add(2 + digits.len())
}

impl fmt::Debug for Svid {
    /// Leaves the key out: it is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid").field("id", &self.id).field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn der(content: usize) -> Vec<u8> {
        let length = u16::try_from(content).unwrap().to_be_bytes();
        [&[0x30, 0x82, length[0], length[1]][..], &vec![7; content]].concat()
    }

    fn svid() -> Svid {
        Svid {
            id: "spiffe://example.org/web".parse().unwrap(),
            chain: vec![der(700).into(), der(3).into()],
            key: Zeroizing::new(vec![1, 2, 3]),
            bundle: vec![Bytes::from_static(&[0x30, 1, 0])],
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let svids = vec![svid(), Svid { bundle: vec![], ..svid() }];
        assert_eq!(decode(encode(&svids).unwrap()).unwrap(), svids);
        assert!(!format!("{:?}", svid()).contains("key"));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let refused = |change: fn(&mut proto::X509svid)| {
            let mut response = encode(&[svid()]).unwrap();
            change(&mut response.svids[0]);
            decode(response).unwrap_err().to_string()
        };
        for (error, field) in [
            (refused(|s| s.spiffe_id = "web.example.org".into()), "spiffe_id"),
            (refused(|s| s.x509_svid.clear()), "x509_svid"),
            (refused(|s| s.x509_svid.truncate(20)), "x509_svid"),
            (refused(|s| s.x509_svid_key.clear()), "x509_svid_key"),
            (refused(|s| s.bundle = vec![0x30]), "bundle"),
        ] {
            assert!(error.contains("svids[0]") && error.contains(field), "{error}");
        }
        let many = Svid { bundle: vec![Bytes::from_static(&[0x30, 0]); MAX_CERTIFICATES + 1], ..svid() };
        assert!(decode(encode(&[many]).unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            if let Ok(found) = certificates("x", bytes.clone()) {
                prop_assert_eq!(found.concat(), bytes.to_vec());
            }
        }
    }
}
