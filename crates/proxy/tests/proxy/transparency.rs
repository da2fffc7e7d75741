//! What a client and a server say to each other is the same with the mesh between them as without it: a thousand generated
//! exchanges, byte by byte on HTTP/1, name by name where HTTP/2 carries them.

use crate::{harness::soon, mesh::Mesh};
use bytes::Bytes;
use fastrand::Rng;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use weft_model::ProtocolHint;
use weft_testkit::{http1, http2};

const EXCHANGES: usize = 1_000;
/// These are of one connection, or of the mesh.
const NOT_COMPARED: [&str; 3] = ["connection", "transfer-encoding", "l5d-client-id"];

type Fields = Vec<(String, Vec<u8>)>;

/// An exchange as both sides want it.
struct Case {
    method: &'static str,
    target: String,
    request: Half,
    status: u16,
    response: Half,
}

struct Half {
    fields: Fields,
    framing: Framing,
    body: Vec<u8>,
    trailers: Fields,
}

#[derive(Clone, Copy, PartialEq)]
enum Framing {
    None,
    Length,
    Chunked,
    Close,
}

/// What one side heard: the first line, fields, body, trailers.
#[derive(Debug, PartialEq)]
struct Heard {
    line: String,
    fields: Fields,
    body: Vec<u8>,
    trailers: Fields,
}

fn text(rng: &mut Rng, from: &str, length: std::ops::Range<usize>) -> String {
    let from: Vec<char> = from.chars().collect();
    (0..rng.usize(length)).map(|_| from[rng.usize(..from.len())]).collect()
}

fn fields(rng: &mut Rng, prefix: &str, most: usize) -> Fields {
    let tokens = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~";
    (0..rng.usize(..most))
        .map(|_| {
            // Some names come twice.
            let name = if rng.u8(..4) == 0 { "Twice".to_owned() } else { text(rng, tokens, 1..20) };
            let value = (0..rng.usize(..40)).map(|_| match rng.u8(..10) {
                0 => b' ',
                1 => rng.u8(0x80..),
                _ => rng.u8(b'!'..=b'~'),
            });
            (format!("{prefix}{name}"), value.collect::<Vec<u8>>().trim_ascii().to_vec())
        })
        .collect()
}

fn half(rng: &mut Rng, prefix: &str, framings: &[Framing]) -> Half {
    let framing = framings[rng.usize(..framings.len())];
    let length = match rng.u8(..50) {
        0 => 70_000,
        1..5 => rng.usize(3_000..10_000),
        _ => rng.usize(..300),
    };
    let body = if framing == Framing::None { vec![] } else { (0..length).map(|_| rng.u8(..)).collect() };
    let trailers = if framing == Framing::Chunked { fields(rng, prefix, 3) } else { vec![] };
    Half { fields: fields(rng, prefix, 12), framing, body, trailers }
}

fn cases() -> Vec<Case> {
    let mut rng = Rng::with_seed(20_261_125);
    let rng = &mut rng;
    let case = |_| {
        let method = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "PURGE"][rng.usize(..8)];
        let path = text(rng, "abcXYZ019-._~!$&'()*+,;=:@%/", 0..60).replace('%', "%2F");
        let query =
            if rng.bool() { format!("?{}", text(rng, "abc019-._~!$&'()*+,;=:@/?", 0..40)) } else { String::new() };
        let status = [200, 201, 204, 206, 301, 304, 400, 404, 418, 500, 503][rng.usize(..11)];
        let framings: &[Framing] = match (method, status) {
            ("HEAD", _) | (_, 204 | 304) => &[Framing::None],
            _ => &[Framing::Length, Framing::Chunked, Framing::Close],
        };
        let sent: &[Framing] =
            if method == "GET" || method == "HEAD" { &[Framing::None] } else { &[Framing::Length, Framing::Chunked] };
        let request = half(rng, "X-", sent);
        let mut response = half(rng, "Y-", framings);
        if status == 304 || (method == "HEAD" && status != 204) {
            // Some say how long the body would be.
            let length = [None, Some("0"), Some("12345")][rng.usize(..3)];
            response.fields.extend(length.map(|length| ("Content-Length".to_owned(), length.into())));
        }
        Case { method, target: format!("/{path}{query}"), request, status, response }
    };
    (0..EXCHANGES).map(case).collect()
}

