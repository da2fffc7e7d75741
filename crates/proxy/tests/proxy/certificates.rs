//! Certificates that are wrong in one way each, at whole proxies: whoever presents one is not of the mesh, gets no byte and gives
//! none, and the record says why. They are presented by the `openssl` of the machine, which checks none of them.
//!
//! Budget: none costs the proxies more than three times what an exchange over a handshake in order does.

use crate::{
    cost::Cost,
    door,
    explain::explained,
    faults::forwarded,
    harness::{Proxy, http1, identity, soon},
    measure::alone,
    mesh::Mesh,
};
use std::{net::SocketAddr, path::PathBuf, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
};
use weft_model::{Endpoint, ProtocolHint};
use weft_testkit::{
    ca::{Refuses, Wrong},
    control::FakeControl,
    http1::{Client, Origin, Reply},
};

/// Ordinary exchanges that one of them may cost.
const MOST: f64 = 3.0;
const REQUEST: &str = "GET /secret HTTP/1.1\r\nhost: app.ns\r\nconnection: close\r\n\r\n";

/// Certificates of `app` as files. Removed with this.
struct Folder {
    path: PathBuf,
    wrong: Vec<Wrong>,
}

impl Folder {
    fn new(control: &FakeControl, name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weft-certificates-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self { path, wrong: control.ca().wrong(identity("app").as_str()).unwrap() }
    }

    /// `openssl` with a certificate, its key and what is sent along.
    fn openssl(&self, what: &str, wrong: &Wrong) -> Command {
        let file = |name: &str, text: &str| {
            let path = self.path.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let mut command = Command::new("openssl");
        command.args([what, "-tls1_3", "-cert"]).arg(file("leaf.pem", &wrong.leaf_pem));
        command.arg("-key").arg(file("key.pem", &wrong.key_pem));
        if !wrong.intermediates_pem.is_empty() {
            command.arg("-cert_chain").arg(file("chain.pem", &wrong.intermediates_pem));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        command
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A server that writes down what it gets, once it listens.
async fn serving(mut command: Command) -> (Child, SocketAddr, Lines<BufReader<ChildStdout>>) {
    let mut child = command.args(["-accept", "127.0.0.1:0"]).spawn().expect("openssl starts");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    loop {
        let line = soon(lines.next_line()).await.unwrap().expect("it says where it listens");
        if let Some(addr) = line.strip_prefix("ACCEPT ") {
            return (child, addr.parse().unwrap(), lines);
        }
    }
}

async fn counted(proxy: &Proxy, direction: &str, code: &str, n: usize) {
    let series = format!("weft_proxy_errors_total{{direction=\"{direction}\",code=\"{code}\"}}");
    proxy.reaches(&series, n as f64).await;
}

#[test]
fn a_server_that_presents_a_wrong_certificate_gets_no_byte_of_a_request() {
    alone(module_path!(), "a_server_that_presents_a_wrong_certificate_gets_no_byte_of_a_request", servers);
}

#[test]
fn a_client_that_presents_a_wrong_certificate_reaches_nobody() {
    alone(module_path!(), "a_client_that_presents_a_wrong_certificate_reaches_nobody", clients);
}

async fn servers() {
    let mesh = Mesh::start().await;
    let folder = Folder::new(&mesh.control, "servers");
    let (mut failed, mut mismatched) = (0, 0);
    let origin = Origin::start(|_| Reply::ok("app")).await.unwrap();
    let in_order = async || {
        let service = forwarded(&mesh, mesh.endpoint(origin.addr(), ProtocolHint::Unknown));
        assert_eq!(http1(mesh.connect(&service).await, REQUEST).await.0, 200);
    };
    let cost = Cost::begin(in_order).await;
    for wrong in folder.wrong.iter().filter(|wrong| wrong.refuses != Refuses::Servers) {
        let (mut server, addr, mut lines) = serving(folder.openssl("s_server", wrong)).await;
        let endpoint = Endpoint { tls: Some(mesh.server()), ..Endpoint::plain(addr) };
        let service = forwarded(&mesh, endpoint);
        let mut asked = mesh.connect(&service).await;
        if wrong.what == "nothing" {
            asked.write_all(REQUEST.as_bytes()).await.unwrap();
            while !soon(lines.next_line()).await.unwrap().expect("the request comes").contains("GET /secret") {}
            continue;
        }
        let (status, answer) = http1(asked, REQUEST).await;
        assert_eq!(status, 502, "{}: {answer}", wrong.what);
        let named = wrong.what.contains("name") && wrong.reason != "does not chain to the trust anchors";
        let code = if named { "IDENTITY_MISMATCH" } else { "TLS_FAILED" };
        let n = if named { &mut mismatched } else { &mut failed };
        *n += 1;
        counted(&mesh.web, "outbound", code, *n).await;
        let told = explained(&mesh.web, &format!("kind=request&code={code}"), *n).await;
        let message = told["records"][0]["message"].as_str().unwrap();
        assert!(message.contains(wrong.reason), "{}: {message}", wrong.what);
        server.start_kill().unwrap();
        while let Some(line) = soon(lines.next_line()).await.unwrap() {
            assert!(!line.contains("secret"), "{}: {line}", wrong.what);
        }
    }
    cost.end("wrong certificates of servers", failed + mismatched, MOST);
    assert!(failed >= 5 && mismatched >= 1, "{failed} {mismatched}");
}

async fn clients() {
    let mesh = Mesh::start().await;
    let folder = Folder::new(&mesh.control, "clients");
    let origin = Origin::start(|_| Reply::ok("app")).await.unwrap();
    // Its policy lets everybody in: also as a stranger it is not.
    mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::Unknown)]);
    let in_order = async || {
        let tcp = TcpStream::connect(door::inbound(&mesh, origin.addr()).await).await.unwrap();
        let (stream, _) = soon(mesh.store("peer").connect(tcp, &mesh.server(), false)).await.unwrap();
        let answer = soon(Client::over(stream).call(REQUEST)).await.unwrap();
        assert_eq!(answer.status(), Some(200));
    };
    let cost = Cost::begin(in_order).await;
    let before = origin.seen().requests.len();
    let mut refused = 0;
    for wrong in folder.wrong.iter().filter(|wrong| wrong.refuses != Refuses::Clients) {
        let addr = door::inbound(&mesh, origin.addr()).await;
        let mut command = folder.openssl("s_client", wrong);
        command.args(["-quiet", "-servername", identity("app").as_str(), "-connect", &addr.to_string()]);
        let mut client = command.spawn().expect("openssl starts");
        // It may have been refused before it writes.
        let _ = client.stdin.as_mut().unwrap().write_all(REQUEST.as_bytes()).await;
        let mut answer = String::new();
        soon(client.stdout.as_mut().unwrap().read_to_string(&mut answer)).await.unwrap();
        if wrong.what == "nothing" {
            assert!(answer.contains(" 200 "), "{answer}");
            continue;
        }
        assert_eq!(answer, "", "{}", wrong.what);
        refused += 1;
        counted(&mesh.app, "inbound", "TLS_FAILED", refused).await;
        let told = explained(&mesh.app, "kind=connection&code=TLS_FAILED", refused).await;
        let message = told["records"][0]["message"].as_str().unwrap();
        assert!(message.contains(wrong.reason), "{}: {message}", wrong.what);
        assert!(told["records"][0]["client_id"].is_null(), "{told}");
    }
    cost.end("wrong certificates of clients", refused, MOST);
    assert!(refused >= 6, "{refused}");
    assert_eq!(origin.seen().requests.len(), before + 1);
}
