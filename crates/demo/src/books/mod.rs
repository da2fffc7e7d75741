//! A stand-in for Linkerd's booksapp (ecosystem 12.2), with its ports, arguments, environment and failure.
//!
//! ```text
//! traffic ─► webapp ─┬─► authors ─► books     (an author's books go with the author)
//!                    └─► books ─► authors     (HEAD: is there such an author? which authors fails for a part)
//! ```
//! All of it is HTTP/1 with JSON.

mod store;
mod traffic;
mod webapp;

use crate::serve::{self, Leave};
use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use serde_json::{Value, json};
use std::{convert::Infallible, future::Future, sync::Arc};

pub(crate) use traffic::run as traffic;

/// Bytes of a request.
const MAX_BODY_BYTES: usize = 64 * 1024;

type Answer = Response<Full<Bytes>>;

/// What booksapp's containers are told by their environment.
pub(crate) struct Sites {
    pub(crate) authors: String,
    pub(crate) books: String,
    /// The share of questions after an author that fail, 0 to 1.
    pub(crate) failure_rate: f64,
}

/// Serves the part that booksapp's argument names: `prod:webapp`, `prod:authors` or `prod:books`.
pub(crate) async fn serve(part: &str, sites: Sites, leave: Leave) -> anyhow::Result<()> {
    let Sites { authors, books, failure_rate } = sites;
    match part.rsplit(':').next() {
        Some("webapp") => {
            let webapp = Arc::new(webapp::Webapp { authors: host(&authors)?, books: host(&books)? });
            answering(7000, leave, move |request| webapp.clone().answer(request)).await
        }
        Some("authors") => {
            let store = Arc::new(store::Store::new(store::Kind::Authors, host(&books)?, failure_rate));
            answering(7001, leave, move |request| store.clone().answer(request)).await
        }
        Some("books") => {
            let store = Arc::new(store::Store::new(store::Kind::Books, host(&authors)?, failure_rate));
            answering(7002, leave, move |request| store.clone().answer(request)).await
        }
        _ => bail!("{part:?} is no part: use prod:webapp, prod:authors or prod:books"),
    }
}

/// host:port of a URL.
fn host(site: &str) -> anyhow::Result<String> {
    let host = site.trim_start_matches("http://").trim_end_matches('/');
    if host.contains(':') { Ok(host.to_owned()) } else { bail!("{site:?} is no http://host:port") }
}

async fn answering<F: Future<Output = Answer> + Send + 'static>(
    port: u16,
    leave: Leave,
    answer: impl Fn(Request<Bytes>) -> F + Clone + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer.clone();
        async move {
            Ok::<_, Infallible>(match whole(request).await {
                Ok(request) if request.uri().path() == "/ping" => reply(StatusCode::OK, "pong"),
                Ok(request) => answer(request).await,
                Err(error) => reply(StatusCode::BAD_REQUEST, format!("{error:#}")),
            })
        }
    });
    serve::serve(crate::listen(port).await?, service, leave).await
}

async fn whole(request: Request<Incoming>) -> anyhow::Result<Request<Bytes>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!(error)).context("reading the request")?;
    Ok(Request::from_parts(head, body.to_bytes()))
}

/// What follows the kind in `/books/7.json` or `/books/7/edit`.
fn below<'p>(path: &'p str, kind: &str) -> Option<&'p str> {
    path.strip_prefix('/')?.strip_prefix(kind)?.strip_prefix('/')
}

fn reply(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

fn json_reply(status: StatusCode, value: &Value) -> Answer {
    reply(status, value.to_string())
}

fn failed(error: &anyhow::Error) -> Answer {
    tracing::warn!("{error:#}");
    json_reply(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": format!("{error:#}")}))
}