impl Half {
    fn write(&self, rng: &mut Rng, out: &mut Vec<u8>) {
        for (name, value) in &self.fields {
            out.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        match self.framing {
            Framing::None => out.extend_from_slice(b"\r\n"),
            Framing::Close => out.extend_from_slice(b"Connection: close\r\n\r\n"),
            Framing::Length => out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", self.body.len()).as_bytes()),
            Framing::Chunked => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                let mut rest = &self.body[..];
                while !rest.is_empty() {
                    let (chunk, more) = rest.split_at(rng.usize(1..=rest.len()));
                    out.extend_from_slice(&[format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
                    rest = more;
                }
                out.extend_from_slice(b"0\r\n");
                for (name, value) in &self.trailers {
                    out.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
                }
                out.extend_from_slice(b"\r\n");
            }
        }
        if self.framing != Framing::Chunked {
            out.extend_from_slice(&self.body);
        }
    }

    fn map(&self) -> HeaderMap {
        map(&self.fields)
    }

    fn body(&self) -> http2::Body {
        if self.trailers.is_empty() {
            return http2::full(self.body.clone());
        }
        http2::with_trailers(self.body.clone(), map(&self.trailers))
    }
}

fn map(fields: &Fields) -> HeaderMap {
    let field = |(name, value): &(String, Vec<u8>)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value).unwrap())
    };
    let mut map = HeaderMap::new();
    for (name, value) in fields.iter().map(field) {
        map.append(name, value);
    }
    map
}

impl Case {
    fn request(&self, n: usize) -> Vec<u8> {
        let mut out =
            format!("{} {} HTTP/1.1\r\nHost: app.ns\r\nExchange: {n}\r\n", self.method, self.target).into_bytes();
        self.request.write(&mut Rng::with_seed(n as u64), &mut out);
        out
    }

    fn reply(&self, n: usize) -> http1::Reply {
        let mut out = format!("HTTP/1.1 {} Word {n}\r\n", self.status).into_bytes();
        self.response.write(&mut Rng::with_seed(n as u64), &mut out);
        if self.response.framing == Framing::Close { http1::Reply::Last(out) } else { http1::Reply::Bytes(out) }
    }
}

/// The lines of a block of fields, without what is not compared.
fn lines(block: &[u8]) -> Fields {
    let block = block.strip_suffix(b"\r\n").unwrap_or(block);
    let mut fields = vec![];
    for line in block.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let at = line.iter().position(|byte| *byte == b':').unwrap();
        let name = String::from_utf8(line[..at].to_vec()).unwrap();
        if !NOT_COMPARED.contains(&name.to_ascii_lowercase().as_str()) {
            fields.push((name, line[at + 1..].trim_ascii().to_vec()));
        }
    }
    fields
}

fn heard(message: &http1::Message) -> Heard {
    let end = message.head.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    // The part behind the last chunk; a body cannot be taken for it, since it is only looked for behind chunks.
    let chunked = message.headers("transfer-encoding") == ["chunked"];
    let trailers = if chunked { trailers(&message.raw[message.head.len()..]) } else { vec![] };
    Heard { line: message.first_line(), fields: lines(&message.head[end..]), body: message.body.clone(), trailers }
}

fn trailers(mut framed: &[u8]) -> Fields {
    loop {
        let end = framed.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&framed[..end]).unwrap(), 16).unwrap();
        framed = &framed[end + 2..];
        if size == 0 {
            return lines(framed);
        }
        framed = &framed[size + 2..];
    }
}

