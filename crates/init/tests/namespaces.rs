//! The helpers that change or check the rules of a pod, in real network namespaces: by their names, with Linkerd's arguments.
#![expect(clippy::unwrap_used, reason = "a test without the harness")]

use nix::{
    mount::{MsFlags, mount},
    sys::signal::{Signal, kill},
    unistd::{Gid, Pid, Uid, setgid, setgroups, setuid},
};
use rustix::{
    fs::{XattrFlags, setxattr},
    thread::{CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities, set_no_new_privs},
};
use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode, Output, Stdio},
    time::Duration,
};
use weft_testkit::{
    folder::Folder,
    lab::{A, B, Case, Lab, accept, at, connect, lab, listen, main as run, original_dst},
};
use weft_transport::netns::Namespace;

const CASES: &[Case] = &[
    Case { name: "linkerds_arguments_redirect", run: linkerds_arguments_redirect, root_only: false },
    Case { name: "a_second_run_changes_nothing", run: a_second_run_changes_nothing, root_only: false },
    Case { name: "ipv6_can_be_left_alone", run: ipv6_can_be_left_alone, root_only: false },
    Case { name: "iptables_where_nft_fails", run: iptables_where_nft_fails, root_only: true },
    Case {
        name: "another_namespace_is_changed_by_its_path",
        run: another_namespace_is_changed_by_its_path,
        root_only: false,
    },
    Case { name: "nothing_is_changed_by_a_simulation", run: nothing_is_changed_by_a_simulation, root_only: false },
    Case { name: "as_the_user_of_the_image", run: as_the_user_of_the_image, root_only: true },
    Case { name: "the_validator_tells_rules_from_none", run: the_validator_tells_rules_from_none, root_only: false },
    Case { name: "a_signal_ends_the_validator", run: a_signal_ends_the_validator, root_only: false },
];

fn main() -> ExitCode {
    // As which the container's runtime would start the helper; see `as_the_user_of_the_image`.
    if let Some(program) = std::env::var_os(PROGRAM) {
        become_the_images_user();
        let error = Command::new(program).args(USUAL.split_whitespace()).exec();
        panic!("{error}");
    }
    run(CASES)
}

const PROGRAM: &str = "WEFT_INIT_AS_THE_IMAGES_USER";
/// What Linkerd's injector writes.
const USUAL: &str = "--firewall-bin-path iptables-nft --firewall-save-bin-path iptables-nft-save \
    --incoming-proxy-port 4143 --outgoing-proxy-port 4140 --proxy-uid 2102 \
    --inbound-ports-to-ignore 4190,4191,4567-4568 --outbound-ports-to-ignore 9000";

/// Runs a helper in a pod.
fn helper(pod: &Namespace, name: &str, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft-init"));
    command.arg0(name).args(arguments.split_whitespace());
    pod.run(|| command.output()).unwrap().unwrap()
}

fn redirect(pod: &Namespace, arguments: &str) {
    let output = helper(pod, "/usr/lib/linkerd/linkerd2-proxy-init", arguments);
    assert!(output.status.success(), "{output:?}");
}

fn rules(pod: &Namespace) -> String {
    // By iptables' own eyes where nft is hidden.
    let list = || {
        let nft = Command::new("/usr/sbin/nft").args(["list", "ruleset"]).output();
        nft.or_else(|_| Command::new("/usr/sbin/iptables-nft-save").output())
    };
    String::from_utf8(pod.run(list).unwrap().unwrap().stdout).unwrap()
}

/// Both directions and both families are redirected, and what is left out is not.
fn is_redirected(lab: &Lab) {
    for (loopback, any, a, b) in [("127.0.0.1", "0.0.0.0", A[0], B[0]), ("::1", "::", A[1], B[1])] {
        let outbound = listen(&lab.a, loopback, 4140);
        let client = connect(&lab.a, at(b, 80), None).unwrap();
        assert_eq!(original_dst(accept(&outbound, &client)).unwrap(), at(b, 80));
        let inbound = listen(&lab.a, any, 4143);
        let client = connect(&lab.b, at(a, 8080), None).unwrap();
        assert_eq!(original_dst(accept(&inbound, &client)).unwrap(), at(a, 8080));
        for port in [4191, 4568] {
            let direct = listen(&lab.a, a, port);
            accept(&direct, &connect(&lab.b, at(a, port), None).unwrap());
        }
        let direct = listen(&lab.b, b, 9000);
        accept(&direct, &connect(&lab.a, at(b, 9000), None).unwrap());
    }
}

fn linkerds_arguments_redirect() {
    let lab = lab();
    redirect(&lab.a, USUAL);
    is_redirected(&lab);
}

fn a_second_run_changes_nothing() {
    let lab = lab();
    redirect(&lab.a, USUAL);
    let first = rules(&lab.a);
    redirect(&lab.a, USUAL);
    assert_eq!(rules(&lab.a), first);
    is_redirected(&lab);
}

