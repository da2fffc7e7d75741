//! The gate against frames written by hand, whole and cut anywhere.

use super::{
    budget::Budget,
    gate::{FrameGate, Limits, Side, Violation},
};
use h2::Reason;
use proptest::prelude::*;
use std::time::Duration;
use weft_testkit::frames::PREFACE;

const LIMITS: Limits = Limits { frame_size: 16_384, header_block: 1000 };

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const UNKNOWN: u8 = 200;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

fn frame(kind: u8, flags: u8, stream: u32, length: usize) -> Vec<u8> {
    weft_testkit::frames::frame(kind, flags, stream, &vec![0x82; length])
}

fn settings() -> Vec<u8> {
    frame(SETTINGS, 0, 0, 6)
}

fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, 20)
}

/// Settings, the second of which is the initial window.
fn window(size: u32) -> Vec<u8> {
    let mut frame = frame(SETTINGS, 0, 0, 0);
    frame[2] = 12;
    frame.extend([0, 3, 0xff, 0, 0, 0, 0, 4]);
    frame.extend(size.to_be_bytes());
    frame
}

fn zero() -> Duration {
    Duration::ZERO
}

/// A server's gate after the client's preface and settings.
fn begun() -> FrameGate {
    let mut gate = FrameGate::new(Side::Server, LIMITS, Duration::ZERO);
    gate.receive(PREFACE, zero).unwrap();
    gate.receive(&settings(), zero).unwrap();
    gate
}

fn verdict(gate: &mut FrameGate, frames: &[Vec<u8>]) -> Option<Reason> {
    frames.iter().find_map(|frame| gate.receive(frame, zero).err()).map(|(_, violation)| violation.code)
}

#[test]
fn each_kind_has_its_rules() {
    let wrong_size = Some(Reason::FRAME_SIZE_ERROR);
    let wrong_place = Some(Reason::PROTOCOL_ERROR);
    type Case<'a> = (&'a str, &'a [Vec<u8>], Option<Reason>);
    let cases: &[Case<'_>] = &[
        ("request with body", &[frame(HEADERS, END_HEADERS, 1, 20), frame(DATA, END_STREAM, 1, 16_384)], None),
        ("request in parts", &[frame(HEADERS, 0, 1, 20), frame(CONTINUATION, END_HEADERS, 1, 20)], None),
        ("empty end", &[frame(HEADERS, END_HEADERS, 1, 20), frame(DATA, END_STREAM, 1, 0)], None),
        ("unknown kind", &[frame(UNKNOWN, 0xff, 7, 99)], None),
        ("settings ack", &[frame(SETTINGS, ACK, 0, 0)], None),
        ("too large", &[frame(DATA, 0, 1, 16_385)], wrong_size),
        ("data on 0", &[frame(DATA, 0, 0, 1)], wrong_place),
        ("headers on 0", &[frame(HEADERS, END_HEADERS, 0, 9)], wrong_place),
        ("headers on an even stream", &[frame(HEADERS, END_HEADERS, 2, 9)], wrong_place),
        ("padding without length", &[frame(HEADERS, END_HEADERS | PADDED, 1, 0)], wrong_size),
        ("half a dependency", &[frame(HEADERS, END_HEADERS | 0x20, 1, 4)], wrong_size),
        ("priority on 0", &[frame(PRIORITY, 0, 0, 5)], wrong_place),
        ("long priority", &[frame(PRIORITY, 0, 1, 6)], wrong_size),
        ("reset on 0", &[frame(RST_STREAM, 0, 0, 4)], wrong_place),
        ("short reset", &[frame(RST_STREAM, 0, 1, 3)], wrong_size),
        ("settings on a stream", &[frame(SETTINGS, 0, 1, 6)], wrong_place),
        ("part of a setting", &[frame(SETTINGS, 0, 0, 7)], wrong_size),
        ("ack with settings", &[frame(SETTINGS, ACK, 0, 6)], wrong_size),
        ("data behind the end", &[request(1), frame(DATA, 0, 1, 1)], Some(Reason::STREAM_CLOSED)),
        ("head behind the end", &[request(1), request(3), request(1)], Some(Reason::STREAM_CLOSED)),
        (
            "data behind a reset",
            &[frame(HEADERS, END_HEADERS, 1, 9), frame(RST_STREAM, 0, 1, 4), frame(DATA, 0, 1, 1)],
            Some(Reason::STREAM_CLOSED),
        ),
        ("window update behind the end", &[request(1), frame(WINDOW_UPDATE, 0, 1, 4)], None),
        (
            "data on a stream that goes on",
            &[frame(HEADERS, END_HEADERS, 1, 9), request(201), frame(DATA, 0, 1, 9)],
            None,
        ),
        ("window too large", &[window(0x8000_0000)], Some(Reason::FLOW_CONTROL_ERROR)),
        ("largest window", &[window(0x7fff_ffff), request(1)], None),
        ("push", &[frame(PUSH_PROMISE, END_HEADERS, 1, 9)], wrong_place),
        ("ping on a stream", &[frame(PING, 0, 1, 8)], wrong_place),
        ("long ping", &[frame(PING, 0, 0, 9)], wrong_size),
        ("goaway on a stream", &[frame(GOAWAY, 0, 1, 8)], wrong_place),
        ("short goaway", &[frame(GOAWAY, 0, 0, 7)], wrong_size),
        ("long window update", &[frame(WINDOW_UPDATE, 0, 0, 5)], wrong_size),
        ("continuation of nothing", &[frame(CONTINUATION, END_HEADERS, 1, 1)], wrong_place),
        ("block interrupted", &[frame(HEADERS, 0, 1, 9), frame(PING, 0, 0, 8)], wrong_place),
        ("block interrupted by the unknown", &[frame(HEADERS, 0, 1, 9), frame(UNKNOWN, 0, 0, 8)], wrong_place),
        ("block of another stream", &[frame(HEADERS, 0, 1, 9), frame(CONTINUATION, 4, 3, 9)], wrong_place),
        (
            "block too large",
            &[frame(HEADERS, 0, 1, 500), frame(CONTINUATION, 0, 1, 500), frame(CONTINUATION, 0, 1, 1)],
            Some(Reason::ENHANCE_YOUR_CALM),
        ),
        (
            "trailers as large as they may be",
            &[frame(HEADERS, END_HEADERS, 1, 20), trailers(END_HEADERS | END_STREAM, &[0x90; 625])],
            None,
        ),
        (
            "trailers that h2 might shorten",
            &[frame(HEADERS, END_HEADERS, 1, 20), trailers(END_STREAM, &[0x90; 600]), frame(CONTINUATION, 4, 1, 26)],
            Some(Reason::ENHANCE_YOUR_CALM),
        ),
    ];
    for (name, frames, expected) in cases {
        assert_eq!(verdict(&mut begun(), frames), *expected, "{name}");
    }
}

