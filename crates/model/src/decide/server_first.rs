//! Whether the session to a server is opened before the client has said anything, and what is learned of a port.
//!
//! Some protocols begin with the server's greeting. Where a port's protocol is found out from the client's first bytes, the client
//! and the proxy would wait for each other; so after a short silence the session is opened, and whoever speaks first decides.
//! HTTP is never found that way: a port that has answered with it stays HTTP, however slow a client is, until it answers otherwise.
//! What clients say there teaches nobody that it is HTTP: a request may be sent to a server of anything.

use std::time::Duration;

/// What was seen on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spoken {
    /// The server answered so.
    Http,
    /// The client began, with something that is not HTTP.
    ClientFirst,
    ServerFirst,
}

impl Spoken {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::ClientFirst => "client_first",
            Self::ServerFirst => "server_first",
        }
    }
}

/// What a port is held to speak once `seen` was seen on it; what ends HTTP is an answer that is none.
pub fn learn(known: Option<Spoken>, seen: Spoken) -> Spoken {
    match known {
        Some(Spoken::Http) => Spoken::Http,
        _ => seen,
    }
}

/// How long the client may be silent before the session is opened; `None` is for ever. `configured` of zero switches it off, and
/// `http` says that the policy calls the port HTTP.
pub fn silence(known: Option<Spoken>, http: bool, configured: Duration) -> Option<Duration> {
    match known {
        _ if http || configured.is_zero() => None,
        Some(Spoken::Http) => None,
        Some(Spoken::ServerFirst) => Some(Duration::ZERO),
        Some(Spoken::ClientFirst) | None => Some(configured),
    }
}

/// What became of the session that was opened in a client's silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// It is being opened.
    Opening,
    /// It stands, and the server has said nothing.
    Standing,
    /// The server has greeted.
    Greeted,
    /// The server spoke HTTP unasked; it is closed.
    SpokeHttp,
    /// It could not be opened.
    Failed,
    /// The server ended it without a word.
    Ended,
}

/// What the client said into it, as far as it was listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Nothing,
    /// It has ended without a word: it sends nothing, and may still want to hear.
    End,
    Http,
    /// Something that is not HTTP.
    Bytes,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Bytes, over the session.
    Session,
    /// Bytes, over another session.
    Anew,
    /// HTTP. A session is closed unused.
    Http,
    /// It ends. A session is closed unused.
    End,
    /// It ends with what became of the session.
    Told,
}

pub fn way(session: Session, client: Client) -> Way {
    use Session::{Ended, Failed, Greeted, Opening, SpokeHttp, Standing};
    match (session, client) {
        (Greeted, _) | (Opening | Standing, Client::Bytes | Client::End) => Way::Session,
        (SpokeHttp | Failed | Ended, Client::Bytes) => Way::Anew,
        (_, Client::Http) => Way::Http,
        (Failed | Ended, Client::Nothing) => Way::Told,
        (_, Client::Nothing | Client::End) => Way::End,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_learned_for_good() {
        assert_eq!(learn(None, Spoken::ServerFirst), Spoken::ServerFirst);
        assert_eq!(learn(Some(Spoken::ServerFirst), Spoken::ClientFirst), Spoken::ClientFirst);
        assert_eq!(learn(Some(Spoken::ServerFirst), Spoken::Http), Spoken::Http);
        for seen in [Spoken::Http, Spoken::ClientFirst, Spoken::ServerFirst] {
            assert_eq!(learn(Some(Spoken::Http), seen), Spoken::Http);
        }
    }

    #[test]
    fn the_session_is_opened_after_a_silence_and_never_where_http_is_known() {
        let wait = Duration::from_millis(100);
        assert_eq!(silence(None, false, wait), Some(wait));
        assert_eq!(silence(Some(Spoken::ClientFirst), false, wait), Some(wait));
        assert_eq!(silence(Some(Spoken::ServerFirst), false, wait), Some(Duration::ZERO));
        assert_eq!(silence(Some(Spoken::Http), false, wait), None);
        for known in [None, Some(Spoken::ServerFirst), Some(Spoken::ClientFirst)] {
            assert_eq!(silence(known, true, wait), None, "the policy says HTTP");
            assert_eq!(silence(known, false, Duration::ZERO), None, "switched off");
        }
    }
    #[test]
    fn whoever_speaks_first_decides() {
        use Session::{Ended, Failed, Greeted, Opening, SpokeHttp, Standing};
        let table = [
            (Opening, [Way::End, Way::Session, Way::Http, Way::Session]),
            (Standing, [Way::End, Way::Session, Way::Http, Way::Session]),
            (Greeted, [Way::Session; 4]),
            (SpokeHttp, [Way::End, Way::End, Way::Http, Way::Anew]),
            (Failed, [Way::Told, Way::End, Way::Http, Way::Anew]),
            (Ended, [Way::Told, Way::End, Way::Http, Way::Anew]),
        ];
        for (session, ways) in table {
            let clients = [Client::Nothing, Client::End, Client::Http, Client::Bytes];
            assert_eq!(clients.map(|client| way(session, client)), ways, "{session:?}");
        }
    }
}
