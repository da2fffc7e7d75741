//! HTTP/2 frame by frame, as no library would send it.

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// # Panics
/// The payload has more bytes than a frame has room to say.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [0, length @ ..] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes() else {
        panic!("{} bytes in one frame", payload.len());
    };
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}
