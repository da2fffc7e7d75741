//! Bytes between a client's connection and a server's: what both directions do with what is not HTTP.
//!
//! Behind everything that decides; it must not know why a connection is cut off.

use crate::records::Forwarded;
use weft_transport::{Stream, copy};

/// Carries bytes until both sides have ended, or until `cut` is ready: then both see a reset, for nothing has come to its end.
pub(crate) async fn bytes(
    client: &mut Stream,
    server: &mut Stream,
    forwarded: &mut Forwarded,
    cut: impl Future<Output = ()>,
) -> Result<(), copy::Failure> {
    tokio::select! {
        outcome = copy::duplex(client, server, |from, bytes| forwarded.count(from, bytes)) => outcome.result,
        // What is dropped of the copy holds nothing that must be finished.
        () = cut => {
            client.reset_on_close();
            server.reset_on_close();
            Ok(())
        }
    }
}
