//! CONTINUATION floods (CVE-2024-27316 and its family): header blocks that do not end.

use crate::{
    frames::*,
    lab::{Budget, Lab},
    measure::alone,
};

#[test]
fn a_block_without_end_ends_early() {
    alone(module_path!(), "a_block_without_end_ends_early", async || {
        let lab = Lab::start().await;
        let calm = [code::ENHANCE_YOUR_CALM];
        let budget = Budget { open: 0, answers: 10, requests: 100, ..Budget::default() };
        let first = frame(HEADERS, 0, 1, HANGING);
        let full = field(b"x", &[b'v'; 16_000]);
        let many = field(b"x", b"y").repeat(2000);
        let again = |_| frame(CONTINUATION, 0, 1, &full);
        lab.attack("full frames", budget, &calm, &first, again).await;
        lab.attack("many fields", budget, &calm, &first, |_| frame(CONTINUATION, 0, 1, &many)).await;
        lab.attack("one byte each", budget, &calm, &first, |_| frame(CONTINUATION, 0, 1, &[0x90])).await;
        lab.attack("nothing at all", budget, &calm, &first, |_| frame(CONTINUATION, 0, 1, &[])).await;
        // One field that goes on and on.
        let first = frame(HEADERS, 0, 1, &[HANGING, &[0, 1, b'x', 0x7f, 0xff, 0xff, 0xff, 0x07]].concat());
        lab.attack("an endless value", budget, &calm, &first, |_| frame(CONTINUATION, 0, 1, &[b'v'; 16_000])).await;
        // Trailers are blocks too.
        let first = [open(1), frame(HEADERS, END_STREAM, 1, &[])].concat();
        let budget = Budget { open: 1, ..budget };
        lab.attack("trailers", budget, &calm, &first, |_| frame(CONTINUATION, 0, 1, &full)).await;
        // Whole blocks of many small frames, again and again.
        let codes = [code::ENHANCE_YOUR_CALM, code::PROTOCOL_ERROR];
        let again = |n: u32| {
            let stream = 2 * n + 1;
            let mut bytes = frame(HEADERS, END_STREAM, stream, HANGING);
            bytes.extend(frame(CONTINUATION, 0, stream, &[]).repeat(5));
            bytes.extend(frame(CONTINUATION, END_HEADERS, stream, &[]));
            bytes
        };
        let budget = Budget { open: 1000, answers: 1200, requests: 300, ..budget };
        lab.attack("in small pieces", budget, &codes, &[], again).await;
        lab.verdict();
    });
}
