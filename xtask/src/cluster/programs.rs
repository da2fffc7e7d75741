//! The programs of Kubernetes: built once by Go from the pinned module `tests/kubernetes`, and kept in the cache folder.
//!
//! etcd, containerd and the rest are Debian's. Where `KUBEBUILDER_ASSETS` is set, as controller-runtime's envtest does, kube-apiserver,
//! etcd and kubectl come from there.

use super::Home;
use crate::{
    go::Turn,
    image::{
        oci::{Form, Image},
        tar::{Entry, NET_BIND_SERVICE},
    },
    root, run,
};
use anyhow::{Context, bail};
use serde_json::json;
use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Write},
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

/// Of the module `k8s.io/kubernetes` in go.mod; stamped into the programs.
pub(crate) const VERSION: &str = "v1.34.4";
/// What the one binary `node` answers to.
const NAMES: &[&str] =
    &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"];
/// What comes from `KUBEBUILDER_ASSETS`.
const ASSETS: &[&str] = &["kube-apiserver", "etcd", "kubectl"];

/// Counts changes of how the programs are packed here.
const PACKING: u32 = 1;

/// The Gateway API's definitions, by channel.
const CRDS: &str = "gateway-api";

/// The image that holds each pod's namespaces.
pub(crate) const PAUSE: &str = "weft.local/pause:1";
/// The image that answers names.
pub(crate) const COREDNS: &str = "weft.local/coredns:1";
/// Archives of both.
pub(crate) const ARCHIVES: &[&str] = &["pause.tar", "coredns.tar"];

/// Where the archives are.
pub(crate) fn archives(folder: &Path) -> PathBuf {
    folder.join(packed())
}

fn packed() -> String {
    format!("images-{PACKING}")
}

/// What is built takes nine minutes on two cores.
pub(crate) fn ensure() -> anyhow::Result<PathBuf> {
    let turn = Turn::wait("kubernetes", VERSION, &root().join("tests/kubernetes"))?;
    turn.once("done", build)?;
    fs::create_dir_all(archives(&turn.folder))?;
    turn.once(&format!("{}/done", packed()), |turn| pack(&turn.folder))?;
    turn.definitions(CRDS)?;
    Ok(turn.folder)
}

fn build(turn: &Turn) -> anyhow::Result<()> {
    let mut go = turn.go("Kubernetes")?;
    eprintln!("xtask: building Kubernetes {VERSION}, once; this takes some minutes");
    let bin = turn.folder.join("bin");
    fs::create_dir_all(&bin)?;
    let (major, minor) = VERSION.trim_start_matches('v').split_once('.').context("the version has no dot")?;
    let minor = minor.split('.').next().unwrap_or(minor);
    let stamp = |name: &str, value: &str| format!("-X k8s.io/component-base/version.{name}={value}");
    let flags = ["-s -w".to_owned(), stamp("gitVersion", VERSION), stamp("gitMajor", major), stamp("gitMinor", minor)]
        .join(" ");
    run(go.args(["build", "-trimpath", "-ldflags", &flags, "-o"]).arg(&bin).args([
        "./node",
        "./coredns",
        "./pause",
        "helm.sh/helm/v3/cmd/helm",
    ]))?;
    for name in NAMES {
        let link = bin.join(name);
        if !link.exists() {
            symlink("node", &link).with_context(|| format!("linking {}", link.display()))?;
        }
    }
    Ok(())
}

/// Both images are of one static program. An ordinary user may listen on port 53 only by a capability of the file.
fn pack(folder: &Path) -> anyhow::Result<()> {
    let into = archives(folder);
    for (name, program, capabilities) in [(PAUSE, "pause", 0), (COREDNS, "coredns", NET_BIND_SERVICE)] {
        let image = Image {
            name: name.to_owned(),
            entries: vec![Entry::program(program, folder.join("bin").join(program)).with_capabilities(capabilities)],
            config: json!({ "Entrypoint": [format!("/{program}")], "User": "65532:65532" }),
        };
        image.write(&into.join(format!("{program}.tar")), Form::Older)?;
    }
    Ok(())
}

/// Where a program is found.
pub(crate) fn find(built: &Path, name: &str) -> PathBuf {
    match env::var_os("KUBEBUILDER_ASSETS").filter(|_| ASSETS.contains(&name)) {
        Some(assets) => Path::new(&assets).join(name),
        None if NAMES.contains(&name) => built.join("bin").join(name),
        None => name.into(),
    }
}

/// Says where the programs are.
pub(crate) fn tell() -> anyhow::Result<()> {
    let folder = ensure()?.join("bin");
    writeln!(io::stdout(), "{}", folder.display()).context("telling the folder")
}

/// Runs kubectl in place of this process.
pub(crate) fn kubectl(home: &Home, args: &[OsString]) -> anyhow::Result<()> {
    if !home.alive()? {
        bail!("the cluster {} does not run: cargo xtask cluster up", home.name());
    }
    let kubectl = find(&ensure()?, "kubectl");
    let mut command = Command::new(&kubectl);
    command.args(args).env("KUBECONFIG", home.kubeconfig());
    Err(command.exec()).with_context(|| format!("starting {}", kubectl.display()))
}
