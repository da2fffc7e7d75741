//! WebSocket through the mesh: JavaScript's `ws` and Python's `websockets`, each as client of the other.

use crate::{door, mesh::Mesh, program};
use weft_model::ProtocolHint;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_languages_speak_to_each_other() {
    for hint in [ProtocolHint::H2, ProtocolHint::Unknown] {
        let (Some(mut node), Some(mut python)) =
            (program::node("conformance/websocket.js"), program::python("conformance/websocket.py"))
        else {
            return;
        };
        for (server, client) in [("node", "python"), ("python", "node")] {
            let serve = if server == "node" { &mut node } else { &mut python };
            let (_server, addr) = program::server(serve.arg("serve")).await;
            let mesh = Mesh::start().await;
            let service = mesh.service(&[mesh.endpoint(addr, hint)]);
            let through = door::pair(&mesh, &service).await;
            for target in [addr, through] {
                let mut ask = if client == "node" {
                    program::node("conformance/websocket.js")
                } else {
                    program::python("conformance/websocket.py")
                }
                .expect("it was there a moment ago");
                let text = program::done(ask.args(["ask", &target.to_string()])).await;
                assert!(text.contains("ok 40 messages"), "{server} {client}: {text}");
            }
        }
    }
}
