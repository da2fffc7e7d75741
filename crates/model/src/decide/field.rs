//! What the name of a header field means to whoever may read it, whatever frames the message.
//!
//! A server behind CGI, FastCGI or WSGI knows a header by a variable, in whose name whatever is no letter or digit is `_` (RFC 3875
//! 4.1.18): there `L5d_Client.Id` is `l5d-client-id`.

use crate::names::header::PREFIX;

/// What trailers stand behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    Request,
    Response,
}

/// Names that frame a message or concern one connection.
const FRAMING: [&str; 10] = [
    "transfer-encoding",
    "content-length",
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
];

/// Names by which a server knows who asks and for what.
const OF_A_REQUEST: [&str; 9] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "content-type",
    "content-encoding",
    "content-range",
    "location",
    "forwarded",
];

/// Whether a server may take a field of this name for one called `own`, which is in lower case.
pub fn reads_as(name: &[u8], own: &str) -> bool {
    let alike =
        |(byte, own): (&u8, &u8)| byte.to_ascii_lowercase() == *own || (*own == b'-' && !byte.is_ascii_alphanumeric());
    name.len() == own.len() && name.iter().zip(own.as_bytes()).all(alike)
}

/// Whether a server may take a field of this name for one of the mesh.
pub fn is_of_mesh(name: &[u8]) -> bool {
    name.get(..PREFIX.len()).is_some_and(|start| reads_as(start, PREFIX))
}

/// The same of a name that is not written as those of the mesh are.
pub fn is_disguised(name: &[u8]) -> bool {
    is_of_mesh(name) && !name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

/// Whether a field of this name may stand behind a body: a receiver may merge trailers into its headers. What a response says
/// there of itself is its server's own word, as gRPC's metadata are, and bears any name.
pub fn may_trail(name: &[u8], of: Message) -> bool {
    let is = |other: &&str| name.eq_ignore_ascii_case(other.as_bytes());
    let forwarded = b"x-forwarded-";
    let asks = || {
        OF_A_REQUEST.iter().any(is)
            || name.get(..forwarded.len()).is_some_and(|start| start.eq_ignore_ascii_case(forwarded))
    };
    !is_of_mesh(name) && !FRAMING.iter().any(is) && (of == Message::Response || !asks())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_in_every_spelling_that_servers_make_one_of() {
        let own = "l5d-client-id";
        for name in
            ["l5d-client-id", "L5D-Client-ID", "l5d_client_id", "L5d_Client-id", "l5d.client+id", "l5d-client~id"]
        {
            assert!(reads_as(name.as_bytes(), own) && is_of_mesh(name.as_bytes()), "{name}");
            assert_eq!(is_disguised(name.as_bytes()), !name.eq_ignore_ascii_case(own), "{name}");
        }
        for name in ["l5d-client-i", "l5d-client-idx", "l5dxclient-id", "l5d-client0id", "x5d-client-id", ""] {
            assert!(!reads_as(name.as_bytes(), own), "{name}");
        }
        for name in ["l5", "l5d", "l5dx", "x-l5d-", ""] {
            assert!(!is_of_mesh(name.as_bytes()) && !is_disguised(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn trailers_frame_nothing_and_say_nothing_of_who_asks() {
        let of =
            |name: &str| (may_trail(name.as_bytes(), Message::Request), may_trail(name.as_bytes(), Message::Response));
        for name in ["grpc-status", "Grpc-Message", "grpc-status-details-bin", "x-sum", "te-x", "x-forwarded"] {
            assert_eq!(of(name), (true, true), "{name}");
        }
        for name in ["Authorization", "cookie", "forwarded", "X-Forwarded-For", "location", "content-type"] {
            assert_eq!(of(name), (false, true), "{name}");
        }
        for name in ["Content-Length", "host", "Transfer-Encoding", "te", "l5d-client-id", "L5d_Client_Id", "l5d-x"] {
            assert_eq!(of(name), (false, false), "{name}");
        }
    }
}
