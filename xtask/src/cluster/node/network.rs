//! The node's network: a link with an address, a default route over it, and forwarding. Nothing leads out of the namespace.

use super::quietly;
use crate::cluster::{NODE, NODE_V6};
use anyhow::Context;
use std::{fs, process::Command};

pub(super) fn arrange(dual_stack: bool) -> anyhow::Result<()> {
    ip("link set lo up")?;
    // A bridge that nothing hangs on: not every kernel has dummy links. The kubelet refuses loopback addresses.
    ip("link add node0 type bridge")?;
    ip(&format!("address add {NODE}/24 dev node0"))?;
    ip("link set node0 up")?;
    ip("route add default dev node0")?;
    set("/proc/sys/net/ipv4/ip_forward", "1")?;
    if dual_stack {
        ip(&format!("-6 address add {NODE_V6}/64 dev node0 nodad"))?;
        ip("-6 route add default dev node0")?;
        set("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    quietly(Command::new("ip").args(arguments.split(' ')))
}

fn set(setting: &str, value: &str) -> anyhow::Result<()> {
    fs::write(setting, value).with_context(|| format!("writing {setting}"))
}