/// A second header block of the first stream, of these fields.
fn trailers(flags: u8, fields: &[u8]) -> Vec<u8> {
    let mut frame = frame(HEADERS, flags, 1, 0);
    frame[1..3].copy_from_slice(&u16::try_from(fields.len()).unwrap().to_be_bytes());
    frame.extend(fields);
    frame
}

#[test]
fn pseudo_headers_in_trailers_are_seen_however_they_are_written() {
    let end = END_HEADERS | END_STREAM;
    let cases: &[(u8, &[u8], bool)] = &[
        (end, &[0x84], false),
        (end, &[0x44, 1, b'/'], false),
        (end, &[0x04, 1, b'/'], false),
        (end, &[0x14, 1, b'/'], false),
        (end, &[0x40, 5, b':', b'p', b'a', b't', b'h', 0], false),
        (end, &[0x00, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 0], false),
        (end | PADDED, &[0, 0x84], false),
        (end | 0x20, &[0, 0, 0, 0, 5, 0x84], false),
        (end, &[0x40, 1, b'x', 1, b'y'], true),
        (end, &[0x90], true),
        (end, &[0x0f, 0x10, 1, b'y'], true),
        (end, &[], true),
        (end | PADDED, &[0, 0x90], true),
    ];
    for (flags, field, good) in cases {
        let frames = [frame(HEADERS, END_HEADERS, 1, 20), trailers(*flags, field), request(3)];
        assert_eq!(verdict(&mut begun(), &frames).is_none(), *good, "{field:x?}");
        let bytes: Vec<Vec<u8>> = frames.concat().into_iter().map(|byte| vec![byte]).collect();
        assert_eq!(verdict(&mut begun(), &bytes).is_none(), *good, "{field:x?} byte by byte");
    }
}

#[test]
fn settings_come_first() {
    for first in [request(1), frame(SETTINGS, ACK, 0, 0), frame(PING, 0, 0, 8)] {
        let mut gate = FrameGate::new(Side::Server, LIMITS, Duration::ZERO);
        gate.receive(PREFACE, zero).unwrap();
        assert_eq!(verdict(&mut gate, &[first]), Some(Reason::PROTOCOL_ERROR));
    }
}

