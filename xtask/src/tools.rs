//! The programs that chores need from Debian: found in PATH, else installed.
//!
//! Root installs packages, but for servers, which would then run; those, and an ordinary user's packages, are unpacked below the
//! cache folder, which needs no rights.

use crate::run;
use anyhow::{Context, bail};
use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

/// A program and the Debian package that has it.
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
    /// Installed, it would run as a service of the machine: it is only unpacked.
    service: bool,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package, service: false }
}

const fn server(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package, service: true }
}

/// What the embedded mesh runs.
pub(crate) const MESH: &[Tool] = &[tool("nft", "nftables"), tool("ip", "iproute2")];
/// What the tests run besides.
pub(crate) const TEST: &[Tool] = &[
    tool("nft", "nftables"),
    tool("iptables-nft", "iptables"),
    tool("ip", "iproute2"),
    tool("curl", "curl"),
    tool("python3", "python3"),
    tool("slowhttptest", "slowhttptest"),
    tool("zsh", "zsh"),
    tool("fish", "fish"),
    server("nginx", "nginx"),
    server("haproxy", "haproxy"),
    server("apache2", "apache2-bin"),
];
/// What goes into images, or is needed to pack them.
pub(crate) const IMAGE: &[Tool] = &[
    tool("nft", "nftables"),
    tool("xtables-nft-multi", "iptables"),
    tool("strip", "binutils"),
    tool("sha256sum", "coreutils"),
    tool("curl", "curl"),
    tool("ip", "iproute2"),
    tool("tcpdump", "tcpdump"),
];
/// What an API server alone runs besides its own programs and etcd.
pub(crate) const API: &[Tool] = &[tool("ip", "iproute2"), tool("openssl", "openssl")];
/// What a node of Kubernetes runs besides its own programs.
pub(crate) const CLUSTER: &[Tool] = &[
    tool("etcd", "etcd-server"),
    tool("containerd", "containerd"),
    tool("runc", "runc"),
    tool("/usr/lib/cni/ptp", "containernetworking-plugins"),
    tool("iptables", "iptables"),
    tool("nft", "nftables"),
    tool("conntrack", "conntrack"),
    tool("ipset", "ipset"),
    tool("socat", "socat"),
    tool("ip", "iproute2"),
    tool("openssl", "openssl"),
];
/// Load generators and peers of the benchmarks.
pub(crate) const BENCH: &[Tool] = &[
    tool("nft", "nftables"),
    tool("ip", "iproute2"),
    tool("wrk", "wrk"),
    tool("h2load", "nghttp2-client"),
    tool("iperf3", "iperf3"),
    server("haproxy", "haproxy"),
    tool("curl", "curl"),
];

/// Folders to put in front of PATH and of the library path so that the tools are found.
#[derive(Default)]
pub(crate) struct Found {
    bin: Vec<PathBuf>,
    lib: Vec<PathBuf>,
}

impl Found {
    /// Gives a command the tools.
    pub(crate) fn apply<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let extended = |name: &str, more: &[PathBuf]| -> OsString {
            let old = env::var_os(name).unwrap_or_default();
            let all = more.iter().cloned().chain(env::split_paths(&old).filter(|p| !p.as_os_str().is_empty()));
            env::join_paths(all).unwrap_or(old)
        };
        let mut bin = self.bin.clone();
        bin.extend(["/usr/sbin".into(), "/sbin".into()]); // where Debian has nft, which a user's PATH lacks
        command.env("PATH", extended("PATH", &bin));
        if !self.lib.is_empty() {
            command.env("LD_LIBRARY_PATH", extended("LD_LIBRARY_PATH", &self.lib));
        }
        command
    }
}

impl Found {
    /// Where a program is.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        let usual = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
        self.bin.iter().chain(&usual).map(|folder| folder.join(name)).find(|file| file.is_file())
    }

    /// A folder among the libraries.
    pub(crate) fn library_folder(&self, name: &str) -> Option<PathBuf> {
        let own = library_dirs(Path::new("/"));
        self.lib.iter().chain(&own).map(|folder| folder.join(name)).find(|folder| folder.is_dir())
    }
}

/// Where what chores download and build stays between runs.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cache")));
    let cache = base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("weft");
    std::fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    Ok(cache)
}

