//! Echo: says what it was asked for, and fails or is slow as headers of the request want it.
//!
//! | header | |
//! |---|---|
//! | `echo-status`, `echo-delay-ms` | what to answer with, and how late |
//! | `echo-grpc-status` | the code of gRPC to fail with, as a server does that has no message to send: what it says stands in `grpc-message` |
//! | `echo-key` | under which name to count the request; the answer says how many there were |
//! | `echo-first` | only the first so many of this name are answered like that, the others at once and well |
//! | `echo-at` | only the server of this name answers like that |

use crate::{
    serve::{self, Leave},
    web::json_reply,
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, time::sleep};

/// Bytes of a request.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Longest that an answer is held back.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// Names that are counted under; the next one begins all anew.
const MAX_KEYS: usize = 10_000;

struct Echo {
    name: String,
    seen: Mutex<HashMap<String, u64>>,
}

/// How the request wants to be answered.
struct Wish {
    status: StatusCode,
    grpc: Option<u16>,
    delay: Duration,
    first: Option<u64>,
    at: Option<String>,
}

pub(crate) async fn serve(listener: TcpListener, name: String, leave: Leave) -> anyhow::Result<()> {
    let echo = Arc::new(Echo { name, seen: Mutex::default() });
    let service = service_fn(move |request| {
        let echo = echo.clone();
        async move { Ok::<_, Infallible>(echo.answer(request).await) }
    });
    serve::serve(listener, service, leave).await
}

impl Echo {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        // Before anything is waited for: who gives up has been here.
        let seen = text(&head.headers, "echo-key").map(|key| self.count(key));
        let wish = match Wish::of(&head.headers) {
            Ok(wish) => wish,
            Err(error) => return json_reply(StatusCode::BAD_REQUEST, &json!({"error": error})),
        };
        let body = match Limited::new(body, MAX_BODY_BYTES).collect().await {
            Ok(body) => body.to_bytes().len(),
            Err(error) => return json_reply(StatusCode::BAD_REQUEST, &json!({"error": error.to_string()})),
        };
        let (mut status, mut grpc) = (StatusCode::OK, None);
        if wish.is_for(&self.name, seen) {
            sleep(wish.delay).await;
            (status, grpc) = (wish.status, wish.grpc);
        }
        let host = text(&head.headers, HOST.as_str()).or(head.uri.authority().map(|authority| authority.as_str()));
        let mut headers = BTreeMap::<&str, Vec<_>>::new();
        for (name, value) in &head.headers {
            headers.entry(name.as_str()).or_default().push(String::from_utf8_lossy(value.as_bytes()));
        }
        let said = json!({
            "name": self.name,
            "method": head.method.as_str(),
            "path": head.uri.path_and_query().map_or("*", |path| path.as_str()),
            "host": host,
            "headers": headers,
            "body": body,
            "seen": seen,
        });
        match grpc {
            Some(code) => failed_call(code, &said),
            None => json_reply(status, &said),
        }
    }

    /// How many there were under this name, this one included.
    fn count(&self, key: &str) -> u64 {
        let mut seen = self.seen.lock();
        if seen.len() >= MAX_KEYS && !seen.contains_key(key) {
            seen.clear();
        }
        let count = seen.entry(key.to_owned()).or_default();
        *count += 1;
        *count
    }
}

impl Wish {
    fn of(headers: &HeaderMap) -> Result<Self, String> {
        let status = number(headers, "echo-status", 200)?;
        let delay = number(headers, "echo-delay-ms", 0)?;
        Ok(Self {
            status: StatusCode::from_u16(status).map_err(|error| format!("echo-status: {error}"))?,
            grpc: text(headers, "echo-grpc-status").map(|_| number(headers, "echo-grpc-status", 0)).transpose()?,
            delay: Duration::from_millis(delay).min(MAX_DELAY),
            first: text(headers, "echo-first").map(|_| number(headers, "echo-first", 0)).transpose()?,
            at: text(headers, "echo-at").map(str::to_owned),
        })
    }

    fn is_for(&self, name: &str, seen: Option<u64>) -> bool {
        let is_early = self.first.is_none_or(|first| seen.is_none_or(|seen| seen <= first));
        is_early && self.at.as_ref().is_none_or(|at| at == name)
    }
}

/// A head alone, whose message has its percent signs escaped.
fn failed_call(code: u16, said: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", code.into());
    if let Ok(message) = HeaderValue::try_from(said.to_string().replace('%', "%25")) {
        headers.insert("grpc-message", message);
    }
    response
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn number<N: std::str::FromStr>(headers: &HeaderMap, name: &str, without: N) -> Result<N, String> {
    let Some(text) = text(headers, name) else { return Ok(without) };
    text.parse().map_err(|_| format!("{name}: {text:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;

    #[tokio::test]
    async fn it_answers_as_it_is_asked_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (_tell, leave) = Leave::new(Duration::ZERO);
        tokio::spawn(serve(listener, "one".to_owned(), leave));
        let mut client = Client::new(&host);
        let mut ask = async |headers: &[(&str, &str)]| {
            let builder = Request::builder().method("PUT").uri("/a?b=c").header("host", "other.example");
            let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
            let answer = client.request(builder.body(Full::new(Bytes::from_static(b"body"))).unwrap()).await.unwrap();
            let message = answer.headers().get("grpc-message").map(|message| message.as_bytes());
            let said = message.unwrap_or(answer.body());
            (answer.status().as_u16(), serde_json::from_slice::<Value>(said).unwrap())
        };
        let (status, said) = ask(&[("x-a", "1"), ("x-a", "2")]).await;
        assert_eq!((status, &said["name"], &said["path"]), (200, &json!("one"), &json!("/a?b=c")), "{said}");
        assert_eq!((&said["method"], &said["host"]), (&json!("PUT"), &json!("other.example")), "{said}");
        assert_eq!((&said["headers"]["x-a"], &said["body"]), (&json!(["1", "2"]), &json!(4)), "{said}");
        let failing = [("echo-key", "k"), ("echo-first", "1"), ("echo-status", "503")];
        let (status, said) = ask(&failing).await;
        assert_eq!((status, &said["seen"]), (503, &json!(1)));
        let (status, said) = ask(&failing).await;
        assert_eq!((status, &said["seen"]), (200, &json!(2)));
        assert_eq!(ask(&[("echo-status", "503"), ("echo-at", "another")]).await.0, 200);
        let (status, said) = ask(&[("echo-grpc-status", "14"), ("echo-key", "call")]).await;
        assert_eq!((status, &said["name"], &said["seen"]), (200, &json!("one"), &json!(1)), "{said}");
        let (status, said) = ask(&[("echo-delay-ms", "long")]).await;
        assert_eq!((status, &said["error"]), (400, &json!("echo-delay-ms: \"long\" is no number")));
    }
}
