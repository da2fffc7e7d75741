//! How traffic behaves, end to end, by manifests on disk: the list that a cluster goes through, too.

use crate::{
    harness::{Mesh, programs, users, weft},
    network::own_address,
};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Instant,
};
use weft_testkit::traffic::{self, ASKED, CLIENTS, NAMESPACE};

/// Programs are found by their names.
const DEMO: &str = "weft-demo";

struct Embedded {
    mesh: Mesh,
    user: crate::harness::User,
    outside: Outside,
}

/// A server of the host's, until it is dropped.
struct Outside {
    addr: SocketAddr,
    server: Child,
}

impl Outside {
    fn start() -> Self {
        let ip = own_address();
        let port = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port();
        let mut server = Command::new(programs().join(DEMO));
        server.args(["echo", "--name=outside", &format!("--port={port}")]).stdout(Stdio::null());
        let outside = Self { addr: (ip, port).into(), server: server.spawn().unwrap() };
        let start = Instant::now();
        while TcpStream::connect(outside.addr).is_err() {
            assert!(start.elapsed() < crate::harness::PATIENCE, "nobody listens at {}", outside.addr);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        outside
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Embedded {
    fn file(name: &str) -> String {
        format!("manifests/{name}.yaml")
    }

    /// What is wrong on disk is told beside what runs.
    fn is_taken(&self) -> Result<()> {
        let problems = self.mesh.status().problems;
        if problems.is_empty() { Ok(()) } else { bail!("{problems:?}") }
    }
}

impl traffic::Mesh for Embedded {
    fn demo(&self) -> &str {
        DEMO
    }

    fn put(&self, name: &str, objects: &str) -> Result<()> {
        self.mesh.write(&Self::file(name), objects);
        Ok(())
    }

    fn take(&self, name: &str) -> Result<()> {
        fs::remove_file(self.mesh.dir.join(Self::file(name))).context("taking a file away")
    }

    fn status(&self, object: &str) -> Result<Value> {
        self.is_taken()?;
        let objects = self.weft(&["get", object, "-n", NAMESPACE, "-o", "json"])?;
        let objects: Vec<Value> = serde_json::from_str(&objects).context("reading what weft get prints")?;
        Ok(objects.first().map(|object| object["status"].clone()).unwrap_or_default())
    }

    fn weft(&self, words: &[&str]) -> Result<String> {
        let output = weft(self.user, &self.mesh.state).args(words).current_dir("/").output()?;
        if !output.status.success() {
            bail!("weft {words:?}: {output:?}");
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    fn client(&self, account: &str) -> SocketAddr {
        let published = self.mesh.status().published;
        published.iter().find(|port| port.service == account).map(|port| port.listen).unwrap()
    }

    fn outside(&self) -> SocketAddr {
        self.outside.addr
    }
}

#[test]
fn traffic_does_as_manifests_on_disk_say() {
    let user = users().pop().unwrap();
    let outside = Outside::start();
    let publish = CLIENTS.map(|client| format!("--publish=0:{NAMESPACE}/{client}:{ASKED}"));
    let publish: Vec<&str> = publish.iter().map(String::as_str).collect();
    let mut mesh = Mesh::up(user, &traffic::clients(DEMO), &[], &publish);
    mesh.ready(&CLIENTS);
    traffic::run_at_length(&Embedded { mesh, user, outside });
}
