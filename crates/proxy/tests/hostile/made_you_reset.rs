//! MadeYouReset (CVE-2025-8671): frames that make the server reset a stream while the request goes on behind it, each way
//! that there is.

use crate::{
    frames::*,
    lab::{Budget, Lab},
    measure::alone,
};

/// One way: its name, and the frames on a stream.
type Primitive = (&'static str, fn(u32) -> Vec<u8>);

const PRIMITIVES: &[Primitive] = &[
    ("a window that overflows", |s| [open(s), frame(WINDOW_UPDATE, 0, s, &[0x7f, 0xff, 0xff, 0xff])].concat()),
    ("a window that grows by nothing", |s| [open(s), frame(WINDOW_UPDATE, 0, s, &[0; 4])].concat()),
    ("a window update that is too short", |s| [open(s), frame(WINDOW_UPDATE, 0, s, &[0; 3])].concat()),
    ("data behind the end", |s| [whole(s), frame(DATA, 0, s, b"x")].concat()),
    ("a head behind the end", |s| [whole(s), whole(s)].concat()),
    ("trailers that do not end it", |s| [open(s), frame(HEADERS, END_HEADERS, s, &field(b"x", b"y"))].concat()),
    ("data behind a reset", |s| [open(s), reset(s), frame(DATA, 0, s, b"x")].concat()),
    ("a head that depends on itself", |s| {
        let block = [&s.to_be_bytes()[..], &[16], HANGING].concat();
        frame(HEADERS, END_HEADERS | WITH_PRIORITY, s, &block)
    }),
    ("a stream that depends on itself", |s| {
        [open(s), frame(PRIORITY, 0, s, &[&s.to_be_bytes()[..], &[16]].concat())].concat()
    }),
    ("a priority that is too short", |s| [open(s), frame(PRIORITY, 0, s, &[0; 4])].concat()),
    ("a reset that is too short", |s| [open(s), frame(RST_STREAM, 0, s, &[0; 3])].concat()),
    ("a frame that is too large", |s| [open(s), frame(DATA, 0, s, &[0; 16_385])].concat()),
    ("padding that is longer than the frame", |s| [open(s), frame(DATA, PADDED, s, &[9, 0])].concat()),
    ("more data than the window", |s| {
        let full = frame(DATA, 0, s, &[0; 16_384]);
        [open(s), full.clone(), full.clone(), full.clone(), full].concat()
    }),
    ("more data than announced", |s| {
        let head = [HANGING, &field(b"content-length", b"1")].concat();
        [frame(HEADERS, END_HEADERS, s, &head), frame(DATA, 0, s, b"xy")].concat()
    }),
    ("less data than announced", |s| {
        let head = [HANGING, &field(b"content-length", b"2")].concat();
        [frame(HEADERS, END_HEADERS, s, &head), frame(DATA, END_STREAM, s, b"x")].concat()
    }),
    ("an upper-case name", |s| frame(HEADERS, END_HEADERS | END_STREAM, s, &[HANGING, &field(b"X", b"y")].concat())),
    ("a hop's own header", |s| {
        frame(HEADERS, END_HEADERS | END_STREAM, s, &[HANGING, &field(b"connection", b"close")].concat())
    }),
    ("a pseudo-header behind a header", |s| {
        frame(HEADERS, END_HEADERS | END_STREAM, s, &[HANGING, &field(b"x", b"y"), &[0x84]].concat())
    }),
    ("no path", |s| frame(HEADERS, END_HEADERS | END_STREAM, s, &[&HANGING[..2], &HANGING[3..]].concat())),
    ("two paths", |s| frame(HEADERS, END_HEADERS | END_STREAM, s, &[&[0x84], HANGING].concat())),
    ("a value that begins with a blank", |s| {
        frame(HEADERS, END_HEADERS | END_STREAM, s, &[HANGING, &field(b"x", b" y")].concat())
    }),
    ("two hosts", |s| frame(HEADERS, END_HEADERS | END_STREAM, s, &[HANGING, &field(b"host", b"other")].concat())),
    ("more streams than allowed", whole),
];

#[test]
fn every_way_to_be_reset_ends_early() {
    alone(module_path!(), "every_way_to_be_reset_ends_early", async || {
        let lab = Lab::start().await;
        // Where one frame is enough to end the connection it does; streams that are only reset are counted.
        let codes = [
            code::ENHANCE_YOUR_CALM,
            code::PROTOCOL_ERROR,
            code::STREAM_CLOSED,
            code::FRAME_SIZE_ERROR,
            code::FLOW_CONTROL_ERROR,
        ];
        // As many resets as fit into what is read at once may be on their way before they are counted: 128 KiB of heads of 17 bytes,
        // each of which leaves about 1 KiB behind until its reset is written.
        let budget = Budget { answers: 12_000, requests: 600, memory: 16 << 20, ..Budget::default() };
        for (what, primitive) in PRIMITIVES {
            let again = |n: u32| primitive(2 * n + 1);
            lab.attack(what, budget, &codes, &[], again).await;
        }
        lab.verdict();
    });
}
