//! Starts a cluster from the host's side and waits until it serves.

use super::{API_PORT, Home, NODE, Up, certificates, down, kubeconfig, node::OWN, other, programs};
use crate::tools;
use anyhow::{Context, bail};
use std::{
    env, fs,
    io::Read,
    net::TcpListener,
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A start takes ten seconds; on a busy machine ten times that.
const PATIENCE: Duration = Duration::from_secs(600);
/// The last lines of what failed.
const TOLD: usize = 15;

pub(crate) fn run(options: &Up) -> anyhow::Result<()> {
    if let Some(file) = &options.kubeconfig {
        let kubectl = other::kubectl()?;
        tell(&other::check(file, &kubectl)?, kubectl.parent(), options.attached);
        return if options.attached { until_input_ends() } else { Ok(()) };
    }
    can_run()?;
    let home = Home::new(&options.named.name)?;
    let (found, programs) = match env::var_os("KUBEBUILDER_ASSETS").filter(|_| options.api_only) {
        // Programs that somebody else has built.
        Some(assets) => (tools::ensure(tools::API)?, assets.into()),
        None => (tools::ensure(tools::CLUSTER)?, programs::ensure()?),
    };
    let bin = if programs.join("kubectl").exists() { programs.clone() } else { programs.join("bin") };
    let turn = home.turn()?;
    let shape = format!("dual_stack={} api_only={}", options.dual_stack, options.api_only);
    if home.alive()? {
        if options.attached {
            bail!("the cluster {} is running already, so it would not end with this process", home.name());
        }
        if fs::read_to_string(home.shape()).is_ok_and(|found| found != shape) {
            bail!(
                "the cluster {} is running as {}: cargo xtask cluster down",
                home.name(),
                fs::read_to_string(home.shape())?
            );
        }
        tell(&home.kubeconfig(), Some(&bin), false);
        return Ok(());
    }
    if let Some(hidden) = [&home.folder, &programs].into_iter().find(|path| OWN.iter().any(|own| path.starts_with(own)))
    {
        bail!("{} lies in a folder that the cluster covers with its own: {}", hidden.display(), OWN.join(", "));
    }
    let start = Instant::now();
    down::clear(&home)?;
    for folder in [home.etc(), home.pki(), home.folder.join("log")] {
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    fs::write(home.shape(), &shape)?;
    let door = TcpListener::bind(("127.0.0.1", 0)).context("listening on the host's loopback")?;
    certificates::make(&home.pki())?;
    kubeconfig::write(&home, &home.kubeconfig(), &format!("https://{}", door.local_addr()?), "admin")?;
    for client in ["admin", "kubelet", "controller-manager", "scheduler", "proxy"] {
        let file = home.inner_kubeconfig(client);
        kubeconfig::write(&home, &file, &format!("https://{NODE}:{API_PORT}"), client)?;
    }
    let mut child = spawn(&home, options, &programs, door, &found)?;
    if let Err(error) = wait(&home, &mut child) {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    eprintln!("xtask: the cluster {} is up after {:.1} s", home.name(), start.elapsed().as_secs_f64());
    drop(turn);
    tell(&home.kubeconfig(), Some(&bin), options.attached);
    if options.attached {
        until_input_ends()?;
        down::run(&home)?;
        child.wait()?;
    }
    Ok(())
}

/// What the machine must offer, in one line where it does not.
fn can_run() -> anyhow::Result<()> {
    if !tools::is_root()? {
        bail!("a cluster cannot run here: it needs root (containers of Kubernetes do)");
    }
    let filesystems = fs::read_to_string("/proc/filesystems")?;
    for needed in ["overlay", "cgroup"] {
        if !filesystems.split_whitespace().any(|name| name.starts_with(needed)) {
            bail!("a cluster cannot run here: the kernel has no {needed}");
        }
    }
    let flags = ["--net", "--mount", "--pid", "--cgroup", "--fork", "--mount-proc", "true"];
    let tried = Command::new("unshare").args(flags).output().context("starting unshare")?;
    if !tried.status.success() {
        let why = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
        bail!("a cluster cannot run here: no namespaces may be made ({why})");
    }
    Ok(())
}

/// Process 1 gets the listening socket as standard input: it belongs to the host's network for ever, wherever it is accepted from.
fn spawn(home: &Home, options: &Up, programs: &Path, door: TcpListener, found: &tools::Found) -> anyhow::Result<Child> {
    let log = fs::File::create(home.log("node"))?;
    // Attached, the kernel ends it even where this process is killed.
    let mut command = if options.attached {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare"]);
        command
    } else {
        let mut command = Command::new("setsid");
        command.arg("unshare");
        command
    };
    command
        .args(["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"])
        .arg(env::current_exe()?)
        .args(["cluster", "node", "--folder"])
        .arg(&home.folder)
        .arg("--programs")
        .arg(programs)
        .args(options.dual_stack.then_some("--dual-stack"))
        .args(options.api_only.then_some("--api-only"))
        .stdin(Stdio::from(OwnedFd::from(door)))
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/");
    // Neither the caller's clusters nor what cargo tells its own children.
    for (name, _) in
        env::vars_os().filter(|(name, _)| name == "KUBECONFIG" || name.to_string_lossy().starts_with("CARGO"))
    {
        command.env_remove(name);
    }
    let child = found.apply(&mut command).spawn().context("starting unshare")?;
    fs::write(home.pid(), child.id().to_string())?;
    Ok(child)
}

fn wait(home: &Home, child: &mut Child) -> anyhow::Result<()> {
    let start = Instant::now();
    while !home.ready().exists() {
        let ended = child.try_wait()?;
        if ended.is_some() || start.elapsed() > PATIENCE {
            let log = fs::read_to_string(home.log("node")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let last = lines.get(lines.len().saturating_sub(TOLD)..).unwrap_or_default().join("\n");
            let how = ended.map_or("is not up after ten minutes".to_owned(), |status| format!("ended: {status}"));
            bail!("the cluster {how}\n{last}\nlogs: {}", home.folder.join("log").display());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// For `eval`, which is why everything else goes to standard error. Who is attached reads line by line, and needs to know the last.
#[expect(clippy::print_stdout, reason = "what is asked for, apart from what is told")]
fn tell(kubeconfig: &Path, bin: Option<&Path>, attached: bool) {
    println!("export KUBECONFIG={}", kubeconfig.display());
    if let Some(bin) = bin.filter(|bin| bin.is_absolute()) {
        println!("export PATH={}:$PATH", bin.display());
    }
    if attached {
        println!("up");
    }
}

fn until_input_ends() -> anyhow::Result<()> {
    std::io::stdin().read_to_end(&mut vec![]).context("waiting for the end of standard input")?;
    Ok(())
}
