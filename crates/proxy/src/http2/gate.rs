//! The frame gate: looks at the 9-byte head of each frame that a peer sends and says when to end the connection, and with
//! which code.
//!
//! Pure: no socket, no clock. Bytes may come cut anywhere. What `h2` checks well (HPACK, stream states, flow control) is not
//! checked again; what it reports with the wrong code (frame lengths) or has no bound for (control frames) is.

use super::{
    budget::{Bucket, Budget},
    frame::{HEAD, Head, KIND, SETTING, Walker, check_setting, flag, is_pseudo, kind},
    settings::unexpanded,
};
use crate::http1::limits::MAX_INTERIM;
use h2::Reason;
use std::time::Duration;

/// "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", whose text `h2` checks.
const PREFACE: u32 = 24;
/// A frame that must not hold anything but a code.
const CODE: usize = 4;
/// Where a header block may begin at the latest: behind the length of the padding and a dependency; and what of its first
/// field tells whether that is a pseudo-header: how it is encoded, the length of its name, a character.
const BLOCK: usize = 6 + 3;

/// A DATA frame of fewer bytes is a small one, as `h2` sees it.
const SMALL: u32 = 256;

/// WINDOW_UPDATE frames that one DATA frame may bring back: some clients send one per 4 KiB for stream and connection each.
const WINDOW_UPDATES_PER_DATA: u32 = 10;
/// Some clients widen the window of each stream that they open.
const WINDOW_UPDATES_PER_STREAM: u32 = 2;
const PRIORITIES_PER_STREAM: u32 = 10;
/// The head of a response, its trailers, and as many interim ones as are passed on.
const HEADS_PER_REQUEST: u32 = 2 + MAX_INTERIM as u32;

/// On which side of the connection this proxy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The frame size that this side announced.
    pub(crate) frame_size: u32,
    /// Bytes of one encoded header block over all of its frames.
    pub(crate) header_block: u32,
}

/// Why the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) code: Reason,
    /// Lower-case, for the log and the GOAWAY's debug data.
    pub(crate) what: &'static str,
}

/// Where in the received bytes the frame begins that must not be passed on; 0 if it began in bytes given before.
pub(crate) type Refused = (usize, Violation);

pub(crate) struct FrameGate {
    side: Side,
    limits: Limits,
    received: Walker<{ HEAD + BLOCK }>,
    sent: Walker<{ HEAD + CODE }>,
    /// The header block that has begun: only its CONTINUATION frames may follow.
    block: Option<Block>,
    settled: bool,
    /// Bytes of a SETTINGS frame that are still to be looked at.
    settings: u32,
    /// Which of the newest 64 streams the client has ended; the lowest bit is the newest.
    ended: u64,
    /// Where in the bytes last received a GOAWAY is.
    goaway: Option<Goaway>,
    highest_stream: u32,
    /// Requests that are worked on: as many resets are legitimate.
    working: u32,
    /// Of those that were reset; each still has to be seen to end.
    cancelled: u32,
    /// Resets of ours that are not the peer's fault.
    excused: u32,
    /// Small DATA frames since this was last asked.
    small: u32,
    budgets: [Bucket; Budget::ALL.len()],
}

struct Block {
    stream: u32,
    bytes: u32,
    /// So many are allowed.
    most: u32,
}

/// Where a GOAWAY is in the bytes received last.
#[derive(Clone, Copy)]
pub(super) struct Goaway {
    /// Where its kind stands, if not in bytes given before.
    pub(super) kind: Option<usize>,
    /// Behind the end of the bytes if it is not whole.
    pub(super) end: usize,
}

impl FrameGate {
    pub(crate) fn new(side: Side, limits: Limits, now: Duration) -> Self {
        let (received, sent) = match side {
            Side::Server => (PREFACE, 0),
            Side::Client => (0, PREFACE),
        };
        Self {
            side,
            limits,
            received: Walker::after(received),
            sent: Walker::after(sent),
            block: None,
            settled: false,
            settings: 0,
            ended: 0,
            goaway: None,
            highest_stream: 0,
            working: 0,
            cancelled: 0,
            excused: 0,
            small: 0,
            budgets: Budget::ALL.map(|budget| Bucket::full(budget.rate(), now)),
        }
    }

