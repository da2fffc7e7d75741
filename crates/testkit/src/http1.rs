//! HTTP/1 by hand: an origin and a client that see every byte.

use anyhow::{Context, Result, bail, ensure};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

/// How long anything here waits.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest message that is read.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// A request or a response as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The first line and the headers with the empty line, byte for byte.
    pub head: Vec<u8>,
    /// Without the framing of chunks.
    pub body: Vec<u8>,
    /// Head, body with framing, trailers: byte for byte.
    pub raw: Vec<u8>,
}

/// What an origin does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Exactly these bytes; the connection stays.
    Bytes(Vec<u8>),
    /// Exactly these bytes, then the end.
    Last(Vec<u8>),
    /// Nothing, ever; the connection stays open.
    Hang,
    /// The connection is reset.
    Reset,
}

/// A server of HTTP/1 that answers by script, on a port of its own. Dropping it closes everything.
pub struct Origin {
    addr: SocketAddr,
    seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

/// What an origin saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Every byte of each connection, in the order in which they were accepted.
    pub connections: Vec<Vec<u8>>,
    /// In the order in which they were complete.
    pub requests: Vec<Message>,
    /// Connections that the client has closed.
    pub closed: usize,
}

/// A client's connection, over any transport.
pub struct Client<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl Message {
    pub fn head_text(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }

    /// The first line without its end.
    pub fn first_line(&self) -> String {
        self.head_text().lines().next().unwrap_or_default().to_owned()
    }

    /// The status of a response.
    pub fn status(&self) -> Option<u16> {
        self.first_line().split(' ').nth(1)?.parse().ok()
    }

    /// Every value of a header, in order.
    pub fn headers(&self, name: &str) -> Vec<String> {
        headers(&self.head, name)
    }

    /// The only value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        match self.headers(name).as_slice() {
            [one] => Some(one.clone()),
            _ => None,
        }
    }
}

impl Reply {
    /// A 200 with a length.
    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::status(200, "OK", body)
    }

    pub fn status(status: u16, reason: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut bytes = format!("HTTP/1.1 {status} {reason}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
        bytes.extend_from_slice(body);
        Self::Bytes(bytes)
    }
}

impl Origin {
    /// Answers each request with what `reply` says, on a free port of 127.0.0.1.
    pub async fn start(reply: impl Fn(&Message) -> Reply + Send + Sync + 'static) -> Result<Self> {
        Self::start_on(Ipv4Addr::LOCALHOST.into(), reply).await
    }

    pub async fn start_on(ip: IpAddr, reply: impl Fn(&Message) -> Reply + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind((ip, 0)).await?;
        let addr = listener.local_addr()?;
        let (seen, watched) = watch::channel(Seen::default());
        let (seen, reply) = (Arc::new(seen), Arc::new(reply));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (seen, reply) = (seen.clone(), reply.clone());
                let index = seen.borrow().connections.len();
                seen.send_modify(|seen| seen.connections.push(vec![]));
                connections.spawn(async move {
                    // What a client does wrong shows in what was seen.
                    let _ = answer(tcp, index, &seen, &*reply).await;
                    seen.send_modify(|seen| seen.closed += 1);
                });
            }
        });
        Ok(Self { addr, seen: watched, task })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until what was seen is `wanted`.
    pub async fn saw(&self, wanted: impl FnMut(&Seen) -> bool) -> Result<Seen> {
        let mut seen = self.seen.clone();
        let seen = timeout(PATIENCE, seen.wait_for(wanted)).await.context("the origin never saw it")??;
        Ok(seen.clone())
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    mut tcp: TcpStream,
    index: usize,
    seen: &watch::Sender<Seen>,
    reply: &(dyn Fn(&Message) -> Reply + Send + Sync),
) -> Result<()> {
    tcp.set_nodelay(true)?;
    let mut buffer = vec![];
    loop {
        let request = loop {
            if let Some(request) = take_message(&mut buffer, End::Request)? {
                break request;
            }
            let before = buffer.len();
            let read = tcp.read_buf(&mut buffer).await?;
            let new = buffer.get(before..).unwrap_or_default().to_vec();
            seen.send_modify(|seen| seen.connections.get_mut(index).into_iter().for_each(|c| c.extend(&new)));
            if read == 0 {
                return Ok(());
            }
        };
        seen.send_modify(|seen| seen.requests.push(request.clone()));
        match reply(&request) {
            Reply::Bytes(bytes) => tcp.write_all(&bytes).await?,
            Reply::Last(bytes) => {
                tcp.write_all(&bytes).await?;
                tcp.shutdown().await?;
                return Ok(());
            }
            Reply::Hang => {
                let mut rest = [0; 1024];
                while tcp.read(&mut rest).await? > 0 {}
                return Ok(());
            }
            Reply::Reset => {
                tcp.set_zero_linger()?;
                return Ok(());
            }
        }
    }
}

