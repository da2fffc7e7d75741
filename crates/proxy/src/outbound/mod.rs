//! The outbound direction: one accepted connection from its first byte to its last.

use crate::process::worker::Context;
use std::{net::SocketAddr, rc::Rc};
use tokio::net::TcpStream;

/// The outbound side of one worker.
mod balance;

pub struct Outbound {
    context: Context,
}

impl Outbound {
    pub fn new(context: Context) -> Rc<Self> {
        Rc::new(Self { context })
    }

    /// Serves one connection until it is closed. Called in a task of its own on the worker's local set; returning early
    /// drops the connection.
    pub async fn serve(self: Rc<Self>, tcp: TcpStream, client: SocketAddr) {
        let _ = (&self.context, tcp, client);
    }
}
