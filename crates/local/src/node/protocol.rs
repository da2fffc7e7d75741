//! What supervisor and node say to each other, over one socket pair with descriptors.
//!
//! Requests carry a number and are answered by it, in any order; events come without being asked.

use crate::launch::Launch;
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// What the supervisor asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) number: u64,
    pub(crate) what: What,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum What {
    /// Makes the bridge. The answer has the sockets of [`Bridge::listen`] and [`Bridge::udp`], in this order.
    Bridge(Bridge),
    /// Makes a network namespace beside the bridge.
    Attach(Attach),
    /// Puts nft rules in force in a namespace.
    Rules {
        net: Net,
        ruleset: String,
    },
    /// Ends what is left of a namespace.
    Detach {
        net: u64,
    },
    /// Starts a process; descriptor 0 is where it writes.
    Spawn {
        process: u64,
        net: Net,
        launch: Box<Launch>,
        /// In the namespaces of this process instead of new ones.
        beside: Option<u64>,
    },
    /// Makes a folder empty for all processes, those that come as well.
    Hide {
        folder: PathBuf,
    },
    Signal {
        process: u64,
        signal: Signal,
    },
    /// Connects; the answer has the socket.
    Dial {
        net: Net,
        addr: SocketAddr,
        timeout_ms: u64,
    },
    /// Ends PID 1, and with it everything at once. There is no answer.
    End,
}

/// A network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Net {
    /// The node's own, with the bridge.
    Bridge,
    /// One made by [`What::Attach`].
    Attached(u64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bridge {
    pub(crate) addresses: Vec<Address>,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) udp: Vec<SocketAddr>,
    pub(crate) ruleset: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Attach {
    /// Chosen by the supervisor, never used twice.
    pub(crate) net: u64,
    pub(crate) addresses: Vec<Address>,
    /// Default routes.
    pub(crate) gateways: Vec<IpAddr>,
    /// In force before the link is up.
    pub(crate) ruleset: String,
}

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) ip: IpAddr,
    pub(crate) prefix: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Signal {
    Terminate,
    Kill,
}

/// What the node says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Say {
    /// Descriptors come with it where the request asks for some.
    Done {
        number: u64,
        reply: Reply,
    },
    Exited {
        process: u64,
        how: Exit,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    /// With a pidfd, whose number each process namespace sees as its own.
    Started,
    Failed {
        text: String,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with status {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(name) => write!(f, "was ended by {}", name.as_str()),
                Err(_) => write!(f, "was ended by signal {signal}"),
            },
        }
    }
}

/// What the node says before it takes requests, on the same socket pair.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Hello {
    /// It is in a user namespace without ids: the supervisor, which may, writes the whole map.
    MapIds { pid: u32 },
    /// PID 1 is at work.
    Ready,
    /// It cannot be: what was tried and the kernel's answer.
    Failed { what: String, errno: i32 },
}
