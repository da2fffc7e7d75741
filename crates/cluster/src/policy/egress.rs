//! EgressNetworks: addresses outside of the cluster, and whether traffic goes there where no route says otherwise.

use super::{Mistake, NetworkSpec, Networks, all_right, authentication::networks};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use weft_model::{decide::cidr::Cidr, policy::inbound::NetworkMatch};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressNetworkSpec {
    pub traffic_policy: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<NetworkSpec>>,
}

/// What an EgressNetwork says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Egress {
    /// Where no route says otherwise.
    pub(crate) allowed: bool,
    /// `None` is everything outside of the cluster.
    networks: Option<Networks>,
}

impl EgressNetworkSpec {
    pub(crate) fn checked(&self) -> Result<Egress, Vec<Mistake>> {
        let Self { traffic_policy, networks: specs } = self;
        let mut mistakes = vec![];
        let allowed = match traffic_policy.as_str() {
            "Allow" => Some(true),
            "Deny" => Some(false),
            other => {
                let message = format!("{other:?} is no policy");
                mistakes.push(Mistake::new("spec.trafficPolicy", message, "use Allow or Deny"));
                None
            }
        };
        if specs.as_ref().is_some_and(Vec::is_empty) {
            let remedy = "give at least one, or leave it out for all that is outside of the cluster";
            mistakes.push(Mistake::new("spec.networks", "it has no network", remedy));
        }
        let networks = specs.as_ref().map(|specs| networks(specs, "spec.networks", &mut mistakes));
        all_right(allowed.map(|allowed| Egress { allowed, networks }), mistakes)
    }
}

impl Egress {
    /// How many addresses the smallest of its networks has that hold `addr`; `None` if none does.
    pub(crate) fn extent(&self, addr: IpAddr, cluster: &[Cidr]) -> Option<u128> {
        match &self.networks {
            Some(networks) => networks.iter().filter_map(|network| extent(network, addr)).min(),
            None => [Cidr::ALL_V4, Cidr::ALL_V6]
                .into_iter()
                .map(|net| NetworkMatch { net, except: of_family(cluster, net) })
                .find_map(|network| extent(&network, addr)),
        }
    }

    /// The first network of the cluster of which one of its own has an address.
    pub(crate) fn inside(&self, cluster: &[Cidr]) -> Option<Cidr> {
        let own = self.networks.iter().flatten();
        cluster.iter().copied().find(|net| own.clone().any(|own| meets(own, net)))
    }
}

/// Whether the network, without what is left out of it, has an address of another one.
fn meets(NetworkMatch { net, except }: &NetworkMatch, other: &Cidr) -> bool {
    let both = match (net.holds(other), other.holds(net)) {
        (true, _) => other,
        (_, true) => net,
        (false, false) => return false,
    };
    !is_covered(both, except)
}

/// Whether each address of `net` is one of another.
fn is_covered(net: &Cidr, by: &[Cidr]) -> bool {
    if by.iter().any(|by| by.holds(net)) {
        return true;
    }
    let inside: Vec<Cidr> = by.iter().filter(|by| net.holds(by)).copied().collect();
    !inside.is_empty() && net.halves().is_some_and(|halves| halves.iter().all(|half| is_covered(half, &inside)))
}

fn of_family(networks: &[Cidr], of: Cidr) -> Vec<Cidr> {
    networks.iter().filter(|net| net.addr().is_ipv4() == of.addr().is_ipv4()).copied().collect()
}

fn extent(NetworkMatch { net, except }: &NetworkMatch, addr: IpAddr) -> Option<u128> {
    let holds = net.contains(addr) && !except.iter().any(|except| except.contains(addr));
    let left_out: u128 = except.iter().map(size).fold(0, u128::saturating_add);
    holds.then(|| size(net).saturating_sub(left_out))
}

