//! Redirection, original destinations, exemption and links in real network namespaces, v4 and v6 alike.
//!
//! Each case runs in processes of its own: once in a user namespace, as an ordinary user has it, and as root where
//! the caller is root. Where the kernel forbids namespaces it fails, unless `WEFT_ALLOW_SKIP=1`.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test without the harness")]

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::{Command, ExitCode},
    time::Duration,
};
use weft_transport::{
    netns::{IdMap, Kinds, LinkIndex, Namespace, Netlink, unshare},
    redirect::{Exempt, Rules, Subnet},
    socket::{self, ConnectOptions},
};

const MARK: u32 = 0x5741;
const CASES: &[(&str, fn())] = &[
    ("outbound_is_redirected", outbound_is_redirected),
    ("inbound_is_redirected", inbound_is_redirected),
    ("a_mark_exempts", a_mark_exempts),
    ("a_uid_exempts", a_uid_exempts),
    ("loopback_and_skipped_ports_are_direct", loopback_and_skipped_ports_are_direct),
    ("rules_replace_themselves", rules_replace_themselves),
    ("links_move_and_vanish", links_move_and_vanish),
    ("parameters_belong_to_the_namespace", parameters_belong_to_the_namespace),
];
const CASE: &str = "WEFT_NAMESPACES_CASE";
const USER: &str = "WEFT_NAMESPACES_USER";

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(CASE) {
        return one(&name);
    }
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let root = nix::unistd::geteuid().is_root();
    let mut failed = false;
    for (name, _) in CASES.iter().filter(|(name, _)| name.contains(&filter)) {
        for user in [true, false] {
            // Without root there is no second way; and one uid cannot become another in a namespace with one user.
            if (!user && !root) || (user && *name == "a_uid_exempts") {
                continue;
            }
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.env(CASE, name);
            if user {
                command.env(USER, "1");
            }
            let ok = command.status().unwrap().success();
            eprintln!(
                "{name} ({}) ... {}",
                if user { "user namespace" } else { "root" },
                if ok { "ok" } else { "FAILED" }
            );
            failed |= !ok;
        }
    }
    ExitCode::from(u8::from(failed))
}

fn one(name: &str) -> ExitCode {
    let user = std::env::var_os(USER).is_some();
    let kinds = Kinds { user, mount: true, network: true, ..Kinds::default() };
    if let Err(error) = unshare(kinds, Some(IdMap { uid: 0, gid: 0 })) {
        eprintln!("namespaces are needed and refused: {error}");
        return ExitCode::from(u8::from(std::env::var("WEFT_ALLOW_SKIP").as_deref() != Ok("1")));
    }
    let (_, case) = CASES.iter().find(|(known, _)| *known == name).unwrap();
    // A case that hangs is a failure.
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(20));
        eprintln!("timed out");
        std::process::exit(1);
    });
    case();
    ExitCode::SUCCESS
}

/// Two pods on a bridge.
struct Lab {
    a: Namespace,
    b: Namespace,
}

const A: [&str; 2] = ["10.9.0.2", "fd09::2"];
const B: [&str; 2] = ["10.9.0.3", "fd09::3"];

fn lab() -> Lab {
    let mut here = Netlink::open().unwrap();
    let bridge = here.add_bridge("mesh").unwrap();
    here.set_up(bridge).unwrap();
    let mut pod = |name: &str, addresses: [&str; 2]| {
        let namespace = Namespace::create().unwrap();
        let outside = here.add_veth(name, "eth0", &namespace).unwrap();
        here.set_master(outside, bridge).unwrap();
        here.set_up(outside).unwrap();
        let mut inside = namespace.netlink().unwrap();
        inside.set_loopback_up().unwrap();
        let eth0 = inside.link("eth0").unwrap();
        inside.set_up(eth0).unwrap();
        address(&mut inside, eth0, addresses);
        namespace
    };
    Lab { a: pod("a", A), b: pod("b", B) }
}

fn address(netlink: &mut Netlink, link: LinkIndex, addresses: [&str; 2]) {
    for (address, prefix, any, gateway) in
        [(addresses[0], 24, "0.0.0.0", "10.9.0.1"), (addresses[1], 64, "::", "fd09::1")]
    {
        netlink.add_address(link, address.parse().unwrap(), prefix).unwrap();
        netlink.add_route(any.parse().unwrap(), 0, Some(gateway.parse().unwrap()), Some(link)).unwrap();
    }
}

fn rules() -> Rules {
    Rules {
        inbound_port: 4143,
        outbound_port: 4140,
        skip_inbound: vec![4190.into()],
        skip_outbound: vec![9000.into()],
        skip_subnets: Vec::new(),
        exempt: Exempt::Mark(MARK),
    }
}

