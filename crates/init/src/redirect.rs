//! `linkerd2-proxy-init`: redirects a pod's connections to its proxy, with the rules of the embedded mesh ([`weft_transport::redirect`]).

use crate::{logs, rights};
use anyhow::{Context, bail};
use clap::{ArgAction, Parser, ValueEnum};
use std::path::PathBuf;
use weft_model::{decide::cidr::Cidr, ports::PortRanges};
use weft_transport::{
    netns::Namespace,
    redirect::{Exempt, Firewall, Rules},
};

/// Linkerd's flags, with its defaults: -1 is unset.
#[derive(Parser)]
#[command(
    name = "linkerd2-proxy-init",
    version,
    about = "Redirects the connections of this network namespace to a proxy"
)]
pub(crate) struct Flags {
    /// Where inbound connections go.
    #[arg(short = 'p', long, default_value_t = -1, allow_negative_numbers = true)]
    incoming_proxy_port: i64,
    /// Where outbound connections go.
    #[arg(short = 'o', long, default_value_t = -1, allow_negative_numbers = true)]
    outgoing_proxy_port: i64,
    /// The proxy's user, whose connections are let through.
    #[arg(short = 'u', long, default_value_t = -1, allow_negative_numbers = true)]
    proxy_uid: i64,
    /// The proxy's group, whose connections are let through.
    #[arg(short = 'g', long, default_value_t = -1, allow_negative_numbers = true)]
    proxy_gid: i64,
    /// Inbound ports to redirect; without any, all.
    #[arg(short = 'r', long)]
    ports_to_redirect: Vec<String>,
    /// Inbound ports and ranges that are not redirected.
    #[arg(long)]
    inbound_ports_to_ignore: Vec<String>,
    /// Outbound ports and ranges that are not redirected.
    #[arg(long)]
    outbound_ports_to_ignore: Vec<String>,
    /// Networks whose clients are not redirected.
    #[arg(long)]
    subnets_to_ignore: Vec<String>,
    /// Prints the rules and changes nothing.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    simulate: bool,
    /// The network namespace to change, instead of this process's.
    #[arg(long)]
    netns: Option<PathBuf>,
    /// Accepted: iptables always waits for its lock.
    #[arg(short = 'w', long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    use_wait_flag: bool,
    /// Sets the kernel's time for connections that wait to be closed.
    #[arg(long, default_value_t = 0)]
    timeout_close_wait_secs: u32,
    /// Which program is tried first; the others are tried where it is missing or fails. nft mode begins with nft itself.
    #[arg(long)]
    iptables_mode: Option<Mode>,
    /// Redirects IPv6 as well.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    ipv6: bool,
    /// Older way to name a mode: the name of an iptables.
    #[arg(long, default_value = "")]
    firewall_bin_path: String,
    /// Accepted beside --firewall-bin-path, whose mode it has.
    #[arg(long, default_value = "")]
    firewall_save_bin_path: String,
    #[command(flatten)]
    logs: logs::LogFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Legacy,
    Nft,
    Plain,
}

pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    logs::init(&flags.logs)?;
    let rules = rules(flags)?;
    let order = order(mode(flags)?);
    if flags.simulate {
        tracing::info!("simulated, nothing is changed:\n{}", rules.ruleset());
        return Ok(());
    }
    rights::for_children().context("keeping capabilities for nft")?;
    let work = || {
        let by = rules.apply(&order)?;
        if flags.timeout_close_wait_secs > 0 {
            const SETTING: &str = "net.netfilter.nf_conntrack_tcp_timeout_close_wait";
            let value = flags.timeout_close_wait_secs.to_string();
            Namespace::current()?.sysctl(SETTING, &value).with_context(|| format!("setting {SETTING}"))?;
        }
        anyhow::Ok(by)
    };
    let by = match &flags.netns {
        Some(path) => {
            let namespace = Namespace::open(path).with_context(|| format!("opening {}", path.display()))?;
            namespace.run(work).with_context(|| format!("entering {}", path.display()))??
        }
        None => work()?,
    };
    tracing::info!(
        inbound = rules.inbound_port,
        outbound = rules.outbound_port,
        ipv6 = rules.ipv6,
        "redirected by {by}"
    );
    Ok(())
}

