//! Blocks of IP addresses.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A block of addresses of one family; the host part is zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    net: IpAddr,
    len: u8,
}

/// A text that is no block of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network: it has the form address/length")]
pub struct InvalidCidr(String);

impl Cidr {
    pub const ALL_V4: Self = Self { net: IpAddr::V4(Ipv4Addr::UNSPECIFIED), len: 0 };
    pub const ALL_V6: Self = Self { net: IpAddr::V6(Ipv6Addr::UNSPECIFIED), len: 0 };

    /// The block of `len` leading bits that holds `addr`; `None` if the family has fewer bits. A block of IPv4-mapped IPv6
    /// addresses is the one of IPv4: else it held nothing, and as an exception let in whom it names.
    pub fn new(addr: IpAddr, len: u8) -> Option<Self> {
        let (addr, len) = match (addr.to_canonical(), len.checked_sub(96)) {
            (v4 @ IpAddr::V4(_), Some(of_v4)) if addr.is_ipv6() => (v4, of_v4),
            _ => (addr, len),
        };
        let net = match addr {
            IpAddr::V4(v4) if len <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
            }
            IpAddr::V6(v6) if len <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
            }
            _ => return None,
        };
        Some(Self { net, len })
    }

    pub fn addr(&self) -> IpAddr {
        self.net
    }

    /// How many leading bits all of its addresses share.
    pub fn prefix_len(&self) -> u8 {
        self.len
    }

    /// Whether every address of `other` is one of its own.
    pub fn holds(&self, other: &Self) -> bool {
        other.len >= self.len && Self::new(other.net, self.len).is_some_and(|block| block == *self)
    }

    /// Both halves, in order; `None` of a single address.
    pub fn halves(&self) -> Option<[Self; 2]> {
        let len = self.len + 1;
        let second = match self.net {
            IpAddr::V4(v4) => {
                IpAddr::V4(Ipv4Addr::from(u32::from(v4) | 1_u32.checked_shl(32_u32.checked_sub(len.into())?)?))
            }
            IpAddr::V6(v6) => {
                IpAddr::V6(Ipv6Addr::from(u128::from(v6) | 1_u128.checked_shl(128_u32.checked_sub(len.into())?)?))
            }
        };
        Some([Self { net: self.net, len }, Self { net: second, len }])
    }

    /// An IPv4-mapped IPv6 address is read as IPv4.
    pub fn contains(&self, addr: IpAddr) -> bool {
        Self::new(addr.to_canonical(), self.len).is_some_and(|block| block.net == self.net)
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidCidr(text.chars().take(64).collect());
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr.parse().map_err(|_| invalid())?, len.parse().map_err(|_| invalid())?),
            None => {
                let addr: IpAddr = text.parse().map_err(|_| invalid())?;
                (addr, if addr.is_ipv4() { 32 } else { 128 })
            }
        };
        Self::new(addr, len).ok_or_else(invalid)
    }
}

impl TryFrom<String> for Cidr {
    type Error = InvalidCidr;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.net, self.len)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_do_not_mix() {
        let v4: Cidr = "10.0.0.0/8".parse().unwrap();
        assert!(v4.contains("10.1.2.3".parse().unwrap()));
        assert!(v4.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!v4.contains("11.1.2.3".parse().unwrap()));
        assert!(!Cidr::ALL_V4.contains("fd00::1".parse().unwrap()));
        assert!(!Cidr::ALL_V6.contains("10.0.0.1".parse().unwrap()));
        let mapped: Cidr = "::ffff:10.1.0.0/112".parse().unwrap();
        assert_eq!(mapped, "10.1.0.0/16".parse().unwrap());
        assert!(mapped.contains("10.1.2.3".parse().unwrap()) && !mapped.contains("10.2.2.3".parse().unwrap()));
        assert!("::ffff:10.0.0.0/129".parse::<Cidr>().is_err());
        assert!(!"::/0".parse::<Cidr>().unwrap().contains("10.0.0.1".parse().unwrap()));
        assert!("10.0.0.0/33".parse::<Cidr>().is_err());
        assert!("fd00::/129".parse::<Cidr>().is_err());
    }

    #[test]
    fn a_network_holds_smaller_ones_and_is_its_halves() {
        let of = |text: &str| text.parse::<Cidr>().unwrap();
        assert!(of("10.0.0.0/8").holds(&of("10.1.0.0/16")) && of("10.0.0.0/8").holds(&of("10.0.0.0/8")));
        assert!(!of("10.1.0.0/16").holds(&of("10.0.0.0/8")) && !of("10.0.0.0/8").holds(&of("11.0.0.0/16")));
        assert!(!Cidr::ALL_V6.holds(&of("10.0.0.0/8")) && !Cidr::ALL_V4.holds(&of("fd00::/8")));
        assert_eq!(Cidr::ALL_V4.halves(), Some([of("0.0.0.0/1"), of("128.0.0.0/1")]));
        assert_eq!(of("10.0.0.0/31").halves(), Some([of("10.0.0.0"), of("10.0.0.1")]));
        assert_eq!(of("fd00::/8").halves(), Some([of("fd00::/9"), of("fd80::/9")]));
        assert_eq!((of("10.0.0.1").halves(), of("::1").halves()), (None, None));
    }
}
