//! What is outside the mesh: the host, other addresses, other protocols than TCP.

use crate::harness::{Mesh, User, deployment, users};
use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener},
};
use weft_local::client::Source;

const REACH: &str = r#"
import socket, sys, time
def reach(what, host, port):
    try:
        connection = socket.create_connection((host, int(port)), timeout=5)
        connection.sendall(b"ping\n")
        print("REACH", what, connection.recv(64), flush=True)
    except Exception as error:
        print("REACH", what, "refused", repr(error), flush=True)
for item in sys.argv[1:]:
    reach(item, *item.rsplit(":", 1))
def datagram(what, host, port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(3)
    try:
        sock.connect((host, port))
        sock.send(b"x")
        print("REACH", what, sock.recv(64), flush=True)
    except Exception as error:
        print("REACH", what, "refused", repr(error), flush=True)
datagram("udp", "192.0.2.99", 9)
try:
    print("REACH name", socket.getaddrinfo("no-such-name.shop.svc.cluster.local", 1), flush=True)
except Exception as error:
    print("REACH name refused", repr(error), flush=True)
time.sleep(1000)
"#;

/// Answers `pong` to everybody.
fn pong(addr: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(addr).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut byte = [0; 5];
            if stream.read_exact(&mut byte).is_ok() {
                let _ = stream.write_all(b"pong");
            }
        }
    });
    addr
}

/// An address of the host that is not loopback.
pub(crate) fn own_address() -> IpAddr {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent: the kernel only picks the address.
    socket
        .connect("192.0.2.1:9")
        .expect("this machine has no route to anywhere; the test needs an address besides loopback");
    socket.local_addr().unwrap().ip()
}

fn reach(user: User, annotations: &str, egress: &str) -> (Mesh, [String; 5]) {
    let outside = pong(SocketAddr::new(own_address(), 0));
    let loopback = pong("127.0.0.1:0".parse().unwrap());
    let (outside, port) = (outside.to_string(), loopback.port());
    let command = format!("[python3, DIR/reach.py, '{outside}', '127.0.0.1:{port}', 'postgres:{port}']");
    let manifests = deployment("client", 1, annotations, &command, "");
    let host_service = format!("postgres=127.0.0.1:{port}");
    let arguments = [egress, "--host-service", &host_service];
    let mut mesh = Mesh::up(user, &manifests, &[("reach.py", REACH)], &arguments);
    mesh.ready(&["client"]);
    let mut said = |what: &str| mesh.said("client", &format!("REACH {what} "));
    let said = [
        said(&outside),
        said(&format!("127.0.0.1:{port}")),
        said(&format!("postgres:{port}")),
        said("udp"),
        said("name"),
    ];
    (mesh, said)
}

#[test]
fn the_outside_is_reached_over_the_host() {
    for user in users() {
        for annotations in ["", "linkerd.io/inject: disabled"] {
            let (_mesh, [outside, loopback, named, udp, name]) = reach(user, annotations, "--egress=on");
            assert_eq!(outside, "b'pong'", "{user:?} {annotations}");
            assert!(loopback.starts_with("refused"), "{user:?} {annotations}: {loopback}");
            assert_eq!(named, "b'pong'", "{user:?} {annotations}");
            assert!(udp.starts_with("refused") && !udp.contains("timed out"), "{user:?} {annotations}: {udp}");
            assert!(name.starts_with("refused"), "{user:?} {annotations}: {name}");
        }
    }
}

#[test]
fn egress_can_be_switched_off() {
    for user in users() {
        let (mesh, [outside, _, named, ..]) = reach(user, "linkerd.io/inject: disabled", "--egress=off");
        assert!(outside.starts_with("refused") || outside == "b''", "{user:?} {outside}");
        assert_eq!(named, "b'pong'", "{user:?}: what is named is meant");
        let notes = mesh.lines("client", Source::Mesh);
        assert!(notes.iter().any(|l| l.text.contains("[EGRESS_OFF]")), "{user:?} {notes:?}");
        let egress = mesh.status().egress;
        assert_eq!((egress.enabled, egress.refused), (false, 1), "{user:?}");
    }
}
