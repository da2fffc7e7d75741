//! The nft rules of the mesh's own namespaces, beside the redirection that `weft-transport` writes.
//!
//! Pure text; the node puts it in force. Nothing here ever reaches the host's namespace.

use super::plan::Plan;
use std::{fmt::Write, net::SocketAddr};
use weft_model::{names::port, ports::PortRanges};
use weft_transport::redirect::{Exempt, Rules};

/// Marks what proxies dial.
pub(crate) const MARK: u32 = 0x5745;
/// Where connections to the outside arrive on the bridge.
pub(crate) const EGRESS_PORT: u16 = 4150;
const DNS_PORT: u16 = 53;

/// Of the bridge: what leaves the mesh goes to the supervisor, everything else is refused at once. Some kernels show it what
/// passes between pods as well, which it must let through.
pub(crate) fn bridge(plan: Plan) -> String {
    let hosts = format!("{}/24", plan.v4(0xff00));
    let (v4, v6) = (format!("{}/16", plan.v4(0)), format!("{}/112", plan.v6(0)));
    let (hosts6, links, links6) =
        (format!("{}/120", plan.v6(0xff00)), format!("{}/17", plan.v4(0)), format!("{}/113", plan.v6(0)));
    format!(
        "table inet weft {{
\tchain egress {{
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t\tip daddr {hosts} meta l4proto tcp redirect to :{EGRESS_PORT}
\t\tip6 daddr {hosts6} meta l4proto tcp redirect to :{EGRESS_PORT}
\t\tip daddr {v4} return
\t\tip6 daddr {v6} return
\t\tmeta l4proto tcp redirect to :{EGRESS_PORT}
\t}}
\tchain arriving {{
\t\ttype filter hook prerouting priority filter; policy accept;
\t\tiifname \"lo\" accept
\t\tmeta l4proto {{ icmp, ipv6-icmp }} accept
\t\tip daddr {links} accept
\t\tip6 daddr {links6} accept
\t\tct state established,related accept
\t\tmeta l4proto tcp reject with tcp reset
\t\treject
\t}}
\tchain input {{
\t\ttype filter hook input priority filter; policy accept;
\t\tiifname \"lo\" accept
\t\tmeta l4proto {{ icmp, ipv6-icmp }} accept
\t\tct state established,related accept
\t\ttcp dport {{ {DNS_PORT}, {EGRESS_PORT} }} accept
\t\tudp dport {DNS_PORT} accept
\t\tmeta l4proto tcp reject with tcp reset
\t\treject
\t}}
}}
"
    )
}

/// Of a namespace on the bridge: TCP, and DNS of the mesh over UDP.
pub(crate) fn guard(plan: Plan) -> String {
    let (gateway, gateway6) = (plan.v4(1), plan.v6(1));
    format!(
        "table inet weft_guard {{
\tchain output {{
\t\ttype filter hook output priority filter; policy accept;
\t\toifname \"lo\" accept
\t\tmeta l4proto {{ tcp, icmp, ipv6-icmp }} accept
\t\tip daddr {gateway} udp dport {DNS_PORT} accept
\t\tip6 daddr {gateway6} udp dport {DNS_PORT} accept
\t\treject
\t}}
}}
"
    )
}

/// Sends a pod's connections through its proxy.
pub(crate) fn redirection(skip_inbound: &PortRanges, skip_outbound: &PortRanges) -> String {
    let mut skip_inbound = skip_inbound.clone();
    // Tap and admin servers of the proxy itself.
    skip_inbound.extend([port::CONTROL..=port::CONTROL, port::ADMIN..=port::ADMIN]);
    let rules = Rules {
        inbound_port: port::INBOUND,
        outbound_port: port::OUTBOUND,
        only_inbound: PortRanges::default(),
        skip_inbound,
        skip_outbound: skip_outbound.clone(),
        skip_subnets: vec![],
        exempt: Exempt::Mark(MARK),
        ipv6: true,
    };
    rules.ruleset()
}

/// A cluster IP and port, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Forward {
    pub(crate) from: SocketAddr,
    pub(crate) to: Vec<SocketAddr>,
}

/// Makes cluster IPs work for connections that no proxy takes: each goes to one of its pods by chance.
pub(crate) fn services(forwards: &[Forward]) -> String {
    let mut text = String::from(
        "add table inet weft_services
delete table inet weft_services
table inet weft_services {
\tchain output {
\t\ttype nat hook output priority -90; policy accept;
",
    );
    for Forward { from, to } in forwards {
        let (family, same): (_, Vec<&SocketAddr>) = if from.is_ipv4() {
            ("ip", to.iter().filter(|t| t.is_ipv4()).collect())
        } else {
            ("ip6", to.iter().filter(|t| t.is_ipv6()).collect())
        };
        let map: Vec<String> =
            same.iter().enumerate().map(|(i, t)| format!("{i} : {} . {}", t.ip(), t.port())).collect();
        if !map.is_empty() {
            // Writing to a String does not fail. Without pods the bridge refuses.
            let _ = writeln!(
                text,
                "\t\t{family} daddr {} tcp dport {} dnat {family} to numgen random mod {} map {{ {} }}",
                from.ip(),
                from.port(),
                map.len(),
                map.join(", ")
            );
        }
    }
    text + "\t}\n}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::pick("", true)
    }

    #[test]
    fn of_the_bridge() {
        insta::assert_snapshot!(bridge(plan()));
    }

    #[test]
    fn of_a_pod() {
        let ports = |text: &str| text.parse().unwrap();
        insta::assert_snapshot!(guard(plan()) + &redirection(&ports("9000"), &ports("5432,6000-6100")));
    }

    #[test]
    fn of_services() {
        let addr = |text: &str| text.parse().unwrap();
        insta::assert_snapshot!(services(&[
            Forward { from: addr("10.99.128.1:80"), to: vec![addr("10.99.1.0:8080"), addr("10.99.1.1:8080")] },
            Forward { from: addr("10.99.128.1:81"), to: vec![] },
            Forward { from: addr("[fd77::1]:80"), to: vec![addr("[fd77::2]:8080"), addr("10.99.1.1:8080")] },
        ]));
    }
}
