//! What keeps a developer's other clusters from harm, and a machine that cannot run one from silence.

use crate::cluster;
use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
};
use weft_testkit::kubernetes::{Cluster, or_skip};

fn xtask() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.env("RUST_BACKTRACE", "0");
    command
}

#[test]
fn the_callers_kubeconfig_is_not_read() {
    let Some(cluster) = cluster() else { return };
    let mut chore = cluster.on_node(&["sh", "-c", "echo ${KUBECONFIG-}"]);
    chore.env("KUBECONFIG", "/nowhere/at/all");
    assert!(chore.output().unwrap().status.success());
    // Its own kubectl speaks to its own cluster.
    let name = cluster.kubeconfig.parent().unwrap().file_name().unwrap();
    let mut chore = xtask();
    chore.env("KUBECONFIG", "/nowhere/at/all").args(["cluster", "kubectl", "--name"]).arg(name);
    let output = chore.args(["get", "nodes", "--output=name"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "node/node1\n", "{output:?}");
}

#[test]
fn another_cluster_is_used_only_by_name_with_leave_and_without_a_mesh() {
    // One of this test's own: it is given a namespace `linkerd`, which others would wait for.
    let Some(other) = or_skip(Cluster::up("other", &["--api-only"])) else { return };
    let file = other.kubeconfig.to_str().unwrap();
    let up: &[&str] = &["cluster", "up"];
    // Each asks before it builds anything.
    let chores = [up, &["conformance"]];
    let run = |chore: &[&str], flags: &[&str]| {
        xtask().env("KUBECONFIG", "/nowhere/at/all").args(chore).args(flags).output().unwrap()
    };
    let is_refused = |chore: &[&str], flags: &[&str], why: &str| {
        let output = run(chore, flags);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(why), "{chore:?} {flags:?}: {told}");
    };
    let leave = ["--kubeconfig", file, "--i-know-this-cluster"];
    for chore in chores {
        is_refused(chore, &["--kubeconfig", file], "--i-know-this-cluster");
        // Leave for no cluster is none for the one of the environment.
        is_refused(chore, &["--i-know-this-cluster"], "--kubeconfig");
        is_refused(chore, &["--kubeconfig", "/nowhere/at/all", "--i-know-this-cluster"], "is not there");
    }
    let output = run(up, &leave);
    let expected = format!("export KUBECONFIG={file}\n");
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).starts_with(&expected), "{output:?}");
    other.ask("create namespace linkerd").unwrap();
    for chore in chores {
        is_refused(chore, &leave, "has a namespace linkerd");
    }
}

#[test]
fn what_is_missing_is_told_in_one_line() {
    // Somewhere that an ordinary user may execute it.
    let program = Path::new("/tmp").join(format!("weft-xtask-{}", std::process::id()));
    fs::copy(env!("CARGO_BIN_EXE_xtask"), &program).unwrap();
    let mut command = Command::new(&program);
    command.env("RUST_BACKTRACE", "0").args(["cluster", "up"]).current_dir("/");
    if fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        command.uid(65534).gid(65534);
    }
    let output = command.output().unwrap();
    fs::remove_file(&program).unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("needs root"), "{told}");
    assert_eq!(told.trim().lines().count(), 1, "{told}");
}

#[test]
fn the_assets_of_envtest_are_taken() {
    let Some(cluster) = cluster() else { return };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("assets");
    let _ = fs::remove_dir_all(&folder); // of an earlier run
    fs::create_dir_all(&folder).unwrap();
    // The same programs, each of which leaves a trace.
    for (name, program) in [
        ("etcd", Path::new("etcd")),
        ("kube-apiserver", &cluster.program("kube-apiserver")),
        ("kubectl", &cluster.program("kubectl")),
    ] {
        let script = format!(
            "#!/bin/bash\ntouch {0}/{name}.used\nexec -a {name} {1} \"$@\"\n",
            folder.display(),
            program.display()
        );
        fs::write(folder.join(name), script).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let run = |arguments: &[&str]| {
        let output = xtask().env("KUBEBUILDER_ASSETS", &folder).args(["cluster"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    run(&["up", "--api-only", "--name", "assets"]);
    run(&["down", "--name", "assets"]);
    for name in ["etcd", "kube-apiserver", "kubectl"] {
        assert!(folder.join(format!("{name}.used")).exists(), "{name}");
    }
}
