//! Clients that are slow: they hold little, others are served meanwhile, and who is only idle is not taken for one of them.
//!
//! Budget: `EACH` bytes of memory for each connection, of the whole process, and `MOST` ordinary exchanges of processor time; no
//! ordinary request fails.

use crate::{
    cost::Cost,
    harness::{Dialler, eventually, soon},
    measure::{alone, resident, say},
    mesh::Mesh,
    plain,
};
use std::{
    process::{Output, Stdio},
    time::Duration,
};
use tokio::{io::AsyncWriteExt, process::Command};
use weft_model::{ProtocolHint, policy::inbound::DefaultPolicy};
use weft_testkit::{http1, policy::inbound};

const CLIENTS: usize = 1000;
/// Bytes that each may cost this process, in which both ends of its connection are.
const EACH: usize = 24 * 1024;
/// The same of a client that reads slowly, with what the application holds for it, which is of this process, too.
const OF_READER: usize = 28 * 1024;
/// Ordinary exchanges, each on a connection of its own, that a slow connection may cost in processor time.
const MOST: f64 = 5.0;
/// The same on a connection that goes on, of one that may ask for large answers and read them slowly.
const OF_LARGE: f64 = 30.0;
const CALL: &str = "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n";

/// Who is not slow.
async fn exchange(dialler: &Dialler) {
    let answer = soon(http1::Client::over(dialler.connect().await).call(CALL)).await.unwrap();
    assert_eq!(answer.status(), Some(200));
}

#[test]
fn a_thousand_slow_clients_hold_little_and_others_are_served() {
    alone(module_path!(), "a_thousand_slow_clients_hold_little_and_others_are_served", async || {
        let mesh = Mesh::start().await;
        let origin = http1::Origin::start(|_| http1::Reply::ok(b"fine")).await.unwrap();
        let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::Unknown)]);
        let mut other = http1::Client::over(mesh.connect(&service).await);
        for _ in 0..20 {
            assert_eq!(soon(other.call(CALL)).await.unwrap().status(), Some(200));
        }
        let dialler = mesh.web.outbound(service.addr);
        let cost = Cost::begin(async || exchange(&dialler).await).await;
        let before = resident();
        let mut slow = vec![];
        for n in 0..CLIENTS {
            let mut tcp = mesh.connect(&service).await;
            // Nothing at all, a part of the first line, a part of the head, a part of the body.
            let part: &[u8] = match n % 4 {
                0 => b"",
                1 => b"GET / HT",
                2 => b"GET / HTTP/1.1\r\nHost: app.ns\r\nX-Slow: ",
                _ => b"POST / HTTP/1.1\r\nHost: app.ns\r\nContent-Length: 1000\r\n\r\nx",
            };
            tcp.write_all(part).await.unwrap();
            slow.push(tcp);
        }
        eventually("all are there", || {
            mesh.web.metric("tcp_open_connections{direction=\"outbound\",peer=\"src\"") >= CLIENTS as f64
        })
        .await;
        // Others are served, all the while.
        for _ in 0..50 {
            assert_eq!(soon(other.call(CALL)).await.unwrap().status(), Some(200));
        }
        let each = resident().saturating_sub(before) / CLIENTS;
        cost.end_beside(50, "slow clients", CLIENTS, MOST);
        assert!(each <= EACH, "each costs {each} bytes");
        // The slow ones come to their ends, too.
        for (n, tcp) in slow.iter_mut().enumerate().take(40) {
            let rest: &[u8] = match n % 4 {
                0 => CALL.as_bytes(),
                1 => b"TP/1.1\r\nHost: app.ns\r\n\r\n",
                2 => b"x\r\n\r\n",
                _ => &[b'x'; 999],
            };
            tcp.write_all(rest).await.unwrap();
        }
        for tcp in slow.drain(..40) {
            assert_eq!(soon(http1::Client::over(tcp).response(false)).await.unwrap().status(), Some(200));
        }
    });
}

/// Heads that have grown beyond a small buffer and stand still: what is held is what has come, not what might.
#[test]
fn large_heads_that_stand_still_hold_little() {
    alone(module_path!(), "large_heads_that_stand_still_hold_little", async || {
        const SENT: usize = 9 * 1024;
        let mesh = Mesh::start().await;
        let origin = http1::Origin::start(|_| http1::Reply::ok(b"fine")).await.unwrap();
        let mut other = http1::Client::over(mesh.app.connect_inbound(origin.addr()).await);
        for _ in 0..20 {
            assert_eq!(soon(other.call(CALL)).await.unwrap().status(), Some(200));
        }
        let dialler = mesh.app.inbound(origin.addr());
        let cost = Cost::begin(async || exchange(&dialler).await).await;
        let begun = format!("GET / HTTP/1.1\r\nHost: app.ns\r\nX-Slow: {}", "x".repeat(SENT));
        let read = "tcp_read_bytes_total{direction=\"inbound\",peer=\"src\"";
        let before = (resident(), mesh.app.metric(read));
        let mut slow = vec![];
        for _ in 0..CLIENTS {
            let mut tcp = mesh.app.connect_inbound(origin.addr()).await;
            tcp.write_all(begun.as_bytes()).await.unwrap();
            slow.push(tcp);
        }
        mesh.app.at_least(read, before.1 + (CLIENTS * begun.len()) as f64).await;
        cost.end_beside(0, "large heads that stand still", CLIENTS, MOST);
        let each = resident().saturating_sub(before.0) / CLIENTS;
        say(&format!("a head of {SENT} bytes that stands still costs {each} bytes"));
        assert!(each <= EACH, "each costs {each} bytes");
        for mut tcp in slow.into_iter().take(20) {
            tcp.write_all(b"\r\n\r\n").await.unwrap();
            assert_eq!(soon(http1::Client::over(tcp).response(false)).await.unwrap().status(), Some(200));
        }
    });
}