impl Client<TcpStream> {
    pub async fn connect(addr: SocketAddr) -> Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(addr)).await??;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, buffer: vec![] }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await?.context("sending")
    }

    /// Sends these bytes and reads one response to them.
    pub async fn call(&mut self, request: impl AsRef<[u8]>) -> Result<Message> {
        let head_only = request.as_ref().starts_with(b"HEAD ");
        self.send(request).await?;
        self.response(head_only).await
    }

    /// Reads one response; with `head_only` it has no body whatever it says.
    pub async fn response(&mut self, head_only: bool) -> Result<Message> {
        let end = if head_only { End::Head } else { End::Response };
        loop {
            if let Some(message) = take_message(&mut self.buffer, end)? {
                return Ok(message);
            }
            if self.read().await? == 0 {
                return take_message(&mut self.buffer, End::Eof)?.context("the connection ended within a response");
            }
        }
    }

    /// Everything until the server closes.
    pub async fn rest(&mut self) -> Result<Vec<u8>> {
        while self.read().await? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Ends the sending half.
    pub async fn finish(&mut self) -> Result<()> {
        timeout(PATIENCE, self.stream.shutdown()).await?.context("closing")
    }

    pub fn into_inner(self) -> S {
        self.stream
    }

    async fn read(&mut self) -> Result<usize> {
        ensure!(self.buffer.len() < MAX_BYTES, "too much was sent");
        timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await.context("nothing came")?.context("reading")
    }
}

/// How the end of a message is found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Without length and chunks there is no body.
    Request,
    /// Without length and chunks the body goes on to the end of the connection.
    Response,
    /// There is no body.
    Head,
    /// The connection has ended.
    Eof,
}

/// Takes one message off the front of `buffer`, if all of it is there.
fn take_message(buffer: &mut Vec<u8>, end: End) -> Result<Option<Message>> {
    let Some(at) = find(buffer, b"\r\n\r\n") else { return Ok(None) };
    let (head, rest) = buffer.split_at(at + 4);
    let head = head.to_vec();
    let first_line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    let status = first_line.strip_prefix("HTTP/").and_then(|l| l.split(' ').nth(1));
    let bodiless = end == End::Head || status.is_some_and(|s| s.starts_with('1') || s == "204" || s == "304");
    let chunked = headers(&head, "transfer-encoding").iter().any(|value| value.eq_ignore_ascii_case("chunked"));
    let length = headers(&head, "content-length").first().map(|value| value.parse::<usize>()).transpose()?;
    let (body, framed) = if bodiless {
        (vec![], 0)
    } else if chunked {
        match unchunk(rest)? {
            Some(body) => body,
            None if end == End::Eof => bail!("the connection ended within a chunk"),
            None => return Ok(None),
        }
    } else {
        let length = match (length, end) {
            (Some(length), _) => length,
            (None, End::Request | End::Head) => 0,
            (None, End::Response) => return Ok(None),
            (None, End::Eof) => rest.len(),
        };
        match rest.get(..length) {
            Some(body) => (body.to_vec(), length),
            None => return Ok(None),
        }
    };
    let raw = buffer.drain(..at + 4 + framed).collect();
    Ok(Some(Message { head, body, raw }))
}

/// The data of a chunked body and the length with framing; `None` while a part is missing.
fn unchunk(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>> {
    let mut data = vec![];
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(line_end) = find(rest, b"\r\n") else { return Ok(None) };
        let line = String::from_utf8_lossy(rest.get(..line_end).unwrap_or_default()).into_owned();
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
            .with_context(|| format!("{line:?} is no chunk size"))?;
        at += line_end + 2;
        if size == 0 {
            // Trailers, then an empty line.
            let rest = bytes.get(at..).unwrap_or_default();
            if rest.starts_with(b"\r\n") {
                return Ok(Some((data, at + 2)));
            }
            return Ok(find(rest, b"\r\n\r\n").map(|end| (data, at + end + 4)));
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else { return Ok(None) };
        ensure!(chunk.ends_with(b"\r\n"), "a chunk is longer than it says");
        data.extend_from_slice(chunk.get(..size).unwrap_or_default());
        at += size + 2;
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn headers(head: &[u8], name: &str) -> Vec<String> {
    String::from_utf8_lossy(head)
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .filter(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}
