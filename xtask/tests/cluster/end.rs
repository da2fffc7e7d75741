//! The end of a cluster, by whatever ends it.

use crate::cluster;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};
use weft_testkit::kubernetes::Cluster;

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(120);

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

/// Process 1 of the cluster's namespaces, as the host counts.
fn first(cluster: &Cluster) -> String {
    let pid = fs::read_to_string(cluster.kubeconfig.with_file_name("pid")).unwrap();
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
    let one = first(&cluster);
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

#[test]
fn who_held_it_may_be_killed() {
    if cluster().is_none() {
        return;
    }
    let mut holder = Command::new(env!("CARGO_BIN_EXE_xtask"));
    holder.args(["cluster", "up", "--attached", "--api-only", "--name", "orphan"]);
    let mut holder = holder.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut output = std::io::BufReader::new(holder.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    let kubeconfig = line.trim().strip_prefix("export KUBECONFIG=").unwrap().to_owned();
    let folder = Path::new(&kubeconfig).parent().unwrap();
    let pid = fs::read_to_string(folder.join("pid")).unwrap();
    let one = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap().trim().to_owned();
    let inside = namespaces(&one);
    holder.kill().unwrap();
    holder.wait().unwrap();
    eventually("processes to end", || traces("orphan", &inside).processes.is_empty());
    let down =
        Command::new(env!("CARGO_BIN_EXE_xtask")).args(["cluster", "down", "--name", "orphan"]).output().unwrap();
    assert!(down.status.success(), "{down:?}");
    assert!(traces("orphan", &inside).groups.is_empty() && !folder.exists());
}
