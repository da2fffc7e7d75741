//! What the two processes say to each other.

use serde::{Deserialize, Serialize};
use std::{io, net::TcpListener, os::fd::BorrowedFd};
use tokio::net::UnixStream;
use weft_transport::fdpass;

/// The value of `WEFT_PROXY_UPGRADE_SOCKET` in the new process: the socket pair is its standard input.
pub(super) const STDIN: &str = "stdin";
/// The variable that tells a process that it takes over.
pub(super) const VARIABLE: &str = "WEFT_PROXY_UPGRADE_SOCKET";

/// The parts of a long answer, each well below the bound of a message.
pub(super) const PART: usize = fdpass::MAX_BYTES / 4;

/// What a listening socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::process) enum Role {
    Admin,
    Inbound,
    Outbound,
    Tap,
}

impl Role {
    pub(in crate::process) fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Tap => "tap",
        }
    }
}

/// From the old process.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromOld {
    /// What the descriptors beside it are for, in their order.
    Listeners(Vec<Role>),
    /// Its gauges, or a part of them.
    Gauges { text: String, more: bool },
}

/// From the new process.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromNew {
    /// It is certified and accepts connections.
    Ready,
    /// It wants to know the old one's gauges.
    Scrape,
}

/// A listening socket of the old process.
#[derive(Debug)]
pub(in crate::process) struct Handed {
    pub(in crate::process) role: Role,
    pub(in crate::process) socket: TcpListener,
}

pub(super) async fn send(socket: &UnixStream, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    fdpass::send_async(socket, &serde_json::to_vec(message)?, fds).await
}

/// `None` when the other process is gone.
pub(super) async fn receive<M: for<'m> Deserialize<'m>>(socket: &UnixStream) -> io::Result<Option<M>> {
    let Some(message) = fdpass::recv_async(socket).await? else { return Ok(None) };
    Ok(Some(serde_json::from_slice(&message.bytes)?))
}

/// Cuts at ends of lines where it can.
pub(super) fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut rest) = (vec![], text);
    while rest.len() > PART {
        let most = rest.get(..rest.floor_char_boundary(PART)).unwrap_or_default();
        let at = most.rfind('\n').map_or(most.len(), |at| at + 1);
        let Some((part, behind)) = rest.split_at_checked(at) else { break };
        parts.push(part);
        rest = behind;
    }
    parts.push(rest);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_answers_are_cut_at_ends_of_lines() {
        assert_eq!(parts(""), [""]);
        assert_eq!(parts("a 1\n"), ["a 1\n"]);
        // The second is cut amid a letter of two bytes, were it cut by bytes alone.
        for line in ["a_long_name{with=\"labels\"} 1\n", "a{of=\"Größe\"} 1\n"] {
            let text = line.repeat(PART / 5);
            let cut = parts(&text);
            assert!(cut.len() > 2 && cut.iter().all(|part| part.len() <= PART && part.ends_with('\n')), "{line}");
            assert_eq!(cut.concat(), text);
        }
        let text = format!("a{}", "ö".repeat(PART));
        let cut = parts(&text);
        assert!(cut.len() > 2 && cut.iter().all(|part| part.len() <= PART));
        assert_eq!(cut.concat(), text);
    }
}
