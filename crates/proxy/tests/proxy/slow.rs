//! Clients that are slow: they hold little, and others are served meanwhile. In a process of its own, whose memory is only theirs.

use crate::{harness::soon, mesh::Mesh};
use std::{process::Command, time::Duration};
use tokio::io::AsyncWriteExt;
use weft_model::ProtocolHint;
use weft_testkit::http1;

/// Set for the process whose memory is measured.
const INSIDE: &str = "WEFT_TEST_SLOW";
const NAME: &str = "slow::a_thousand_slow_clients_hold_little_and_others_are_served";
const CLIENTS: usize = 1000;
/// Bytes that each may cost this process, in which both ends of its connection are.
const EACH: usize = 24 * 1024;

#[test]
fn a_thousand_slow_clients_hold_little_and_others_are_served() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program)
        .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

fn inside() {
    weft_transport::socket::raise_open_files().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mesh = Mesh::start().await;
        let origin = http1::Origin::start(|_| http1::Reply::ok(b"fine")).await.unwrap();
        let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::Unknown)]);
        let call = "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n";
        let mut other = http1::Client::over(mesh.connect(&service).await);
        for _ in 0..20 {
            assert_eq!(soon(other.call(call)).await.unwrap().status(), Some(200));
        }
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
        crate::harness::eventually("all are there", || {
            mesh.web.metric("tcp_open_connections{direction=\"outbound\",peer=\"src\"") >= CLIENTS as f64
        })
        .await;
        // Others are served, all the while.
        for _ in 0..50 {
            assert_eq!(soon(other.call(call)).await.unwrap().status(), Some(200));
        }
        let each = resident().saturating_sub(before) / CLIENTS;
        assert!(each <= EACH, "each costs {each} bytes");
        // The slow ones come to their ends, too.
        for (n, tcp) in slow.iter_mut().enumerate().take(40) {
            let rest: &[u8] = match n % 4 {
                0 => call.as_bytes(),
                1 => b"TP/1.1\r\nHost: app.ns\r\n\r\n",
                2 => b"x\r\n\r\n",
                _ => &[b'x'; 999],
            };
            tcp.write_all(rest).await.unwrap();
        }
        for tcp in slow.drain(..40) {
            assert_eq!(soon(http1::Client::over(tcp).response(false)).await.unwrap().status(), Some(200));
        }
        drop(slow);
        tokio::time::sleep(Duration::from_millis(1)).await;
    });
}

/// Bytes of memory that this process holds.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
