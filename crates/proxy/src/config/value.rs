//! How the text of a variable becomes a value (data plane 1.1). Pure; an error says what is expected.

use super::{DnsSuffixes, HostPort, PortSet};
use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};
use weft_model::{DnsName, decide::cidr::Cidr};

pub(super) type Parsed<T> = Result<T, String>;

pub(super) fn duration(text: &str) -> Parsed<Duration> {
    weft_model::duration::parse(text)
        .ok_or_else(|| format!("{text:?} is not a duration: use a number with ms, s, m, h or d, such as 10s"))
}

pub(super) fn bool(text: &str) -> Parsed<bool> {
    text.parse().map_err(|_| format!("{text:?} is neither true nor false"))
}

pub(super) fn number<T: FromStr>(text: &str) -> Parsed<T> {
    text.trim().parse().map_err(|_| format!("{text:?} is not a number in range"))
}

/// 0 to 1.
pub(super) fn part(text: &str) -> Parsed<f32> {
    let value: f32 = number(text)?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err(format!("{text:?} is not between 0 and 1")) }
}

/// Greater than 0, at most 1.
pub(super) fn ratio(text: &str) -> Parsed<f64> {
    let value: f64 = number(text)?;
    if value > 0.0 && value <= 1.0 { Ok(value) } else { Err(format!("{text:?} is not greater than 0 and at most 1")) }
}

pub(super) fn ports(text: &str) -> Parsed<PortSet> {
    let port = |item: &str| {
        item.trim().parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(|| format!("{item:?} is not a port"))
    };
    let mut ranges = vec![];
    for item in items(text) {
        let (first, last) = match item.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(item)?, port(item)?),
        };
        if first > last {
            return Err(format!("{item:?} is not a range of ports: it ends before it begins"));
        }
        ranges.push(first..=last);
    }
    Ok(PortSet(ranges))
}

pub(super) fn networks(text: &str) -> Parsed<Vec<Cidr>> {
    items(text).map(|item| item.parse().map_err(|e| format!("{e}"))).collect()
}

pub(super) fn ips<C: FromIterator<IpAddr>>(text: &str) -> Parsed<C> {
    items(text).map(|item| item.parse().map_err(|_| format!("{item:?} is not an IP address"))).collect()
}

/// `.` is the end of every name.
pub(super) fn suffixes(text: &str) -> Parsed<DnsSuffixes> {
    let suffix = |item: &str| match item {
        "." => Ok(String::new()),
        item => item.parse::<DnsName>().map(|name| name.as_str().to_owned()).map_err(|e| e.to_string()),
    };
    items(text).map(suffix).collect::<Result<_, _>>().map(DnsSuffixes)
}

pub(super) fn socket_addr(text: &str) -> Parsed<SocketAddr> {
    text.trim().parse().map_err(|_| format!("{text:?} is not an address: it has the form ip:port"))
}

/// One or two.
pub(super) fn socket_addrs(text: &str) -> Parsed<Vec<SocketAddr>> {
    let addrs: Vec<_> = items(text).map(socket_addr).collect::<Result<_, _>>()?;
    match addrs.as_slice() {
        [_] => Ok(addrs),
        [a, b] if a.is_ipv4() != b.is_ipv4() => Ok(addrs),
        _ => Err(format!("{text:?} is not one address, or two of different families")),
    }
}

pub(super) fn host_port(text: &str) -> Parsed<HostPort> {
    if let Ok(addr) = text.trim().parse::<SocketAddr>() {
        return Ok(HostPort::Addr(addr));
    }
    let invalid = || format!("{text:?} is not an address: it has the form ip:port or name:port");
    let (name, port) = text.trim().rsplit_once(':').ok_or_else(invalid)?;
    let port = port.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(invalid)?;
    name.parse::<DnsName>().map_err(|_| invalid())?;
    Ok(HostPort::Name(name.to_ascii_lowercase(), port))
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        for (text, ms) in [("0", 0), (" 7ms", 7), ("3s", 3000), ("2m", 120_000), ("1h", 3_600_000), ("1d", 86_400_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "1", "s", "-1s", "1.5s", "1 s", "1w", "99999999999999999999s", "18446744073709551615d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn port_sets_have_ranges_blanks_and_holes() {
        let set = ports("25, 80-82,,443 ").unwrap();
        for (port, held) in [(25, true), (24, false), (80, true), (82, true), (83, false), (443, true)] {
            assert_eq!(set.contains(port), held, "{port}");
        }
        for bad in ["0", "65536", "9-8", "a", "1-2-3"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn suffixes_end_names_at_a_dot() {
        let set = suffixes("Svc.cluster.local., east.test").unwrap();
        for (name, held) in [
            ("web.ns.svc.cluster.local", true),
            ("svc.cluster.local", true),
            ("evilsvc.cluster.local", false),
            ("a.east.test", true),
            ("svc.cluster.local.evil", false),
        ] {
            assert_eq!(set.contains(&name.parse().unwrap()), held, "{name}");
        }
        assert!(suffixes(".").unwrap().contains(&"a.b".parse().unwrap()));
        assert!(!suffixes("").unwrap().contains(&"a.b".parse().unwrap()));
        assert!(suffixes("a..b").is_err());
    }

    #[test]
    fn addresses_may_be_names() {
        assert_eq!(host_port("10.0.0.1:80"), Ok(HostPort::Addr("10.0.0.1:80".parse().unwrap())));
        assert_eq!(host_port("[::1]:80"), Ok(HostPort::Addr("[::1]:80".parse().unwrap())));
        assert_eq!(host_port("A.b.:80"), Ok(HostPort::Name("a.b.".into(), 80)));
        assert!(host_port("localhost.:80").unwrap().is_loopback() && host_port("[::1]:8").unwrap().is_loopback());
        for bad in ["a", "a:0", "a:b", ":80", "a b:80", "10.0.0.1"] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
        assert!(socket_addrs("127.0.0.1:1,[::1]:1").is_ok() && socket_addrs("127.0.0.1:1").is_ok());
        for bad in ["", "127.0.0.1:1,127.0.0.2:1", "127.0.0.1:1,[::1]:1,[::1]:2"] {
            assert!(socket_addrs(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_in_range() {
        assert_eq!(number::<u32>("0"), Ok(0));
        assert!(number::<u16>("65536").is_err() && number::<u32>("-1").is_err() && number::<u32>("0x1").is_err());
        assert!(part("0").is_ok() && part("1").is_ok() && part("1.1").is_err() && part("NaN").is_err());
        assert!(ratio("0").is_err() && ratio("0.5").is_ok() && ratio("inf").is_err());
    }
}