fn redirected(pod: &Namespace, rules: &Rules) {
    pod.run(|| rules.apply()).unwrap().unwrap();
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port)
}

fn listen(pod: &Namespace, ip: &str, port: u16) -> TcpListener {
    let listener = pod.run(|| socket::listen(at(ip, port), 16)).unwrap().unwrap();
    listener.set_nonblocking(false).unwrap();
    listener
}

fn connect(pod: &Namespace, to: SocketAddr, mark: Option<u32>) -> std::io::Result<TcpStream> {
    let options = ConnectOptions { timeout: Duration::from_secs(2), mark, ..ConnectOptions::default() };
    pod.run(|| runtime().block_on(async { socket::connect(to, &options).await?.into_std() })).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Accepts what `client` opened (its name for the server's side proves that it is the same connection).
fn accept(listener: &TcpListener, client: &TcpStream) -> TcpStream {
    let (mut server, _) = listener.accept().unwrap();
    (&*client).write_all(b"x").unwrap();
    let mut byte = [0];
    server.read_exact(&mut byte).unwrap();
    assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
    server
}

fn original_dst(server: TcpStream) -> std::io::Result<SocketAddr> {
    server.set_nonblocking(true).unwrap();
    runtime().block_on(async { socket::original_dst(&tokio::net::TcpStream::from_std(server)?) })
}

fn outbound_is_redirected() {
    let lab = lab();
    redirected(&lab.a, &rules());
    for (loopback, to) in [("127.0.0.1", B[0]), ("::1", B[1]), ("127.0.0.1", "10.96.7.7"), ("::1", "fd96::7")] {
        // Nobody listens there, and the services' addresses lead nowhere.
        let proxy = listen(&lab.a, loopback, 4140);
        let client = connect(&lab.a, at(to, 80), None).unwrap();
        assert_eq!(original_dst(accept(&proxy, &client)).unwrap(), at(to, 80));
    }
}

fn inbound_is_redirected() {
    let lab = lab();
    redirected(&lab.a, &rules());
    for (any, to) in [("0.0.0.0", A[0]), ("::", A[1])] {
        let proxy = listen(&lab.a, any, 4143);
        for port in [8080, 4143] {
            let client = connect(&lab.b, at(to, port), None).unwrap();
            assert_eq!(original_dst(accept(&proxy, &client)).unwrap(), at(to, port), "straight to 4143 is itself");
        }
    }
    // One socket for both families sees v4 clients as mapped, and their destinations as what they are.
    let both = listen(&lab.a, "::", 4143);
    for to in A {
        let client = connect(&lab.b, at(to, 8080), None).unwrap();
        let (mut server, _) = both.accept().unwrap();
        (&client).write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        assert_eq!(original_dst(server).unwrap(), at(to, 8080));
    }
    // Where no rule looks at connections there is nothing to ask.
    let plain = listen(&lab.b, B[0], 80);
    let client = connect(&lab.b, at(B[0], 80), None).unwrap();
    original_dst(accept(&plain, &client)).unwrap_err();
}

fn a_mark_exempts() {
    let lab = lab();
    redirected(&lab.a, &rules());
    for (loopback, to) in [("127.0.0.1", B[0]), ("::1", B[1])] {
        let proxy = listen(&lab.a, loopback, 4140);
        let server = listen(&lab.b, to, 80);
        accept(&server, &connect(&lab.a, at(to, 80), Some(MARK)).unwrap());
        accept(&proxy, &connect(&lab.a, at(to, 80), Some(MARK + 1)).unwrap());
    }
}

fn a_uid_exempts() {
    use std::os::unix::process::CommandExt;
    let lab = lab();
    redirected(&lab.a, &Rules { exempt: Exempt::Uid(2102), ..rules() });
    for (loopback, to) in [("127.0.0.1", B[0]), ("::1", B[1])] {
        let proxy = listen(&lab.a, loopback, 4140);
        let server = listen(&lab.b, to, 80);
        for (uid, listener) in [(2102, &server), (2103, &proxy)] {
            let script = format!("exec 3<>/dev/tcp/{to}/80 && echo {uid} >&3");
            let mut child = lab.a.run(|| Command::new("bash").args(["-c", &script]).uid(uid).spawn()).unwrap().unwrap();
            let mut text = String::new();
            listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
            assert_eq!(text.trim(), uid.to_string());
            assert!(child.wait().unwrap().success());
        }
    }
}

fn loopback_and_skipped_ports_are_direct() {
    let lab = lab();
    let subnet = |address: &str, prefix| Subnet { address: address.parse().unwrap(), prefix };
    redirected(&lab.a, &rules());
    for (loopback, a, b) in [("127.0.0.1", A[0], B[0]), ("::1", A[1], B[1])] {
        let app = listen(&lab.a, a, 8080);
        accept(&app, &connect(&lab.a, at(a, 8080), None).unwrap());
        let local = listen(&lab.a, loopback, 8081);
        accept(&local, &connect(&lab.a, at(loopback, 8081), None).unwrap());
        let admin = listen(&lab.a, a, 4190);
        accept(&admin, &connect(&lab.b, at(a, 4190), None).unwrap());
        let outside = listen(&lab.b, b, 9000);
        accept(&outside, &connect(&lab.a, at(b, 9000), None).unwrap());
    }
    // Without a proxy there is no connection: it fails closed.
    assert!(connect(&lab.b, at(A[0], 8080), None).is_err());
    redirected(&lab.a, &Rules { skip_subnets: vec![subnet("10.9.0.0", 24), subnet("fd09::", 64)], ..rules() });
    for a in A {
        let app = listen(&lab.a, a, 8080);
        accept(&app, &connect(&lab.b, at(a, 8080), None).unwrap());
    }
}

fn rules_replace_themselves() {
    let lab = lab();
    for _ in 0..3 {
        redirected(&lab.a, &rules());
    }
    let other = Rules { outbound_port: 5140, ..rules() };
    redirected(&lab.a, &other);
    let proxy = listen(&lab.a, "127.0.0.1", 5140);
    accept(&proxy, &connect(&lab.a, at(B[0], 80), None).unwrap());
    let listed = lab.a.run(|| Command::new("/usr/sbin/nft").args(["list", "ruleset"]).output()).unwrap().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!((listed.matches("redirect to").count(), listed.matches("chain").count()), (2, 2), "{listed}");
    // Nothing of it is anywhere else.
    let elsewhere = lab.b.run(|| Command::new("/usr/sbin/nft").args(["list", "ruleset"]).output()).unwrap().unwrap();
    assert_eq!(String::from_utf8(elsewhere.stdout).unwrap(), "");
}

fn links_move_and_vanish() {
    let mut here = Netlink::open().unwrap();
    let there = Namespace::create().unwrap();
    let other = here.add_veth("other", "one", Namespace::current().unwrap()).unwrap();
    let link = here.link("one").unwrap();
    assert_eq!(here.add_bridge("one").unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    here.set_up(other).unwrap();
    here.move_to(link, &there).unwrap();
    assert_eq!(here.link("one").unwrap_err().raw_os_error(), Some(19));
    let mut inside = there.netlink().unwrap();
    let link = inside.link("one").unwrap();
    inside.set_up(link).unwrap();
    address(&mut inside, link, A);
    inside.set_loopback_up().unwrap();
    inside.add_local_route("10.96.0.0".parse().unwrap(), 12).unwrap();
    inside.add_local_route("fd96::".parse().unwrap(), 16).unwrap();
    for any in ["10.96.1.2", "fd96::1:2"] {
        let unspecified = if any.contains(':') { "::" } else { "0.0.0.0" };
        let listener = listen(&there, unspecified, 80);
        let server = accept(&listener, &connect(&there, at(any, 80), None).unwrap());
        assert_eq!(server.local_addr().unwrap(), at(any, 80));
    }
    let mut child = there.run(|| Command::new("sleep").arg("60").spawn()).unwrap().unwrap();
    let pair = here.add_veth("outer", "inner", Namespace::current().unwrap()).unwrap();
    let inner = here.link("inner").unwrap();
    here.move_to_process(inner, child.id()).unwrap();
    inside.link("inner").unwrap();
    here.delete_link(pair).unwrap();
    assert!(inside.link("inner").is_err(), "the other end goes with it");
    child.kill().unwrap();
    child.wait().unwrap();
}

fn parameters_belong_to_the_namespace() {
    let read = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let before = read();
    let there = Namespace::create().unwrap();
    let value = if before.trim() == "1" { "0" } else { "1" };
    there.sysctl("net.ipv4.ip_forward", value).unwrap();
    assert_eq!(there.run(read).unwrap().trim(), value);
    assert_eq!(read(), before);
    for bad in ["kernel.hostname", "net/../kernel/hostname", "net..kernel"] {
        assert_eq!(there.sysctl(bad, "x").unwrap_err().kind(), std::io::ErrorKind::InvalidInput, "{bad}");
    }
}
