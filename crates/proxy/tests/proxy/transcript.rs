//! The bytes of a hop as lines that people read and snapshots hold: ClientHello, ServerHello, transport header, HTTP/2 frames.
//!
//! What differs from run to run is left out: random bytes, keys, session ids, acknowledgements, lengths of compressed heads.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Reads big-endian numbers and vectors off the front.
struct Cursor<'b>(&'b [u8]);

impl<'b> Cursor<'b> {
    fn take(&mut self, n: usize) -> &'b [u8] {
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        taken
    }

    fn number(&mut self, bytes: usize) -> usize {
        self.take(bytes).iter().fold(0, |n, byte| n << 8 | usize::from(*byte))
    }

    /// A vector whose length has so many bytes.
    fn vector(&mut self, bytes: usize) -> Cursor<'b> {
        let n = self.number(bytes);
        Cursor(self.take(n))
    }

    /// What is left, as numbers of two bytes.
    fn names(&mut self, name: fn(usize) -> String) -> String {
        let mut names = vec![];
        while !self.0.is_empty() {
            names.push(name(self.number(2)));
        }
        names.join(" ")
    }
}

fn hex(n: usize) -> String {
    format!("{n:#06x}")
}

fn version(n: usize) -> String {
    match n {
        0x0301 => "TLS1.0".to_owned(),
        0x0303 => "TLS1.2".to_owned(),
        0x0304 => "TLS1.3".to_owned(),
        _ => hex(n),
    }
}

fn suite(n: usize) -> String {
    match n {
        0x1301 => "AES_128_GCM_SHA256".to_owned(),
        0x1302 => "AES_256_GCM_SHA384".to_owned(),
        0x1303 => "CHACHA20_POLY1305_SHA256".to_owned(),
        _ => hex(n),
    }
}

fn group(n: usize) -> String {
    match n {
        0x11ec => "X25519MLKEM768".to_owned(),
        0x001d => "X25519".to_owned(),
        0x0017 => "P-256".to_owned(),
        0x0018 => "P-384".to_owned(),
        _ => hex(n),
    }
}

fn signature(n: usize) -> String {
    match n {
        0x0403 => "ECDSA_P256_SHA256".to_owned(),
        0x0503 => "ECDSA_P384_SHA384".to_owned(),
        _ => hex(n),
    }
}

/// The first record of a connection.
pub(crate) async fn record(from: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut record = vec![0; 5];
    from.read_exact(&mut record).await.unwrap();
    let length = Cursor(&record[3..]).number(2);
    record.resize(5 + length, 0);
    from.read_exact(&mut record[5..]).await.unwrap();
    record
}

/// The lines of a record with a ClientHello or a ServerHello, its extensions in the order of their numbers: rustls shuffles them.
pub(crate) fn hello(record: &[u8]) -> String {
    let mut record = Cursor(record);
    let (kind, outer) = (record.number(1), version(record.number(2)));
    let mut record = record.vector(2);
    let client = record.number(1) == 1;
    let mut hello = record.vector(3);
    let mut lines = vec![format!("record {kind} {outer}, hello {}", version(hello.number(2)))];
    hello.take(32); // random
    lines.push(format!("session id of {} bytes", hello.vector(1).0.len()));
    if client {
        lines.push(format!("suites {}", hello.vector(2).names(suite)));
        lines.push(format!("compression {:?}", hello.vector(1).0));
    } else {
        lines.push(format!("suite {}", suite(hello.number(2))));
        lines.push(format!("compression {}", hello.number(1)));
    }
    let mut extensions = hello.vector(2);
    let mut found = vec![];
    while !extensions.0.is_empty() {
        let number = extensions.number(2);
        found.push((number, extension(number, extensions.vector(2), client)));
    }
    found.sort();
    lines.extend(found.into_iter().map(|(number, text)| format!("extension {number} {text}")));
    lines.join("\n")
}

