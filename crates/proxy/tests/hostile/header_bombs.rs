//! HPACK amplification (CVE-2016-6581, CVE-2026-47774 and its family): a few bytes that stand for megabytes of headers,
//! cookies in crumbs, and numbers and tables that cost more than they say.

use crate::{
    frames::*,
    harness::soon,
    lab::{Budget, Lab, Way},
    measure::{alone, say},
};
use tokio::io::AsyncWriteExt;

/// The first entry of the dynamic table.
const NEWEST: u8 = 0x80 | 62;

/// A field of 4,000 bytes that is kept in the table.
fn kept(name: &[u8]) -> Vec<u8> {
    let mut field = vec![0x40];
    field.extend(integer(name.len(), 7));
    field.extend(name);
    field.extend(integer(4000, 7));
    field.extend([b'v'; 4000]);
    field
}

/// A request with `block` in as many frames as it needs.
fn request(stream: u32, block: &[u8]) -> Vec<u8> {
    let block = [HANGING, block].concat();
    let mut pieces = block.chunks(16_384).peekable();
    let mut bytes = vec![];
    let mut kind = HEADERS;
    while let Some(piece) = pieces.next() {
        let mut flags = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        if kind == HEADERS {
            flags |= END_STREAM;
        }
        bytes.extend(frame(kind, flags, stream, piece));
        kind = CONTINUATION;
    }
    bytes
}

#[test]
fn what_stands_for_megabytes_is_refused() {
    alone(module_path!(), "what_stands_for_megabytes_is_refused", async || {
        let lab = Lab::start().await;
        // Each is refused alone, whether its connection is ended at once or not, and the same again and again ends it.
        let bombs: [(&str, Vec<u8>); 8] = [
            ("one large field, 12,000 times", [kept(b"x"), vec![NEWEST; 12_000]].concat()),
            ("a cookie of 4,000 bytes, 12,000 times", [kept(b"cookie"), vec![NEWEST; 12_000]].concat()),
            ("crumbs of nothing", [&[0x60, 0][..], &vec![NEWEST; 12_000]].concat()),
            ("the same field of the static table", vec![0x90; 60_000]),
            ("a number of many bytes", [&[0x7f][..], &[0xff; 10_000], &[0]].concat()),
            ("an entry that is not there", vec![0xff, 0xff, 0xff, 0x7f]),
            ("changes of the table's size", [0x20, 0x3f, 0xe1, 0x1f].repeat(3000)),
            ("a value that is longer than the block", vec![0, 1, b'x', 0x7f, 0xff, 0xff, 0x03, b'v']),
        ];
        for (what, block) in &bombs {
            let budget = Budget { open: 0, read: 3e6, answers: 1200, requests: 4000, memory: 24 << 20 };
            let codes = [code::ENHANCE_YOUR_CALM, code::COMPRESSION_ERROR, code::PROTOCOL_ERROR];
            lab.attack(what, budget, &codes, &[], |n| request(2 * n + 1, block)).await;
        }
        lab.verdict();
    });
}

/// A head that is too large, but not by so much that its connection ends, costs what its bytes cost to read.
#[test]
fn heads_that_are_too_large_cost_what_they_weigh() {
    alone(module_path!(), "heads_that_are_too_large_cost_what_they_weigh", async || {
        const HEADS: u32 = 100;
        let lab = Lab::start().await;
        // A cookie of nothing is 38 bytes; three thousand are more than the 72 KiB that a head may have.
        let block = [&[0x60, 0][..], &vec![NEWEST; 3_000]].concat();
        for way in [Way::Inbound, Way::Pair] {
            let heads = (0..HEADS).map(|n| request(2 * n + 1, &block));
            let (heard, requests, spent) = lab.costs(way, heads).await;
            say(&format!("{way:?}: {heard:?}; {requests:.0} requests, {} KiB", spent.resident / 1024));
            assert_eq!(heard.heads, HEADS as usize, "each is answered: {heard:?}");
            assert_eq!(lab.seen(), 0, "none is passed on");
            assert!(requests <= f64::from(HEADS) * 20.0, "{requests} requests");
            assert!(spent.resident <= 4 << 20, "{} bytes", spent.resident);
        }
    });
}

/// What is below the bound is passed on whole, and weighs no more than it is.
#[test]
fn cookies_below_the_bound_are_passed_on() {
    alone(module_path!(), "cookies_below_the_bound_are_passed_on", async || {
        let lab = Lab::start().await;
        let before = crate::measure::resident();
        let mut held = vec![];
        for way in [Way::Inbound, Way::Pair] {
            let mut tcp = lab.way(way).connect().await;
            let seen = lab.seen();
            // As much as the origin takes.
            let bytes =
                [PREFACE, &frame(SETTINGS, 0, 0, &[]), &request(1, &[kept(b"cookie"), vec![NEWEST; 2]].concat())];
            soon(tcp.write_all(&bytes.concat())).await.unwrap();
            crate::harness::eventually("it arrives", || lab.seen() == seen + 1).await;
            held.push(tcp);
        }
        let grown = crate::measure::resident().saturating_sub(before);
        assert!(grown <= 1 << 20, "two requests of 12 KB hold {grown} bytes");
    });
}
