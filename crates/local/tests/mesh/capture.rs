//! What passes between namespaces, seen from the bridge.

use crate::harness::{Mesh, SERVER, deployment, kill, service, users};
use nix::sys::signal::Signal;
use std::{
    fs,
    process::{Command, Stdio},
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
        let files = [("server.py", SERVER), ("tell.py", TELL), ("sniff.py", SNIFF)];
        let mut mesh = Mesh::up(user, &manifests, &files, &[]);
        mesh.ready(&["web", "meshed", "plain"]);
        let seen = mesh.dir.join("packets");
        let node = mesh.node().to_string();
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["-t", &node, "-n"]);
        if !nix::unistd::geteuid().is_root() {
            nsenter.args(["-U", "--preserve-credentials"]);
        }
        nsenter.arg("python3");
        let mut sniffer = nsenter.arg(mesh.dir.join("sniff.py")).arg(&seen).stdout(Stdio::null()).spawn().unwrap();
        mesh.until("the capture to begin", |_| seen.exists());
        let told = |mesh: &Mesh, name: &str| mesh.output(name).iter().filter(|l| *l == "told").count();
        let before = told(&mesh, "meshed");
        let contains = |bytes: &[u8], word: &str| bytes.windows(word.len()).any(|w| w == word.as_bytes());
        mesh.until("both to have spoken", |mesh| {
            told(mesh, "meshed") > before + 10 && contains(&fs::read(&seen).unwrap(), "word-of-the-plain")
        });
        // While their proxies are killed they are cut off, not let through.
        for _ in 0..3 {
            let before = told(&mesh, "meshed");
            for name in ["web", "meshed"] {
                kill(mesh.pods(name)[0].proxy_pid.unwrap(), Signal::SIGKILL);
            }
            mesh.until("them to speak again", |mesh| mesh.is_ready("web") && told(mesh, "meshed") > before + 3);
        }
        sniffer.kill().unwrap();
        sniffer.wait().unwrap();
        let packets = fs::read(&seen).unwrap();
        assert!(!contains(&packets, "secret-of-the-meshed"), "{user:?}: plaintext between namespaces");
        // Not even who speaks: certificates are encrypted.
        assert!(!contains(&packets, "meshed.shop.serviceaccount"), "{user:?}");
    }
}
