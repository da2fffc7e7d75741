//! The traffic: an author and two books come, are looked at, and go, again and again.

use crate::client::Client;
use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, StatusCode, header::LOCATION};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest a request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Times that a form is sent: half of those of new books fail.
const TRIES: u32 = 100;

/// Asks as booksapp's traffic does, which is told where by its last word, and when to begin by `-initial-delay=30s`.
pub(crate) async fn run(words: &[String]) -> anyhow::Result<()> {
    let (host, options) = words.split_last().context("traffic wants host:port of webapp")?;
    for option in options {
        let seconds = option.trim_start_matches('-').strip_prefix("initial-delay=").and_then(|d| d.strip_suffix('s'));
        match seconds.and_then(|seconds| seconds.parse().ok()) {
            Some(seconds) => sleep(Duration::from_secs(seconds)).await,
            None => bail!("{option:?} is not understood: use -initial-delay=SECONDSs"),
        }
    }
    let mut webapp = Webapp(Client::new(host));
    loop {
        match webapp.round().await {
            Ok(()) => tracing::info!("round"),
            Err(error) => tracing::warn!("{error:#}"),
        }
    }
}

struct Webapp(Client);

impl Webapp {
    async fn round(&mut self) -> anyhow::Result<()> {
        self.look("/").await?;
        let author = self.send("/authors", &json!({"first_name": "Ernest", "last_name": "Cline"})).await?;
        self.look(&author).await?;
        let id: u64 = author.rsplit('/').next().and_then(|id| id.parse().ok()).context("an author has no number")?;
        let mut books = vec![];
        for title in ["Ready Player One", "Armada"] {
            books.push(self.send("/books", &json!({"title": title, "author_id": id})).await?);
        }
        for book in &books {
            self.look(book).await?;
            self.send(&format!("{book}/edit"), &json!({"pages": 42})).await?;
        }
        for book in books.iter().take(1) {
            self.send(&format!("{book}/delete"), &json!({})).await?;
        }
        self.send(&format!("{author}/delete"), &json!({})).await?;
        Ok(())
    }

    async fn look(&mut self, path: &str) -> anyhow::Result<()> {
        sleep(PAUSE).await;
        match timeout(PATIENCE, self.0.get(path)).await.context("no answer in time")?? {
            200 => Ok(()),
            status => bail!("GET {path}: {status}"),
        }
    }

    /// Sends a form until it leads on, and returns where to.
    async fn send(&mut self, path: &str, form: &Value) -> anyhow::Result<String> {
        for _ in 0..TRIES {
            sleep(PAUSE).await;
            let sent = self.0.send(Method::POST, path, Bytes::from(form.to_string()));
            let answer = timeout(PATIENCE, sent).await.context("no answer in time")??;
            if answer.status() == StatusCode::SEE_OTHER {
                let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
                return Ok(to.context("303 leads nowhere")?.to_owned());
            }
        }
        bail!("POST {path} did not succeed {TRIES} times")
    }
}
