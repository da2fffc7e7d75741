//! Where the control plane listens.

use weft_model::names::port::{DESTINATION, IDENTITY, POLICY};

pub(crate) const ADMIN_DESTINATION: u16 = 9996;
pub(crate) const ADMIN_IDENTITY: u16 = 9990;
pub(crate) const ADMIN_INJECTOR: u16 = 9995;
pub(crate) const WEBHOOK: u16 = 8443;
pub(crate) const POLICY_WEBHOOK: u16 = 9443;

/// All of them, each with what it is for.
pub(crate) const ALL: [(&str, u16); 8] = [
    ("the destination service", DESTINATION),
    ("the identity service", IDENTITY),
    ("the policy service", POLICY),
    ("webhooks", WEBHOOK),
    ("the policy validator", POLICY_WEBHOOK),
    ("probes and metrics of linkerd-destination", ADMIN_DESTINATION),
    ("probes and metrics of linkerd-identity", ADMIN_IDENTITY),
    ("probes and metrics of linkerd-proxy-injector", ADMIN_INJECTOR),
];
