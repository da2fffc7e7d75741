//! The rules that send a workload's connections through its proxy, v4 and v6 alike: one description, written for nftables and for iptables.
//!
//! They come before any connection, and in the workload's own network namespace. They must never be applied to the
//! host's: [`Rules::apply`] works on the namespace of the calling thread, see [`crate::netns::Namespace::run`].

mod firewall;
mod iptables;
mod nft;

pub use firewall::{ApplyError, Firewall, Refusal};

use weft_model::{decide::cidr::Cidr, ports::PortRanges};

/// How the proxy's own connections are known, so that they are not redirected back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exempt {
    /// By packet mark: the embedded mesh, where programs cannot set one.
    Mark(u32),
    /// By user or group, where given: Kubernetes.
    Owner { uid: Option<u32>, gid: Option<u32> },
}

/// What is redirected where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub inbound_port: u16,
    pub outbound_port: u16,
    /// Only these ports of the workload go through the proxy; all, where there are none.
    pub only_inbound: PortRanges,
    /// Ports of the workload that clients reach without the proxy.
    pub skip_inbound: PortRanges,
    /// Ports of others that the workload reaches without the proxy.
    pub skip_outbound: PortRanges,
    /// Clients in these networks reach the workload without the proxy.
    pub skip_subnets: Vec<Cidr>,
    pub exempt: Exempt,
    /// Whether IPv6 is redirected as well.
    pub ipv6: bool,
}

impl Rules {
    /// The rules as text for `nft -f -`. They replace an earlier version of themselves in one transaction.
    pub fn ruleset(&self) -> String {
        nft::render(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn rules(exempt: Exempt) -> Rules {
        Rules {
            inbound_port: 4143,
            outbound_port: 4140,
            only_inbound: PortRanges::default(),
            skip_inbound: "4190,4191,4567-4568".parse().unwrap(),
            skip_outbound: "443,6443,6000-6500".parse().unwrap(),
            skip_subnets: vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
            exempt,
            ipv6: true,
        }
    }

    pub(super) fn plain(exempt: Exempt) -> Rules {
        Rules {
            skip_inbound: PortRanges::default(),
            skip_outbound: PortRanges::default(),
            skip_subnets: Vec::new(),
            ..rules(exempt)
        }
    }
}
