//! Redirection, original destinations, exemption and links in real network namespaces, v4 and v6 alike.
//!
//! Each case runs in processes of its own: once in a user namespace, as an ordinary user has it, and as root where
//! the caller is root. Where the kernel forbids namespaces it fails, unless `WEFT_ALLOW_SKIP=1`.
#![expect(clippy::unwrap_used, reason = "a test without the harness")]

use std::{
    io::{Read, Write},
    process::{Command, ExitCode},
};
use weft_model::{decide::cidr::Cidr, ports::PortRanges};
use weft_testkit::lab::{A, B, Case, accept, address, at, connect, lab, listen, main as run, original_dst, redirected};
use weft_transport::{
    netns::{Namespace, Netlink},
    redirect::{Exempt, Firewall, Rules},
};

const MARK: u32 = 0x5741;
/// What redirects, one after the other: both must do the same.
const FIREWALLS: [Firewall; 2] = [Firewall::Nft, Firewall::IptablesNft];
const CASES: &[Case] = &[
    Case { name: "outbound_is_redirected", run: outbound_is_redirected, root_only: false },
    Case { name: "inbound_is_redirected", run: inbound_is_redirected, root_only: false },
    Case { name: "a_mark_exempts", run: a_mark_exempts, root_only: false },
    Case { name: "a_uid_exempts", run: a_uid_exempts, root_only: true },
    Case {
        name: "loopback_and_skipped_ports_are_direct",
        run: loopback_and_skipped_ports_are_direct,
        root_only: false,
    },
    Case { name: "rules_replace_themselves", run: rules_replace_themselves, root_only: false },
    Case {
        name: "what_is_refused_leaves_nothing_half_done",
        run: what_is_refused_leaves_nothing_half_done,
        root_only: false,
    },
    Case {
        name: "links_reach_into_a_namespace_and_vanish",
        run: links_reach_into_a_namespace_and_vanish,
        root_only: false,
    },
    Case { name: "a_bridge_keeps_its_link_address", run: a_bridge_keeps_its_link_address, root_only: false },
    Case { name: "parameters_belong_to_the_namespace", run: parameters_belong_to_the_namespace, root_only: false },
];

fn main() -> ExitCode {
    run(CASES)
}

fn rules() -> Rules {
    Rules {
        inbound_port: 4143,
        outbound_port: 4140,
        only_inbound: PortRanges::default(),
        skip_inbound: PortRanges::from_iter([4190]),
        skip_outbound: PortRanges::from_iter([9000]),
        skip_subnets: Vec::new(),
        exempt: Exempt::Mark(MARK),
        ipv6: true,
    }
}

fn outbound_is_redirected() {
    for firewall in FIREWALLS {
        let lab = lab();
        redirected(&lab.a, &rules(), firewall);
        for (loopback, to) in [("127.0.0.1", B[0]), ("::1", B[1]), ("127.0.0.1", "10.96.7.7"), ("::1", "fd96::7")] {
            // Nobody listens there, and the services' addresses lead nowhere.
            let proxy = listen(&lab.a, loopback, 4140);
            let client = connect(&lab.a, at(to, 80), None).unwrap();
            assert_eq!(original_dst(accept(&proxy, &client)).unwrap(), at(to, 80));
        }
    }
}

