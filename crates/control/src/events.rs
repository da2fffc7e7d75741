//! The stream of events from whoever knows the objects: read, reconnected, resynchronized.

use crate::hub::Hub;
use std::{io, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::UnixStream,
};
use tokio_util::sync::CancellationToken;
use weft_cluster::Event;
use weft_cluster::source::{MAX_LINE_BYTES, Resync};
use weft_telemetry::readiness::Task;

/// The peer is on this machine: it is back soon or it is gone.
const BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Follows the stream until `stop`. `unsynced` is dropped when the first list is complete. What is known stays while the
/// stream is away.
pub(crate) async fn follow(socket: PathBuf, hub: Arc<Hub>, unsynced: Task, stop: CancellationToken) {
    let mut resync = Resync::default();
    let (mut unsynced, mut backoff) = (Some(unsynced), BACKOFF);
    while !stop.is_cancelled() {
        match stop.run_until_cancelled(connection(&socket, &hub, &mut resync, &mut unsynced, &mut backoff)).await {
            None => return,
            Some(Ok(())) => tracing::info!("event stream ended"),
            // Nobody listens yet, or no more: the usual state between two lives of the peer.
            Some(Err(error)) => tracing::debug!(%error, "event stream failed"),
        }
        if stop.run_until_cancelled(tokio::time::sleep(backoff)).await.is_none() {
            return;
        }
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

async fn connection(
    socket: &PathBuf,
    hub: &Hub,
    resync: &mut Resync,
    unsynced: &mut Option<Task>,
    backoff: &mut Duration,
) -> io::Result<()> {
    let mut reader = BufReader::new(UnixStream::connect(socket).await?);
    resync.connected();
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        if (&mut reader).take(limit).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        // A line without its end is cut off, by the peer's death or by the limit.
        let Some(text) = line.strip_suffix(b"\n") else { return Err(invalid("the line is cut off")) };
        let text = std::str::from_utf8(text).map_err(|_| invalid("the line is no text"))?;
        let events = resync.line(text).map_err(|e| {
            tracing::warn!(error = %e, "event refused");
            invalid("the line is no event")
        })?;
        if events.last() == Some(&Event::Synced) {
            hub.apply(events);
            *backoff = BACKOFF;
            drop(unsynced.take());
        }
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
