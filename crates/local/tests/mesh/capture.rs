//! What passes between namespaces, seen from the bridge.

use crate::harness::{Mesh, SERVER, deployment, kill, service, users};
use nix::sys::signal::Signal;
use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// Writes every packet of the namespace to argv[1].
const SNIFF: &str = r#"
import socket, sys
sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
out = open(sys.argv[1], "wb", buffering=0)
print("listening", flush=True)
while True:
    out.write(sniffer.recv(65536))
"#;

/// Sends a word that no other program sends, again and again.
const TELL: &str = r#"
import sys, time, urllib.request
while True:
    try:
        urllib.request.urlopen("http://web/" + sys.argv[1], timeout=5).read()
        print("told", flush=True)
    except Exception as error:
        print("again", repr(error), flush=True)
    time.sleep(0.05)
"#;

/// Every packet on the bridge from now on.
pub(crate) struct Capture {
    file: PathBuf,
    sniffer: Child,
}

impl Capture {
    pub(crate) fn start(mesh: &mut Mesh) -> Self {
        let (script, file) = (mesh.dir.join("sniff.py"), mesh.dir.join("packets"));
        fs::write(&script, SNIFF).unwrap();
        let node = mesh.node().to_string();
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["-t", &node, "-n"]);
        if !nix::unistd::geteuid().is_root() {
            nsenter.args(["-U", "--preserve-credentials"]);
        }
        let sniffer = nsenter.arg("python3").arg(script).arg(&file).stdout(Stdio::null()).spawn().unwrap();
        mesh.until("the capture to begin", |_| file.exists());
        Self { file, sniffer }
    }

    pub(crate) fn contains(&self, word: &str) -> bool {
        fs::read(&self.file).unwrap().windows(word.len()).any(|w| w == word.as_bytes())
    }

    pub(crate) fn end(mut self) {
        self.sniffer.kill().unwrap();
        self.sniffer.wait().unwrap();
    }
}

#[test]
fn nothing_passes_in_the_clear() {
    for user in users() {
        let web = deployment(
            "web",
            1,
            "",
            "[python3, DIR/server.py]",
            "readinessProbe: {tcpSocket: {port: 8000}, periodSeconds: 1}",
        ) + &service("web", "", "ports: [{port: 80, targetPort: 8000}]");
        let manifests = web
            + &deployment("meshed", 1, "", "[python3, DIR/tell.py, secret-of-the-meshed]", "")
            // Proves that the capture sees what passes in the clear.
            + &deployment("plain", 1, "linkerd.io/inject: disabled", "[python3, DIR/tell.py, word-of-the-plain]", "");
        let files = [("server.py", SERVER), ("tell.py", TELL)];
        let mut mesh = Mesh::up(user, &manifests, &files, &[]);
        mesh.ready(&["web", "meshed", "plain"]);
        let capture = Capture::start(&mut mesh);
        let told = |mesh: &Mesh, name: &str| mesh.output(name).iter().filter(|l| *l == "told").count();
        let before = told(&mesh, "meshed");
        mesh.until("both to have spoken", |mesh| {
            told(mesh, "meshed") > before + 10 && capture.contains("word-of-the-plain")
        });
        // While their proxies are killed they are cut off, not let through.
        for _ in 0..3 {
            let before = told(&mesh, "meshed");
            for name in ["web", "meshed"] {
                kill(mesh.pods(name)[0].proxy_pid.unwrap(), Signal::SIGKILL);
            }
            mesh.until("them to speak again", |mesh| mesh.is_ready("web") && told(mesh, "meshed") > before + 3);
        }
        assert!(!capture.contains("secret-of-the-meshed"), "{user:?}: plaintext between namespaces");
        // Not even who speaks: certificates are encrypted.
        assert!(!capture.contains("meshed.shop.serviceaccount"), "{user:?}");
        capture.end();
    }
}