/// How many of `frame` the gate lets through at once.
fn passed(gate: &mut FrameGate, frame: &[u8], most: u32) -> u32 {
    (0..most).take_while(|_| gate.receive(frame, zero).is_ok()).count().try_into().unwrap()
}

#[test]
fn every_flood_ends() {
    let floods = [
        (Budget::Resets, frame(RST_STREAM, 0, 1, 4)),
        (Budget::Pings, frame(PING, 0, 0, 8)),
        (Budget::Settings, frame(SETTINGS, 0, 0, 6)),
        (Budget::Settings, frame(SETTINGS, ACK, 0, 0)),
        (Budget::EmptyFrames, frame(DATA, 0, 1, 0)),
        (Budget::WindowUpdates, frame(WINDOW_UPDATE, 0, 1, 4)),
        (Budget::Priorities, frame(PRIORITY, 0, 1, 5)),
        (Budget::OtherFrames, frame(UNKNOWN, 0, 0, 0)),
        (Budget::OtherFrames, frame(GOAWAY, 0, 0, 8)),
    ];
    for (budget, frame) in floods {
        let mut gate = begun();
        let n = passed(&mut gate, &frame, 100_000);
        assert!(n.abs_diff(budget.rate().burst) <= 1, "{budget}: {n}");
        let (_, violation) = gate.receive(&frame, zero).unwrap_err();
        assert_eq!(violation, Violation { code: Reason::ENHANCE_YOUR_CALM, what: budget.as_str() });
        let mut gate = begun();
        passed(&mut gate, &frame, n);
        gate.receive(&frame, || Duration::from_secs(10)).expect("time brings tokens");
    }
    let mut gate = begun();
    gate.receive(&frame(HEADERS, 0, 1, 0), zero).unwrap();
    let n = passed(&mut gate, &frame(CONTINUATION, 0, 1, 0), 100_000);
    assert!(n < 1000, "{n} empty continuations");
}

#[test]
fn cancelling_what_is_worked_on_is_free() {
    let mut gate = begun();
    for n in 0..100_000 {
        let stream = 2 * n + 1;
        gate.receive(&request(stream), zero).unwrap();
        gate.worked(1, u32::from(n > 0));
        gate.receive(&frame(RST_STREAM, 0, stream, 4), zero).unwrap();
    }
}

/// All at once, more than the budget has; but what has ended by itself is no leave to reset others.
#[test]
fn each_request_that_is_worked_on_may_be_cancelled_once() {
    let mut gate = begun();
    let burst = Budget::Resets.rate().burst;
    gate.worked(2 * burst, burst / 2);
    gate.receive(&request(4 * burst + 1), zero).unwrap();
    let n = passed(&mut gate, &frame(RST_STREAM, 0, 1, 4), 100_000);
    assert!(n.abs_diff(2 * burst - burst / 2 + burst) <= 1, "{n}");
    // Those that were cancelled end as well, which takes nothing from others.
    let mut gate = begun();
    gate.worked(2, 0);
    gate.receive(&request(5), zero).unwrap();
    gate.receive(&frame(RST_STREAM, 0, 1, 4), zero).unwrap();
    gate.worked(0, 1);
    let n = passed(&mut gate, &frame(RST_STREAM, 0, 3, 4), 100_000);
    assert!(n.abs_diff(1 + burst) <= 1, "{n}");
}

/// A proxy that keeps to what it may cancel never meets the limit of the one behind it.
#[test]
fn what_may_be_cancelled_is_less_than_what_is_endured() {
    use super::budget::CANCELS;
    let (resets, settings) = (Budget::Resets.rate(), super::ServerSettings::default());
    assert!(CANCELS.burst + settings.max_concurrent_streams <= resets.burst);
    assert!(CANCELS.per_second < resets.per_second);
    assert!(CANCELS.burst < settings.max_pending_accept_reset_streams);
}

#[test]
fn data_earns_window_updates_and_pings() {
    let mut gate = begun();
    let replies = [frame(WINDOW_UPDATE, 0, 0, 4), frame(WINDOW_UPDATE, 0, 1, 4), frame(PING, 0, 0, 8)];
    for _ in 0..100_000 {
        gate.send(&frame(DATA, 0, 1, 100), zero).unwrap();
        assert_eq!(verdict(&mut gate, &replies), None);
    }
}

