//! From objects to the cluster IPs and ports that lead somewhere.

use super::{endpoints, rules, rules::Forward};
use std::net::SocketAddr;
use weft_cluster::Object;

/// The rules for all Services, in an order of their own so that equal objects make equal rules.
pub(crate) fn ruleset(objects: &[Object]) -> String {
    let mut forwards = Vec::new();
    for object in objects {
        let Object::Service(service) = object else { continue };
        for port in service.spec.iter().flat_map(|s| s.ports.iter().flatten()) {
            let Ok(number) = u16::try_from(port.port) else { continue };
            let mut to = endpoints::targets(service, port, objects);
            to.sort_unstable();
            for ip in endpoints::cluster_ips(service) {
                forwards.push(Forward { from: SocketAddr::new(ip, number), to: to.clone() });
            }
        }
    }
    forwards.sort();
    rules::services(&forwards)
}
