//! Recognises whether a server that speaks before its client speaks HTTP.
//!
//! An HTTP/2 server may send its settings at once (RFC 9113 3.4), and an HTTP/1 server answers a client that is silent for too long
//! with an error. Neither makes the port one of a protocol that begins with a greeting.

use super::Server;

/// How an HTTP/1 response begins.
const RESPONSE: &[u8] = b"HTTP/";
/// The type of the frame that HTTP/2 begins with, at its place in the frame's head.
const SETTINGS: u8 = 4;

/// Looks at the first bytes that a server sent. Nine bytes decide, most protocols are known by the first one.
pub fn server(bytes: &[u8]) -> Server {
    if bytes.starts_with(RESPONSE) {
        return Server::Http;
    }
    if RESPONSE.starts_with(bytes) {
        return Server::NeedMore;
    }
    settings(bytes)
}

/// A SETTINGS frame that is no acknowledgement: 24 bits of length, a multiple of six, then type, flags and stream 0.
fn settings(bytes: &[u8]) -> Server {
    let fits = |(at, byte): (usize, &u8)| match at {
        // The largest first frame is 16 KiB.
        0 => *byte == 0,
        1 => *byte <= 0x40,
        2 => bytes.get(1).is_some_and(|high| (u16::from(*high) << 8 | u16::from(*byte)).is_multiple_of(6)),
        3 => *byte == SETTINGS,
        _ => *byte == 0,
    };
    let head = bytes.get(..9).unwrap_or(bytes);
    if !head.iter().enumerate().all(fits) {
        Server::Other
    } else if bytes.len() < 9 {
        Server::NeedMore
    } else {
        Server::Http
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer, and after how many bytes it comes; before, there must be none.
    fn decided(bytes: &[u8]) -> (Server, usize) {
        let at = (0..=bytes.len()).find(|end| server(&bytes[..*end]) != Server::NeedMore);
        at.map_or((Server::NeedMore, bytes.len()), |at| (server(bytes), at))
    }

    #[test]
    fn http_servers_that_speak_unasked() {
        assert_eq!(decided(b"HTTP/1.1 408 Request Timeout\r\n"), (Server::Http, 5));
        assert_eq!(decided(&[0, 0, 0, 4, 0, 0, 0, 0, 0]), (Server::Http, 9), "empty settings");
        assert_eq!(decided(&[0, 0, 18, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100]), (Server::Http, 9));
    }

    #[test]
    fn greetings() {
        for (greeting, at) in [
            (&b"\x4a\x00\x00\x00\x0a8.0.36\x00"[..], 1), // MySQL
            (b"220 mail.example ESMTP Postfix\r\n", 1),  // SMTP and FTP
            (b"* OK IMAP4rev1 ready\r\n", 1),
            (b"+OK POP3 ready\r\n", 1),
            (b"SSH-2.0-OpenSSH_9.2\r\n", 1),
            (b"INFO {\"server_id\":\"N\"}\r\n", 1), // NATS
            (b"RFB 003.008\n", 1),
            (b"HELLO\r\n", 2),
            (b"HTTX", 4),
            (b"\x00\x00\x00\x00\x00", 4),
            (b"\x00\x00\x07\x04", 3),                     // no multiple of six
            (b"\x00\x00\x06\x04\x01", 5),                 // an acknowledgement
            (b"\x00\x00\x06\x04\x00\x00\x00\x00\x01", 9), // not stream 0
        ] {
            assert_eq!(decided(greeting), (Server::Other, at), "{greeting:?}");
        }
        assert_eq!(server(b""), Server::NeedMore);
    }
}