fn rules(flags: &Flags) -> anyhow::Result<Rules> {
    let port = |value: i64, flag: &str| match u16::try_from(value) {
        Ok(port) if port > 0 => Ok(port),
        _ => bail!("--{flag} must be a port from 1 to 65535"),
    };
    let ports = |lists: &[String], flag: &str| {
        lists.join(",").parse::<PortRanges>().with_context(|| format!("reading --{flag}"))
    };
    let id = |value: i64, flag: &str| match u32::try_from(value) {
        Ok(0) => Ok(None), // as Linkerd's: root is nobody's proxy
        Ok(id) => Ok(Some(id)),
        Err(_) if value < 0 => Ok(None),
        Err(_) => bail!("--{flag} is no id"),
    };
    let subnets =
        flags.subnets_to_ignore.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|s| !s.is_empty());
    Ok(Rules {
        inbound_port: port(flags.incoming_proxy_port, "incoming-proxy-port")?,
        outbound_port: port(flags.outgoing_proxy_port, "outgoing-proxy-port")?,
        only_inbound: ports(&flags.ports_to_redirect, "ports-to-redirect")?,
        skip_inbound: ports(&flags.inbound_ports_to_ignore, "inbound-ports-to-ignore")?,
        skip_outbound: ports(&flags.outbound_ports_to_ignore, "outbound-ports-to-ignore")?,
        skip_subnets: subnets
            .map(str::parse::<Cidr>)
            .collect::<Result<_, _>>()
            .context("reading --subnets-to-ignore")?,
        exempt: Exempt::Owner { uid: id(flags.proxy_uid, "proxy-uid")?, gid: id(flags.proxy_gid, "proxy-gid")? },
        ipv6: flags.ipv6,
    })
}

fn mode(flags: &Flags) -> anyhow::Result<Mode> {
    if let Some(mode) = flags.iptables_mode {
        return Ok(mode);
    }
    match flags.firewall_bin_path.as_str() {
        "" | "iptables-nft" => Ok(Mode::Nft),
        "iptables-legacy" => Ok(Mode::Legacy),
        "iptables" => Ok(Mode::Plain),
        other => bail!("--firewall-bin-path {other}: use iptables-nft, iptables-legacy or iptables"),
    }
}

fn order(mode: Mode) -> Vec<Firewall> {
    let first = match mode {
        Mode::Nft => Firewall::Nft,
        Mode::Plain => Firewall::Iptables,
        Mode::Legacy => Firewall::IptablesLegacy,
    };
    let others = Firewall::ALL.iter().copied().filter(|other| *other != first);
    [first].into_iter().chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(arguments: &str) -> Flags {
        Flags::try_parse_from(["init"].into_iter().chain(arguments.split_whitespace())).unwrap()
    }

    const USUAL: &str = "--incoming-proxy-port 4143 --outgoing-proxy-port 4140 --proxy-uid 2102";

    #[test]
    fn the_flags_are_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn linkerds_own_arguments_are_understood() {
        // As Linkerd's injector writes them, with every optional one.
        let flags = parse(&format!(
            "--firewall-bin-path iptables-nft --firewall-save-bin-path iptables-nft-save --ipv6=false {USUAL} --proxy-gid 2103 \
             --inbound-ports-to-ignore 4190,4191,4567-4568 --outbound-ports-to-ignore 4567,4568 \
             --timeout-close-wait-secs 3600 --log-format json --log-level debug --subnets-to-ignore 10.0.0.0/8,192.168.1.1"
        ));
        let rules = rules(&flags).unwrap();
        assert_eq!((rules.inbound_port, rules.outbound_port, rules.ipv6), (4143, 4140, false));
        assert_eq!(rules.exempt, Exempt::Owner { uid: Some(2102), gid: Some(2103) });
        assert_eq!(rules.skip_inbound.to_string(), "4190,4191,4567-4568");
        assert_eq!(rules.skip_subnets, ["10.0.0.0/8".parse().unwrap(), "192.168.1.1/32".parse().unwrap()]);
        assert_eq!(order(mode(&flags).unwrap()).first(), Some(&Firewall::Nft));
    }

    #[test]
    fn defaults_are_linkerds() {
        let rules = rules(&parse("-p 4143 -o 4140")).unwrap();
        assert_eq!(rules.exempt, Exempt::Owner { uid: None, gid: None });
        assert!(rules.ipv6 && rules.only_inbound.is_empty());
        assert!(parse("-w --simulate --ipv6").simulate);
    }

    #[test]
    fn what_makes_no_rules_is_named() {
        for (arguments, named) in [
            ("-o 4140", "incoming-proxy-port"),
            ("-p 4143 -o 70000", "outgoing-proxy-port"),
            ("-p 4143 -o 4140 --inbound-ports-to-ignore http", "inbound-ports-to-ignore"),
            ("-p 4143 -o 4140 --subnets-to-ignore 10.0.0.0/33", "subnets-to-ignore"),
        ] {
            let error = format!("{:#}", rules(&parse(arguments)).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn the_asked_program_is_first_and_the_others_follow() {
        use Firewall::{Iptables, IptablesLegacy, IptablesNft, Nft};
        for (arguments, expected) in [
            ("", [Nft, IptablesNft, Iptables, IptablesLegacy]),
            ("--iptables-mode plain", [Iptables, Nft, IptablesNft, IptablesLegacy]),
            ("--firewall-bin-path iptables-legacy", [IptablesLegacy, Nft, IptablesNft, Iptables]),
        ] {
            assert_eq!(order(mode(&parse(arguments)).unwrap()), expected, "{arguments}");
        }
        assert!(mode(&parse("--firewall-bin-path /bin/sh")).is_err());
    }
}
