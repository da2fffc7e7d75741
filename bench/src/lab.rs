//! Two network namespaces joined by a veth pair, in a mount and user namespace of our own.

use anyhow::{Context, bail};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
};
use weft_model::{names::port, ports::PortRanges};
use weft_transport::{
    netns::Namespace,
    redirect::{Exempt, Firewall, Rules},
};

pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
pub(crate) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
/// Where the origin listens.
pub(crate) const ORIGIN: SocketAddr = SocketAddr::new(SERVER, 8080);

/// What a proxy of weft marks its own connections with.
pub(crate) const MARK: u32 = 0x1e57;

/// Of the namespaces' own, so that a million short connections run out of neither ports nor places in the table of redirected
/// connections, which has 262,144 and keeps each for two minutes after its end.
const SETTINGS: [(&str, &str); 3] = [
    ("ipv4/ip_local_port_range", "1024 65535"),
    ("ipv4/tcp_tw_reuse", "1"),
    ("netfilter/nf_conntrack_tcp_timeout_time_wait", "1"),
];

pub(crate) struct Lab;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

impl Lab {
    pub(crate) fn new() -> anyhow::Result<Self> {
        sh("mount -t tmpfs tmpfs /run && mkdir -p /run/netns")?;
        sh("ip netns add client && ip netns add server")?;
        sh("ip -n client link add to-server type veth peer name to-client netns server")?;
        for (side, link, addr) in [("client", "to-server", CLIENT), ("server", "to-client", SERVER)] {
            sh(&format!(
                "ip -n {side} addr add {addr}/24 dev {link} && ip -n {side} link set {link} up && ip -n {side} link set lo up"
            ))?;
        }
        let lab = Self;
        for (setting, value) in SETTINGS {
            for side in ["client", "server"] {
                sh(&format!("ip netns exec {side} sh -c 'echo {value} > /proc/sys/net/{setting}'"))?;
            }
        }
        Ok(lab)
    }

    /// Puts the redirection of a mesh in force in both namespaces, for whichever proxies are measured: what the kernel does for
    /// it costs each of them the same. What goes from proxy to proxy is not redirected.
    pub(crate) fn redirect(&self) -> anyhow::Result<()> {
        let rules = Rules {
            inbound_port: port::INBOUND,
            outbound_port: port::OUTBOUND,
            only_inbound: PortRanges::default(),
            skip_inbound: PortRanges::from_iter([port::INBOUND, port::CONTROL, port::ADMIN]),
            skip_outbound: PortRanges::from_iter([port::INBOUND]),
            skip_subnets: vec![],
            exempt: Exempt::Mark(MARK),
            ipv6: true,
        };
        for side in [Side::Client, Side::Server] {
            self.within(side, || rules.apply(Firewall::ALL))??;
        }
        Ok(())
    }

    /// Runs something on a thread inside a namespace.
    #[expect(clippy::unused_self, reason = "the namespaces exist once there is a lab")]
    pub(crate) fn within<T: Send>(&self, side: Side, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let namespace = Namespace::open(Path::new("/run/netns").join(side.name())).context("opening a namespace")?;
        Ok(namespace.run(work)?)
    }

    /// A command that runs in a namespace.
    #[expect(clippy::unused_self, reason = "the namespaces exist once there is a lab")]
    pub(crate) fn command(&self, side: Side, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        // A failure is told in one line.
        command.env("RUST_BACKTRACE", "0").args(["netns", "exec", side.name()]).arg(program);
        command
    }

    /// Removes every redirection from both namespaces.
    pub(crate) fn forget_rules(&self) -> anyhow::Result<()> {
        for side in [Side::Client, Side::Server] {
            let status = self.command(side, "nft").args(["flush", "ruleset"]).status().context("starting nft")?;
            anyhow::ensure!(status.success(), "nft could not flush the rules of namespace {}", side.name());
        }
        Ok(())
    }

    /// Whether something listens there, seen from `side`.
    pub(crate) fn listens(&self, side: Side, addr: SocketAddr) -> bool {
        let probe = format!("exec 3<>/dev/tcp/{}/{}", addr.ip(), addr.port());
        self.command(side, "bash")
            .args(["-c", &probe])
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    }
}

/// Runs a line of shell.
pub(crate) fn sh(line: &str) -> anyhow::Result<()> {
    let output = Command::new("sh").args(["-c", line]).output().context("starting sh")?;
    if !output.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
