//! Servers that speak before their clients: what a session to one is asked, and how one that was not needed ends.
//!
//! Both directions open such sessions when a client is silent; when they do, and what follows, is theirs.

use crate::prefix::{self, Seen};
use bytes::BytesMut;
use std::{io, time::Duration};
use tokio::io::AsyncWriteExt;
use weft_transport::{
    Stream,
    detect::{self, Server},
    drain,
};

/// What came from a server to which nobody has said anything.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A greeting.
    Greeting,
    /// HTTP, as some servers send unasked.
    Http,
    /// It ended the session, in order or not.
    End(io::Result<()>),
}

/// How long the rest of a greeting may take that begins as HTTP does.
const REST: Duration = Duration::from_secs(1);
/// How long the end of a session may take that nobody waits for.
const CLOSE: Duration = Duration::from_secs(1);

/// How long a connection that has said nothing may still begin when the process ends.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Ready once a connection that waits for its first byte is given up because the process ends.
pub(crate) async fn idle_at_the_end(drain: &drain::Watch) {
    drain.signaled().await;
    tokio::time::sleep(LAST_WORD).await;
}

/// Waits for the server's first bytes, and keeps them in `said`. May be dropped at any time.
pub(crate) async fn listen(server: &mut Stream, said: &mut BytesMut) -> Heard {
    let first = match prefix::read(server, said, Duration::MAX, |_| Some(())).await {
        Ok(first) => first,
        Err(error) => return Heard::End(Err(error)),
    };
    if !matches!(first, Seen::Answer(())) {
        return Heard::End(Ok(()));
    }
    let http = prefix::read(server, said, REST, |bytes| match detect::server(bytes) {
        Server::NeedMore => None,
        Server::Http => Some(true),
        Server::Other => Some(false),
    });
    match http.await {
        Ok(Seen::Answer(true)) => Heard::Http,
        // Whatever happened behind it, these bytes are the client's.
        Ok(_) | Err(_) => Heard::Greeting,
    }
}

/// Ends a session in order, without anybody waiting for it. Must be called within a `LocalSet`.
pub(crate) fn close(mut session: Stream) {
    tokio::task::spawn_local(async move {
        // A peer that does not take the end is cut off.
        let _ = tokio::time::timeout(CLOSE, session.shutdown()).await;
    });
}