    /// Looks at bytes that the peer sent.
    ///
    /// # Errors
    /// The connection must end; the bytes from the given position on must not be passed on, and nothing is to be looked at
    /// any more.
    pub(crate) fn receive(&mut self, bytes: &[u8], mut now: impl FnMut() -> Duration) -> Result<(), Refused> {
        let mut at = 0;
        loop {
            if self.settings > 0 {
                let Some(end) = self.received.head(bytes, at, SETTING) else { return Ok(()) };
                check_setting(&self.received.held).map_err(|violation| (at, violation))?;
                self.received.next(0);
                self.settings = self.settings.saturating_sub(SETTING as u32);
                at = end;
                continue;
            }
            let Some(end) = self.received.head(bytes, at, HEAD) else { return Ok(()) };
            let start = end.saturating_sub(HEAD);
            let head = Head::parse(&self.received.held);
            let mut passed = 0;
            if self.is_trailers(head) {
                let first = head.first_field();
                passed = head.length.min(first as u32 + 3);
                let Some(behind) = self.received.head(bytes, end, HEAD + passed as usize) else { return Ok(()) };
                if is_pseudo(self.received.held.get(HEAD + first..HEAD + passed as usize).unwrap_or_default()) {
                    return Err((start, protocol("trailers hold a pseudo-header")));
                }
                at = behind;
            }
            self.check(head, &mut now).map_err(|violation| (start, violation))?;
            if head.kind == kind::GOAWAY {
                let (kind, end) = (end.checked_sub(HEAD - KIND), end.saturating_add(head.length as usize));
                self.goaway = Some(Goaway { kind, end });
            }
            if head.kind == kind::SETTINGS {
                self.settings = head.length;
                self.received.next(0);
            } else {
                self.received.next(head.length - passed);
            }
            at = at.max(end);
        }
    }

    /// Whether the frame begins a second header block of a client's stream. `h2` drops pseudo-headers that it finds there.
    fn is_trailers(&self, head: Head) -> bool {
        self.side == Side::Server
            && head.kind == kind::HEADERS
            && head.stream > 0
            && head.stream <= self.highest_stream
            && !self.is_ended(head.stream)
            && head.length <= self.limits.frame_size
            && self.block.is_none()
    }

    /// Where in the bytes received last a GOAWAY is, if there was one.
    pub(super) fn take_goaway(&mut self) -> Option<Goaway> {
        self.goaway.take()
    }

    /// Looks at bytes that this side sends, to know what they earn or cost the peer.
    ///
    /// # Errors
    /// The connection must end.
    pub(crate) fn send(&mut self, bytes: &[u8], mut now: impl FnMut() -> Duration) -> Result<(), Violation> {
        let mut at = 0;
        while let Some(end) = self.sent.head(bytes, at, HEAD) {
            let head = Head::parse(&self.sent.held);
            at = end;
            match head.kind {
                kind::RST_STREAM => {
                    let Some(end) = self.sent.head(bytes, at, HEAD + CODE) else { return Ok(()) };
                    at = end;
                    let code = self.sent.held.last_chunk::<CODE>().map_or(0, |code| u32::from_be_bytes(*code));
                    self.sent.next(head.length.saturating_sub(CODE as u32));
                    if provoked(code) {
                        match self.excused.checked_sub(1) {
                            Some(left) => self.excused = left,
                            None => self.spend(Budget::ProvokedResets, 1, &mut now)?,
                        }
                    }
                    continue;
                }
                kind::DATA => {
                    self.earn(Budget::WindowUpdates, WINDOW_UPDATES_PER_DATA);
                    // A peer that measures the bandwidth pings at most once per DATA frame.
                    self.earn(Budget::Pings, 1);
                }
                // A server may reset each request once.
                kind::HEADERS if self.side == Side::Client => {
                    self.earn(Budget::Resets, 1);
                    self.earn(Budget::Heads, HEADS_PER_REQUEST);
                }
                _ => {}
            }
            self.sent.next(head.length);
        }
        Ok(())
    }

