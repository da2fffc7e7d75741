//! A real Kubernetes for a suite: `cargo xtask cluster` in the foreground, which ends with the process that holds it, however that ends.
//!
//! A start takes ten seconds and 0.7 GB, so a suite has one ([`Cluster::shared`]) and each of its tests a namespace of its own.

use anyhow::{Context, Result, bail, ensure};
use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};
use weft_transport::netns::Namespace;

/// Another cluster, which `cargo xtask conformance --kubeconfig FILE --i-know-this-cluster` names.
const OTHER: &str = "WEFT_KUBECONFIG";
/// Names another build of the programs.
const PROFILE: &str = "WEFT_PROFILE";
/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running cluster. Dropping it ends it.
pub struct Cluster {
    /// For programs that speak to the API server themselves.
    pub kubeconfig: PathBuf,
    /// How long it took to come up, what of it had to be built included.
    pub took: Duration,
    name: String,
    xtask: PathBuf,
    kubectl: PathBuf,
    child: Child,
}

impl Cluster {
    /// Starts a cluster of this name and waits until it serves.
    ///
    /// # Errors
    /// The machine cannot run it: the error says in one line what is missing.
    pub fn up(name: &str, flags: &[&str]) -> Result<Self> {
        let xtask = xtask()?;
        let (start, mut command) = (Instant::now(), Command::new(&xtask));
        command.args(["cluster", "up", "--attached", "--name", name]).args(flags);
        command.env("RUST_BACKTRACE", "0").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {}", xtask.display()))?;
        let (mut kubeconfig, mut kubectl) = (None, PathBuf::from("kubectl"));
        let output = child.stdout.take().context("xtask has no output")?;
        for line in BufReader::new(output).lines() {
            let line = line?;
            if let Some(file) = line.strip_prefix("export KUBECONFIG=") {
                kubeconfig = Some(PathBuf::from(file));
            }
            if let Some(folder) = line.strip_prefix("export PATH=").and_then(|path| path.strip_suffix(":$PATH")) {
                kubectl = Path::new(folder).join("kubectl");
            }
            if line == "up" {
                break;
            }
        }
        let Some(kubeconfig) = kubeconfig else {
            bail!("the cluster {name} did not come up: {}; its own words stand above", child.wait()?);
        };
        Ok(Self { kubeconfig, took: start.elapsed(), name: name.to_owned(), xtask, kubectl, child })
    }

