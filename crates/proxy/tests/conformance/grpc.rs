//! The official gRPC interoperability cases: grpc-go's server behind the mesh, clients in three languages in front of it.
//!
//! grpc-go's own client is the oracle: what it passes without the mesh it must pass through it. Python and JavaScript run the same
//! cases with messages as bytes (`grpc_cases.py`, `grpc_cases.js`), and Rust by tonic ([`grpc_cases`]). Calls are HTTP/2 on every
//! hop; that the server takes it the control plane says, or leaves open.

use crate::{
    door, grpc_cases,
    harness::soon,
    mesh::{Mesh, Service},
    program::{self, free_port, tool},
};
use std::net::SocketAddr;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};
use weft_model::ProtocolHint;

/// Those that need neither TLS nor credentials.
const CASES: &[&str] = &[
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    CANCEL,
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
];

const CANCEL: &str = "cancel_after_begin";

struct Lab {
    _server: Child,
    _mesh: Mesh,
    direct: SocketAddr,
    through: SocketAddr,
}

/// grpc-go's server, and the way to it through the pair.
async fn lab(hint: ProtocolHint) -> Option<Lab> {
    let program = tool("go/bin/server")?;
    // Somebody else may take the port before it does.
    let (server, direct) = loop {
        let port = free_port();
        let mut server = Command::new(&program)
            .args(["--port", &port.to_string()])
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let direct = SocketAddr::from(([127, 0, 0, 1], port));
        let listens = soon(async {
            loop {
                if server.try_wait().unwrap().is_some() {
                    return false;
                }
                if TcpStream::connect(direct).await.is_ok() {
                    return true;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
        if listens.await {
            break (server, direct);
        }
    };
    let mesh = Mesh::start().await;
    let service: Service = mesh.service(&[mesh.endpoint(direct, hint)]);
    let through = door::pair(&mesh, &service).await;
    Some(Lab { _server: server, _mesh: mesh, direct, through })
}

/// The case of a client that cancels, ends its messages and asks for the answer. Where the answer is there before it looks, it
/// chooses by chance between the two: what says that the call succeeded is asked again.
async fn cancels(client: &mut Command) {
    const ANSWERED: &str = "got error code 0, want 1";
    for _ in 0..10 {
        let output = program::output(client).await;
        let text = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return;
        }
        assert!(text.contains(ANSWERED), "{client:?}: {} {text}", output.status);
    }
    panic!("{client:?} was answered ten times, though it cancels before");
}

/// Each case is told by its name.
fn passed(text: &str) {
    let mut told: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("ok ")).collect();
    let mut all = CASES.to_vec();
    told.sort_unstable();
    all.sort_unstable();
    assert_eq!(told, all, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cases_of_grpc_go() {
    for hint in [ProtocolHint::H2, ProtocolHint::Unknown] {
        let Some(lab) = lab(hint).await else { return };
        for &case in CASES {
            for addr in [lab.direct, lab.through] {
                let mut client = Command::new(tool("go/bin/client").unwrap());
                let (host, port) = (addr.ip().to_string(), addr.port().to_string());
                client.args(["--server_host", &host, "--server_port", &port, "--test_case", case]);
                if case == CANCEL {
                    cancels(&mut client).await;
                } else {
                    program::done(&mut client).await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cases_of_python() {
    for hint in [ProtocolHint::H2, ProtocolHint::Unknown] {
        let Some(lab) = lab(hint).await else { return };
        for addr in [lab.direct, lab.through] {
            let Some(mut client) = program::python("conformance/grpc_cases.py") else { return };
            let text = program::done(client.arg(addr.to_string())).await;
            passed(&text);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cases_of_javascript() {
    for hint in [ProtocolHint::H2, ProtocolHint::Unknown] {
        let Some(lab) = lab(hint).await else { return };
        for addr in [lab.direct, lab.through] {
            let Some(mut client) = program::node("conformance/grpc_cases.js") else { return };
            let text = program::done(client.arg(addr.to_string())).await;
            passed(&text);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cases_of_tonic() {
    for hint in [ProtocolHint::H2, ProtocolHint::Unknown] {
        let Some(lab) = lab(hint).await else { return };
        for addr in [lab.direct, lab.through] {
            soon(grpc_cases::run(addr)).await;
        }
    }
}