/// Addresses of a network; of all of IPv6 one less, for want of a number.
fn size(net: &Cidr) -> u128 {
    let bits: u32 = if net.addr().is_ipv4() { 32 } else { 128 };
    1_u128.checked_shl(bits.saturating_sub(net.prefix_len().into())).unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(spec: Value) -> Result<Egress, Vec<String>> {
        let spec: EgressNetworkSpec = serde_json::from_value(spec).unwrap();
        spec.checked().map_err(|mistakes| mistakes.into_iter().map(|m| m.field).collect())
    }

    #[test]
    fn networks_are_as_large_as_what_they_hold() {
        let cluster = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let of = |spec: Value, addr: &str| read(spec).unwrap().extent(addr.parse().unwrap(), &cluster);
        let all = || json!({"trafficPolicy": "Allow"});
        assert_eq!(of(all(), "203.0.113.1"), Some((1 << 32) - (1 << 24)));
        assert_eq!(of(all(), "10.1.2.3"), None, "the cluster is inside");
        assert_eq!((of(all(), "fd00::1"), of(all(), "2001:db8::1").is_some()), (None, true));
        let several = || {
            json!({"trafficPolicy": "Deny", "networks": [
                {"cidr": "203.0.113.0/24", "except": ["203.0.113.128/25", "203.0.113.7"]}, {"cidr": "203.0.0.0/16"}, {"cidr": "::/0"}]})
        };
        assert_eq!(of(several(), "203.0.113.1"), Some(127), "the smallest counts");
        assert_eq!(of(several(), "203.0.113.7"), Some(1 << 16), "but not where it leaves the address out");
        assert_eq!(of(several(), "198.51.100.1"), None);
        assert_eq!(of(several(), "2001:db8::1"), Some(u128::MAX));
    }

    #[test]
    fn it_is_told_whether_the_cluster_is_inside() {
        let cluster = ["10.0.0.0/8".parse().unwrap(), "172.16.0.0/12".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let of = |networks: Value| {
            let read = read(json!({"trafficPolicy": "Deny", "networks": networks})).unwrap();
            read.inside(&cluster).map(|net| net.to_string())
        };
        let all = |except: &[&str]| json!([{"cidr": "0.0.0.0/0", "except": except}]);
        assert_eq!(of(all(&[])).as_deref(), Some("10.0.0.0/8"));
        assert_eq!(of(all(&["10.0.0.0/8"])).as_deref(), Some("172.16.0.0/12"));
        assert_eq!(of(all(&["10.0.0.0/8", "172.0.0.0/8"])), None);
        assert_eq!(of(all(&["10.0.0.0/9", "10.128.0.0/9", "172.16.0.0/12"])), None, "by several together");
        assert_eq!(of(all(&["10.0.0.0/9", "172.16.0.0/12"])).as_deref(), Some("10.0.0.0/8"), "by a half");
        assert_eq!(of(json!([{"cidr": "10.1.0.0/16"}])).as_deref(), Some("10.0.0.0/8"), "a part of it");
        assert_eq!(of(json!([{"cidr": "203.0.113.0/24"}, {"cidr": "fd00::/64"}])).as_deref(), Some("fd00::/8"));
        assert_eq!(of(json!([{"cidr": "203.0.113.0/24"}, {"cidr": "2001:db8::/32"}])), None);
        // What is not said is outside.
        assert_eq!(read(json!({"trafficPolicy": "Deny"})).unwrap().inside(&cluster), None);
    }

    #[test]
    fn mistakes_are_named() {
        for (bad, fields) in [
            (json!({"trafficPolicy": "allow"}), ["spec.trafficPolicy"]),
            (json!({"trafficPolicy": "Deny", "networks": []}), ["spec.networks"]),
            (json!({"trafficPolicy": "Deny", "networks": [{"cidr": "here"}]}), ["spec.networks[0].cidr"]),
            (
                json!({"trafficPolicy": "Deny", "networks": [{"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}]}),
                ["spec.networks[0].except[0]"],
            ),
        ] {
            assert_eq!(read(bad.clone()), Err(fields.map(str::to_owned).to_vec()), "{bad}");
        }
    }
}
