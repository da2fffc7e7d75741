//! Writes the rules as nft text, in the order of Linkerd's iptables rules and with their comments.

use super::{Exempt, PortRange, Rules};
use std::fmt::Write;

/// The name of the table; nothing else is touched.
const TABLE: &str = "inet weft";

pub(super) fn render(rules: &Rules) -> String {
    let Rules { inbound_port, outbound_port, skip_inbound, skip_outbound, skip_subnets, exempt } = rules;
    let mut inbound = Vec::new();
    inbound.extend(skip_ports(skip_inbound));
    for subnet in skip_subnets {
        let family = if subnet.address.is_ipv4() { "ip" } else { "ip6" };
        inbound.push(rule(&format!("{family} saddr {subnet} return"), &format!("ignore-subnet-{subnet}")));
    }
    inbound.push(rule(&format!("meta l4proto tcp redirect to :{inbound_port}"), "redirect-all-incoming-to-proxy-port"));

    let mut outbound = vec![match exempt {
        Exempt::Mark(mark) => rule(&format!("meta mark {mark:#x} return"), "ignore-proxy-mark"),
        Exempt::Uid(uid) => rule(&format!("meta skuid {uid} return"), "ignore-proxy-user-id"),
    }];
    outbound.push(rule("oifname \"lo\" return", "ignore-loopback"));
    outbound.extend(skip_ports(skip_outbound));
    outbound
        .push(rule(&format!("meta l4proto tcp redirect to :{outbound_port}"), "redirect-all-outgoing-to-proxy-port"));

    // The first two lines make the deletion possible whether or not the table is there.
    format!(
        "add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n{}{}}}\n",
        chain("inbound", "prerouting priority dstnat", &inbound),
        // What `dstnat` means is defined by name for prerouting only.
        chain("outbound", "output priority -100", &outbound),
    )
}

fn chain(name: &str, hook: &str, rules: &[String]) -> String {
    let mut text = format!("\tchain {name} {{\n\t\ttype nat hook {hook}; policy accept;\n");
    for rule in rules {
        // Writing to a String does not fail.
        let _ = writeln!(text, "\t\t{rule}");
    }
    text.push_str("\t}\n");
    text
}

fn rule(rule: &str, purpose: &str) -> String {
    format!("{rule} comment \"proxy-init/{purpose}\"")
}

/// One rule for all ports, since nft has sets; `None` for none.
fn skip_ports(ports: &[PortRange]) -> Option<String> {
    let merged = merge(ports);
    if merged.is_empty() {
        return None;
    }
    let list: Vec<String> = merged.iter().map(PortRange::to_string).collect();
    Some(rule(&format!("tcp dport {{ {} }} return", list.join(", ")), "ignore-ports"))
}

/// Sorted and without overlap, which nft refuses within a set.
fn merge(ports: &[PortRange]) -> Vec<PortRange> {
    let mut sorted: Vec<PortRange> = ports.iter().copied().filter(|range| range.first <= range.last).collect();
    sorted.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => last.last = last.last.max(range.last),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::Subnet;

    fn rules(exempt: Exempt) -> Rules {
        Rules {
            inbound_port: 4143,
            outbound_port: 4140,
            skip_inbound: vec![4190.into(), 4191.into(), PortRange { first: 4567, last: 4568 }],
            skip_outbound: vec![443.into(), 6443.into(), PortRange { first: 6000, last: 6500 }],
            skip_subnets: vec![
                Subnet { address: "10.1.0.0".parse().unwrap(), prefix: 16 },
                Subnet { address: "fd00::".parse().unwrap(), prefix: 8 },
            ],
            exempt,
        }
    }

    #[test]
    fn by_mark() {
        insta::assert_snapshot!(rules(Exempt::Mark(0x5741)).ruleset());
    }

    #[test]
    fn by_uid_without_exceptions() {
        let rules = Rules {
            skip_inbound: Vec::new(),
            skip_outbound: Vec::new(),
            skip_subnets: Vec::new(),
            ..rules(Exempt::Uid(2102))
        };
        insta::assert_snapshot!(rules.ruleset());
    }

    #[test]
    fn ranges_are_merged() {
        let range = |first, last| PortRange { first, last };
        assert_eq!(
            merge(&[range(90, 100), range(1, 5), range(6, 6), range(95, 99), range(9, 8), range(65535, 65535)]),
            [range(1, 6), range(90, 100), range(65535, 65535)]
        );
        assert_eq!(merge(&[range(0, 65535), range(80, 80)]), [range(0, 65535)]);
    }
}
