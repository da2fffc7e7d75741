//! Manifests of other machines: `weft inject https://…`.
//!
//! By the client that the API server is asked with, which trusts the system's roots where nobody names others. Whatever comes is
//! bounded in bytes, in time and in how often it is somewhere else; nothing is handed on that is not whole.

use crate::manifest::{MAX_MIB, Text};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::client::Body;
use std::time::Duration;

/// From the first connection to the last byte.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often a server may say that it is somewhere else.
const MAX_REDIRECTS: usize = 10;

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    #[error("{0} is no URL: {1}")]
    Invalid(String, String),
    #[error(
        "{0} is not read: whoever is on the way could change what is applied to the cluster; use https://, or look at what \
         `curl -fsSL {0} -o FILE` has got and name FILE"
    )]
    InTheClear(String),
    #[error("{0} led to {1} redirects; name the URL at their end")]
    Redirected(String, usize),
    #[error("{0} answers {1}; check the URL")]
    Status(String, http::StatusCode),
    #[error("{0} could not be read: {1}")]
    Unreachable(String, String),
    #[error("{0} has more than {MAX_MIB} MiB; split it, or download it into a folder of files and name that")]
    TooLarge(String),
    #[error("{0} was not there after {PATIENCE:?}; download it by `curl -fsSL {0} -o FILE` and name FILE")]
    TooLate(String),
    #[error("{0} is not UTF-8 text")]
    NoText(String),
}

/// Whether somebody means a URL and no file.
pub fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// What is at a URL.
///
/// # Errors
/// See [`Failed`].
pub async fn download(url: &str) -> Result<Text, Failed> {
    tokio::time::timeout(PATIENCE, follow(url)).await.map_err(|_| Failed::TooLate(url.to_owned()))?
}

async fn follow(url: &str) -> Result<Text, Failed> {
    let mut at = parsed(url)?;
    for _ in 0..=MAX_REDIRECTS {
        match get(&at).await? {
            Got::Bytes(bytes) => {
                let text = String::from_utf8(bytes).map_err(|_| Failed::NoText(url.to_owned()))?;
                return Ok(Text { name: url.into(), text });
            }
            Got::Elsewhere(to) => at = parsed(&to)?,
        }
    }
    Err(Failed::Redirected(url.to_owned(), MAX_REDIRECTS))
}

/// A URL with a host whose server proves who it is.
fn parsed(url: &str) -> Result<http::Uri, Failed> {
    let uri: http::Uri =
        url.parse().map_err(|e: http::uri::InvalidUri| Failed::Invalid(url.to_owned(), e.to_string()))?;
    match uri.scheme_str() {
        Some("https") if uri.authority().is_some() => Ok(uri),
        Some("http") => Err(Failed::InTheClear(url.to_owned())),
        _ => Err(Failed::Invalid(url.to_owned(), "it does not begin with https:// and a host".to_owned())),
    }
}

/// Where a server says that something is, which may be said from where it was asked for (RFC 3986).
fn resolved(at: &str, location: &str) -> Result<String, Failed> {
    let to = url::Url::parse(at).and_then(|at| at.join(location));
    to.map(String::from).map_err(|e| Failed::Invalid(location.to_owned(), e.to_string()))
}

enum Got {
    Bytes(Vec<u8>),
    Elsewhere(String),
}

async fn get(uri: &http::Uri) -> Result<Got, Failed> {
    let url = uri.to_string();
    let unreachable = |error: &kube::Error| Failed::Unreachable(url.clone(), crate::kubernetes::reason(error));
    let (authority, path) =
        (uri.authority().map_or("", |a| a.as_str()), uri.path_and_query().map_or("/", |p| p.as_str()));
    let invalid = |e: String| Failed::Invalid(url.clone(), e);
    // The client has a base, to which it adds the path.
    let base = http::Uri::builder().scheme("https").authority(authority).path_and_query("/").build();
    let mut config = kube::Config::new(base.map_err(|e| invalid(e.to_string()))?);
    config.default_retry = false;
    // There is one time limit for all of it.
    (config.connect_timeout, config.write_timeout) = (None, None);
    let client = kube::Client::try_from(config).map_err(|e| unreachable(&e))?;
    let request = http::Request::get(path).header(http::header::ACCEPT, "*/*").body(Body::empty());
    let response = client.send(request.map_err(|e| invalid(e.to_string()))?).await.map_err(|e| unreachable(&e))?;
    let (head, body) = response.into_parts();
    if head.status.is_redirection() {
        let location = head.headers.get(http::header::LOCATION).and_then(|to| to.to_str().ok());
        let to = location.ok_or_else(|| Failed::Status(url.clone(), head.status))?;
        return Ok(Got::Elsewhere(resolved(&url, to)?));
    }
    if !head.status.is_success() {
        return Err(Failed::Status(url, head.status));
    }
    match Limited::new(body, MAX_MIB << 20).collect().await {
        Ok(whole) => Ok(Got::Bytes(whole.to_bytes().into())),
        Err(error) if error.is::<LengthLimitError>() => Err(Failed::TooLarge(url)),
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            Err(Failed::Unreachable(url, format!("it broke off: {error}{cause}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_that_prove_who_they_are_are_asked() {
        assert!(parsed("https://example.org/app.yml?ref=main").is_ok());
        let told = |url: &str| parsed(url).unwrap_err().to_string();
        assert!(
            told("http://example.org/app.yml").contains("use https://, or look at what `curl -fsSL http://example.org")
        );
        for bad in ["https://", "ftp://example.org/a", "example.org/app.yml", "https:///app.yml", "https://a b/"] {
            assert!(told(bad).contains("is no URL"), "{bad}");
        }
        for (text, url) in [
            ("https://a/b", true),
            ("http://a", true),
            ("file://a", true),
            ("a/b.yml", false),
            ("-", false),
            ("./a://b", false),
        ] {
            assert_eq!(is_url(text), url, "{text}");
        }
    }

    #[test]
    fn redirects_may_be_relative() {
        let at = "https://example.org:8443/a/b/app.yml?ref=main";
        for (location, to) in [
            ("https://other.org/x?y#z", "https://other.org/x?y#z"),
            ("//other.org/x", "https://other.org/x"),
            ("/x", "https://example.org:8443/x"),
            ("x", "https://example.org:8443/a/b/x"),
            ("./x/", "https://example.org:8443/a/b/x/"),
            ("../x", "https://example.org:8443/a/x"),
            ("../../../x", "https://example.org:8443/x"),
            ("?ref=v1", "https://example.org:8443/a/b/app.yml?ref=v1"),
        ] {
            assert_eq!(resolved(at, location).unwrap(), to, "{location}");
            assert!(parsed(to).is_ok());
        }
        for (location, why) in [("http://other.org/", "use https://"), ("file:///x", "no URL"), ("https://", "no URL")]
        {
            let told = resolved(at, location).and_then(|to| parsed(&to)).unwrap_err().to_string();
            assert!(told.contains(why), "{location}: {told}");
        }
    }

    /// The kernel takes the connection, and nobody says anything on it.
    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_waited_for_so_long_and_no_longer() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}/app.yml", silent.local_addr().unwrap());
        let begin = tokio::time::Instant::now();
        assert!(matches!(download(&url).await, Err(Failed::TooLate(named)) if named == url));
        assert_eq!(begin.elapsed(), PATIENCE);
    }
}
