//! Writes the rules as text for `iptables-restore --noflush`, for one family: Linkerd's chains, order and comments.

use super::{Exempt, Rules};
use std::fmt::Write;
use weft_model::ports::PortRanges;

const INBOUND: &str = "PROXY_INIT_REDIRECT";
const OUTBOUND: &str = "PROXY_INIT_OUTPUT";
/// A match on ports holds no more; a range counts as two.
const PORTS_PER_RULE: usize = 15;

/// An address family, which iptables keeps apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// The text, given what `iptables-save` told of the nat table: the chains are filled anew, and are jumped to from where they are not yet.
pub(super) fn render(rules: &Rules, family: Family, before: &str) -> String {
    let Rules { inbound_port, outbound_port, only_inbound, skip_inbound, skip_outbound, skip_subnets, exempt, ipv6: _ } =
        rules;
    let mut text = format!("*nat\n:{INBOUND} - [0:0]\n:{OUTBOUND} - [0:0]\n");
    let mut add = |chain: &str, rule: &str, purpose: &str, target: &str| {
        let space = if rule.is_empty() { "" } else { " " };
        // Writing to a String does not fail.
        let _ = writeln!(text, "-A {chain}{space}{rule} -m comment --comment \"proxy-init/{purpose}\" -j {target}");
    };

    for ports in grouped(skip_inbound) {
        add(INBOUND, &format!("-p tcp -m multiport --dports {ports}"), &format!("ignore-port-{ports}"), "RETURN");
    }
    for subnet in skip_subnets.iter().filter(|subnet| subnet.addr().is_ipv4() == (family == Family::V4)) {
        add(INBOUND, &format!("-s {subnet}"), &format!("ignore-subnet-{subnet}"), "RETURN");
    }
    let to_inbound = format!("REDIRECT --to-port {inbound_port}");
    if only_inbound.is_empty() {
        add(INBOUND, "-p tcp", "redirect-all-incoming-to-proxy-port", &to_inbound);
    }
    for ports in grouped(only_inbound) {
        add(INBOUND, &format!("-p tcp -m multiport --dports {ports}"), &format!("redirect-port-{ports}"), &to_inbound);
    }

    match exempt {
        Exempt::Mark(mark) => add(OUTBOUND, &format!("-m mark --mark {mark:#x}"), "ignore-proxy-mark", "RETURN"),
        Exempt::Owner { uid, gid } => {
            for (flag, id, purpose) in [("uid", uid, "ignore-proxy-user-id"), ("gid", gid, "ignore-proxy-group-id")] {
                if let Some(id) = id {
                    add(OUTBOUND, &format!("-m owner --{flag}-owner {id}"), purpose, "RETURN");
                }
            }
        }
    }
    add(OUTBOUND, "-o lo", "ignore-loopback", "RETURN");
    for ports in grouped(skip_outbound) {
        add(OUTBOUND, &format!("-p tcp -m multiport --dports {ports}"), &format!("ignore-port-{ports}"), "RETURN");
    }
    let to_outbound = format!("REDIRECT --to-port {outbound_port}");
    add(OUTBOUND, "-p tcp", "redirect-all-outgoing-to-proxy-port", &to_outbound);

    for (hook, chain, purpose) in
        [("PREROUTING", INBOUND, "install-proxy-init-prerouting"), ("OUTPUT", OUTBOUND, "install-proxy-init-output")]
    {
        let there = before
            .lines()
            .any(|line| line.starts_with(&format!("-A {hook} ")) && line.ends_with(&format!("-j {chain}")));
        if !there {
            add(hook, "", purpose, chain);
        }
    }
    text + "COMMIT\n"
}

/// As lists that one rule may hold.
fn grouped(ports: &PortRanges) -> Vec<String> {
    let mut groups: Vec<(usize, String)> = vec![];
    for range in ports.merged().ranges() {
        let (size, text) = match (range.start(), range.end()) {
            (first, last) if first == last => (1, first.to_string()),
            (first, last) => (2, format!("{first}:{last}")),
        };
        match groups.last_mut() {
            Some((full, list)) if *full + size <= PORTS_PER_RULE => {
                *full += size;
                list.push(',');
                list.push_str(&text);
            }
            _ => groups.push((size, text)),
        }
    }
    groups.into_iter().map(|(_, list)| list).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{plain, rules},
        *,
    };

    const PROXY: Exempt = Exempt::Owner { uid: Some(2102), gid: None };

    #[test]
    fn for_an_empty_table() {
        insta::assert_snapshot!(render(&rules(PROXY), Family::V4, ""));
        insta::assert_snapshot!(render(&rules(Exempt::Mark(0x5741)), Family::V6, ""));
    }

    #[test]
    fn jumps_that_are_there_are_not_added_again() {
        let first = render(&plain(PROXY), Family::V4, "");
        let again = render(&plain(PROXY), Family::V4, &first);
        assert_eq!(first.matches("-j PROXY_INIT_").count(), 2);
        assert_eq!(again.matches("-j PROXY_INIT_").count(), 0);
        assert!(again.contains(":PROXY_INIT_OUTPUT"), "the chain is filled anew");
    }

    #[test]
    fn fifteen_ports_are_a_group() {
        let odd: PortRanges = (0..16).map(|n| (2 * n + 1)..=(2 * n + 1)).collect();
        assert_eq!(grouped(&odd), ["1,3,5,7,9,11,13,15,17,19,21,23,25,27,29", "31"]);
        assert_eq!(grouped(&"1,3,5,7,9,11,13,15,17,19,21,23,25,27,30-40".parse().unwrap()).last().unwrap(), "30:40");
    }
}
