//! What hostile clients are made of: kinds, flags and codes of HTTP/2, requests of few bytes, and floods of them.

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    task::JoinHandle,
};
pub(crate) use weft_testkit::frames::{PREFACE, frame};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const WITH_PRIORITY: u8 = 0x20;

/// `:method GET`, `:scheme http`, `:path /`, `:authority app.ns`: one that the origin of the lab never answers.
pub(crate) const HANGING: &[u8] = &[0x82, 0x86, 0x84, 0x41, 6, b'a', b'p', b'p', b'.', b'n', b's'];

/// The codes of RFC 9113 7.
pub(crate) mod code {
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
    pub(crate) const STREAM_CLOSED: u32 = 5;
    pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
    pub(crate) const CANCEL: u32 = 8;
    pub(crate) const COMPRESSION_ERROR: u32 = 9;
    pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
}

/// A request that goes on.
pub(crate) fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, HANGING)
}

/// A request that is whole.
pub(crate) fn whole(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, HANGING)
}

pub(crate) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code::CANCEL.to_be_bytes())
}

/// A field that is not kept in the table, without Huffman's code.
pub(crate) fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        field.extend(integer(text.len(), 7));
        field.extend(text);
    }
    field
}

/// An integer of HPACK behind a prefix of `bits` bits, whose other bits are 0.
pub(crate) fn integer(value: usize, bits: u32) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if value < most {
        return vec![u8::try_from(value).unwrap()];
    }
    let (mut bytes, mut rest) = (vec![u8::try_from(most).unwrap()], value - most);
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 0x80);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// What the other side said until the end of the connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
    pub(crate) resets: usize,
    /// Header blocks.
    pub(crate) heads: usize,
    /// The last code, and the words.
    pub(crate) goaway: Option<(u32, String)>,
}

impl Heard {
    pub(crate) fn code(&self) -> Option<u32> {
        self.goaway.as_ref().map(|(code, _)| *code)
    }
}

/// Reads until the connection ends.
pub(crate) async fn hear(mut from: impl AsyncRead + Unpin) -> Heard {
    let mut heard = Heard::default();
    let mut head = [0; 9];
    while from.read_exact(&mut head).await.is_ok() {
        let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap();
        let mut payload = vec![0; length];
        if from.read_exact(&mut payload).await.is_err() {
            break;
        }
        heard.frames += 1;
        heard.bytes += head.len() + length;
        match head[3] {
            RST_STREAM => heard.resets += 1,
            HEADERS => heard.heads += 1,
            GOAWAY => {
                let code = u32::from_be_bytes(payload[4..8].try_into().unwrap());
                heard.goaway = Some((code, String::from_utf8_lossy(&payload[8..]).into_owned()));
            }
            _ => {}
        }
    }
    heard
}

/// Sends a client's preface and `bytes`, until the other side takes no more or there is no more; what it said to the end of the
/// connection.
pub(crate) async fn flood(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    bytes: impl Iterator<Item = Vec<u8>> + Send,
) -> Heard {
    let (from, mut to) = tokio::io::split(stream);
    let heard: JoinHandle<Heard> = tokio::spawn(async move { hear(from).await });
    let mut batch = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let mut refused = false;
    for bytes in bytes {
        batch.extend(bytes);
        if batch.len() > 16_000 {
            refused = heard.is_finished() || to.write_all(&batch).await.is_err();
            batch.clear();
            if refused {
                break;
            }
        }
    }
    if !refused {
        // It may be over already.
        let _ = to.write_all(&batch).await;
    }
    heard.await.unwrap()
}