    /// The one cluster of this process: a new one, unless the caller of `cargo xtask conformance` has named another.
    ///
    /// # Errors
    /// As [`Cluster::up`].
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Cluster>> = OnceLock::new();
        // A name of its own for each suite, so that two may run at the same time; behind the dash stands cargo's hash.
        let program = env::current_exe()?;
        let stem = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let suite = stem.rsplit_once('-').map_or(stem.as_str(), |(suite, _)| suite).replace('_', "-");
        let shared = SHARED.get_or_init(|| match env::var(OTHER) {
            Ok(file) => Self::up(&format!("suite-{suite}"), &["--i-know-this-cluster", "--kubeconfig", &file]),
            Err(_) => Self::up(&format!("suite-{suite}"), &["--dual-stack"]),
        });
        shared.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))
    }

    /// kubectl against this cluster.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", &self.kubeconfig).stdin(Stdio::null());
        command
    }

    /// The folder of the Gateway API's definitions: `standard` or `experimental`.
    pub fn gateway_api(&self, channel: &str) -> PathBuf {
        self.kubectl.with_file_name("../gateway-api").join(channel)
    }

    /// One of the programs beside kubectl, for example helm.
    pub fn program(&self, name: &str) -> PathBuf {
        self.kubectl.with_file_name(name)
    }

    /// What kubectl prints; the arguments are words without blanks.
    ///
    /// # Errors
    /// It fails.
    pub fn ask(&self, arguments: &str) -> Result<String> {
        let output = self.kubectl().args(arguments.split_whitespace()).output().context("starting kubectl")?;
        told(&format!("kubectl {arguments}"), &output)
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// The API server does not take one of them.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        self.handed(&["apply", "--filename=-"], manifests)
    }

    /// Applies manifests, those that name no namespace into this one.
    ///
    /// # Errors
    /// As [`Cluster::apply`].
    pub fn apply_in(&self, namespace: &str, manifests: &str) -> Result<String> {
        self.handed(&["--namespace", namespace, "apply", "--filename=-"], manifests)
    }

    /// What the API server would make of a new object, as JSON.
    ///
    /// # Errors
    /// It would not take it.
    pub fn tried(&self, manifest: &str) -> Result<String> {
        self.handed(&["create", "--dry-run=server", "--output=json", "--filename=-"], manifest)
    }

    fn handed(&self, arguments: &[&str], manifests: &str) -> Result<String> {
        let mut command = self.kubectl();
        fed(command.args(arguments), manifests)
    }

    /// Asks until the answer is as wanted.
    ///
    /// # Errors
    /// It is not within minutes.
    pub fn until(&self, arguments: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let start = Instant::now();
        loop {
            let answer = self.ask(arguments);
            if let Ok(answer) = &answer
                && wanted(answer)
            {
                return Ok(answer.clone());
            }
            ensure!(start.elapsed() < PATIENCE, "kubectl {arguments}: {answer:?} after {PATIENCE:?}");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Imports archives of images, packed by `cargo xtask image`.
    ///
    /// # Errors
    /// This is another's cluster, or containerd does not take them.
    pub fn load(&self, archives: &[PathBuf]) -> Result<()> {
        let output = self.chore(&["load"]).args(archives).output()?;
        told("cargo xtask cluster load", &output).map(drop)
    }

    /// Imports one archive under other names, which each run something else: the words behind a name are its entrypoint.
    ///
    /// # Errors
    /// As [`Cluster::load`].
    pub fn load_as(&self, archive: &Path, names: &[(&str, &str)]) -> Result<()> {
        let mut chore = self.chore(&["load"]);
        for (name, words) in names {
            chore.arg(format!("--as={name}={words}"));
        }
        told("cargo xtask cluster load", &chore.arg(archive).output()?).map(drop)
    }

    /// A command in the network of the node.
    pub fn on_node(&self, command: &[&str]) -> Command {
        let mut chore = self.chore(&["exec"]);
        chore.arg("--").args(command);
        chore
    }

    /// The network of the node, in which the API server is.
    ///
    /// # Errors
    /// This is another's cluster.
    pub fn network(&self) -> Result<Namespace> {
        // It has no name but that of a process within.
        let mut within = self.on_node(&["sh", "-c", "echo within; cat"]);
        let mut within = within.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(within.stdout.take().context("it has no output")?).read_line(&mut line)?;
        let network = Namespace::open(format!("/proc/{}/ns/net", within.id()));
        drop(within.stdin.take());
        within.wait()?;
        ensure!(line == "within\n", "nothing runs on the node of the cluster {}", self.name);
        Ok(network?)
    }

    fn chore(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.xtask);
        command.arg("cluster").args(words).args(["--name", &self.name]).stdin(Stdio::null());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// For tests: a suite that cannot have its cluster fails, and says in one line why. `None` only where the caller said `WEFT_ALLOW_SKIP=1`.
///
/// # Panics
/// There is no cluster.
pub fn or_skip<T>(up: Result<T>) -> Option<T> {
    match up {
        Ok(cluster) => Some(cluster),
        Err(error) if env::var("WEFT_ALLOW_SKIP").as_deref() == Ok("1") => {
            let _ = writeln!(std::io::stderr(), "skipped, as WEFT_ALLOW_SKIP asks for: {error:#}");
            None
        }
        Err(error) => panic!("{error:#}"),
    }
}

/// The folder of a cluster's own programs, helm among them, for who needs no cluster.
///
/// # Errors
/// They cannot be built.
pub fn programs() -> Result<PathBuf> {
    let mut command = Command::new(xtask()?);
    let output = command.args(["cluster", "programs"]).stdin(Stdio::null()).output()?;
    Ok(PathBuf::from(told("cargo xtask cluster programs", &output)?.trim_end()))
}

/// Packs the images of the programs that are built already into a folder.
///
/// # Errors
/// A program is not built.
pub fn pack(into: &Path) -> Result<()> {
    let mut command = Command::new(xtask()?);
    command.args(["image", "--no-build", "--tag", "test", "--profile", &profile(), "--into"]).arg(into);
    told("cargo xtask image", &command.stdin(Stdio::null()).output()?).map(drop)
}

/// The chores, beside the tests that cargo built.
fn xtask() -> Result<PathBuf> {
    built("xtask")
}

/// Which build of the programs is tested: that of the tests themselves, but for a report.
fn profile() -> String {
    env::var(PROFILE).unwrap_or_else(|_| "dev".to_owned())
}

/// A program of ours, beside the tests that cargo built.
///
/// # Errors
/// It is not built.
pub fn built(program: &str) -> Result<PathBuf> {
    let test = env::current_exe()?;
    let folder = test.ancestors().nth(2).context("a test is two folders deep")?;
    let built = match profile().as_str() {
        // The chores are the tests' own.
        other if other != "dev" && program != "xtask" => folder.with_file_name(other).join(program),
        _ => folder.join(program),
    };
    ensure!(built.is_file(), "{} is missing: run `cargo xtask test`, or `cargo build`", built.display());
    Ok(built)
}

/// What a program makes of its input.
///
/// # Errors
/// It fails.
pub fn fed(command: &mut Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let what = format!("{command:?}");
    let mut child = command.spawn().with_context(|| format!("starting {what}"))?;
    // One that ends early says why itself.
    let _ = child.stdin.take().context("it has no input")?.write_all(input.as_bytes());
    told(&what, &child.wait_with_output()?)
}

fn told(what: &str, output: &Output) -> Result<String> {
    if !output.status.success() {
        bail!("{what}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
