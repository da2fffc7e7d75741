//! How the exchange of an HTTP/1 client ends, whatever carries it to the endpoint.

use crate::error::ProxyError;

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Keep,
    Close,
    /// What was announced did not come to its end, and the client must be able to tell.
    Reset,
}

/// Why an exchange ended without an answer from the endpoint.
#[derive(Debug)]
pub(super) enum Failed {
    /// To be answered by the proxy.
    Reply(ProxyError),
    /// Nobody is left to answer.
    ClientGone,
}

/// Why nothing of a response came.
pub(super) enum NoResponse {
    Failed(Failed),
    /// The request stands unread in the buffer, and the endpoint has not looked at it, or looking at it twice does no harm:
    /// another may be asked.
    Repeatable {
        error: ProxyError,
        /// The connection was made for this request and closed by a server that may have seen it: one other is asked, and no
        /// third, lest a request that ends servers ends them all.
        fresh: bool,
    },
}