/// As HTTP/2 tells it: names without case, in the order of the names; no words for the status.
fn carried(heard: Heard) -> Heard {
    let sorted = |mut fields: Fields| {
        fields.iter_mut().for_each(|(name, _)| name.make_ascii_lowercase());
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        fields
    };
    let line = match heard.line.strip_prefix("HTTP/1.1 ") {
        Some(status) => format!("HTTP/1.1 {}", &status[..3]),
        None => heard.line,
    };
    Heard { line, fields: sorted(heard.fields), trailers: sorted(heard.trailers), ..heard }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_exchanges_of_http1_are_the_same() {
    let mesh = Mesh::start().await;
    let cases = Arc::new(cases());
    let asked = Arc::new(Mutex::new(vec![]));
    let (replies, told) = (Arc::clone(&cases), Arc::clone(&asked));
    let origin = http1::Origin::start(move |request| {
        told.lock().unwrap().push(heard(request));
        let n: usize = request.header("exchange").unwrap().parse().unwrap();
        replies[n].reply(n)
    })
    .await
    .unwrap();
    let mut clients = vec![];
    for hint in [ProtocolHint::Unknown, ProtocolHint::H2] {
        let service = mesh.service(&[mesh.endpoint(origin.addr(), hint)]);
        clients.push((hint, http1::Client::over(mesh.connect(&service).await)));
    }
    for (n, case) in cases.iter().enumerate() {
        let request = case.request(n);
        let once = |answer: &http1::Message| {
            let asked = std::mem::take(&mut *asked.lock().unwrap());
            let [asked] = <[Heard; 1]>::try_from(asked).unwrap();
            (asked, heard(answer))
        };
        let mut direct = http1::Client::connect(origin.addr()).await.unwrap();
        let expected = once(&soon(direct.call(&request)).await.unwrap());
        for (hint, client) in &mut clients {
            let answer = soon(client.call(&request)).await;
            let got = once(&answer.unwrap_or_else(|error| panic!("{hint:?}, exchange {n}: {error:#}")));
            if *hint == ProtocolHint::Unknown {
                assert!(got == expected, "exchange {n}:\n{got:?}\n{expected:?}");
            } else {
                let all = |(a, b)| (carried(a), carried(b));
                let (got, expected) = (all(got), all(once_more(&expected)));
                assert!(got == expected, "exchange {n} on HTTP/2:\n{got:?}\n{expected:?}");
            }
        }
    }
}

fn once_more((asked, answered): &(Heard, Heard)) -> (Heard, Heard) {
    let copy = |heard: &Heard| Heard {
        line: heard.line.clone(),
        fields: heard.fields.clone(),
        body: heard.body.clone(),
        trailers: heard.trailers.clone(),
    };
    (copy(asked), copy(answered))
}

/// Method, URI, fields, body, trailers; or the status in place of the first two.
type Told = (String, HeaderMap, Bytes, Option<HeaderMap>);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_exchanges_of_http2_are_the_same() {
    let mesh = Mesh::start().await;
    let cases = Arc::new(cases());
    let asked = Arc::new(Mutex::new(Vec::<Told>::new()));
    let (replies, told) = (Arc::clone(&cases), Arc::clone(&asked));
    let origin = http2::Origin::start(move |request| {
        let (replies, told) = (Arc::clone(&replies), Arc::clone(&told));
        async move {
            let n: usize = request.headers()["exchange"].to_str()?.parse()?;
            let (head, body) = request.into_parts();
            let http2::Message { head, body, trailers } = http2::complete(head, body).await?;
            told.lock().unwrap().push((
                format!("{} {}", head.method, head.uri),
                compared(head.headers),
                body,
                trailers,
            ));
            let Case { status, response, .. } = &replies[n];
            let mut answer = Response::builder().status(*status).body(response.body())?;
            answer.headers_mut().extend(response.map());
            Ok(answer)
        }
    })
    .await
    .unwrap();
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let mut direct = connect(origin.addr()).await;
    let mut meshed = mesh.http2(&service).await;
    for (n, case) in cases.iter().enumerate() {
        let mut results: Vec<(Told, Told)> = vec![];
        for client in [&mut direct, &mut meshed] {
            let uri = format!("http://app.ns{}", case.target);
            let mut request = Request::builder().method(case.method).uri(uri).body(case.request.body()).unwrap();
            request.headers_mut().extend(case.request.map());
            request.headers_mut().insert("exchange", n.into());
            let http2::Message { head, body, trailers } = soon(client.call(request)).await.unwrap();
            let [asked] = <[Told; 1]>::try_from(std::mem::take(&mut *asked.lock().unwrap())).unwrap();
            results.push((asked, (head.status.to_string(), compared(head.headers), body, trailers)));
        }
        assert!(results[0] == results[1], "exchange {n}:\n{:?}\n{:?}", results[0], results[1]);
    }
}

async fn connect(addr: SocketAddr) -> http2::Client {
    http2::Client::connect(addr).await.unwrap()
}

/// Without what the mesh adds, and what the origin does.
fn compared(mut fields: HeaderMap) -> HeaderMap {
    fields.remove("l5d-client-id");
    fields.remove("date");
    fields
}
