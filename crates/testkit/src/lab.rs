//! Two pods in network namespaces of their own, and a runner for cases that enter namespaces: each in processes of its own, once in a
//! user namespace, as an ordinary user has it, and as root where the caller is root.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a laboratory that cannot be built fails, and says so")]

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::{Command, ExitCode},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use weft_transport::{
    netns::{IdMap, Kinds, LinkIndex, Namespace, Netlink, unshare},
    redirect::{Firewall, Rules},
    socket::{self, ConnectOptions},
};

/// What is proved by a function that panics where it does not hold.
pub struct Case {
    pub name: &'static str,
    pub run: fn(),
    /// Needs more than the one user that an ordinary user's namespace has.
    pub root_only: bool,
}

const CASE: &str = "WEFT_NAMESPACES_CASE";
const USER: &str = "WEFT_NAMESPACES_USER";
/// A case that hangs is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// The whole `main` of a suite without the harness. Where the kernel forbids namespaces it fails, unless `WEFT_ALLOW_SKIP=1`.
pub fn main(cases: &[Case]) -> ExitCode {
    if let Ok(name) = std::env::var(CASE) {
        return one(cases, &name);
    }
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let root = nix::unistd::geteuid().is_root();
    let mut failed = false;
    for case in cases.iter().filter(|case| case.name.contains(&filter)) {
        for user in [true, false] {
            // Without root there is no second way.
            if (!user && !root) || (user && case.root_only) {
                continue;
            }
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.env(CASE, case.name);
            if user {
                command.env(USER, "1");
            }
            let ok = command.status().unwrap().success();
            let who = if user { "user namespace" } else { "root" };
            eprintln!("{} ({who}) ... {}", case.name, if ok { "ok" } else { "FAILED" });
            failed |= !ok;
        }
    }
    ExitCode::from(u8::from(failed))
}

fn one(cases: &[Case], name: &str) -> ExitCode {
    let user = std::env::var_os(USER).is_some();
    let kinds = Kinds { user, mount: true, network: true, ..Kinds::default() };
    if let Err(error) = unshare(kinds, Some(IdMap { uid: 0, gid: 0 })) {
        eprintln!("namespaces are needed and refused: {error}");
        return ExitCode::from(u8::from(std::env::var("WEFT_ALLOW_SKIP").as_deref() != Ok("1")));
    }
    let case = cases.iter().find(|case| case.name == name).unwrap();
    std::thread::spawn(|| {
        std::thread::sleep(PATIENCE);
        eprintln!("timed out");
        std::process::exit(1);
    });
    (case.run)();
    ExitCode::SUCCESS
}

/// Two pods on a bridge.
pub struct Lab {
    pub a: Namespace,
    pub b: Namespace,
}

/// The addresses of `a`, v4 and v6.
pub const A: [&str; 2] = ["10.9.0.2", "fd09::2"];
pub const B: [&str; 2] = ["10.9.0.3", "fd09::3"];

pub fn lab() -> Lab {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut here = Netlink::open().unwrap();
    let bridge = here.add_bridge(&format!("mesh{number}")).unwrap();
    here.set_up(bridge).unwrap();
    let mut pod = |name: &str, addresses: [&str; 2]| {
        let namespace = Namespace::create().unwrap();
        let outside = here.add_veth(&format!("{name}{number}"), "eth0", &namespace).unwrap();
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

pub fn address(netlink: &mut Netlink, link: LinkIndex, addresses: [&str; 2]) {
    for (address, prefix, any, gateway) in
        [(addresses[0], 24, "0.0.0.0", "10.9.0.1"), (addresses[1], 64, "::", "fd09::1")]
    {
        netlink.add_address(link, address.parse().unwrap(), prefix).unwrap();
        netlink.add_route(any.parse().unwrap(), 0, Some(gateway.parse().unwrap()), Some(link)).unwrap();
    }
}

/// Puts rules in force in a pod, by one program.
pub fn redirected(pod: &Namespace, rules: &Rules, by: Firewall) {
    pod.run(|| rules.apply(&[by])).unwrap().unwrap();
}

pub fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port)
}

pub fn listen(pod: &Namespace, ip: &str, port: u16) -> TcpListener {
    let listener = pod.run(|| socket::listen(at(ip, port), 16)).unwrap().unwrap();
    listener.set_nonblocking(false).unwrap();
    listener
}

pub fn connect(pod: &Namespace, to: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
    let options = ConnectOptions { timeout: Duration::from_secs(2), mark, ..ConnectOptions::default() };
    pod.run(|| runtime().block_on(async { socket::connect(to, &options).await?.into_std() })).unwrap()
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Accepts what `client` opened (its name for the server's side proves that it is the same connection).
pub fn accept(listener: &TcpListener, client: &TcpStream) -> TcpStream {
    let (mut server, _) = listener.accept().unwrap();
    (&*client).write_all(b"x").unwrap();
    let mut byte = [0];
    server.read_exact(&mut byte).unwrap();
    assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
    server
}

pub fn original_dst(server: TcpStream) -> io::Result<SocketAddr> {
    server.set_nonblocking(true).unwrap();
    runtime().block_on(async { socket::original_dst(&tokio::net::TcpStream::from_std(server)?) })
}
