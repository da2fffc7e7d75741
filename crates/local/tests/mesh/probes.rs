//! Readiness probes of each kind, against programs that say yes and no.

use crate::harness::{Mesh, SERVER, deployment, users};
use std::fs;

/// Serves HTTPS on port 8443 with the certificate of argv[1].
const SECURE: &str = r#"
import http.server, socket, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ready" else 503)
        self.end_headers()
        self.wfile.write(b"x" * 50000)
    def log_message(self, *a): pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
server = Server(("::", 8443), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

/// Does what argv[1], a file that the test writes, says: is healthy by the usual file of its own.
const MOODY: &str = r#"
import os, sys, time
while True:
    mood = open(sys.argv[1]).read().strip()
    if mood == "well":
        open("/tmp/healthy", "w").close()
    elif os.path.exists("/tmp/healthy"):
        os.unlink("/tmp/healthy")
    time.sleep(0.02)
"#;

/// A self-signed certificate with its key, as PEM: nobody's idea of trust.
fn certificate() -> String {
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["nobody".to_owned()]).unwrap();
    cert.pem() + &signing_key.serialize_pem()
}

/// Waits until it is not ready for a reason that says this.
fn is_kept(mesh: &mut Mesh, name: &str, reason: &str) {
    mesh.until(&format!("{name} to be kept by {reason:?}"), |mesh| {
        let pod = mesh.pods(name).into_iter().next();
        pod.is_some_and(|p| !p.ready && p.pid.is_some() && p.message.is_some_and(|m| m.contains(reason)))
    });
}

#[test]
fn over_tls_no_certificate_is_checked() {
    for user in users() {
        let probe = |path: &str, port: u16| {
            let get = format!("httpGet: {{scheme: HTTPS, path: {path}, port: {port}}}");
            // On a busy machine an answer takes longer than a second, and one that is cut off is an error to the server.
            format!("readinessProbe: {{{get}, periodSeconds: 1, timeoutSeconds: 30}}")
        };
        let secure = "[python3, DIR/secure.py, DIR/certificate.pem]";
        let manifests = deployment("secure", 1, "", secure, &probe("/ready", 8443))
            + &deployment("busy", 1, "", secure, &probe("/busy", 8443))
            + &deployment("plain", 1, "", "[python3, DIR/server.py]", &probe("/", 8000));
        let files = [("secure.py", SECURE), ("server.py", SERVER), ("certificate.pem", &certificate())];
        let mut mesh = Mesh::up(user, &manifests, &files, &[]);
        mesh.ready(&["secure"]);
        is_kept(&mut mesh, "busy", "/busy answers 503");
        is_kept(&mut mesh, "plain", "TLS 1.3");
        assert!(!mesh.output("secure").iter().any(|l| l.contains("Error")), "{user:?}: {:?}", mesh.output("secure"));
    }
}

#[test]
fn grpc_services_are_asked_by_name() {
    for user in users() {
        let emoji = "[weft-demo, emoji, --port, '8080']";
        let probe = |service: &str| format!("readinessProbe: {{grpc: {{port: 8080{service}}}, periodSeconds: 1}}");
        let manifests = deployment("whole", 1, "", emoji, &probe(""))
            + &deployment("named", 1, "", emoji, &probe(", service: emojivoto.v1.EmojiService"))
            + &deployment("other", 1, "", emoji, &probe(", service: emojivoto.v1.VotingService"))
            + &deployment("http", 1, "", "[weft-demo, bot, --web, nowhere]", &probe(""));
        let mut mesh = Mesh::up(user, &manifests, &[], &[]);
        mesh.ready(&["whole", "named"]);
        is_kept(&mut mesh, "other", "\"emojivoto.v1.VotingService\" is not serving");
        is_kept(&mut mesh, "http", "refused");
    }
}

/// A command is run where the program is: it sees the program's own files, and may what that may.
#[test]
fn commands_are_run_beside_the_program() {
    for user in users() {
        let probe = |command: &str| {
            format!("readinessProbe: {{exec: {{command: {command}}}, periodSeconds: 1, failureThreshold: 1}}")
        };
        let moody = "[python3, DIR/moody.py, DIR/mood]";
        let who = "[sh, -c, 'test $(id -u) != 0 && test ! -e DIR/state/ca && grep -q NoNewPrivs.*1 /proc/self/status && grep -q CapEff.*0000000000000000 /proc/self/status && ls /proc | grep -q 1 && test $(uname -n) = $HOSTNAME']";
        let manifests = deployment("moody", 1, "", moody, &probe("[test, -e, /tmp/healthy]"))
            + &deployment("who", 1, "", "[sleep, '1000']", &probe(who))
            + &deployment("slow", 1, "", "[sleep, '1000']", &probe("[sleep, '999']"))
            + &deployment("none", 1, "", "[sleep, '1000']", &probe("[no-such-command]"));
        let mut mesh = Mesh::up(user, &manifests, &[("moody.py", MOODY), ("mood", "well")], &[]);
        mesh.ready(&["moody", "who"]);
        // In place, since it is this file that the program was shown.
        fs::write(mesh.dir.join("mood"), "ill").unwrap();
        is_kept(&mut mesh, "moody", "its command ended with status 1");
        fs::write(mesh.dir.join("mood"), "well").unwrap();
        mesh.ready(&["moody"]);
        is_kept(&mut mesh, "slow", "did not end within 1s");
        is_kept(&mut mesh, "none", "its command ended with status 127");
        let left = mesh
            .processes()
            .into_iter()
            .filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep\0999")));
        assert!(left.count() <= 1, "{user:?}: commands without an answer stay");
    }
}