    /// Requests of this peer were begun and have ended. Each that is worked on may be cancelled, once.
    pub(crate) fn worked(&mut self, begun: u32, ended: u32) {
        self.working = self.working.saturating_add(begun);
        let cancelled = self.cancelled.min(ended);
        self.cancelled -= cancelled;
        self.working = self.working.saturating_sub(ended - cancelled);
    }

    /// So many resets of ours will be sent that are not the peer's fault.
    pub(crate) fn excuse(&mut self, resets: u32) {
        self.excused = self.excused.saturating_add(resets);
    }

    /// How many small DATA frames have come since this was last asked.
    pub(crate) fn take_small(&mut self) -> u32 {
        std::mem::take(&mut self.small)
    }

    /// Whether what was sent so far ends with a whole frame, so that another may be put behind it.
    pub(crate) fn at_boundary(&self) -> bool {
        self.sent.skip == 0 && self.sent.filled == 0
    }

    pub(crate) fn highest_stream(&self) -> u32 {
        self.highest_stream
    }

    fn check(&mut self, head: Head, now: &mut impl FnMut() -> Duration) -> Result<(), Violation> {
        let Head { length, kind, flags, stream } = head;
        if length > self.limits.frame_size {
            return Err(size("frame is larger than announced"));
        }
        if !self.settled {
            if kind != kind::SETTINGS || flags & flag::ACK != 0 {
                return Err(protocol("first frame is not settings"));
            }
            self.settled = true;
        }
        if let Some(block) = &self.block
            && (kind != kind::CONTINUATION || stream != block.stream)
        {
            return Err(protocol("header block is interrupted"));
        }
        match kind {
            kind::DATA => {
                on_stream(stream)?;
                self.goes_on(stream)?;
                self.small += u32::from(length < SMALL);
                if flags & flag::END_STREAM != 0 {
                    self.end(stream);
                } else if length == 0 {
                    self.spend(Budget::EmptyFrames, 1, now)?;
                }
            }
            kind::HEADERS => {
                on_stream(stream)?;
                if (length as usize) < head.first_field() {
                    return Err(size("headers frame is too short for its flags"));
                }
                if self.side == Side::Client {
                    self.spend(Budget::Heads, 1, now)?;
                }
                // Of a request's trailers `h2` would drop without a word what is beyond its limit.
                let trailers = self.side == Side::Server && stream <= self.highest_stream;
                self.opened(stream)?;
                self.goes_on(stream)?;
                if flags & flag::END_STREAM != 0 {
                    self.end(stream);
                }
                let all = self.limits.header_block;
                let most = if trailers { unexpanded(all) } else { all };
                self.header_block(Block { stream, bytes: 0, most }, length, flags, now)?;
            }
            kind::CONTINUATION => {
                let Some(block) = self.block.take() else {
                    return Err(protocol("continuation of no header block"));
                };
                self.header_block(block, length, flags, now)?;
            }
            kind::PRIORITY => {
                on_stream(stream)?;
                exactly(length, 5)?;
                self.spend(Budget::Priorities, 1, now)?;
            }
            kind::RST_STREAM => {
                on_stream(stream)?;
                exactly(length, 4)?;
                self.end(stream);
                match self.working.checked_sub(1) {
                    Some(left) => {
                        self.working = left;
                        self.cancelled = self.cancelled.saturating_add(1);
                    }
                    None => self.spend(Budget::Resets, 1, now)?,
                }
            }
            kind::SETTINGS => {
                on_connection(stream)?;
                if flags & flag::ACK != 0 {
                    exactly(length, 0)?;
                } else if !length.is_multiple_of(6) {
                    return Err(size("settings frame holds a part of a setting"));
                }
                // Each holds six bytes; a frame has hardly ever more than ten.
                self.spend(Budget::Settings, 1 + length / 60, now)?;
            }
            kind::PING => {
                on_connection(stream)?;
                exactly(length, 8)?;
                self.spend(Budget::Pings, 1, now)?;
            }
            kind::GOAWAY => {
                on_connection(stream)?;
                if length < 8 {
                    return Err(size("goaway frame is too short"));
                }
                self.spend(Budget::OtherFrames, 1, now)?;
            }
            kind::WINDOW_UPDATE => {
                exactly(length, 4)?;
                self.spend(Budget::WindowUpdates, 1, now)?;
            }
            // Clients may not push, and this side announced that it takes none.
            kind::PUSH_PROMISE => return Err(protocol("push promise is not allowed")),
            _ => self.spend(Budget::OtherFrames, 1, now)?,
        }
        Ok(())
    }

