//! From the host's loopback to the API server. The socket was opened by `up` in the host's network, and is accepted from here.

use crate::cluster::{API_PORT, NODE};
use anyhow::Context;
use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

/// Each costs two threads; who comes later waits.
const CONNECTIONS: usize = 512;
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Serves standard input, which is the listening socket.
pub(super) fn start() -> anyhow::Result<()> {
    let door = io::stdin().as_fd().try_clone_to_owned().context("taking over the host's socket")?;
    let door = TcpListener::from(door);
    door.local_addr().context("standard input is no listening socket")?;
    thread::Builder::new().name("forward".into()).spawn(move || {
        for accepted in door.incoming() {
            while OPEN.load(Ordering::Relaxed) >= CONNECTIONS {
                thread::sleep(Duration::from_millis(10));
            }
            let Ok(client) = accepted else {
                thread::sleep(Duration::from_millis(10)); // out of descriptors
                continue;
            };
            OPEN.fetch_add(1, Ordering::Relaxed);
            let worker = thread::Builder::new().name("connection".into()).stack_size(64 << 10);
            let serving = worker.spawn(move || {
                let _ = serve(client); // either side went away, which both see
                OPEN.fetch_sub(1, Ordering::Relaxed);
            });
            if serving.is_err() {
                OPEN.fetch_sub(1, Ordering::Relaxed);
            }
        }
    })?;
    Ok(())
}

fn serve(client: TcpStream) -> io::Result<()> {
    let server = TcpStream::connect((NODE, API_PORT))?;
    // Answers come in pieces: each would wait for the other side's word on the one before.
    for side in [&client, &server] {
        side.set_nodelay(true)?;
    }
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let requests = thread::Builder::new().stack_size(64 << 10).spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    })?;
    let (mut from_server, mut to_client) = (server, client);
    let _ = io::copy(&mut from_server, &mut to_client);
    let _ = to_client.shutdown(Shutdown::Both);
    let _ = requests.join();
    Ok(())
}
