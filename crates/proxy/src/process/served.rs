//! What the process's own servers, admin and tap, do alike: how a connection gets its place, how long its client may take to say
//! who it is, and when it ends with a certificate. It knows nothing of what they serve.

use super::places::{Place, Places};
use crate::inbound::tls::Patience;
use std::{net::SocketAddr, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use weft_transport::lifetime::Life;

/// A client that says nothing for a second is none; its handshake may take longer on a machine that is busy.
pub(super) const PATIENCE: Patience = Patience { first: Duration::from_secs(1), whole: Duration::from_secs(10) };
/// How long nothing is accepted where that cannot be done.
const PAUSE: Duration = Duration::from_millis(100);

/// The next client of `server`, and its place; `None` once there are no places any more. Cancel-safe: a connection that is not
/// taken stays in the kernel's queue.
pub(super) async fn next(
    server: &'static str,
    listener: &TcpListener,
    places: &Places,
) -> Option<(TcpStream, SocketAddr, Place)> {
    loop {
        let room = places.room().await?;
        let (tcp, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the client is gone: neither is helped by asking again at once.
                tracing::debug!(server, %error, "A connection cannot be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        match places.take(room, client.ip()) {
            Some(place) => return Some((tcp, client, place)),
            None => tracing::debug!(server, %client, "The client has too many connections"),
        }
    }
}

/// Resolves when a connection's certificate is over; never without one. Cancel-safe.
pub(super) async fn ending(life: Option<Life>) {
    match life {
        Some(life) => life.ending().await,
        None => std::future::pending().await,
    }
}
