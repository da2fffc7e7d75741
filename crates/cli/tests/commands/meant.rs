//! Which mesh a command means, where there are several.

use crate::lab::{Home, answer};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use weft_local::{
    Status,
    status::{ControlPlane, Phase, Pod, Workload},
};
use weft_testkit::api_server::FakeApi;

/// A mesh of this machine with one pod.
fn of_the_machine(pod: &str) -> Status {
    let pod = Pod {
        name: pod.into(),
        service_account: "default".into(),
        ips: vec![],
        phase: Phase::Running,
        ready: true,
        meshed: false,
        restarts: 0,
        proxy_restarts: 0,
        message: None,
        started: jiff::Timestamp::now(),
        pid: None,
        proxy_pid: None,
    };
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 100);
    Status {
        version: "of-the-machine".into(),
        workloads: vec![Workload {
            namespace: "here".into(),
            name: "web".into(),
            replicas: 1,
            ready: 1,
            pods: vec![pod],
        }],
        control_plane: ControlPlane {
            ready: true,
            root_expires: Some(later),
            issuer_expires: Some(later),
            ..ControlPlane::default()
        },
        ..Status::default()
    }
}

/// A cluster with one pod of a mesh.
fn cluster(runtime: &Runtime) -> FakeApi {
    let api = runtime.block_on(FakeApi::start()).unwrap();
    let _running = runtime.enter();
    api.put(json!({"kind": "ConfigMap", "metadata": {"name": "linkerd-config", "namespace": "linkerd"},
        "data": {"values": "linkerdVersion: of-the-cluster\n", "weft-version": "v1"}}));
    api.put(json!({"kind": "Pod",
        "metadata": {"name": "there-1", "namespace": "there", "labels": {"linkerd.io/control-plane-ns": "linkerd"}},
        "spec": {"containers": [{"name": "linkerd-proxy"}]}, "status": {"phase": "Running"}}));
    api
}

#[test]
fn what_is_named_is_meant_else_what_runs_else_what_is_configured() {
    let runtime = Runtime::new().unwrap();
    let (home, api) = (Home::new(), cluster(&runtime));
    // Neither.
    let told = home.runs(&["ps"]);
    assert!(
        !told.ok && told.err.contains("no mesh runs in") && told.err.contains("no cluster is configured"),
        "{told:?}"
    );
    assert!(home.runs(&["version"]).out.contains("Server version: unavailable"));
    // A cluster alone.
    let kubeconfig = home.configure(&api);
    let (file, none) = (kubeconfig.to_str().unwrap(), "");
    let told = home.runs(&["ps"]);
    assert!(told.ok && told.out.contains("there-1") && told.err == none, "{told:?}");
    assert!(home.runs(&["version"]).out.contains("Server version: of-the-cluster"));
    // Both.
    home.mesh(&of_the_machine("here-1"));
    let other = home.0.join("other");
    answer(&other, &of_the_machine("other-1"));
    let other = other.to_str().unwrap();
    for (words, pod, named) in [
        (vec!["ps"], "here-1", true),
        (vec!["ps", "--local"], "here-1", false),
        (vec!["ps", "--context", "fake"], "there-1", false),
        (vec!["ps", "--kubeconfig", file], "there-1", false),
        (vec!["ps", "--state", other], "other-1", false),
        (vec!["--state", other, "ps"], "other-1", false),
    ] {
        let told = home.runs(&words);
        assert!(told.ok && told.out.contains(pod), "{words:?}: {told:?}");
        let is_named = told.err.contains("is meant; the cluster of the kubeconfig is named by --context fake");
        assert_eq!(is_named, named, "{words:?}: {told:?}");
        assert!(named || told.err.is_empty(), "{words:?}: {told:?}");
    }
    // The folder of the environment is where a mesh is looked for, and names none.
    let mut elsewhere = home.weft(&["ps"]);
    let told: crate::lab::Told = elsewhere.env("WEFT_STATE", home.0.join("nothing")).output().unwrap().into();
    assert!(told.ok && told.out.contains("there-1"), "{told:?}");
    for (words, version) in [(vec!["version"], "of-the-machine"), (vec!["version", "--context=fake"], "of-the-cluster")]
    {
        let told = home.runs(&words);
        assert!(told.ok && told.out.contains(&format!("Server version: {version}")), "{words:?}: {told:?}");
    }
    let told = home.runs(&["ps", "--state", other, "--context", "fake"]);
    assert!(!told.ok && told.err.contains("leave out what is not meant"), "{told:?}");
    let told = home.runs(&["ps", "--local", "--context", "fake"]);
    assert!(!told.ok && told.err.contains("cannot be used with"), "{told:?}");
    assert!(home.runs(&["ps", "-n", "elsewhere"]).out.lines().all(|line| !line.contains("here-1")));
}