    fn opened(&mut self, stream: u32) -> Result<(), Violation> {
        if self.side == Side::Client {
            return Ok(());
        }
        if stream.is_multiple_of(2) {
            return Err(protocol("client opened a stream with an even number"));
        }
        if stream > self.highest_stream {
            let newer = (stream - self.highest_stream) / 2;
            self.ended = self.ended.checked_shl(newer).unwrap_or(0);
            self.highest_stream = stream;
            self.earn(Budget::WindowUpdates, WINDOW_UPDATES_PER_STREAM);
            self.earn(Budget::Priorities, PRIORITIES_PER_STREAM);
        }
        Ok(())
    }

    /// A client must not send more on a stream that it has ended. Older ones, and a server's, `h2` knows.
    fn goes_on(&self, stream: u32) -> Result<(), Violation> {
        if self.is_ended(stream) {
            return Err(Violation { code: Reason::STREAM_CLOSED, what: "frame on a stream that has ended" });
        }
        Ok(())
    }

    fn is_ended(&self, stream: u32) -> bool {
        self.bit(stream).is_some_and(|bit| self.ended & bit != 0)
    }

    fn end(&mut self, stream: u32) {
        self.ended |= self.bit(stream).unwrap_or(0);
    }

    fn bit(&self, stream: u32) -> Option<u64> {
        let age = self.highest_stream.checked_sub(stream)? / 2;
        (self.side == Side::Server && age < u64::BITS).then(|| 1 << age)
    }

    fn header_block(
        &mut self,
        block: Block,
        length: u32,
        flags: u8,
        now: &mut impl FnMut() -> Duration,
    ) -> Result<(), Violation> {
        let bytes = block.bytes.saturating_add(length);
        if bytes > block.most {
            return Err(calm("header block is too large"));
        }
        if flags & flag::END_HEADERS == 0 {
            if length == 0 {
                self.spend(Budget::EmptyFrames, 1, now)?;
            }
            self.block = Some(Block { bytes, ..block });
        }
        Ok(())
    }

    fn spend(&mut self, budget: Budget, n: u32, now: &mut impl FnMut() -> Duration) -> Result<(), Violation> {
        if self.bucket(budget).take(n, now) { Ok(()) } else { Err(calm(budget.as_str())) }
    }

    fn earn(&mut self, budget: Budget, n: u32) {
        self.bucket(budget).earn(n);
    }

    fn bucket(&mut self, budget: Budget) -> &mut Bucket {
        // The array is made from `Budget::ALL`, which stands in the order of declaration (see the test).
        &mut self.budgets[budget as usize]
    }
}

/// Whether this code in a reset of ours says that the peer made a mistake or opened too much. Others are passed on for the other side.
pub(super) fn provoked(code: u32) -> bool {
    [
        Reason::PROTOCOL_ERROR,
        Reason::FLOW_CONTROL_ERROR,
        Reason::STREAM_CLOSED,
        Reason::FRAME_SIZE_ERROR,
        Reason::REFUSED_STREAM,
    ]
    .iter()
    .any(|reason| u32::from(*reason) == code)
}

fn on_stream(stream: u32) -> Result<(), Violation> {
    if stream == 0 { Err(protocol("frame of a stream on stream 0")) } else { Ok(()) }
}

fn on_connection(stream: u32) -> Result<(), Violation> {
    if stream == 0 { Ok(()) } else { Err(protocol("frame of the connection on a stream")) }
}

fn exactly(length: u32, wanted: u32) -> Result<(), Violation> {
    if length == wanted { Ok(()) } else { Err(size("frame has the wrong length for its kind")) }
}

fn protocol(what: &'static str) -> Violation {
    Violation { code: Reason::PROTOCOL_ERROR, what }
}

fn size(what: &'static str) -> Violation {
    Violation { code: Reason::FRAME_SIZE_ERROR, what }
}

fn calm(what: &'static str) -> Violation {
    Violation { code: Reason::ENHANCE_YOUR_CALM, what }
}