#[test]
fn resets_that_a_client_provokes_are_counted() {
    let reset = |code: Reason| {
        let mut frame = frame(RST_STREAM, 0, 1, 0);
        frame[2] = 4;
        frame.extend(u32::from(code).to_be_bytes());
        frame
    };
    let mut gate = begun();
    for _ in 0..100_000 {
        // The application's own, passed on.
        gate.send(&reset(Reason::CANCEL), zero).unwrap();
        gate.send(&reset(Reason::INTERNAL_ERROR), zero).unwrap();
    }
    let provoked = reset(Reason::STREAM_CLOSED);
    let n = (0..100_000).take_while(|n| {
        gate.send(&provoked[..9 + n % 5], zero).and_then(|()| gate.send(&provoked[9 + n % 5..], zero)).is_ok()
    });
    assert_eq!(n.count(), Budget::ProvokedResets.rate().burst as usize);
    // Nor are those that we send for reasons of our own, or of others.
    let mut gate = begun();
    gate.excuse(100_000);
    for _ in 0..100_000 {
        gate.send(&reset(Reason::PROTOCOL_ERROR), zero).unwrap();
    }
}

#[test]
fn a_client_may_be_reset_once_per_request() {
    let mut gate = FrameGate::new(Side::Client, LIMITS, Duration::ZERO);
    gate.send(PREFACE, zero).unwrap();
    gate.receive(&settings(), zero).unwrap();
    for n in 0..100_000 {
        gate.send(&request(2 * n + 1), zero).unwrap();
        gate.receive(&frame(RST_STREAM, 0, 2 * n + 1, 4), zero).unwrap();
    }
    assert!(passed(&mut gate, &frame(RST_STREAM, 0, 1, 4), 100_000) <= Budget::Resets.rate().burst);
}

#[test]
fn a_server_may_answer_what_it_was_asked() {
    let head = frame(HEADERS, END_HEADERS, 1, 1);
    let mut gate = FrameGate::new(Side::Client, LIMITS, Duration::ZERO);
    gate.send(PREFACE, zero).unwrap();
    gate.receive(&settings(), zero).unwrap();
    for n in 0..100_000 {
        gate.send(&request(2 * n + 1), zero).unwrap();
        gate.receive(&head, zero).unwrap();
        gate.receive(&head, zero).unwrap();
    }
    let n = passed(&mut gate, &head, 100_000);
    assert_eq!(n, Budget::Heads.rate().burst - 2, "interim ones without end");
}

#[test]
fn the_end_of_a_frame_is_known() {
    let mut gate = FrameGate::new(Side::Client, LIMITS, Duration::ZERO);
    let bytes = [PREFACE, &settings(), &frame(RST_STREAM, 0, 1, 4), &frame(DATA, 0, 1, 3)].concat();
    let boundaries = [24, 24 + 15, 24 + 15 + 13, bytes.len()];
    for (n, byte) in bytes.iter().enumerate() {
        gate.send(&[*byte], zero).unwrap();
        assert_eq!(gate.at_boundary(), boundaries.contains(&(n + 1)), "after byte {n}");
    }
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![0_u8..=10, any::<u8>()];
    (kind, any::<u8>(), 0_u32..8, 0_usize..40)
        .prop_map(|(kind, flags, stream, length)| frame(kind, flags, stream, length))
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_verdict(
        frames in prop::collection::vec(any_frame(), 0..30),
        cuts in prop::collection::vec(1_usize..20, 1..200),
    ) {
        let bytes = [PREFACE.to_vec(), settings(), frames.concat()].concat();
        let whole = FrameGate::new(Side::Server, LIMITS, Duration::ZERO).receive(&bytes, zero).err().map(|(_, violation)| violation);
        let mut gate = FrameGate::new(Side::Server, LIMITS, Duration::ZERO);
        let mut cut = None;
        let mut rest = &bytes[..];
        for n in cuts.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*n));
            if let Err((passed, violation)) = gate.receive(now, zero) {
                prop_assert!(passed < now.len().max(1));
                cut = Some(violation);
                break;
            }
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(whole, cut);
    }

    #[test]
    fn what_is_sent_may_be_cut_anywhere(
        frames in prop::collection::vec(any_frame(), 0..30),
        cuts in prop::collection::vec(1_usize..20, 1..200),
    ) {
        let bytes = frames.concat();
        let mut gate = FrameGate::new(Side::Server, LIMITS, Duration::ZERO);
        let mut rest = &bytes[..];
        for n in cuts.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*n));
            gate.send(now, zero).unwrap();
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        // A reset shorter than its code leaves the walker out of step: this side sends none.
        if frames.iter().all(|frame| frame[3] != RST_STREAM || frame.len() >= 13) {
            prop_assert!(gate.at_boundary());
        }
    }
}