#[test]
fn a_mesh_of_either_kind_is_checked() {
    let runtime = Runtime::new().unwrap();
    let (home, api) = (Home::new(), cluster(&runtime));
    home.configure(&api);
    let mut status = of_the_machine("here-1");
    status.version = env!("CARGO_PKG_VERSION").into();
    home.mesh(&status);
    let categories = |words: &[&str]| {
        let told = home.runs(words);
        let report: Value = serde_json::from_str(&told.out).unwrap_or_else(|e| panic!("{e}: {told:?}"));
        let names =
            report["categories"].as_array().unwrap().iter().map(|c| c["categoryName"].as_str().unwrap().to_owned());
        (told.ok, names.collect::<Vec<_>>(), told.err)
    };
    let (ok, names, err) = categories(&["check", "--proxy", "-o", "json"]);
    assert!(ok && names == ["local-mesh"] && err.contains("is meant"), "{names:?} {err}");
    let (ok, names, err) = categories(&["check", "-o", "json", "--wait=0s", "--context=fake"]);
    assert!(!ok && names[0] == "kubernetes-api" && err.is_empty(), "{names:?} {err}");
    // What makes sense in a cluster alone is asked of it.
    let (_, names, err) = categories(&["check", "--pre", "-o", "json", "--wait=0s"]);
    assert!(
        names[0] == "kubernetes-api" && err.contains("the cluster of the context fake is meant"),
        "{names:?} {err}"
    );
    assert!(!home.runs(&["check", "--pre", "--local"]).ok);
    let told = home.runs(&["check", "--proxy", "-n", "nowhere"]);
    assert!(!told.ok && told.out.contains("there is no workload in the namespace nowhere"), "{told:?}");
}

#[test]
fn what_changes_a_cluster_wants_it_named_where_a_mesh_runs_too() {
    let runtime = Runtime::new().unwrap();
    let (home, api) = (Home::new(), cluster(&runtime));
    home.configure(&api);
    let commands: [&[&str]; 6] =
        [&["install"], &["install", "--crds"], &["upgrade"], &["upgrade", "--crds"], &["prune"], &["uninstall"]];
    let says = "say that the cluster is to be changed, by --context fake or --kubeconfig FILE";
    for words in commands {
        let told = home.runs(words);
        assert!(!told.err.contains(says), "no mesh runs: {words:?}: {told:?}");
    }
    home.mesh(&of_the_machine("here-1"));
    for words in commands {
        let before = api.requests().len();
        let told = home.runs(words);
        assert!(!told.ok && told.out.is_empty() && told.err.contains(says), "{words:?}: {told:?}");
        assert_eq!(api.requests().len(), before, "{words:?}: nobody is asked");
        let named = home.runs(&[words, &["--context", "fake"]].concat());
        assert!(!named.err.contains(says), "{words:?}: {named:?}");
        assert!(api.requests().len() > before, "{words:?}: {named:?}");
    }
    let told = home.runs(&["install", "--ignore-cluster"]);
    assert!(told.ok && told.out.contains("kind: Deployment"), "{told:?}");
}