fn extension(number: usize, mut body: Cursor<'_>, client: bool) -> String {
    match number {
        0 => {
            let mut names = body.vector(2);
            let kind = names.number(1);
            let name = String::from_utf8_lossy(names.vector(2).0).into_owned();
            assert!(names.0.is_empty(), "one name");
            format!("server_name {kind} {name}")
        }
        5 => "status_request".to_owned(),
        10 => format!("supported_groups {}", body.vector(2).names(group)),
        13 => format!("signature_algorithms {}", body.vector(2).names(signature)),
        16 => {
            let (mut protocols, mut names) = (body.vector(2), vec![]);
            while !protocols.0.is_empty() {
                names.push(String::from_utf8_lossy(protocols.vector(1).0).into_owned());
            }
            format!("alpn {}", names.join(" "))
        }
        43 if client => format!("supported_versions {}", body.vector(1).names(version)),
        43 => format!("supported_versions {}", version(body.number(2))),
        45 => format!("psk_key_exchange_modes {:?}", body.vector(1).0),
        51 => {
            let mut shares = if client { body.vector(2) } else { body };
            let mut names = vec![];
            while !shares.0.is_empty() {
                let name = group(shares.number(2));
                names.push(format!("{name} of {} bytes", shares.vector(2).0.len()));
            }
            format!("key_share {}", names.join(", "))
        }
        _ => format!("of {} bytes", body.0.len()),
    }
}

/// Bytes that may be no text, as in a program.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Takes a transport header off the front of a connection, as the bytes that came (data plane 3.9).
pub(crate) async fn transport_header(from: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = [0; 27];
    from.read_exact(&mut head).await.unwrap();
    let mut message = vec![0; Cursor(&head[23..]).number(4)];
    from.read_exact(&mut message).await.unwrap();
    let message: Vec<String> = message.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}\nlength {:02x?}\nmessage {}", escaped(&head[..23]), &head[23..], message.join(" "))
}

/// The lines of what one side of HTTP/2 sent, up to the frame that `last` picks. Acknowledgements and pings come when they come.
pub(crate) fn frames(mut bytes: &[u8], last: impl Fn(&str) -> bool) -> Vec<String> {
    let mut lines = vec![];
    if let Some(rest) = bytes.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") {
        lines.push("PRI * HTTP/2.0".to_owned());
        bytes = rest;
    }
    let mut cursor = Cursor(bytes);
    while cursor.0.len() >= 9 {
        let (length, kind, flags) = (cursor.number(3), cursor.number(1), cursor.number(1));
        let stream = cursor.number(4);
        if cursor.0.len() < length {
            break;
        }
        let line = frame(kind, flags, stream, Cursor(cursor.take(length)));
        if line.ends_with("ACK") || line.starts_with("PING") {
            continue;
        }
        let done = last(&line);
        lines.push(line);
        if done {
            break;
        }
    }
    lines
}

fn frame(kind: usize, flags: usize, stream: usize, mut body: Cursor<'_>) -> String {
    let end_stream = if flags & 1 != 0 { " END_STREAM" } else { "" };
    match kind {
        0 => format!("DATA {stream} of {} bytes{end_stream}", body.0.len()),
        1 => {
            let end_headers = if flags & 4 != 0 { " END_HEADERS" } else { "" };
            let more = if flags & !5 != 0 { format!(" flags {flags:#04x}") } else { String::new() };
            format!("HEADERS {stream}{end_headers}{end_stream}{more}")
        }
        3 => format!("RST_STREAM {stream} {}", body.number(4)),
        4 if flags & 1 != 0 => "SETTINGS ACK".to_owned(),
        4 => {
            let mut set = vec![];
            while !body.0.is_empty() {
                let name = match body.number(2) {
                    1 => "HEADER_TABLE_SIZE".to_owned(),
                    2 => "ENABLE_PUSH".to_owned(),
                    3 => "MAX_CONCURRENT_STREAMS".to_owned(),
                    4 => "INITIAL_WINDOW_SIZE".to_owned(),
                    5 => "MAX_FRAME_SIZE".to_owned(),
                    6 => "MAX_HEADER_LIST_SIZE".to_owned(),
                    8 => "ENABLE_CONNECT_PROTOCOL".to_owned(),
                    other => hex(other),
                };
                set.push(format!("{name}={}", body.number(4)));
            }
            format!("SETTINGS {}", set.join(" "))
        }
        6 => format!("PING{}", if flags & 1 != 0 { " ACK" } else { "" }),
        7 => {
            let (last, code) = (body.number(4), body.number(4));
            format!("GOAWAY last {last} code {code} {}", escaped(body.0))
        }
        8 => format!("WINDOW_UPDATE {stream} +{}", body.number(4)),
        _ => format!("frame {kind} flags {flags:#04x} {stream} of {} bytes", body.0.len()),
    }
}

/// A stream that keeps a copy of what passes.
pub(crate) struct Tee<S> {
    stream: S,
    pub(crate) read: Copy,
}

/// What has passed so far.
#[derive(Clone, Default)]
pub(crate) struct Copy(Arc<Mutex<Vec<u8>>>);

impl Copy {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl<S> Tee<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, read: Copy::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tee<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.read.0.lock().unwrap().extend_from_slice(&buf.filled()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tee<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
