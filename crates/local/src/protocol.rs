//! What other processes ask a running mesh, over the unix socket in its state folder: one question per connection.

use crate::{
    Status,
    client::{LogLine, Logs, Run},
};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf};
use weft_cluster::index::Settings;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    Status,
    Logs(Logs),
    Run(Run),
    /// Answered before the mesh ends; the connection closes with it.
    Down,
    /// From another mesh of the same user: its state folder, which no program of this one may see.
    Hide(PathBuf),
    /// The answer has the socket.
    Dial(SocketAddr),
    /// What holds for the whole mesh.
    Settings,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    Status(Box<Status>),
    /// Any number of them.
    Line(LogLine),
    Settings(Box<Settings>),
    Refused(String),
}
