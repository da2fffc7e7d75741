//! Follows a body through the buffer: which bytes are content, which are framing, and where it ends.
//!
//! Pure. Nothing is passed on before its framing was checked, so that the bytes may be forwarded as they came.

use super::{
    framing::Body,
    limits::{MAX_CHUNK_LINE, MAX_EXTENSIONS},
    trailers,
};

/// What the next bytes of a body are. The caller takes them off before it asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Content.
    Data(usize),
    /// A chunk's size or end.
    Framing(usize),
    /// The whole trailer section with the empty line that ends it; the body ends behind it.
    Trailers(usize),
    /// More bytes are needed.
    More,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodyError(pub(crate) &'static str);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    /// How many bytes of the section were seen without its end.
    Trailers(usize),
    UntilClose,
    End,
}

/// Where in a body we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decoder {
    state: State,
    extensions: usize,
    content: u64,
}

/// How long `body` is with its framing, if all of it stands at the front of `buf`.
pub(crate) fn whole(body: Body, buf: &[u8]) -> Option<usize> {
    let mut decoder = Decoder::new(body);
    let mut at = 0;
    loop {
        match decoder.next(buf.get(at..).unwrap_or_default()) {
            Ok(Step::Data(n) | Step::Framing(n) | Step::Trailers(n)) => at += n,
            Ok(Step::End) => return Some(at),
            Ok(Step::More) | Err(_) => return None,
        }
    }
}

impl Decoder {
    pub(crate) fn new(body: Body) -> Self {
        let state = match body {
            Body::Empty | Body::Length(0) => State::End,
            Body::Length(n) => State::Length(n),
            Body::Chunked => State::ChunkSize,
            Body::UntilClose => State::UntilClose,
        };
        Self { state, extensions: 0, content: 0 }
    }

    pub(crate) fn is_end(self) -> bool {
        self.state == State::End
    }

    /// Bytes of content that were found, except of a body that ends with its connection.
    pub(crate) fn content(self) -> u64 {
        self.content
    }

    /// How many bytes of content may still come without framing between them; for choosing a buffer.
    pub(crate) fn expected(self) -> u64 {
        match self.state {
            State::Length(n) | State::ChunkData(n) => n,
            State::UntilClose => u64::MAX,
            _ => 0,
        }
    }

    /// The sender has closed.
    pub(crate) fn closed(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::End | State::UntilClose => {
                self.state = State::End;
                Ok(())
            }
            _ => Err(BodyError("the connection closed within a body")),
        }
    }

    /// What the bytes at the front of `buf` are.
    pub(crate) fn next(&mut self, buf: &[u8]) -> Result<Step, BodyError> {
        match self.state {
            State::End => Ok(Step::End),
            _ if buf.is_empty() => Ok(Step::More),
            State::UntilClose => Ok(Step::Data(buf.len())),
            State::Length(left) => {
                let n = take(buf, left);
                let left = left - n as u64;
                self.state = if left == 0 { State::End } else { State::Length(left) };
                self.content += n as u64;
                Ok(Step::Data(n))
            }
            State::ChunkData(left) => {
                let n = take(buf, left);
                let left = left - n as u64;
                self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
                self.content += n as u64;
                Ok(Step::Data(n))
            }
            State::ChunkEnd => match buf {
                [b'\r', b'\n', ..] => {
                    self.state = State::ChunkSize;
                    Ok(Step::Framing(2))
                }
                [b'\r'] => Ok(Step::More),
                _ => Err(BodyError("a chunk does not end where its size says")),
            },
            State::ChunkSize => self.chunk_size(buf),
            State::Trailers(seen) => self.trailers(buf, seen),
        }
    }

    fn chunk_size(&mut self, buf: &[u8]) -> Result<Step, BodyError> {
        let digits = buf.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        // 15 digits cannot overflow, and no body is that long.
        if digits > 15 {
            return Err(BodyError("a chunk's size is too large"));
        }
        let Some((digits, rest)) = buf.split_at_checked(digits) else { return Ok(Step::More) };
        if rest.is_empty() {
            return Ok(Step::More);
        }
        if digits.is_empty() {
            return Err(BodyError("a chunk's size is not a number"));
        }
        let extension = match rest.first() {
            Some(b'\r') => 0,
            Some(b';') => {
                let valid = |byte: &&u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
                rest.iter().take(MAX_CHUNK_LINE).take_while(valid).count()
            }
            _ => return Err(BodyError("a chunk's size is not a number")),
        };
        if digits.len() + extension >= MAX_CHUNK_LINE {
            return Err(BodyError("a chunk's extensions are too long"));
        }
        match rest.get(extension..) {
            Some([b'\r', b'\n', ..]) => {}
            Some([] | [b'\r']) => return Ok(Step::More),
            _ => return Err(BodyError("a chunk's size line does not end with CR LF")),
        }
        if has_open_quote(rest.get(..extension).unwrap_or_default()) {
            // Whoever reads on to the closing quote finds another end of the line.
            return Err(BodyError("a chunk's extension does not end its quotes"));
        }
        self.extensions += extension;
        if self.extensions > MAX_EXTENSIONS {
            return Err(BodyError("a body's chunk extensions are too long"));
        }
        let size = digits.iter().filter_map(|digit| char::from(*digit).to_digit(16));
        let size = size.fold(0_u64, |n, digit| n << 4 | u64::from(digit));
        self.state = if size == 0 { State::Trailers(0) } else { State::ChunkData(size) };
        Ok(Step::Framing(digits.len() + extension + 2))
    }

    fn trailers(&mut self, buf: &[u8], seen: usize) -> Result<Step, BodyError> {
        if buf.starts_with(b"\r\n") {
            self.state = State::End;
            return Ok(Step::Trailers(2));
        }
        match trailers::whole(buf, seen)? {
            Some(n) => {
                self.state = State::End;
                Ok(Step::Trailers(n))
            }
            None => {
                self.state = State::Trailers(buf.len());
                Ok(Step::More)
            }
        }
    }
}

