//! The end of a cluster, by whatever ends it.

use crate::cluster;
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use weft_testkit::kubernetes::Cluster;

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(120);
/// The cluster whose holder is killed.
const ORPHAN: &str = "orphan";

/// Everything of a cluster that the host could see.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    /// Of processes that are in one of its namespaces.
    processes: BTreeSet<String>,
    groups: BTreeSet<PathBuf>,
}

/// The namespaces of a process, by kind.
fn namespaces(pid: &str) -> Vec<PathBuf> {
    ["pid", "net", "mnt", "cgroup"]
        .iter()
        .filter_map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok())
        .collect()
}

fn traces(name: &str, of: &[PathBuf]) -> Traces {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let processes = processes
        .filter(|pid| pid.parse::<u32>().is_ok() && namespaces(pid).iter().any(|namespace| of.contains(namespace)))
        .collect();
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let prefix = format!("weft-cluster-{name}-");
    let groups = hierarchies
        .chain([PathBuf::from("/sys/fs/cgroup")])
        .flat_map(|hierarchy| fs::read_dir(hierarchy).into_iter().flatten())
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&prefix)))
        .collect();
    Traces { processes, groups }
}

/// Process 1 of the namespaces of the cluster of this folder, as the host counts.
fn first(folder: &Path) -> String {
    let pid = fs::read_to_string(folder.join("pid")).unwrap();
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap().trim().to_owned()
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What the host's own processes see mounted.
fn mounts() -> BTreeSet<String> {
    fs::read_to_string("/proc/self/mounts").unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_end_of_one_process_is_the_end_of_all_and_of_no_other_cluster() {
    let Some(other) = cluster() else { return };
    let before = mounts();
    let cluster = Cluster::up("mortal", &[]).unwrap();
    let folder = cluster.kubeconfig.parent().unwrap().to_owned();
    let one = first(&folder);
    let inside = namespaces(&one);
    let hosts = namespaces("self");
    assert!(inside.len() == 4 && inside.iter().all(|namespace| !hosts.contains(namespace)), "{inside:?}");
    let alive = traces("mortal", &inside);
    // Etcd, API server, two controllers, kubelet, kube-proxy, containerd, a shim, pause and CoreDNS at least.
    assert!(alive.processes.len() >= 10 && !alive.groups.is_empty(), "{alive:?}");

    assert!(Command::new("kill").args(["-KILL", &one]).status().unwrap().success());
    eventually("processes to end", || traces("mortal", &inside).processes.is_empty());
    assert_eq!(mounts(), before);
    // What the next start or end removes: empty control groups and the folder.
    drop(cluster);
    eventually("the rest to be removed", || traces("mortal", &inside).groups.is_empty() && !folder.exists());
    assert_eq!(other.ask("get --raw /readyz").unwrap(), "ok", "the other cluster serves on");
}

/// A cluster that a process of its own holds, which is not asked to end.
struct Held {
    holder: Child,
    /// Kept, since the holder writes to it.
    _output: BufReader<ChildStdout>,
    folder: PathBuf,
    inside: Vec<PathBuf>,
}

impl Held {
    fn up() -> Self {
        let mut holder = Command::new(env!("CARGO_BIN_EXE_xtask"));
        holder.args(["cluster", "up", "--attached", "--api-only", "--name", ORPHAN]);
        let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(holder.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let kubeconfig = line.trim().strip_prefix("export KUBECONFIG=").unwrap();
        let folder = Path::new(kubeconfig).parent().unwrap().to_owned();
        let inside = namespaces(&first(&folder));
        Self { holder, _output: output, folder, inside }
    }

    /// Leaves what no process holds: control groups and the folder, and in each something that only this cluster has.
    fn killed(mut self) -> Left {
        self.holder.kill().unwrap();
        self.holder.wait().unwrap();
        eventually("processes to end", || traces(ORPHAN, &self.inside).processes.is_empty());
        let groups = traces(ORPHAN, &self.inside).groups;
        assert!(!groups.is_empty(), "a cluster has control groups");
        let marks: Vec<PathBuf> = groups.iter().chain([&self.folder]).map(|within| within.join("left/over")).collect();
        marks.iter().for_each(|mark| fs::create_dir_all(mark).unwrap());
        Left { groups, folder: self.folder, marks }
    }
}

struct Left {
    groups: BTreeSet<PathBuf>,
    folder: PathBuf,
    marks: Vec<PathBuf>,
}

/// The next cluster of a name has control groups of the same names: that the old ones are gone shows by what was in them.
#[test]
fn who_held_it_may_be_killed() {
    if cluster().is_none() {
        return;
    }
    let left = Held::up().killed();
    let again = Held::up();
    let kept: Vec<_> = left.marks.iter().filter(|mark| mark.exists()).collect();
    assert!(kept.is_empty(), "the next start removes what is left: {kept:?}");
    assert_eq!((&again.folder, &traces(ORPHAN, &again.inside).groups), (&left.folder, &left.groups));
    let left = again.killed();
    let down = Command::new(env!("CARGO_BIN_EXE_xtask")).args(["cluster", "down", "--name", ORPHAN]).output().unwrap();
    assert!(down.status.success(), "{down:?}");
    assert!(left.groups.iter().chain([&left.folder]).all(|path| !path.exists()), "the next end removes what is left");
}
