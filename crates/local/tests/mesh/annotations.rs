//! What annotations take out of the mesh, seen on the wire: words in packets between pods, and what servers see of clients.

use crate::{
    capture::Capture,
    harness::{Mesh, SERVER, deployment, service, users},
};

/// Asks argv[1] for the path argv[2] again and again.
const TELL: &str = r#"
import sys, time, urllib.request
while True:
    try:
        print("TOLD", urllib.request.urlopen("http://" + sys.argv[1] + "/" + sys.argv[2], timeout=5).read().decode(), end="", flush=True)
    except Exception as error:
        print("again", repr(error), flush=True)
    time.sleep(0.05)
"#;

/// A server, and a client that tells it a word of its own.
struct Pair {
    name: &'static str,
    server: &'static str,
    client: &'static str,
    /// Whether the word passes in the clear.
    plain: bool,
    /// Whether the server's proxy sees requests, and says who sent them.
    parsed: bool,
}

const PAIRS: [Pair; 5] = [
    Pair { name: "meshed", server: "", client: "", plain: false, parsed: true },
    Pair {
        name: "entering",
        server: "config.linkerd.io/skip-inbound-ports: '8000'",
        client: "",
        plain: true,
        parsed: false,
    },
    Pair {
        name: "leaving",
        server: "",
        client: "config.linkerd.io/skip-outbound-ports: '80'",
        plain: true,
        parsed: false,
    },
    Pair { name: "opaque", server: "config.linkerd.io/opaque-ports: '8000'", client: "", plain: false, parsed: false },
    Pair { name: "outside", server: "", client: "linkerd.io/inject: disabled", plain: true, parsed: false },
];

/// No part of another pair's word.
fn word(pair: &Pair) -> String {
    format!("word-of-the-{}-pair", pair.name)
}

fn manifests() -> String {
    let of = |pair: &Pair| {
        let (server, client) = (format!("{}-server", pair.name), format!("{}-client", pair.name));
        let probe = "readinessProbe: {tcpSocket: {port: 8000}, periodSeconds: 1}";
        let tell = format!("[python3, DIR/tell.py, {server}, {}]", word(pair));
        // Opaque ports are a property of the Service as well; it has no other annotation.
        let on_service = if pair.name == "opaque" { pair.server } else { "" };
        deployment(&server, 1, pair.server, "[python3, DIR/server.py]", probe)
            + &service(&server, on_service, "ports: [{port: 80, targetPort: 8000}]")
            + &deployment(&client, 1, pair.client, &tell, "")
    };
    PAIRS.iter().map(of).collect()
}

#[test]
fn annotations_have_their_effect_on_the_wire() {
    for user in users() {
        let files = [("server.py", SERVER), ("tell.py", TELL)];
        let mut mesh = Mesh::up(user, &manifests(), &files, &[]);
        for pair in &PAIRS {
            mesh.ready(&[&format!("{}-server", pair.name), &format!("{}-client", pair.name)]);
        }
        let capture = Capture::start(&mut mesh);
        let told = |mesh: &Mesh, pair: &Pair| {
            let lines = mesh.output(&format!("{}-client", pair.name));
            lines.into_iter().filter(|l| l.starts_with("TOLD ")).collect::<Vec<_>>()
        };
        let before: Vec<usize> = PAIRS.iter().map(|pair| told(&mesh, pair).len()).collect();
        for (pair, before) in PAIRS.iter().zip(before) {
            mesh.until(&format!("{} to speak", pair.name), |mesh| told(mesh, pair).len() > before + 5);
        }
        mesh.until("what is plain to be seen", |_| {
            PAIRS.iter().filter(|pair| pair.plain).all(|pair| capture.contains(&word(pair)))
        });
        for pair in &PAIRS {
            assert_eq!(capture.contains(&word(pair)), pair.plain, "{user:?} {}: in the clear?", pair.name);
            let client = format!("client={}-client.shop.serviceaccount.identity.linkerd.cluster.local", pair.name);
            let expected = if pair.parsed { &client } else { "client=none" };
            let answer = told(&mesh, pair).pop().unwrap();
            assert!(answer.ends_with(expected), "{user:?} {}: {answer}", pair.name);
        }
        let outside = mesh.pods("outside-client").remove(0);
        assert_eq!((outside.meshed, outside.proxy_pid), (false, None), "{user:?}");
        assert!(mesh.pods("opaque-client").remove(0).meshed, "{user:?}");
        capture.end();
    }
}
