//! The node's links: a bridge, and a namespace with a pair of links for each attached process group.

use super::protocol::{Attach, Bridge, Net};
use std::{
    collections::HashMap,
    io::{self, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::Mutex,
    time::Duration,
};
use weft_transport::{netns::Namespace, socket};

const BRIDGE: &str = "weft0";
/// The name of a workload's link inside, as containers have it.
const INSIDE: &str = "eth0";
/// Of listening sockets; bursts of connections to the outside wait here.
const BACKLOG: u32 = 1024;

/// Of the node's namespace alone: it routes nothing, and rules do not look at what passes between pods.
const SETTINGS: [(&str, &str); 4] = [
    ("net.ipv4.ip_forward", "0"),
    ("net.ipv6.conf.all.forwarding", "0"),
    ("net.bridge.bridge-nf-call-iptables", "0"),
    ("net.bridge.bridge-nf-call-ip6tables", "0"),
];

/// New namespaces may copy a host that has v6 switched off on its links.
const HAS_V6: (&str, &str) = ("net.ipv6.conf.all.disable_ipv6", "0");

/// All network namespaces of the node. Blocking: to be used off the runtime's thread.
#[derive(Debug)]
pub(super) struct Network {
    own: Namespace,
    attached: Mutex<HashMap<u64, std::sync::Arc<Namespace>>>,
}

impl Network {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { own: Namespace::current()?, attached: Mutex::default() })
    }

    /// Makes the bridge and its sockets.
    pub(super) fn bridge(&self, bridge: &Bridge) -> io::Result<Vec<OwnedFd>> {
        let mut netlink = self.own.netlink()?;
        netlink.set_loopback_up()?;
        for (name, value) in SETTINGS.into_iter().chain([HAS_V6]) {
            // Where there is no such setting there is nothing to switch off.
            let _ = self.own.sysctl(name, value);
        }
        let link = netlink.add_bridge(BRIDGE)?;
        netlink.set_up(link)?;
        for address in &bridge.addresses {
            netlink.add_address(link, address.ip, address.prefix)?;
        }
        apply(&bridge.ruleset)?;
        let mut sockets = Vec::new();
        for addr in &bridge.listen {
            sockets.push(socket::listen(*addr, BACKLOG)?.into());
        }
        for addr in &bridge.udp {
            let socket = UdpSocket::bind(addr)?;
            socket.set_nonblocking(true)?;
            sockets.push(socket.into());
        }
        Ok(sockets)
    }

    pub(super) fn attach(&self, attach: &Attach) -> io::Result<()> {
        let namespace = Namespace::create()?;
        // Where there is no v6 it stays so.
        let _ = namespace.sysctl(HAS_V6.0, HAS_V6.1);
        // Programs that are nobody in particular may serve ports below 1024, as in containers.
        namespace.sysctl("net.ipv4.ip_unprivileged_port_start", "0")?;
        // Rules first: no packet leaves or arrives before they are in force.
        namespace.run(|| apply(&attach.ruleset))??;
        let outside = format!("v{}", attach.net);
        let mut netlink = self.own.netlink()?;
        let bridge = netlink.link(BRIDGE)?;
        let link = netlink.add_veth(&outside, INSIDE, &namespace)?;
        netlink.set_master(link, bridge)?;
        netlink.set_up(link)?;
        let mut inside = namespace.netlink()?;
        inside.set_loopback_up()?;
        let link = inside.link(INSIDE)?;
        inside.set_up(link)?;
        for address in &attach.addresses {
            inside.add_address(link, address.ip, address.prefix)?;
        }
        for gateway in &attach.gateways {
            let everything: IpAddr = match gateway {
                IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            };
            inside.add_route(everything, 0, Some(*gateway), Some(link))?;
        }
        self.lock().insert(attach.net, std::sync::Arc::new(namespace));
        Ok(())
    }

    /// The namespace itself lives until its last process has ended.
    pub(super) fn detach(&self, net: u64) -> io::Result<()> {
        self.lock().remove(&net);
        let mut netlink = self.own.netlink()?;
        let link = netlink.link(&format!("v{net}"))?;
        netlink.delete_link(link)
    }

    pub(super) fn rules(&self, net: Net, ruleset: &str) -> io::Result<()> {
        self.inside(net, || apply(ruleset))?
    }

    /// A socket made inside and connected.
    pub(super) fn dial(&self, net: Net, addr: SocketAddr, timeout: Duration) -> io::Result<OwnedFd> {
        let stream = self.inside(net, || TcpStream::connect_timeout(&addr, timeout))??;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(stream.into())
    }

    /// Runs `f` on a thread inside; processes that it starts are inside as well.
    pub(super) fn inside<T: Send>(&self, net: Net, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        match net {
            Net::Bridge => self.own.run(f),
            Net::Attached(number) => {
                let namespace = self.lock().get(&number).cloned();
                let gone = || io::Error::new(io::ErrorKind::NotFound, "the pod is gone");
                namespace.ok_or_else(gone)?.run(f)
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, std::sync::Arc<Namespace>>> {
        self.attached.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Gives nft its rules, in the calling thread's namespace and as one transaction.
fn apply(ruleset: &str) -> io::Result<()> {
    if ruleset.is_empty() {
        return Ok(());
    }
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("starting nft: {e}")))?;
    if let Some(mut stdin) = nft.stdin.take() {
        // Fails only where nft has ended: its status says why.
        let _ = stdin.write_all(ruleset.as_bytes());
    }
    let output = nft.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("nft refused the rules: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
