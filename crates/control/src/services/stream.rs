//! What the streams of all services have in common: answers sent whole, and how a stream ends.

use crate::hub::{self, Subscription};
use futures_util::stream;
use tonic::Status;
use weft_cluster::index::Answer;
use weft_wire::Outgoing;

/// A stream that sends each answer as a whole. A refusal ends it, so that the client looks up again.
pub(super) async fn whole<T: Send + 'static>(
    mut subscription: Subscription,
    extract: fn(&Answer) -> Option<T>,
) -> Result<Outgoing<T>, Status> {
    let first = answer(&mut subscription, extract).await?;
    let first = stream::once(async { Ok(first) });
    let rest = stream::unfold(Some(subscription), move |subscription| async move {
        let mut subscription = subscription?;
        let next = answer(&mut subscription, extract).await;
        let goes_on = next.is_ok().then_some(subscription);
        Some((next, goes_on))
    });
    Ok(Box::pin(stream::StreamExt::chain(first, rest)))
}

async fn answer<T>(subscription: &mut Subscription, extract: fn(&Answer) -> Option<T>) -> Result<T, Status> {
    let newest = subscription.next().await.ok_or_else(ended)?;
    match &newest.versioned.answer {
        Ok(answer) => extract(answer).ok_or_else(|| Status::internal("the index answered another question")),
        Err(refusal) => Err(hub::status(refusal)),
    }
}

pub(super) fn ended() -> Status {
    Status::unavailable("the control plane is shutting down")
}