fn inbound_is_redirected() {
    for firewall in FIREWALLS {
        let lab = lab();
        redirected(&lab.a, &rules(), firewall);
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
}

fn a_mark_exempts() {
    for firewall in FIREWALLS {
        let lab = lab();
        redirected(&lab.a, &rules(), firewall);
        for (loopback, to) in [("127.0.0.1", B[0]), ("::1", B[1])] {
            let proxy = listen(&lab.a, loopback, 4140);
            let server = listen(&lab.b, to, 80);
            accept(&server, &connect(&lab.a, at(to, 80), Some(MARK)).unwrap());
            accept(&proxy, &connect(&lab.a, at(to, 80), Some(MARK + 1)).unwrap());
        }
    }
}

fn a_uid_exempts() {
    use std::os::unix::process::CommandExt;
    for firewall in FIREWALLS {
        let lab = lab();
        redirected(&lab.a, &Rules { exempt: Exempt::Owner { uid: Some(2102), gid: None }, ..rules() }, firewall);
        for (loopback, to) in [("127.0.0.1", B[0]), ("::1", B[1])] {
            let proxy = listen(&lab.a, loopback, 4140);
            let server = listen(&lab.b, to, 80);
            for (uid, listener) in [(2102, &server), (2103, &proxy)] {
                let script = format!("exec 3<>/dev/tcp/{to}/80 && echo {uid} >&3");
                let mut child =
                    lab.a.run(|| Command::new("bash").args(["-c", &script]).uid(uid).spawn()).unwrap().unwrap();
                let mut text = String::new();
                listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
                assert_eq!(text.trim(), uid.to_string());
                assert!(child.wait().unwrap().success());
            }
        }
    }
}

fn loopback_and_skipped_ports_are_direct() {
    for firewall in FIREWALLS {
        let lab = lab();
        let subnets: Vec<Cidr> = vec!["10.9.0.0/24".parse().unwrap(), "fd09::/64".parse().unwrap()];
        redirected(&lab.a, &rules(), firewall);
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
        redirected(&lab.a, &Rules { skip_subnets: subnets, ..rules() }, firewall);
        for a in A {
            let app = listen(&lab.a, a, 8080);
            accept(&app, &connect(&lab.b, at(a, 8080), None).unwrap());
        }
    }
}

fn rules_replace_themselves() {
    for firewall in FIREWALLS {
        let lab = lab();
        for _ in 0..3 {
            redirected(&lab.a, &rules(), firewall);
        }
        let other = Rules { outbound_port: 5140, ..rules() };
        redirected(&lab.a, &other, firewall);
        let proxy = listen(&lab.a, "127.0.0.1", 5140);
        accept(&proxy, &connect(&lab.a, at(B[0], 80), None).unwrap());
        let listed = list(&lab.a);
        // In nftables both families share a table; of iptables each has two chains and two hooks, and nft does not name what
        // its rules for IPv6 do.
        let expected = if firewall == Firewall::Nft { (2, 2, 0) } else { (2, 8, 4) };
        let found = (
            listed.matches("redirect to").count(),
            listed.matches("chain ").count(),
            listed.matches("jump PROXY_INIT_").count(),
        );
        assert_eq!(found, expected, "{firewall}: {listed}");
        // Nothing of it is anywhere else.
        assert_eq!(list(&lab.b), "");
    }
}

fn what_is_refused_leaves_nothing_half_done() {
    let own = ["-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "9", "-j", "ACCEPT"];
    // A table of nft's own is none that iptables works with.
    let foreign = "table ip6 nat { chain OUTPUT { type filter hook output priority 5; }; }";
    for (others, count) in [(None, 0), (Some(own), 1)] {
        let lab = lab();
        let run = |program: &str, words: &[&str]| {
            lab.a.run(|| Command::new(format!("/usr/sbin/{program}")).args(words).status()).unwrap().unwrap()
        };
        assert!(run("nft", &[foreign]).success());
        assert!(others.is_none_or(|words| run("iptables-nft", &words).success()));
        let refused = lab.a.run(|| rules().apply(&[Firewall::IptablesNft])).unwrap().unwrap_err().to_string();
        assert!(refused.contains("iptables-nft refused the rules: ip6tables-nft-restore"), "{refused}");
        let listed = list(&lab.a);
        let found = ["PROXY_INIT_", "redirect to", "tcp dport 9"].map(|text| listed.matches(text).count());
        assert_eq!(found, [0, 0, count], "{listed}");
    }
}

fn list(pod: &Namespace) -> String {
    let output = pod.run(|| Command::new("/usr/sbin/nft").args(["list", "ruleset"]).output()).unwrap().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn links_reach_into_a_namespace_and_vanish() {
    let mut here = Netlink::open().unwrap();
    let there = Namespace::create().unwrap();
    let pair = here.add_veth("outer", "inner", &there).unwrap();
    assert_eq!(here.add_bridge("outer").unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(here.link("inner").unwrap_err().raw_os_error(), Some(19));
    here.set_up(pair).unwrap();
    let mut inside = there.netlink().unwrap();
    let link = inside.link("inner").unwrap();
    inside.set_up(link).unwrap();
    address(&mut inside, link, A);
    here.delete_link(pair).unwrap();
    assert!(inside.link("inner").is_err(), "the other end goes with it");
}

fn a_bridge_keeps_its_link_address() {
    let mut here = Netlink::open().unwrap();
    let bridge = here.add_bridge("bridge").unwrap();
    here.set_up(bridge).unwrap();
    let address = || {
        let output = Command::new("ip").args(["-oneline", "link", "show", "bridge"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_once("link/ether ").unwrap().1.split(' ').next().unwrap().to_owned()
    };
    let before = address();
    let there: Vec<_> = (0..4).map(|_| Namespace::create().unwrap()).collect();
    for (number, there) in there.iter().enumerate() {
        let link = here.add_veth(&format!("outer{number}"), "inner", there).unwrap();
        here.set_master(link, bridge).unwrap();
        here.set_up(link).unwrap();
        assert_eq!(address(), before);
    }
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
