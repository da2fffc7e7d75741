//! What the processes of a cluster see of the machine's files: all of it, but what Kubernetes writes to is memory of their own.

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use std::fs;

/// Where the parts of Kubernetes keep state; each begins empty and ends with the mounts.
pub(crate) const OWN: &[&str] = &["/run", "/var/lib", "/var/log"];

/// Settings of the whole machine that the kubelet would change: it finds what it wants in files of ours, and leaves the kernel's alone.
const WANTED: &[(&str, &str)] = &[
    ("/proc/sys/vm/overcommit_memory", "1"),
    ("/proc/sys/vm/panic_on_oom", "0"),
    ("/proc/sys/kernel/panic", "10"),
    ("/proc/sys/kernel/panic_on_oops", "1"),
    ("/proc/sys/kernel/keys/root_maxkeys", "1000000"),
    ("/proc/sys/kernel/keys/root_maxbytes", "25000000"),
];

pub(super) fn arrange() -> anyhow::Result<()> {
    let none = None::<&str>;
    for folder in OWN {
        mount(Some("tmpfs"), *folder, Some("tmpfs"), MsFlags::empty(), none)
            .with_context(|| format!("mounting {folder}"))?;
        // The kubelet's and the runtime's mounts must be seen by containers that are there already.
        mount(none, *folder, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none)?;
    }
    fs::create_dir_all("/var/lib/kubelet")?;
    for (number, (setting, value)) in
        WANTED.iter().enumerate().filter(|(_, (setting, _))| fs::exists(setting).unwrap_or(false))
    {
        let file = format!("/run/setting-{number}");
        fs::write(&file, format!("{value}\n"))?;
        mount(Some(file.as_str()), *setting, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("covering {setting}"))?;
    }
    Ok(())
}
