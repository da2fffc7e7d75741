//! Which addresses the mesh has: one block of v4 and one of v6, the same numbers in both.
//!
//! ```text
//! 10.X.0.1          gateway, DNS            on the bridge
//! 10.X.0.2          control plane
//! 10.X.1.0 ..       pods
//! 10.X.128.0/17     cluster IPs of Services, which no link has
//! 10.X.255.0/24     services of the host
//! ```

use crate::node::protocol::Address;
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use weft_model::decide::cidr::Cidr;

/// Preferred second bytes of the block, those that few networks use.
const CANDIDATES: [u8; 6] = [99, 98, 97, 197, 213, 231];
const GATEWAY: u16 = 1;
const CONTROL: u16 = 2;
const FIRST_POD: u16 = 0x0100;
const FIRST_SERVICE: u16 = 0x8000;
const FIRST_HOST_SERVICE: u16 = 0xff00;
/// Of the part that links have; Services are reached over the gateway.
const LINK_PREFIX_V4: u8 = 17;
const LINK_PREFIX_V6: u8 = 113;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    second: u8,
    pub(crate) ipv6: bool,
}

impl Plan {
    /// Takes a block that no route of the host covers (the text is `/proc/net/route`), so that programs still reach what
    /// is behind those routes.
    pub(crate) fn pick(routes: &str, ipv6: bool) -> Self {
        let number = |text: Option<&str>| text.and_then(|t| u32::from_str_radix(t, 16).ok()).map(u32::swap_bytes);
        let taken: Vec<(u32, u32)> = routes
            .lines()
            .skip(1)
            .filter_map(|line| {
                let mut fields = line.split_whitespace().skip(1);
                let network = number(fields.next())?;
                Some((network, number(fields.nth(5))?))
            })
            .filter(|(_, mask)| *mask != 0)
            .collect();
        let free = |second: &u8| {
            let block = u32::from(Ipv4Addr::new(10, *second, 0, 0));
            taken.iter().all(|(network, mask)| {
                let mask = mask & 0xffff_0000;
                block & mask != network & mask
            })
        };
        let second = CANDIDATES.into_iter().chain(0..=255).find(free).unwrap_or(99);
        Self { second, ipv6 }
    }

    pub(crate) fn v4(self, number: u16) -> Ipv4Addr {
        let [high, low] = number.to_be_bytes();
        Ipv4Addr::new(10, self.second, high, low)
    }

    pub(crate) fn v6(self, number: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0x6566, 0x7400 | u16::from(self.second), 0, 0, 0, 0, number)
    }

    /// All addresses with this number, v4 first.
    pub(crate) fn both(self, number: u16) -> Vec<IpAddr> {
        let v6 = self.ipv6.then(|| self.v6(number).into());
        std::iter::once(self.v4(number).into()).chain(v6).collect()
    }

    pub(crate) fn gateways(self) -> Vec<IpAddr> {
        self.both(GATEWAY)
    }

    pub(crate) fn control(self) -> Vec<IpAddr> {
        self.both(CONTROL)
    }

    pub(crate) fn host_service(self, index: usize) -> Option<u16> {
        u8::try_from(index).ok().map(|i| FIRST_HOST_SERVICE + u16::from(i))
    }

    /// Which service of the host an address stands for.
    pub(crate) fn host_service_index(self, ip: IpAddr) -> Option<usize> {
        let number = self.number(ip)?;
        number.checked_sub(FIRST_HOST_SERVICE).map(usize::from)
    }

    /// The addresses as links have them.
    pub(crate) fn on_link(ips: &[IpAddr]) -> Vec<Address> {
        let prefix = |ip: &IpAddr| if ip.is_ipv4() { LINK_PREFIX_V4 } else { LINK_PREFIX_V6 };
        ips.iter().map(|ip| Address { ip: *ip, prefix: prefix(ip) }).collect()
    }

    pub(crate) fn networks(self) -> Vec<Cidr> {
        let texts = [format!("{}/16", self.v4(0)), format!("{}/112", self.v6(0))];
        texts.iter().take(if self.ipv6 { 2 } else { 1 }).filter_map(|t| t.parse().ok()).collect()
    }

    pub(crate) fn contains(self, ip: IpAddr) -> bool {
        self.number(ip).is_some()
    }

    fn number(self, ip: IpAddr) -> Option<u16> {
        match ip.to_canonical() {
            IpAddr::V4(v4) => {
                let [ten, second, high, low] = v4.octets();
                (ten == 10 && second == self.second).then_some(u16::from_be_bytes([high, low]))
            }
            IpAddr::V6(v6) => {
                let number = v6.segments()[7];
                (v6 == self.v6(number)).then_some(number)
            }
        }
    }
}

