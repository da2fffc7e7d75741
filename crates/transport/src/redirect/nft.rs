//! Writes the rules as nft text, in the order of Linkerd's iptables rules and with their comments.

use super::{Exempt, Rules};
use std::fmt::Write;
use weft_model::ports::PortRanges;

pub(super) fn render(rules: &Rules) -> String {
    let Rules { inbound_port, outbound_port, only_inbound, skip_inbound, skip_outbound, skip_subnets, exempt, ipv6 } =
        rules;
    let mut inbound = Vec::new();
    inbound.extend(skip_ports(skip_inbound));
    for subnet in skip_subnets.iter().filter(|subnet| *ipv6 || subnet.addr().is_ipv4()) {
        let family = if subnet.addr().is_ipv4() { "ip" } else { "ip6" };
        inbound.push(rule(&format!("{family} saddr {subnet} return"), &format!("ignore-subnet-{subnet}")));
    }
    inbound.push(match ports(only_inbound) {
        None => rule(&format!("meta l4proto tcp redirect to :{inbound_port}"), "redirect-all-incoming-to-proxy-port"),
        Some(ports) => rule(&format!("tcp dport {ports} redirect to :{inbound_port}"), "redirect-ports"),
    });

    let mut outbound = Vec::new();
    match exempt {
        Exempt::Mark(mark) => outbound.push(rule(&format!("meta mark {mark:#x} return"), "ignore-proxy-mark")),
        Exempt::Owner { uid, gid } => {
            outbound.extend(uid.map(|uid| rule(&format!("meta skuid {uid} return"), "ignore-proxy-user-id")));
            outbound.extend(gid.map(|gid| rule(&format!("meta skgid {gid} return"), "ignore-proxy-group-id")));
        }
    }
    outbound.push(rule("oifname \"lo\" return", "ignore-loopback"));
    outbound.extend(skip_ports(skip_outbound));
    outbound
        .push(rule(&format!("meta l4proto tcp redirect to :{outbound_port}"), "redirect-all-outgoing-to-proxy-port"));

    // The name of the table; nothing else is touched.
    let table = if *ipv6 { "inet weft" } else { "ip weft" };
    // The first two lines make the deletion possible whether or not the table is there.
    format!(
        "add table {table}\ndelete table {table}\ntable {table} {{\n{}{}}}\n",
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
fn skip_ports(skipped: &PortRanges) -> Option<String> {
    ports(skipped).map(|ports| rule(&format!("tcp dport {ports} return"), "ignore-ports"))
}

/// A set without overlap, which nft refuses.
fn ports(ports: &PortRanges) -> Option<String> {
    let merged = ports.merged().to_string();
    (!merged.is_empty()).then(|| format!("{{ {} }}", merged.replace(',', ", ")))
}

#[cfg(test)]
mod tests {
    use super::super::{
        Exempt, Rules,
        tests::{plain, rules},
    };

    #[test]
    fn by_mark() {
        insta::assert_snapshot!(rules(Exempt::Mark(0x5741)).ruleset());
    }

    #[test]
    fn by_uid_without_exceptions() {
        insta::assert_snapshot!(plain(Exempt::Owner { uid: Some(2102), gid: None }).ruleset());
    }

    #[test]
    fn some_ports_of_ipv4_alone() {
        let exempt = Exempt::Owner { uid: Some(2102), gid: Some(2102) };
        insta::assert_snapshot!(
            Rules { only_inbound: "80,8080-8090".parse().unwrap(), ipv6: false, ..rules(exempt) }.ruleset()
        );
    }
}