/// Finds the tools and installs the missing ones.
pub(crate) fn ensure(tools: &[Tool]) -> anyhow::Result<Found> {
    let unpacked = cache()?.join("debian");
    let found = || Found {
        bin: ["usr/sbin", "usr/bin", "sbin", "bin"]
            .map(|d| unpacked.join(d))
            .into_iter()
            .filter(|d| d.is_dir())
            .collect(),
        lib: library_dirs(&unpacked),
    };
    let missing: Vec<_> = tools.iter().filter(|t| !in_path(t.program, &found().bin)).collect();
    if missing.is_empty() {
        return Ok(found());
    }
    let packages = |wanted: &dyn Fn(&Tool) -> bool| -> Vec<&str> {
        let packages: BTreeSet<_> = missing.iter().filter(|tool| wanted(tool)).map(|tool| tool.package).collect();
        packages.into_iter().collect()
    };
    let names = packages(&|_| true);
    eprintln!("xtask: installing {}", names.join(" "));
    let by_hand = format!("apt-get install --no-install-recommends {}", names.join(" "));
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("this machine has no apt-get; install what Debian calls: {}", names.join(" "));
    }
    let root = is_root()?;
    let (installed, taken) = (packages(&|tool| root && !tool.service), packages(&|tool| !root || tool.service));
    if !installed.is_empty() {
        install(&installed).with_context(|| format!("installing packages; try it by hand: {by_hand}"))?;
    }
    if !taken.is_empty() {
        unpack(&taken, &unpacked).with_context(|| format!("unpacking packages; or, as root, run: {by_hand}"))?;
    }
    let found = found();
    if let Some(tool) = tools.iter().find(|t| !in_path(t.program, &found.bin)) {
        bail!("{} is still missing; as root, run: {by_hand}", tool.program);
    }
    Ok(found)
}

fn in_path(program: &str, more: &[PathBuf]) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(usual).chain(more.iter().cloned()).any(|dir| dir.join(program).is_file())
}

pub(crate) fn is_root() -> anyhow::Result<bool> {
    let output = Command::new("id").arg("-u").output().context("asking id for the user")?;
    Ok(output.stdout.trim_ascii() == b"0")
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq").stdout(std::process::Stdio::null());
        apt
    };
    let mut install = apt();
    install.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    if run(&mut install).is_ok() {
        return Ok(());
    }
    run(apt().arg("update"))?; // a fresh machine has no lists, or old ones
    run(&mut install)
}

/// Downloads packages and the libraries that the machine lacks, and unpacks them below `into`.
fn unpack(packages: &[&str], into: &Path) -> anyhow::Result<()> {
    let work = cache()?.join("apt");
    let lists = work.join("lists/partial");
    let archives = work.join("archives/partial");
    let debs = work.join("debs");
    for dir in [&lists, &archives, &debs, &into.to_owned()] {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    let own = [
        format!("-oDir::State::lists={}", work.join("lists").display()),
        format!("-oDir::Cache={}", work.display()),
        "-oDebug::NoLocking=1".to_owned(),
    ];
    run(Command::new("apt-get").arg("-qq").args(&own).arg("update"))?;
    // What would be installed besides the packages themselves: their missing dependencies.
    let plan = Command::new("apt-get")
        .args(&own)
        .args(["install", "--simulate", "--no-install-recommends"])
        .args(packages)
        .output()
        .context("asking apt-get what the packages need")?;
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    let needed: Vec<&str> = plan.lines().filter_map(|l| l.strip_prefix("Inst ")?.split_whitespace().next()).collect();
    if needed.is_empty() {
        bail!("apt-get finds nothing to install for {}", packages.join(" "));
    }
    run(Command::new("apt-get").arg("-qq").args(&own).arg("download").args(&needed).current_dir(&debs))?;
    for entry in std::fs::read_dir(&debs)? {
        let deb = entry?.path();
        if deb.extension().is_some_and(|e| e == "deb") {
            run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(into))?;
            std::fs::remove_file(&deb)?;
        }
    }
    Ok(())
}

fn library_dirs(unpacked: &Path) -> Vec<PathBuf> {
    ["usr/lib", "lib"]
        .into_iter()
        .filter_map(|d| std::fs::read_dir(unpacked.join(d)).ok())
        .flatten()
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.is_dir() && p.file_name().is_some_and(|n| n.to_string_lossy().ends_with("-linux-gnu")))
        .collect()
}
