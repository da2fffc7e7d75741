//! What is asked, in a line, and what came of it, in another one.

use super::{Mesh, NAMESPACE, app};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Longest that the clients' own answer takes: what they ask takes 30 s at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// `METHOD SERVICE/PATH`, or `CALL SERVICE/PATH` for a call of gRPC, and behind it `NAME:VALUE` for each header. `as:ACCOUNT` says
/// who asks (else it is the client that loads), `body:BYTES` how much is sent, `http:2` over which protocol, `times:N` how often;
/// `echo-key:*` is another key each time.
pub(super) struct Ask<'a> {
    line: &'a str,
    by: &'a str,
    method: &'a str,
    to: &'a str,
    path: String,
    headers: Vec<(&'a str, String)>,
    body: usize,
    http2: bool,
    times: usize,
}

impl<'a> Ask<'a> {
    /// # Panics
    /// It is none.
    pub(super) fn read(line: &'a str) -> Self {
        static KEY: AtomicU64 = AtomicU64::new(0);
        let mut words = line.split(' ');
        let (method, target) = words.next().zip(words.next()).unwrap_or_else(|| panic!("{line:?} asks for nothing"));
        let (to, path) = target.split_once('/').unwrap_or_else(|| panic!("{line:?} has no path"));
        let is_call = method == "CALL";
        let mut ask = Self {
            line,
            by: app::CLIENTS[0],
            method: if is_call { "POST" } else { method },
            to,
            path: format!("/{path}"),
            headers: if is_call { vec![("content-type", "application/grpc".to_owned())] } else { vec![] },
            body: 0,
            http2: is_call,
            times: 1,
        };
        for word in words {
            let (name, value) = word.split_once(':').unwrap_or_else(|| panic!("{line:?}: {word:?} has no value"));
            let number = || value.parse().unwrap_or_else(|error| panic!("{line:?}: {word}: {error}"));
            match (name, value) {
                ("as", account) => ask.by = account,
                ("body", _) => ask.body = number(),
                ("http", "2") => ask.http2 = true,
                ("times", _) => ask.times = number(),
                ("echo-key", "*") => ask.headers.push((name, KEY.fetch_add(1, Relaxed).to_string())),
                _ => ask.headers.push((name, value.to_owned())),
            }
        }
        ask
    }

    fn host(&self) -> &str {
        let given = self.headers.iter().find(|(name, _)| *name == "host");
        given.map_or(self.to, |(_, value)| value)
    }

    fn json(&self, outside: SocketAddr) -> Value {
        let to = if self.to == "outside" { outside.to_string() } else { format!("{}:80", self.to) };
        let mut headers: Vec<_> = self.headers.iter().filter(|(name, _)| *name != "host").cloned().collect();
        headers.push(("host", self.host().to_owned()));
        json!({"to": to, "method": self.method, "path": self.path, "headers": headers, "body": self.body, "http2": self.http2, "times": self.times})
    }

    /// In a line: the status, and behind a slash the code of gRPC if there is one, then who saw which request or, if nobody did, the
    /// code of the mesh or where it leads.
    fn told(&self, answer: &Value) -> String {
        let Some(status) = answer["status"].as_u64() else {
            return format!("none: {}", answer["error"].as_str().unwrap_or_default());
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let code = answer["headers"]["grpc-status"].as_str().map(|code| format!("/{code}")).unwrap_or_default();
        let status = format!("{status}{code}");
        let body = said(answer);
        let Some(name) = body["name"].as_str() else {
            let (error, location) = (text(&answer["headers"]["l5d-proxy-error"]), text(&answer["headers"]["location"]));
            let code = error.strip_suffix(']').and_then(|text| text.rsplit_once('[')).map(|(_, code)| code.to_owned());
            let what = if location.is_empty() { code } else { Some(format!("to {location}")) };
            return what.map_or_else(|| status.clone(), |what| format!("{status} {what}"));
        };
        // A pod has the name of its workload and more.
        let who = name.split('-').next().unwrap_or_default();
        let mut told = format!("{status} {who}: {} {}", text(&body["method"]), text(&body["path"]));
        let host = text(&body["host"]);
        if host != self.host() {
            told += &format!(" of {host}");
        }
        let custom = |headers: &Value| -> Vec<(String, String)> {
            let all = headers.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-"));
            let value = |value: &Value| match value.as_array() {
                Some(values) => values.iter().map(text).collect::<Vec<_>>().join(","),
                None => text(value),
            };
            all.map(|(name, of)| (name.clone(), value(of))).collect()
        };
        for (name, value) in custom(&body["headers"]) {
            told += &format!(" {name}={value}");
        }
        if let Some(seen) = body["seen"].as_u64() {
            told += &format!(", seen {seen}");
        }
        for (name, value) in custom(&answer["headers"]) {
            told += &format!(", answered {name}={value}");
        }
        told
    }
}

/// What the server has seen, which it says in its answer or, where a call failed, in the message of that.
fn said(answer: &Value) -> Value {
    let body = answer["body"].as_str().unwrap_or_default();
    let message = answer["headers"]["grpc-message"].as_str().unwrap_or_default().replace("%25", "%");
    serde_json::from_str(body).or_else(|_| serde_json::from_str(&message)).unwrap_or_default()
}

/// What one request got.
pub(super) struct Answer {
    /// In a line.
    pub(super) told: String,
    /// All of it.
    whole: Value,
}

impl Answer {
    pub(super) fn status(&self) -> Option<u64> {
        self.whole["status"].as_u64()
    }

