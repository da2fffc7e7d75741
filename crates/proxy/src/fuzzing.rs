//! The proxy's own parsers as functions of bytes, for `weft-fuzz`: not part of what is shipped (feature `fuzzing`).
//!
//! Each panics on what must never be: a message that is read differently by who receives it from us, an answer that depends
//! on how the bytes were cut, or no progress.

use crate::{
    exchange::Edits,
    http1::{
        HeadError,
        body::{Decoder, Step},
        framing::Asked,
        request::RequestHead,
        response::ResponseHead,
    },
    http2::gate::{FrameGate, Limits, Side},
    process::srv_addrs,
    records,
};
use hickory_resolver::proto::{
    op::Message,
    rr::{Name, RData, rdata::SRV},
};
use std::{net::IpAddr, time::Duration};
use weft_model::decide::route::RequestView;

/// A head is never read from less than all of it, and what is forwarded is read as what was decided on.
pub fn http1_request(data: &[u8]) {
    let mut head = RequestHead::default();
    let Ok(true) = head.parse(data) else { return };
    let whole = data.get(..head.len).unwrap_or_default();
    let mut early = RequestHead::default();
    for end in 0..whole.len() {
        let part = early.parse(whole.get(..end).unwrap_or_default());
        assert!(!matches!(part, Ok(true)), "a part of the head is taken for the head");
    }
    let mut out = vec![];
    head.write(data, &Edits::default(), &mut out);
    let mut forwarded = RequestHead::default();
    assert_eq!(forwarded.parse(&out), Ok(true), "what is forwarded is no request: {}", out.escape_ascii());
    assert_eq!(forwarded.len, out.len(), "what is forwarded holds more than a head: {}", out.escape_ascii());
    assert_eq!(forwarded.body, head.body, "the next hop sees another body");
    let (ours, theirs) = (head.view(data), forwarded.view(&out));
    assert_eq!(ours.method(), theirs.method());
    assert_eq!(ours.path(), theirs.path());
    assert_eq!(ours.query(), theirs.query());
    assert_eq!(ours.authority(), theirs.authority(), "the next hop sees another host");
    body(head.body, data.get(head.len..).unwrap_or_default());
}

/// The same for the answer to a GET and to a HEAD.
pub fn http1_response(data: &[u8]) {
    for asked in [Asked { head: false, connect: false }, Asked { head: true, connect: false }] {
        let mut head = ResponseHead::default();
        let Ok(true) = head.parse(data, asked) else { continue };
        assert!(head.len <= data.len() && (100..1000).contains(&head.status));
        body(head.body, data.get(head.len..).unwrap_or_default());
    }
}

/// Follows a body in one piece and byte by byte: both see the same content and the same end.
fn body(framing: crate::http1::framing::Body, data: &[u8]) {
    let (whole, cut) = (follow(framing, data, data.len().max(1)), follow(framing, data, 1));
    if whole.is_ok() && cut.is_ok() {
        assert_eq!(whole, cut);
        return;
    }
    // When a mistake is found may depend on the cuts; that no end is found behind one may not.
    let complete = |followed: &Result<(Vec<u8>, bool), _>| matches!(followed, Ok((_, true)));
    assert!(!complete(&whole) && !complete(&cut), "{whole:?} {cut:?}");
}

/// The content, and whether the end was reached, of bytes that come `step` at a time.
fn follow(framing: crate::http1::framing::Body, data: &[u8], step: usize) -> Result<(Vec<u8>, bool), &'static str> {
    let mut decoder = Decoder::new(framing);
    let (mut content, mut at, mut end) = (vec![], 0, 0);
    loop {
        match decoder.next(data.get(at..end).unwrap_or_default()).map_err(|error| error.0)? {
            Step::Data(n) => {
                assert!(n > 0 && at + n <= end, "content beyond what came");
                content.extend_from_slice(data.get(at..at + n).unwrap_or_default());
                at += n;
            }
            Step::Framing(n) | Step::Trailers(n) => {
                assert!(n > 0 && at + n <= end, "framing beyond what came");
                at += n;
            }
            Step::End => return Ok((content, true)),
            Step::More if end == data.len() => return Ok((content, false)),
            Step::More => end = data.len().min(end + step),
        }
    }
}

/// A frame gate says the same of bytes however they are cut. The first byte chooses the side and the cuts.
pub fn http2_gate(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let side = if choice & 1 == 0 { Side::Server } else { Side::Client };
    let limits = Limits { frame_size: 16_384, header_block: 65_536 };
    let now = || Duration::ZERO;
    let mut whole = FrameGate::new(side, limits, Duration::ZERO);
    let verdict = whole.receive(bytes, now).err().map(|(at, violation)| {
        assert!(at <= bytes.len());
        violation
    });
    let step = usize::from(choice >> 1) % 19 + 1;
    let mut cut = FrameGate::new(side, limits, Duration::ZERO);
    let pieces = bytes.chunks(step).find_map(|piece| cut.receive(piece, now).err());
    assert_eq!(verdict, pieces.map(|(_, violation)| violation), "the cuts decide");
    let mut sending = FrameGate::new(side, limits, Duration::ZERO);
    let _ = sending.send(bytes, now);
}

/// What stands behind the `?` of `/explain`: conditions, or a sentence that repeats little of it.
pub fn explain_query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match records::Query::parse(text) {
        Ok(_) if text.len() > 4000 => {}
        Ok(query) => assert_eq!(Ok(query), records::Query::parse(&format!("&{text}&")), "empty parameters are none"),
        Err(invalid) => assert!(invalid.to_string().chars().count() < 1024, "{invalid}"),
    }
}

/// What a name server answers: the library (hickory) parses it, on the admin thread. Of its SRV records each gives one address or
/// none, with its own port, and an address written as a target is that address again.
pub fn dns(data: &[u8]) {
    let Ok(message) = Message::from_vec(data) else { return };
    for record in &message.answers {
        let _ = record.name.to_string();
        let found = srv_addrs(std::slice::from_ref(record));
        let RData::SRV(srv) = &record.data else {
            assert!(found.is_empty(), "an address of what is no SRV record");
            continue;
        };
        assert!(found.len() <= 1);
        let Some(addr) = found.first() else { continue };
        assert_eq!(addr.port(), srv.port);
        let dashed = match addr.ip() {
            IpAddr::V4(ip) => ip.to_string().replace('.', "-"),
            IpAddr::V6(ip) => ip.to_string().replace(':', "-"),
        };
        let Ok(target) = Name::from_labels([dashed.as_bytes(), b"svc"]) else { panic!("{dashed} is no label") };
        let mut again = record.clone();
        again.data = RData::SRV(SRV::new(srv.priority, srv.weight, srv.port, target));
        assert_eq!(srv_addrs(&[again]), [*addr], "{dashed} is read as another address");
    }
    let each = message.answers.iter().flat_map(|record| srv_addrs(std::slice::from_ref(record)));
    assert_eq!(srv_addrs(&message.answers), each.collect::<Vec<_>>(), "one record changes what is read of another");
}

/// A head that is too large is refused for that, whatever it holds.
pub fn http1_limits(data: &[u8]) {
    let mut head = RequestHead::default();
    let long: Vec<u8> = data.iter().copied().cycle().take(if data.is_empty() { 0 } else { 70_000 }).collect();
    match head.parse(&long) {
        Ok(true) => assert!(head.len <= crate::http1::limits::MAX_HEAD),
        Ok(false) => assert!(long.is_empty(), "more is waited for beyond the limit"),
        Err(HeadError::TooLarge | HeadError::Malformed(_)) => {}
    }
}
