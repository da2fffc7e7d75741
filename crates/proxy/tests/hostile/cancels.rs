//! Clients that cancel for good reasons, very often: that is no attack, and their connection stays.
//!
//! Budget: a cancelled call costs no more than `EACH` ordinary requests, and all of them together `MEMORY`.

use crate::{
    frames::*,
    harness::{eventually, soon},
    lab::{Lab, Way, status},
    measure::{Meter, alone, say},
};
use tokio::io::AsyncWriteExt;

/// Calls that run at once.
const AT_ONCE: usize = 50;
/// Ordinary requests, which come one behind the other.
const EACH: f64 = 2.0;
/// Bytes.
const MEMORY: usize = 16 << 20;

/// Makes `calls` calls, each of which is cancelled once the server has it, on one connection that must outlive them. Of every
/// thousand ten are cancelled at once, as by callers that were just cancelled themselves.
async fn cancel(lab: &Lab, way: Way, calls: usize) {
    let meter = Meter::start();
    let tcp = lab.way(way).connect().await;
    let (from, mut to) = tokio::io::split(tcp);
    let heard = tokio::spawn(async move { hear(from).await });
    soon(to.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat())).await.unwrap();
    let mut stream = 1;
    let mut done = 0;
    while done < calls {
        let before = lab.seen();
        let streams: Vec<u32> = (0..AT_ONCE).map(|n| stream + 2 * u32::try_from(n).unwrap()).collect();
        stream += 2 * u32::try_from(AT_ONCE).unwrap();
        let mut bytes: Vec<u8> = streams.iter().flat_map(|stream| whole(*stream)).collect();
        if done % 1000 == 0 {
            for _ in 0..10 {
                bytes.extend([whole(stream), reset(stream)].concat());
                stream += 2;
            }
        }
        soon(to.write_all(&bytes)).await.unwrap();
        let start = std::time::Instant::now();
        while lab.seen() < before + AT_ONCE {
            assert!(
                !heard.is_finished() && start.elapsed() < crate::harness::LONG,
                "the connection ended after {done} calls"
            );
            tokio::time::sleep(std::time::Duration::from_micros(200)).await;
        }
        soon(to.write_all(&streams.iter().flat_map(|stream| reset(*stream)).collect::<Vec<_>>())).await.unwrap();
        done += AT_ONCE;
        lab.forget();
    }
    eventually("the server has seen every reset", || lab.now() == 0).await;
    assert!(!heard.is_finished(), "the connection has outlived them");
    to.shutdown().await.unwrap();
    let heard = soon(heard).await.unwrap();
    assert_eq!(heard.code().unwrap_or(0), 0, "{heard:?}");
    let mut client = weft_testkit::http2::Client::over(lab.way(way).connect().await).await.unwrap();
    assert_eq!(status(&mut client).await, Some(200), "nor has the connection behind the proxy suffered");
    let spent = meter.stop();
    let each = spent.cpu.as_secs_f64() / calls as f64 / lab.ordinary(way).as_secs_f64();
    let told = format!(
        "{way:?}: {calls} calls cancelled on one connection; each costs {each:.2} ordinary requests, all {} KiB",
        spent.resident / 1024
    );
    say(&told);
    assert!(each <= EACH && spent.resident <= MEMORY, "{told}");
}

#[test]
fn thousands_of_cancelled_calls_are_no_attack() {
    alone(module_path!(), "thousands_of_cancelled_calls_are_no_attack", async || {
        let lab = Lab::start().await;
        // Five times what may be reset without reason at once; the frame gate's own test sees a hundred thousand.
        cancel(&lab, Way::Inbound, 5_000).await;
        cancel(&lab, Way::Pair, 2_000).await;
    });
}

#[test]
#[ignore = "minutes: run by cargo xtask soak"]
fn a_hundred_thousand_cancelled_calls_are_no_attack() {
    alone(module_path!(), "a_hundred_thousand_cancelled_calls_are_no_attack", async || {
        let lab = Lab::start().await;
        cancel(&lab, Way::Inbound, 100_000).await;
        cancel(&lab, Way::Pair, 100_000).await;
    });
}