/// One of slowhttptest's ways to be slow, against `addr`.
async fn slowhttptest(mode: &str, connections: usize, seconds: u32, addr: std::net::SocketAddr) -> Output {
    let mut command = Command::new("slowhttptest");
    command.arg(mode).args(["-c", &connections.to_string(), "-r", "1000", "-i", "1", "-l", &seconds.to_string()]);
    // Whether others are served, the test finds out itself; this machine is busy.
    command.args(["-p", "60", "-u", &format!("http://{addr}/large"), "-v", "1"]);
    if mode == "-X" {
        command.args(["-w", "512", "-y", "1024", "-n", "1", "-z", "32"]);
    }
    if mode == "-B" {
        command.args(["-s", "100000"]);
    }
    command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("slowhttptest starts")
}

/// Every mode of slowhttptest with so many connections; what each costs, and that others are served.
async fn slow_in_every_way(connections: usize, seconds: u32) {
    let mesh = Mesh::start().await;
    let addr = plain::application().await;
    mesh.control.set_inbound(addr.port(), inbound(DefaultPolicy::AllUnauthenticated));
    mesh.app.destinations.others.set(addr).unwrap();
    let mut other = http1::Client::over(mesh.app.connect_inbound(addr).await);
    for _ in 0..20 {
        assert_eq!(soon(other.call(CALL)).await.unwrap().status(), Some(200));
    }
    let open = "tcp_open_connections{direction=\"inbound\",peer=\"src\"";
    let opened = "tcp_open_total{direction=\"inbound\",peer=\"src\"";
    for mode in ["-H", "-B", "-R", "-X"] {
        // As others are served meanwhile.
        let cost = Cost::begin(async || assert_eq!(soon(other.call(CALL)).await.unwrap().status(), Some(200))).await;
        let before = (resident(), mesh.app.metric(opened));
        let mut running = std::pin::pin!(slowhttptest(mode, connections, seconds, mesh.app.addrs().inbound));
        let (mut served, mut most, mut grown) = (0, 0.0_f64, 0);
        let output = loop {
            tokio::select! {
                output = &mut running => break output,
                answer = soon(other.call(CALL)) => {
                    assert_eq!(answer.unwrap().status(), Some(200), "{mode}: others are served");
                    served += 1;
                }
            }
            if served % 20 == 1 {
                most = most.max(mesh.app.metric(open));
                grown = grown.max(resident().saturating_sub(before.0));
            }
        };
        let came = mesh.app.metric(opened) - before.1;
        // What the others' exchanges cost is taken off as an estimate, whose error weighs more the fewer the slow ones are.
        let bound = if connections < 1000 { 3.0 * OF_LARGE } else { OF_LARGE };
        cost.end_beside(served, mode, came as usize, bound);
        // The call under way was given up with its connection.
        other = http1::Client::over(mesh.app.connect_inbound(addr).await);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{mode}: {said}{}", String::from_utf8_lossy(&output.stderr));
        say(&format!("{mode}: {came} connections, {most} at once, {} KiB more, {served} others served", grown / 1024));
        assert!(came >= connections as f64, "{mode}: all of them came: {said}");
        assert!(served > 0, "{mode}: others are served");
        // What the first ones leave behind is kept for the next.
        let each = if mode == "-X" { OF_READER } else { EACH };
        let bound = connections * each + (4 << 20);
        assert!(grown <= bound, "{mode}: {grown} bytes, more than {bound}");
        eventually("they are gone", || mesh.app.metric(open) <= 5.0).await;
    }
}

#[test]
fn slow_heads_bodies_ranges_and_readers() {
    alone(module_path!(), "slow_heads_bodies_ranges_and_readers", async || slow_in_every_way(300, 4).await);
}

#[test]
#[ignore = "minutes: run by cargo xtask soak"]
fn five_thousand_slow_heads_bodies_ranges_and_readers() {
    alone(module_path!(), "five_thousand_slow_heads_bodies_ranges_and_readers", async || {
        slow_in_every_way(5000, 40).await;
    });
}

/// The same on a clock that is set is a test of the exchange (`an_idle_connection_is_kept`).
#[test]
#[ignore = "half an hour: run by cargo xtask soak"]
fn an_idle_connection_is_kept_for_half_an_hour() {
    alone(module_path!(), "an_idle_connection_is_kept_for_half_an_hour", async || {
        let mesh = Mesh::start().await;
        let origin = http1::Origin::start(|_| http1::Reply::ok(b"fine")).await.unwrap();
        let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::Unknown)]);
        let mut clients = vec![
            http1::Client::over(mesh.app.connect_inbound(origin.addr()).await),
            http1::Client::over(mesh.connect(&service).await),
        ];
        for pause in [Duration::from_secs(1), Duration::from_secs(30 * 60)] {
            for client in &mut clients {
                let answer = soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
                assert_eq!(answer.status(), Some(200));
            }
            tokio::time::sleep(pause).await;
        }
        for client in &mut clients {
            let answer = soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
            assert_eq!(answer.status(), Some(200), "after half an hour");
        }
    });
}