fn ipv6_can_be_left_alone() {
    let lab = lab();
    redirect(&lab.a, &format!("{USUAL} --ipv6=false"));
    let outbound = listen(&lab.a, "127.0.0.1", 4140);
    accept(&outbound, &connect(&lab.a, at(B[0], 80), None).unwrap());
    let direct = listen(&lab.b, B[1], 80);
    accept(&direct, &connect(&lab.a, at(B[1], 80), None).unwrap());
}

fn iptables_where_nft_fails() {
    // In this case's own mount namespace.
    mount(Some("/dev/null"), "/usr/sbin/nft", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let lab = lab();
    redirect(&lab.a, USUAL);
    let first = rules(&lab.a);
    assert!(first.contains("PROXY_INIT_OUTPUT"), "{first}");
    redirect(&lab.a, USUAL);
    assert_eq!(first.matches("-A ").count(), rules(&lab.a).matches("-A ").count());
    is_redirected(&lab);
}

fn another_namespace_is_changed_by_its_path() {
    let lab = lab();
    let mut inside = lab.a.run(|| Command::new("sleep").arg("60").spawn()).unwrap().unwrap();
    redirect(&Namespace::current().unwrap(), &format!("{USUAL} --netns /proc/{}/ns/net", inside.id()));
    inside.kill().unwrap();
    inside.wait().unwrap();
    is_redirected(&lab);
}

fn nothing_is_changed_by_a_simulation() {
    let lab = lab();
    let output = helper(&lab.a, "linkerd2-proxy-init", &format!("{USUAL} --simulate"));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && told.contains("redirect to :4143"), "{output:?}");
    assert_eq!(rules(&lab.a), "");
}

/// User 65534 without a way to more rights, as `allowPrivilegeEscalation: false` has it: what it may comes from the capabilities that the
/// image gives to the file, as far as the container has them.
fn as_the_user_of_the_image() {
    let lab = lab();
    let folder = Folder::new("init").unwrap();
    let program = folder.join("linkerd2-proxy-init");
    fs::copy(env!("CARGO_BIN_EXE_weft-init"), &program).unwrap();
    // Revision 2 of the kernel's structure, effective: NET_ADMIN is 12, NET_RAW 13.
    let words: [u32; 5] = [0x0200_0001, 1 << 12 | 1 << 13, 0, 0, 0];
    let attribute: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    setxattr(&program, "security.capability", &attribute, XattrFlags::empty()).unwrap();
    let start = |program: &Path| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(PROGRAM, program);
        lab.a.run(|| command.output()).unwrap().unwrap()
    };
    let output = start(&program);
    assert!(output.status.success(), "{output:?}");
    is_redirected(&lab);
    // Without the file's capabilities it may not, and says so.
    fs::copy(env!("CARGO_BIN_EXE_weft-init"), folder.join("plain")).unwrap();
    fs::rename(folder.join("plain"), &program).unwrap();
    let output = start(&program);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success() && told.contains("CAP_NET_ADMIN"), "{output:?}");
}

/// What runc does between the last of its own rights and the program.
fn become_the_images_user() {
    let kept = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
    set_keep_capabilities(true).unwrap();
    setgroups(&[]).unwrap();
    setgid(Gid::from_raw(65534)).unwrap();
    setuid(Uid::from_raw(65534)).unwrap();
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() })
        .unwrap();
    set_no_new_privs(true).unwrap();
}

fn the_validator_tells_rules_from_none() {
    let lab = lab();
    let validate = |arguments: &str| helper(&lab.a, "linkerd2-network-validator", arguments).status.code();
    assert_eq!(validate("--timeout 500ms --log-level debug --log-format json"), Some(95));
    // Somebody answers there, but it is not the validator.
    let server = listen(&lab.b, B[0], 1404);
    let other = std::thread::spawn(move || server.accept().map(drop));
    assert_eq!(validate(&format!("--connect-addr {}:1404", B[0])), Some(95));
    other.join().unwrap().unwrap();
    redirect(&lab.a, USUAL);
    assert_eq!(validate("--timeout 60s"), Some(0));
    assert_eq!(validate(&format!("--timeout 60s --listen-addr [::]:4140 --connect-addr [{}]:1404", B[1])), Some(0));
}

fn a_signal_ends_the_validator() {
    let lab = lab();
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft-init"));
    // Who listens there never gets the connection that it waits for: it goes to a port that drops it.
    command.arg0("linkerd2-network-validator").args(["--timeout", "1h", "--connect-addr", &format!("{}:9", B[0])]);
    let drop_it =
        "add table ip t; add chain ip t c { type filter hook input priority 0; }; add rule ip t c tcp dport 9 drop";
    assert!(lab.b.run(|| Command::new("/usr/sbin/nft").arg(drop_it).status()).unwrap().unwrap().success());
    let mut child = lab.a.run(|| command.stdout(Stdio::null()).spawn()).unwrap().unwrap();
    // It listens once it has set its signals.
    while connect(&lab.a, at("127.0.0.1", 4140), None).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(95));
}
