//! The gRPC services, each a thin layer between `wire` and the hub or the CA.

mod ask;
mod certify;
mod destination;
mod limit;
mod policy;
mod stream;
mod trust;

pub(crate) use certify::Identities;
pub use certify::token_sha256;
pub(crate) use destination::Destinations;
pub(crate) use policy::{Inbounds, Outbounds};
pub(crate) use trust::TrustBundles;
