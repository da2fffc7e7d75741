//! A program that tries to leave its place.

use crate::harness::{Mesh, SERVER, deployment, service, users};

const HOSTILE: &str = r#"
import ctypes, os, signal, socket, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, f):
    try:
        print("TRIED", name, "->", repr(f()), flush=True)
    except BaseException as error:
        print("TRIED", name, "-> refused", repr(error), flush=True)
def call(result):
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
state, web = os.environ["STATE"], os.environ["WEB"]
# First, since later attempts leave some open themselves.
def descriptors():
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            if int(number) > 2: found.append(os.readlink("/proc/self/fd/" + number))
        except OSError:
            pass
    return found
attempt("descriptors", descriptors)
attempt("list the state folder", lambda: [e for e in os.listdir(state) if e != ".files"])
attempt("find keys and tokens", lambda: [f for d, _, fs in os.walk(state) for f in fs if "token" in f or "key" in f or "sock" in f or "ca.json" in f])
attempt("unmount", lambda: call(libc.umount2(state.encode(), 2)))
attempt("mark", lambda: socket.socket().setsockopt(socket.SOL_SOCKET, 36, 0x5745))
attempt("packets", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3) and None)
attempt("rules", lambda: subprocess.run(["nft", "flush", "ruleset"], check=True, capture_output=True, env={"PATH": "/usr/sbin:/sbin:/usr/bin"}))
attempt("see processes", lambda: sorted(int(p) for p in os.listdir("/proc") if p.isdigit() and "hostile" not in open(f"/proc/{p}/cmdline").read() and "__launch" not in open(f"/proc/{p}/cmdline").read()))
attempt("join", lambda: call(libc.setns(os.open("/proc/1/ns/net", os.O_RDONLY), 0)))
attempt("join mounts", lambda: call(libc.setns(os.open("/proc/1/ns/mnt", os.O_RDONLY), 0)))
attempt("capabilities", lambda: [l.split()[1] for l in open("/proc/self/status") if l.startswith(("CapEff", "CapPrm")) and int(l.split()[1], 16)])
attempt("new privileges", lambda: [l.split()[1] for l in open("/proc/self/status") if l.startswith("NoNewPrivs")])
def nested():
    # All rights in a namespace of its own are none in the others.
    pid = os.fork()
    if pid == 0:
        try:
            call(libc.unshare(0x10000000 | 0x00020000))
            call(libc.umount2(state.encode(), 2))
            os._exit(1)
        except OSError:
            pass
        try:
            socket.socket().setsockopt(socket.SOL_SOCKET, 36, 0x5745)
            os._exit(2)
        except OSError:
            pass
        os._exit(1 if any("token" in f or "ca.json" in f for d, _, fs in os.walk(state) for f in fs) else 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
attempt("nested", nested)
attempt("root", lambda: open("/proc/1/root/etc/passwd") and [f for d, _, fs in os.walk("/proc/1/root" + state) for f in fs if "token" in f])
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)))
attempt("signal others", lambda: os.kill(-1, signal.SIGKILL))
print("DONE", flush=True)
time.sleep(1000)
"#;

/// Somebody to be seen.
const OTHER: &str = "import time\ntime.sleep(1000)\n";

#[test]
fn it_cannot_leave() {
    for user in users() {
        let manifests = deployment(
            "web",
            1,
            "",
            "[python3, DIR/server.py]",
            "readinessProbe: {tcpSocket: {port: 8000}, periodSeconds: 1}",
        ) + &service("web", "", "ports: [{port: 80, targetPort: 8000}]")
            + &deployment("other", 1, "", "[python3, DIR/other.py]", "")
            + &deployment(
                "hostile",
                1,
                "",
                "[python3, DIR/hostile.py, DIR/state, DIR/state/run/pods]",
                "env: [{name: STATE, value: DIR/state}, {name: WEB, value: web}]",
            );
        let files = [("server.py", SERVER), ("hostile.py", HOSTILE), ("other.py", OTHER)];
        // Not closed by an exec: what a shell that starts weft may have open.
        let _open = nix::unistd::dup(std::io::stderr()).unwrap();
        let mut mesh = Mesh::up(user, &manifests, &files, &[]);
        mesh.ready(&["web", "other", "hostile"]);
        mesh.said("hostile", "DONE");
        let mut tried = |name: &str| mesh.said("hostile", &format!("TRIED {name} -> "));
        for harmless in
            ["list the state folder", "find keys and tokens", "see processes", "descriptors", "capabilities", "root"]
        {
            assert!(
                ["[]"].contains(&tried(harmless).as_str()) || tried(harmless).starts_with("refused"),
                "{user:?} {harmless}: {}",
                tried(harmless)
            );
        }
        for refused in ["unmount", "mark", "packets", "rules", "join", "join mounts", "udp"] {
            assert!(tried(refused).starts_with("refused"), "{user:?} {refused}: {}", tried(refused));
        }
        // Whom it may signal is itself alone.
        for pod in ["web", "other", "hostile"].into_iter().flat_map(|name| mesh.pods(name)) {
            assert_eq!((pod.restarts, pod.proxy_restarts), (0, 0), "{user:?} {}", pod.name);
        }
        let mut tried = |name: &str| mesh.said("hostile", &format!("TRIED {name} -> "));
        assert_eq!(tried("new privileges"), "['1']", "{user:?}");
        assert_eq!(tried("nested"), "0", "{user:?}: rights of its own namespace reach beyond it");
    }
}
