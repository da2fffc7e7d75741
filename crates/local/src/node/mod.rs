//! The node: makes namespaces, links, rules and processes as the supervisor asks, and has no opinions.
//!
//! ```text
//! __node        outer: new user, mount, PID, network, IPC namespaces, then waits
//!   __node-init   PID 1: serves requests until the supervisor is gone
//!     __launch      each process, see `launch`
//! ```
//!
//! When the supervisor dies, the kernel kills the outer process, then PID 1, and with it everything inside; nothing has to
//! be cleaned up. It must not touch the host's namespaces: it left them before it read its first request.

mod network;
mod outer;
mod process;
pub(crate) mod protocol;
mod serve;

pub(crate) use outer::outer;
pub(crate) use serve::init;

/// Where processes of the node find the socket to the supervisor: their standard input.
pub(crate) mod arguments {
    pub(crate) const OUTER: &str = "__node";
    /// The supervisor maps all users that it has.
    pub(crate) const ALL_USERS: &str = "all-users";
    pub(crate) const INIT: &str = "__node-init";
    pub(crate) const LAUNCH: &str = "__launch";
}
