//! Two network namespaces joined by a veth pair, in a mount and user namespace of our own.

use anyhow::{Context, bail};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
};

pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
pub(crate) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
/// Where the origin listens.
pub(crate) const ORIGIN: SocketAddr = SocketAddr::new(SERVER, 8080);

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
        // Short connections must not run out of ports: these settings are of the namespaces' own.
        for side in ["client", "server"] {
            sh(&format!(
                "ip netns exec {side} sh -c 'echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range && \
                 echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse'"
            ))?;
        }
        Ok(Self)
    }

    /// A command that runs in a namespace.
    #[expect(clippy::unused_self, reason = "the namespaces exist once there is a lab")]
    pub(crate) fn command(&self, side: Side, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", side.name()]).arg(program);
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
