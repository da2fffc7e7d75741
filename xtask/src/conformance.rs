//! `cargo xtask conformance`: the official suite of the Gateway API, unmodified, against the mesh in a cluster; writes `conformance/`.
//!
//! ```text
//! tests/conformance (Go) ─► suite, echo ─► image of echo ─┐
//! weft, weft-proxy …     ─► images of the mesh ───────────┴─► a cluster: install, check, the suite ─► conformance/
//! ```
//! What comes before the cluster is done here, the rest by the test `the_official_suite_finds_what_is_claimed`.

use crate::{
    cargo, cluster, demo, dist,
    go::{self, Turn},
    image::{
        oci::{Form, Image},
        tar::Entry,
    },
    root, tools,
};
use anyhow::Context;
use clap::Args;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The module of the suite.
pub(crate) const SUITE: &str = "sigs.k8s.io/gateway-api/conformance";
/// The echo program that the suite's own image is made of, both halves.
const ECHO: &[&str] = &["istio.io/istio/pkg/test/echo/cmd/server", "istio.io/istio/pkg/test/echo/cmd/client"];
/// Counts changes of how echo is packed here.
const PACKING: u32 = 1;
/// Who runs the suite.
const TEST: &str = "the_official_suite_finds_what_is_claimed";

#[derive(Args)]
pub(crate) struct Options {
    /// One of the suite's tests alone, claimed or not, without a report.
    test: Option<String>,
    /// Which programs: dist is what is shipped, dev what tests are built with.
    #[arg(long, default_value = "dev", value_parser = ["dist", "dev"])]
    profile: String,
    /// Takes the programs of the mesh as they are found.
    #[arg(long)]
    no_build: bool,
    /// Uses this cluster instead of starting one; its nodes must have the images, or pull them.
    #[arg(long, requires = "i_know_this_cluster")]
    kubeconfig: Option<PathBuf>,
    /// Says that tests may do with that cluster what they like.
    #[arg(long, requires = "kubeconfig")]
    i_know_this_cluster: bool,
    /// Flags of `weft install`, for the images that such a cluster pulls: `-- --registry registry.example/weft`.
    #[arg(last = true, requires = "kubeconfig")]
    install: Vec<String>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let other = options.kubeconfig.as_deref().map(cluster::other).transpose()?;
    let found = tools::ensure(tools::IMAGE)?;
    // Go's builds come first, so that they do not meet cargo's.
    if other.is_none() {
        cluster::prepare()?;
    }
    let programs = ensure()?;
    if !options.no_build {
        match options.profile.as_str() {
            "dist" => dist::all()?,
            _ => demo::build(&[])?,
        }
    }
    let mut test = cargo();
    test.args(["test", "--workspace", "--test", "gateway_api", "--", "--ignored", "--exact", "--nocapture", TEST]);
    test.env("WEFT_CONFORMANCE", &programs).env("WEFT_PROFILE", &options.profile);
    test.env("WEFT_INSTALL", options.install.join(" "));
    test.envs(other.as_ref().map(|file| ("WEFT_KUBECONFIG", file)));
    test.envs(options.test.as_ref().map(|name| ("WEFT_CONFORMANCE_TEST", name)));
    crate::run(found.apply(&mut test))
}

/// The suite and what it needs, in one folder: `conformance.test`, `echo.tar`, its manifests in `mesh`, and the definitions that it is
/// about in `gateway-api`.
fn ensure() -> anyhow::Result<PathBuf> {
    let module = root().join("tests/conformance");
    let version = go::pinned(&module, SUITE)?;
    let turn = Turn::wait("conformance", &version, &module)?;
    turn.once("built", |turn| {
        eprintln!("xtask: building the conformance suite {version}, once; this takes some minutes");
        let build = |words: &[&str], what: &[&str]| {
            let mut go = turn.go("the conformance suite")?;
            crate::run(go.args(words).args(["-trimpath", "-ldflags", "-s -w", "-o"]).arg(&turn.folder).args(what))
        };
        build(&["test", "-c"], &[SUITE])?;
        build(&["build"], ECHO)?;
        manifests(&turn.sources(SUITE)?, &turn.folder)?;
        fs::write(turn.folder.join("version"), &version).context("writing the version")
    })?;
    turn.once(&format!("packed-{PACKING}"), |turn| pack(&turn.folder))?;
    turn.definitions("gateway-api")?;
    Ok(turn.folder)
}

/// Those that lie in the suite's program too: what it applies first, and what each test does.
fn manifests(suite: &Path, folder: &Path) -> anyhow::Result<()> {
    let into = folder.join("mesh");
    fs::create_dir_all(&into)?;
    let tests = fs::read_dir(suite.join("tests/mesh")).with_context(|| format!("reading {}", suite.display()))?;
    let tests = tests.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    for file in tests.iter().chain([&suite.join("mesh/manifests.yaml")]) {
        if let Some(name) = file.file_name().filter(|_| file.extension().is_some_and(|end| end == "yaml")) {
            fs::write(into.join(name), fs::read(file)?).with_context(|| format!("copying {}", file.display()))?;
        }
    }
    Ok(())
}

/// As the project that it is of packs it: both programs, and a certificate for the port that speaks TLS.
fn pack(folder: &Path) -> anyhow::Result<()> {
    tools::ensure(tools::API)?;
    let made = Command::new("openssl")
        .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=echo".split(' '))
        .args("-addext subjectAltName=DNS:echo -keyout cert.key -out cert.crt".split(' '))
        .current_dir(folder)
        .output()
        .context("starting openssl")?;
    anyhow::ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr).trim());
    let program = |name: &str| Entry::program(&format!("usr/local/bin/{name}"), folder.join(name));
    let mut entries: Vec<_> =
        ["etc", "usr", "usr/local", "usr/local/bin"].map(|path| Entry::folder(path, 0o755)).into();
    entries.push(Entry::folder("tmp", 0o1777));
    entries.push(Entry::data("etc/passwd", "root:x:0:0:root:/:/none\necho:x:1338:1338:echo:/:/none\n"));
    for file in ["cert.crt", "cert.key"] {
        entries.push(Entry::data(file, fs::read(folder.join(file))?));
    }
    entries.extend(["server", "client"].map(program));
    let image = Image {
        name: "weft.local/echo:1".to_owned(),
        entries,
        config: json!({
            "Entrypoint": ["/usr/local/bin/server"],
            // The suite calls `client` in a running container.
            "Env": ["PATH=/usr/local/bin"],
            "User": "1338:1338",
        }),
    };
    image.write(&folder.join("echo.tar"), Form::Older)
}
