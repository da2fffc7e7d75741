//! The cluster that other suites rest on, and the images that run in it.
//!
//! Needs root, Go, Debian's packages and the built programs of the mesh; `cargo xtask test` sees to it. What is missing fails, in one line.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod commands;
mod end;
mod ended;
mod external;
mod guard;
mod images;
mod life;
mod policy;
mod serve;
mod takeover;
mod traffic;
mod typed;

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};
use weft_testkit::kubernetes::{Cluster, or_skip, pack};

/// The suite's own cluster, with our images: what is proved here is not proved by another's.
fn cluster() -> Option<&'static Cluster> {
    static LOADED: OnceLock<Option<Cluster>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        let cluster = or_skip(Cluster::up("suite", &["--dual-stack"]))?;
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("images");
        pack(&folder).unwrap();
        cluster.load(&["controller", "proxy", "demo", "debug"].map(|name| folder.join(format!("{name}.tar")))).unwrap();
        Some(cluster)
    });
    loaded.as_ref()
}

/// Held while the cluster has a namespace `linkerd`: of the mesh, or one that looks as if.
fn linkerd() -> MutexGuard<'static, ()> {
    static LINKERD: Mutex<()> = Mutex::new(());
    LINKERD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A probe of a server of gRPC.
const GRPC: &str = "grpc: { port: 8080 }";

/// The voting app, so that each of its pods needs names and Services to do its work.
fn app(namespace: &str, annotations: &str) -> String {
    let workload = |name: &str, replicas: u32, arguments: &str, probe: &str| {
        format!(
            "apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name}, namespace: {namespace} }}
spec:
  replicas: {replicas}
  selector: {{ matchLabels: {{ app: {name} }} }}
  template:
    metadata: {{ labels: {{ app: {name} }} }}
    spec:
      # Else the Service `web` sets WEB_PORT, which the program reads.
      enableServiceLinks: false
      containers:
      - name: {name}
        image: weft/demo:test
        imagePullPolicy: Never
        # It is still asked for a moment when it is told to end, until that is known everywhere.
        args: [{name}{arguments}, '--leave-quiet-ms=1000']
        ports: [{{ containerPort: 8080 }}]
        # A machine that is busy for three seconds makes nobody unready, whom requests then do not reach.
        readinessProbe: {{ {probe}, periodSeconds: 1, failureThreshold: 10 }}
---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: {namespace} }}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {{ app: {name} }}
  ports: [{{ port: 80, targetPort: 8080 }}]
---
"
        )
    };
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{ name: {namespace}, annotations: {{ {annotations} }} }}\n---\n"
    ) + &workload("emoji", 1, "", GRPC)
        + &workload("voting", 1, "", GRPC)
        + &workload("web", 2, ", '--emoji=emoji:80', '--voting=voting:80'", "httpGet: { path: /, port: 8080 }")
}