/// Numbers of pods: a freed one comes back last, so that nobody still means its former holder.
#[derive(Debug, Default)]
pub(crate) struct PodNumbers {
    taken: HashSet<u16>,
    next: u16,
}

impl PodNumbers {
    pub(crate) fn take(&mut self) -> Option<u16> {
        let size = FIRST_SERVICE - FIRST_POD;
        let number = (0..size).map(|i| FIRST_POD + (self.next + i) % size).find(|n| !self.taken.contains(n))?;
        self.next = (number - FIRST_POD + 1) % size;
        self.taken.insert(number);
        Some(number)
    }

    pub(crate) fn free(&mut self, number: u16) {
        self.taken.remove(&number);
    }
}

/// Numbers of Services: from the name, so that they stay over restarts.
#[derive(Debug, Default)]
pub(crate) struct ServiceNumbers {
    by_name: HashMap<(String, String), u16>,
}

impl ServiceNumbers {
    pub(crate) fn of(&mut self, namespace: &str, name: &str) -> Option<u16> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(number) = self.by_name.get(&key) {
            return Some(*number);
        }
        let taken: HashSet<u16> = self.by_name.values().copied().collect();
        let size = FIRST_HOST_SERVICE - FIRST_SERVICE;
        let start = hash(namespace.as_bytes()).wrapping_mul(31).wrapping_add(hash(name.as_bytes()));
        let start = u16::try_from(start % u64::from(size)).unwrap_or_default();
        let number = (0..size)
            .map(|i| {
                FIRST_SERVICE + u16::try_from((u32::from(start) + u32::from(i)) % u32::from(size)).unwrap_or_default()
            })
            .find(|n| !taken.contains(n))?;
        self.by_name.insert(key, number);
        Some(number)
    }

    /// Forgets those that are not among `names`.
    pub(crate) fn keep(&mut self, names: &HashSet<(String, String)>) {
        self.by_name.retain(|key, _| names.contains(key));
    }
}

/// FNV-1a: the same in every build, unlike the standard library's.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_avoids_the_hosts_routes() {
        let header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let route = |network: &str, mask: &str| format!("eth0\t{network}\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0\n");
        let pick = |routes: &str| Plan::pick(&format!("{header}{routes}"), true).second;
        assert_eq!(pick(""), 99);
        assert_eq!(pick(&route("00000000", "00000000")), 99, "the default route covers nothing in particular");
        assert_eq!(pick(&route("0000630A", "0000FFFF")), 98, "10.99.0.0/16");
        assert_eq!(pick(&route("0005630A", "00FFFFFF")), 98, "10.99.5.0/24");
        assert_eq!(pick(&route("0000600A", "0000F0FF")), 197, "10.96.0.0/12");
        assert_eq!(pick(&route("0000000A", "000000FF")), 99, "10.0.0.0/8 leaves no choice");
    }

    #[test]
    fn numbers_come_back_last() {
        let mut numbers = PodNumbers::default();
        let (a, b) = (numbers.take().unwrap(), numbers.take().unwrap());
        assert_ne!(a, b);
        numbers.free(a);
        assert_ne!(numbers.take().unwrap(), a);
        let rest = std::iter::from_fn(|| numbers.take()).count();
        assert_eq!(rest, usize::from(FIRST_SERVICE - FIRST_POD) - 2);
    }

    #[test]
    fn services_keep_their_numbers() {
        let (mut one, mut two) = (ServiceNumbers::default(), ServiceNumbers::default());
        let web = one.of("emojivoto", "web").unwrap();
        two.of("emojivoto", "voting").unwrap();
        assert_eq!(two.of("emojivoto", "web"), Some(web));
        assert_ne!(one.of("default", "web"), Some(web));
        let plan = Plan { second: 99, ipv6: true };
        assert!(plan.contains(plan.v4(web).into()) && plan.contains(plan.v6(web).into()));
        assert_eq!(plan.host_service_index(plan.v4(plan.host_service(3).unwrap()).into()), Some(3));
        assert_eq!(plan.host_service_index(plan.v4(web).into()), None);
    }
}
