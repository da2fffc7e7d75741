//! The programs of Kubernetes: built once by Go from the pinned module `tests/kubernetes`, and kept in the cache folder.
//!
//! etcd, containerd and the rest are Debian's. Where `KUBEBUILDER_ASSETS` is set, as controller-runtime's envtest does, kube-apiserver,
//! etcd and kubectl come from there.

use super::Home;
use crate::{
    image::{
        oci::{Form, Image},
        tar::{Entry, NET_BIND_SERVICE},
    },
    root, run, tools,
};
use anyhow::{Context, bail};
use serde_json::json;
use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Write},
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

/// Of the module `k8s.io/kubernetes` in go.mod; stamped into the programs.
const VERSION: &str = "v1.34.4";
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
    folder.join(format!("images-{PACKING}"))
}

/// What is built takes nine minutes on two cores, so nobody else does it at the same time.
pub(crate) fn ensure() -> anyhow::Result<PathBuf> {
    let module = root().join("tests/kubernetes");
    let all = tools::cache()?.join("kubernetes");
    fs::create_dir_all(&all)?;
    let folder = all.join(key(&module)?);
    let turn = File::create(all.join("turn"))?;
    turn.lock().context("waiting for another build of Kubernetes")?;
    if !folder.join("done").exists() {
        build(&module, &folder)?;
        fs::write(folder.join("done"), VERSION)?;
    }
    if !archives(&folder).join("done").exists() {
        pack(&folder)?;
        fs::write(archives(&folder).join("done"), "")?;
    }
    if !folder.join(CRDS).exists() {
        definitions(&module, &folder)?;
    }
    Ok(folder)
}

/// The definitions of the Gateway API, which suites apply: they lie in the module, which is not built.
fn definitions(module: &Path, folder: &Path) -> anyhow::Result<()> {
    let download = ["mod", "download", "-json", "sigs.k8s.io/gateway-api"];
    let output = Command::new("go").args(download).current_dir(module).output().context("starting go")?;
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).context("reading what go downloaded")?;
    let from = Path::new(told["Dir"].as_str().context("go names no folder")?).join("config/crd");
    let into = folder.join(format!("{CRDS}.part"));
    let _ = fs::remove_dir_all(&into);
    for channel in ["standard", "experimental"] {
        fs::create_dir_all(into.join(channel))?;
        for entry in fs::read_dir(from.join(channel)).with_context(|| format!("reading {}", from.display()))? {
            let file = entry?.path();
            let name = file.file_name().context("a file has no name")?;
            // Only definitions; the module's files are not for writing, and their copies would not be for removing.
            if file.extension().is_some_and(|extension| extension == "yaml") && name != "kustomization.yaml" {
                fs::write(into.join(channel).join(name), fs::read(&file)?)?;
            }
        }
    }
    fs::rename(into, folder.join(CRDS)).context("putting definitions in their place")
}

/// Changes with everything that goes into the build.
fn key(module: &Path) -> anyhow::Result<String> {
    let mut hasher = DefaultHasher::new();
    let mut files = vec![];
    let mut folders = vec![module.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    for file in &files {
        file.strip_prefix(module)?.hash(&mut hasher);
        fs::read(file)?.hash(&mut hasher);
    }
    Ok(format!("{VERSION}-{:016x}", hasher.finish()))
}

fn build(module: &Path, folder: &Path) -> anyhow::Result<()> {
    let go = Command::new("go").arg("version").output();
    if !go.is_ok_and(|output| output.status.success()) {
        bail!("Kubernetes cannot be built here: go is missing; install Go 1.25 or newer and try again");
    }
    eprintln!("xtask: building Kubernetes {VERSION}, once; this takes some minutes");
    let bin = folder.join("bin");
    fs::create_dir_all(&bin)?;
    let (major, minor) = VERSION.trim_start_matches('v').split_once('.').context("the version has no dot")?;
    let minor = minor.split('.').next().unwrap_or(minor);
    let stamp = |name: &str, value: &str| format!("-X k8s.io/component-base/version.{name}={value}");
    let flags = ["-s -w".to_owned(), stamp("gitVersion", VERSION), stamp("gitMajor", major), stamp("gitMinor", minor)]
        .join(" ");
    run(Command::new("nice")
        .args(["-n", "10", "go", "build", "-trimpath", "-ldflags", &flags, "-o"])
        .arg(&bin)
        .args(["./node", "./coredns", "./pause", "helm.sh/helm/v3/cmd/helm"])
        // Without C the programs are static: an image of one is one file.
        .env("CGO_ENABLED", "0")
        .current_dir(module))?;
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
    fs::create_dir_all(&into)?;
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
