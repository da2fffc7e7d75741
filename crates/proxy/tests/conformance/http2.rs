//! RFC 9113 by the cases of `httpwg`, through the pair and at the server's proxy alone.

use crate::{
    door,
    mesh::Mesh,
    program::{self, tool},
};
use std::{collections::BTreeSet, net::SocketAddr};
use tokio::process::Command;
use weft_model::ProtocolHint;
use weft_testkit::http2;

/// Cases that fail, with what decides them. At most three; each names the line and the paragraph.
const KNOWN: &[(&str, &str)] = &[(
    "RFC 9113 :: 4. http frames :: invalid header block fragment",
    "RFC 9113 4.3 asks for COMPRESSION_ERROR; h2 0.4.20 says PROTOCOL_ERROR (codec/framed_read.rs:209 and :392)",
)];
/// All that there are: fewer means that the program did not run them.
const CASES: usize = 107;

/// Some cases narrow the window and expect a part of the body.
async fn origin() -> http2::Origin {
    http2::Origin::start(|request| async move {
        http2::complete((), request.into_body()).await?;
        Ok(http::Response::new(http2::full("a body of some length")))
    })
    .await
    .unwrap()
}

/// A machine that is busy is no failure.
async fn mesh() -> Mesh {
    let patient =
        [("LINKERD2_PROXY_INBOUND_CONNECT_TIMEOUT", "10s"), ("LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT", "10s")];
    Mesh::with(&patient, &patient).await
}

/// Every case passes but those that are known to fail, which do: in one run, one after the other, each with a connection of its own.
async fn check(addr: SocketAddr) {
    let Some(program) = tool("httpwg/bin/httpwg") else { return };
    let mut command = Command::new(&program);
    command.args(["--address", &addr.to_string(), "--connect-timeout", "10000", "--frame-timeout", "10000"]);
    let output = program::output(command.env("SEQUENTIAL", "1")).await;
    let said = String::from_utf8_lossy(&output.stderr);
    let named = |mark: &str| -> BTreeSet<&str> {
        said.lines().filter_map(|line| line.split_once(mark)).map(|(_, name)| name.trim()).collect()
    };
    assert_eq!(named("Test failed: "), KNOWN.iter().map(|(name, _)| *name).collect(), "{said}");
    // A case that panics does not say its name.
    assert_eq!(named("Test passed: ").len() + KNOWN.len(), CASES, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_through_the_pair() {
    let origin = origin().await;
    let mesh = mesh().await;
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    check(door::pair(&mesh, &service).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_at_the_servers_proxy() {
    let origin = origin().await;
    let mesh = mesh().await;
    mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    check(door::inbound(&mesh, origin.addr()).await).await;
}