fn has_open_quote(extension: &[u8]) -> bool {
    let (mut open, mut bytes) = (false, extension.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => open = !open,
            b'\\' if open => drop(bytes.next()),
            _ => {}
        }
    }
    open
}

fn take(buf: &[u8], left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(buf.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::limits::MAX_TRAILERS;
    use proptest::prelude::*;

    /// Feeds `pieces` one by one; the content and the trailers, or what is wrong.
    fn decode(body: Body, pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, usize), BodyError> {
        let mut decoder = Decoder::new(body);
        let (mut buf, mut data, mut trailers) = (Vec::new(), Vec::new(), Vec::new());
        for piece in pieces {
            buf.extend_from_slice(piece);
            loop {
                let n = match decoder.next(&buf)? {
                    Step::Data(n) => {
                        data.extend_from_slice(&buf[..n]);
                        n
                    }
                    Step::Framing(n) => n,
                    Step::Trailers(n) => {
                        trailers.extend_from_slice(&buf[..n]);
                        n
                    }
                    Step::More | Step::End => break,
                };
                buf.drain(..n);
            }
        }
        if decoder.is_end() { Ok((data, trailers, buf.len())) } else { Err(BodyError("incomplete")) }
    }

    #[test]
    fn chunked_bodies() {
        let most = format!("{}\r\n", "a:b\r\n".repeat((MAX_TRAILERS - 2) / 5));
        let with_most = format!("0\r\n{most}");
        let valid: &[(&str, &str, &str)] = &[
            ("0\r\n\r\n", "", "\r\n"),
            ("5\r\nhello\r\n0\r\n\r\n", "hello", "\r\n"),
            ("1;a=\"\\\";b\"\r\nx\r\n0\r\n\r\n", "x", "\r\n"),
            ("00005;a=b;c=\"d e\"\r\nhello\r\nA\r\n0123456789\r\n000\r\n\r\n", "hello0123456789", "\r\n"),
            ("1\r\nx\r\n0\r\nA: 1\r\nb: 2\r\n\r\n", "x", "A: 1\r\nb: 2\r\n\r\n"),
            (&with_most, "", &most),
        ];
        for (wire, data, trailers) in valid {
            assert_eq!(
                decode(Body::Chunked, &[wire.as_bytes()]),
                Ok((data.as_bytes().to_vec(), trailers.as_bytes().to_vec(), 0)),
                "{wire:?}"
            );
        }
        let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(300));
        let many_extensions = format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "a".repeat(200)).repeat(100));
        let many_trailers = format!("0\r\n{}\r\n", "a:b\r\n".repeat(MAX_TRAILERS / 5 + 1));
        let large_trailers = format!("0\r\na: {}\r\n\r\n", "b".repeat(MAX_TRAILERS));
        for wire in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\nx\r\n0\r\n\r\n",
            "1\nx\r\n0\r\n\r\n",
            "1\rx",
            "1\r\nxx\r\n0\r\n\r\n",
            "1\r\nx\n0\r\n\r\n",
            "1;a\nb\r\nx\r\n0\r\n\r\n",
            "1;a\rb\r\nx\r\n0\r\n\r\n",
            "1;a=\"\r\nx\r\n0\r\n\r\n",
            "1;a=\"b\\\"\r\nx\r\n0\r\n\r\n",
            "1;a\0\r\nx\r\n0\r\n\r\n",
            "fffffffffffffffff\r\n",
            "10000000000000000\r\n",
            "1_0\r\n",
            "0\r\na: b\n\r\n",
            "0\r\na : b\r\n\r\n",
            "0\r\na: b\r\n c\r\n\r\n",
            "0\r\na: b\n\n",
            "0\r\na: b\r\n\n",
            "0\r\n\n",
            "0\r\na\r\n\r\n",
            "0\r\na: b\r\nc: d\n\r\n",
            &long,
            &many_extensions,
            &many_trailers,
            &large_trailers,
        ] {
            assert!(decode(Body::Chunked, &[wire.as_bytes()]).is_err(), "{wire:?}");
        }
    }

    #[test]
    fn a_length_takes_no_byte_more() {
        assert_eq!(decode(Body::Length(3), &[b"abcdef"]), Ok((b"abc".to_vec(), vec![], 3)));
        assert_eq!(decode(Body::Empty, &[b"abc"]), Ok((vec![], vec![], 3)));
        let mut decoder = Decoder::new(Body::Length(3));
        assert_eq!(decoder.next(b"ab"), Ok(Step::Data(2)));
        assert!(decoder.closed().is_err(), "a body cut short is an error");
        let mut decoder = Decoder::new(Body::UntilClose);
        assert_eq!(decoder.next(b"ab"), Ok(Step::Data(2)));
        assert!(decoder.closed().is_ok() && decoder.is_end());
    }

    proptest! {
        #[test]
        fn split_points_do_not_matter(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..8), trailer: bool, cuts in prop::collection::vec(0usize..2000, 0..20)) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x};e=1\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(if trailer { b"0\r\nx: y\r\n\r\n" } else { b"0\r\n\r\n" });
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (wire.len() + 1)).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&wire[from..cut]);
                from = cut;
            }
            pieces.push(&wire[from..]);
            prop_assert_eq!(decode(Body::Chunked, &pieces).map(|(data, ..)| data), Ok(chunks.concat()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(wire in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(Body::Chunked, &[&wire]);
        }
    }
}
