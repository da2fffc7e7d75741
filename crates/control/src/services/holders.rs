//! Whose token is this?

use super::reviews::{NotReviewed, Reviews};
use crate::{digest::token_sha256, hub::Hub};
use std::{sync::Arc, time::SystemTime};
use tokio::sync::Semaphore;
use tonic::Status;
use weft_cluster::kubernetes::{About, NoAccount, Recorder, Tokens};
use weft_model::Identity;
use weft_telemetry::Registry;

/// Who knows.
pub(crate) enum Holders {
    /// Those that were told with the objects.
    Known(Arc<Hub>),
    /// The API server.
    Reviewed(Box<Reviewed>),
}

pub(crate) struct Reviewed {
    tokens: Tokens,
    reviews: Reviews,
    recorder: Recorder,
    /// Events under way: they are news, and many at once are dropped.
    events: Arc<Semaphore>,
}

/// Who holds a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) namespace: String,
    pub(super) account: String,
    /// Empty if the token does not say it.
    pub(super) pod: String,
}

const MAX_EVENTS: usize = 32;

impl Reviewed {
    pub(crate) fn new(tokens: Tokens, recorder: Recorder, registry: &Registry) -> Self {
        Self { tokens, reviews: Reviews::new(registry), recorder, events: Arc::new(Semaphore::new(MAX_EVENTS)) }
    }
}

impl Holders {
    /// Of a token by which somebody claims to be `identity`.
    pub(super) async fn of(&self, token: &[u8], identity: &Identity) -> Result<Holder, Status> {
        match self {
            Self::Known(hub) => {
                let Some(holder) = hub.token(&token_sha256(token)).await? else {
                    let text = "the token is not known: it belongs to no running workload";
                    return Err(Status::failed_precondition(text));
                };
                Ok(Holder { namespace: holder.namespace, account: holder.service_account, pod: holder.pod })
            }
            Self::Reviewed(reviewed) => {
                let text = std::str::from_utf8(token.trim_ascii());
                let text = text
                    .ok()
                    .filter(|t| !t.is_empty())
                    .ok_or_else(|| Status::invalid_argument("the token is no text"))?;
                let asked = reviewed.reviews.account(identity, text, reviewed.tokens.account(text)).await;
                let account = asked.map_err(|e| match e {
                    NotReviewed::Crowded => {
                        Status::resource_exhausted("too many tokens wait for their review; try again later")
                    }
                    NotReviewed::NoAccount(e) => match e {
                        NoAccount::Invalid(_) => Status::invalid_argument(e.to_string()),
                        NoAccount::Unauthenticated | NoAccount::NoServiceAccount(_) | NoAccount::Audience => {
                            Status::failed_precondition(e.to_string())
                        }
                        NoAccount::Unavailable(_) => Status::unavailable(e.to_string()),
                    },
                })?;
                Ok(Holder { namespace: account.namespace, account: account.name, pod: String::new() })
            }
        }
    }

    /// Tells that a certificate was given.
    pub(super) fn issued(&self, holder: &Holder, identity: &Identity, until: SystemTime) {
        let Self::Reviewed(reviewed) = self else { return };
        let Ok(permit) = reviewed.events.clone().try_acquire_owned() else { return };
        let about = About {
            api_version: "v1".to_owned(),
            kind: "ServiceAccount".to_owned(),
            namespace: holder.namespace.clone(),
            name: holder.account.clone(),
        };
        let until = jiff::Timestamp::try_from(until).map(|t| t.to_string()).unwrap_or_default();
        let text = format!("issued certificate for {identity} until {until}");
        let recorder = reviewed.recorder.clone();
        tokio::spawn(async move {
            recorder.record(&about, false, "IssuedLeafCertificate", &text).await;
            drop(permit);
        });
    }
}
