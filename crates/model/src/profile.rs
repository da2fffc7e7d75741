//! What a destination profile says of an address.

use crate::{DnsName, Endpoint};

/// The answer to GetProfile, as far as a proxy acts on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// The service's name, if the address is a service's.
    pub name: Option<DnsName>,
    /// The server speaks something else than HTTP, or speaks first: forward bytes.
    pub opaque: bool,
    /// The single endpoint behind the address, if it is a pod's.
    pub endpoint: Option<Endpoint>,
    /// The profile has routes or traffic splits, which take precedence over policy routes and which this build does not
    /// carry out: requests are refused rather than routed otherwise than asked.
    pub has_routes: bool,
}
