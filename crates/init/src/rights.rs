//! What the programs that this one starts may. The image gives capabilities to our file alone; nft and iptables get them from us.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set, set_capabilities,
};
use std::io;

/// What changes and reads rules.
const NEEDED: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW);

/// Makes children keep what we have of it, whatever their files grant. For root there is nothing to do.
pub(crate) fn for_children() -> io::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let own = capabilities(None)?;
    let kept = own.permitted.intersection(NEEDED);
    set_capabilities(
        None,
        CapabilitySets { effective: own.effective.union(kept), inheritable: own.inheritable.union(kept), ..own },
    )?;
    for capability in kept.iter() {
        configure_capability_in_ambient_set(capability, true)?;
    }
    if !kept.contains(CapabilitySet::NET_ADMIN) {
        tracing::warn!("CAP_NET_ADMIN is not among this container's capabilities: the kernel will refuse rules");
    }
    Ok(())
}
