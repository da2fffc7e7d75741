//! How traffic behaves, end to end, by objects in a cluster: the list that the embedded mesh goes through, too.

use crate::{
    cluster,
    life::{self, eventually, pods_are_given_proxies, ready, with_mesh},
    linkerd,
};
use serde_json::Value;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::{self, File},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};
use weft_testkit::{
    kubernetes::{Cluster, built, fed},
    traffic::{self, ASKED, CLIENTS, NAMESPACE},
};

/// An address of the node's that no network of the cluster holds.
const OUTSIDE: &str = "203.0.113.7";
const OUTSIDE_PORT: u16 = 8099;

struct OnCluster<'c> {
    cluster: &'c Cluster,
    put: RefCell<BTreeMap<String, String>>,
    clients: Vec<Forward>,
    _outside: Ended,
}

/// A program that ends with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port of this machine's that leads to a client's.
struct Forward {
    account: &'static str,
    log: PathBuf,
    _program: Ended,
}

impl Forward {
    fn start(cluster: &Cluster, account: &'static str) -> Self {
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("traffic-{account}.log"));
        let mut forward = cluster.kubectl();
        forward.args([
            "--namespace",
            NAMESPACE,
            "port-forward",
            &format!("deployment/{account}"),
            &format!(":{ASKED}"),
        ]);
        // It says something of each connection, which nobody reads.
        let program = forward.stdout(File::create(&log).unwrap()).stderr(Stdio::inherit()).spawn().unwrap();
        let forward = Self { account, log, _program: Ended(program) };
        eventually(&format!("a way to {account}"), || forward.addr().is_some());
        forward
    }

    /// "Forwarding from 127.0.0.1:41234 -> 9000"
    fn addr(&self) -> Option<SocketAddr> {
        let log = fs::read_to_string(&self.log).ok()?;
        log.lines().find_map(|line| line.strip_prefix("Forwarding from ")?.split_once(" -> ")?.0.parse().ok())
    }
}

fn outside(cluster: &Cluster) -> Ended {
    let added = cluster.on_node(&["ip", "address", "add", &format!("{OUTSIDE}/32"), "dev", "lo"]).output().unwrap();
    assert!(added.status.success(), "{added:?}");
    let demo = built("weft-demo").unwrap().display().to_string();
    let port = format!("--port={OUTSIDE_PORT}");
    let server = cluster.on_node(&[&demo, "echo", "--name=outside", &port]).stdout(Stdio::null()).spawn().unwrap();
    Ended(server)
}

impl traffic::Mesh for OnCluster<'_> {
    fn demo(&self) -> &str {
        "/weft-demo"
    }

    fn put(&self, name: &str, objects: &str) -> anyhow::Result<()> {
        self.cluster.apply(objects)?;
        self.put.borrow_mut().insert(name.to_owned(), objects.to_owned());
        Ok(())
    }

    fn take(&self, name: &str) -> anyhow::Result<()> {
        let objects = self.put.borrow_mut().remove(name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let mut delete = self.cluster.kubectl();
        fed(delete.args(["delete", "--wait=false", "--filename=-"]), &objects).map(drop)
    }

    fn status(&self, object: &str) -> anyhow::Result<Value> {
        let told = self.cluster.ask(&format!("--namespace {NAMESPACE} get {object} --output json"))?;
        Ok(serde_json::from_str::<Value>(&told)?["status"].take())
    }

    fn weft(&self, words: &[&str]) -> anyhow::Result<String> {
        let output = life::weft(self.cluster, words);
        anyhow::ensure!(output.status.success(), "weft {words:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn client(&self, account: &str) -> SocketAddr {
        self.clients.iter().find(|client| client.account == account).and_then(Forward::addr).unwrap()
    }

    fn outside(&self) -> SocketAddr {
        SocketAddr::new(OUTSIDE.parse().unwrap(), OUTSIDE_PORT)
    }
}

#[test]
fn traffic_does_as_objects_say() {
    let Some(cluster) = cluster() else { return };
    let _alone = linkerd();
    with_mesh(cluster, || {
        pods_are_given_proxies(cluster, NAMESPACE);
        let _outside = outside(cluster);
        cluster.apply(&traffic::clients("/weft-demo")).unwrap();
        ready(cluster, NAMESPACE, &CLIENTS.map(|client| (client, "1")));
        let clients = CLIENTS.map(|client| Forward::start(cluster, client)).into();
        traffic::run(&OnCluster { cluster, put: RefCell::default(), clients, _outside });
        cluster.ask(&format!("delete namespace {NAMESPACE}")).unwrap();
    });
}