    /// The pod that has seen it.
    pub(super) fn pod(&self) -> Option<String> {
        said(&self.whole)["name"].as_str().map(str::to_owned)
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} ({})", self.told, self.whole)
    }
}

/// What comes of all of these, each asked at the same time as the others.
pub(super) fn asked(mesh: &dyn Mesh, lines: &[&str]) -> Result<Vec<Vec<Answer>>> {
    let asks: Vec<_> = lines.iter().map(|line| Ask::read(line)).collect();
    let mut all: Vec<Vec<Answer>> = asks.iter().map(|_| vec![]).collect();
    for client in app::CLIENTS {
        let own: Vec<_> = asks.iter().zip(&mut all).filter(|(ask, _)| ask.by == client).collect();
        if own.is_empty() {
            continue;
        }
        let told = Value::from_iter(own.iter().map(|(ask, _)| ask.json(mesh.outside())));
        let answers = call(mesh.client(client), "POST", "/ask", &told.to_string())?;
        let answers = answers.as_array().cloned().unwrap_or_default();
        ensure!(answers.len() == own.len(), "{client} has not asked all: {answers:?}");
        for ((ask, into), answers) in own.into_iter().zip(answers) {
            into.extend(
                answers
                    .as_array()
                    .cloned()
                    .unwrap_or_default()
                    .into_iter()
                    .map(|whole| Answer { told: ask.told(&whole), whole }),
            );
            ensure!(into.len() == ask.times, "{}: {} answers", ask.line, into.len());
        }
    }
    Ok(all)
}

/// How often the load has had which outcome: a status, and the code of the mesh behind it.
pub(super) fn load(mesh: &dyn Mesh) -> Result<Vec<(String, u64)>> {
    let counts = call(mesh.client(app::CLIENTS[0]), "GET", "/load", "")?;
    let counts = counts.as_object().cloned().unwrap_or_default();
    Ok(counts.into_iter().map(|(outcome, count)| (outcome, count.as_u64().unwrap_or_default())).collect())
}

/// Asks a client's own port, over a connection of its own. That is not waited for to end: behind a forwarded port it takes a second.
fn call(addr: SocketAddr, method: &str, path: &str, body: &str) -> Result<Value> {
    let what = || format!("{method} {path} of a client in the namespace {NAMESPACE}, at {addr}");
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).with_context(what)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {addr}\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).with_context(what)?;
    let (mut reader, mut head, mut length) = (BufReader::new(stream), String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let before = head.len();
        ensure!(reader.read_line(&mut head).with_context(what)? > 0, "{}: it ended: {head}", what());
        if let Some(value) = head.get(before..).and_then(|line| line.strip_prefix("content-length: ")) {
            length = value.trim().parse().with_context(what)?;
        }
    }
    let mut answer = vec![0; length];
    reader.read_exact(&mut answer).with_context(what)?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{}: {head}{}", what(), String::from_utf8_lossy(&answer));
    serde_json::from_slice(&answer).with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_is_asked_and_what_came_of_it() {
        let ask = Ask::read("PUT web/a?b=c x-a:1 as:guest body:3 times:2 echo-key:*");
        let outside = "203.0.113.7:80".parse().unwrap();
        let json = ask.json(outside);
        assert_eq!((ask.by, ask.times, &json["to"], &json["body"]), ("guest", 2, &json!("web:80"), &json!(3)));
        assert_eq!(json["headers"][0], json!(["x-a", "1"]));
        assert_eq!(json["headers"][2], json!(["host", "web"]));
        let body = json!({"name": "web-1-2", "method": "PUT", "path": "/d", "host": "inner", "seen": 3, "headers": {"x-a": ["1", "2"], "accept": ["all"]}});
        let answer = json!({"status": 200, "headers": {"x-b": "3", "date": "now"}, "body": body.to_string()});
        assert_eq!(ask.told(&answer), "200 web: PUT /d of inner x-a=1,2, seen 3, answered x-b=3");
        let failed = json!({"status": 504, "headers": {"l5d-proxy-error": "nobody is there [FAILFAST]"}, "body": ""});
        assert_eq!(ask.told(&failed), "504 FAILFAST");
        let message = json!({"name": "web-1", "method": "POST", "path": "/a%20b", "host": "web"});
        let message = message.to_string().replace('%', "%25");
        let refused = json!({"status": 200, "headers": {"grpc-status": "14", "grpc-message": message}, "body": ""});
        assert_eq!(ask.told(&refused), "200/14 web: POST /a%20b");
        let led = json!({"status": 301, "headers": {"location": "http://web/b", "l5d-proxy-error": "so [REDIRECT]"}, "body": ""});
        assert_eq!(ask.told(&led), "301 to http://web/b");
        assert_eq!(ask.told(&json!({"error": "closed"})), "none: closed");
        let call = Ask::read("CALL web/shop.v1.Prices/Quote").json(outside);
        assert_eq!((&call["method"], &call["http2"]), (&json!("POST"), &json!(true)));
        assert_eq!(call["headers"][0], json!(["content-type", "application/grpc"]));
        let outside_ask = Ask::read("GET outside/v1 host:api.example");
        assert_eq!(outside_ask.json(outside)["to"], json!("203.0.113.7:80"));
        assert_eq!(outside_ask.json(outside)["headers"], json!([["host", "api.example"]]));
    }
}
