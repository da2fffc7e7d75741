//! Asks one proxy for its metrics over a connection that the caller made.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Longest a scrape may take, and most bytes it may have.
pub const PATIENCE: Duration = Duration::from_secs(2);
pub const MAX_BYTES: usize = 64 << 20;

/// Why a proxy gave no metrics.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    #[error("no answer within {PATIENCE:?}")]
    Timeout,
    #[error("the answer has status {0}")]
    Status(u16),
    #[error("the answer is larger than {MAX_BYTES} bytes or broke off: {0}")]
    Body(String),
    #[error("the answer is no text")]
    Text,
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

/// The text of `GET /metrics`.
///
/// # Errors
/// No answer in [`PATIENCE`], another status than 200, or more than [`MAX_BYTES`].
pub async fn scrape(connection: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<String, ScrapeError> {
    tokio::time::timeout(PATIENCE, ask(connection)).await.map_err(|_| ScrapeError::Timeout)?
}

async fn ask(connection: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<String, ScrapeError> {
    let (mut sender, driver) = http1::handshake(TokioIo::new(connection)).await?;
    let driver = tokio::spawn(driver);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = http::Uri::from_static("/metrics");
    request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("proxy"));
    let response = sender.send_request(request).await?;
    if response.status() != 200 {
        return Err(ScrapeError::Status(response.status().as_u16()));
    }
    let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
    driver.abort();
    let bytes = body.map_err(|e| ScrapeError::Body(e.to_string()))?.to_bytes();
    String::from_utf8(bytes.into()).map_err(|_| ScrapeError::Text)
}
