//! Variables of HTTP/2, seen on the wire: what the proxy announces to clients and servers, its pings, its frames.

use crate::{harness::soon, mesh::Mesh};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use weft_model::{
    Endpoint, ProtocolHint,
    endpoint::{Http2KeepAlive, Http2Params},
};
use weft_testkit::{frames::PREFACE, http2};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A frame as it is on the wire.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) async fn read(tcp: &mut TcpStream) -> std::io::Result<Frame> {
    let mut head = [0; 9];
    soon(tcp.read_exact(&mut head)).await?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let mut payload = vec![0; length];
    soon(tcp.read_exact(&mut payload)).await?;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Ok(Frame { kind: head[3], flags: head[4], stream, payload })
}

pub(crate) async fn write(tcp: &mut TcpStream, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    tcp.write_all(&[&head, payload].concat()).await.unwrap();
}

/// The settings by number, and how much the connection's window was raised.
async fn announced(tcp: &mut TcpStream) -> (BTreeMap<u16, u32>, u32) {
    let (mut settings, mut window) = (None, None);
    while settings.is_none() || window.is_none() {
        let frame = read(tcp).await.unwrap();
        match (frame.kind, frame.flags, frame.stream) {
            (SETTINGS, 0, _) => {
                let pair = |p: &[u8]| (u16::from_be_bytes([p[0], p[1]]), u32::from_be_bytes([p[2], p[3], p[4], p[5]]));
                settings = Some(frame.payload.chunks(6).map(pair).collect());
            }
            (WINDOW_UPDATE, _, 0) => window = Some(u32::from_be_bytes(frame.payload.try_into().unwrap())),
            _ => {}
        }
    }
    (settings.unwrap(), window.unwrap())
}

const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;

const SERVER: [(&str, &str); 7] = [
    ("INITIAL_STREAM_WINDOW_SIZE", "70000"),
    ("INITIAL_CONNECTION_WINDOW_SIZE", "200000"),
    ("MAX_CONCURRENT_STREAMS", "7"),
    ("MAX_FRAME_SIZE", "20000"),
    ("MAX_HEADER_LIST_SIZE", "9000"),
    ("KEEP_ALIVE_INTERVAL", "100ms"),
    ("KEEP_ALIVE_TIMEOUT", "200ms"),
];

fn vars(direction: &str) -> Vec<(String, String)> {
    SERVER.iter().map(|(n, v)| (format!("LINKERD2_PROXY_{direction}_SERVER_HTTP2_{n}"), (*v).to_owned())).collect()
}

#[tokio::test]
async fn clients_are_told_what_is_configured_and_pinged() {
    let (web, app) = (vars("OUTBOUND"), vars("INBOUND"));
    let web: Vec<(&str, &str)> = web.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let app: Vec<(&str, &str)> = app.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let mesh = Mesh::with(&web, &app).await;
    let origin = crate::mesh::naming("app").await;
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    for mut tcp in [mesh.connect(&service).await, mesh.app.connect_inbound(origin.addr()).await] {
        tcp.write_all(PREFACE).await.unwrap();
        write(&mut tcp, SETTINGS, 0, 0, &[]).await;
        let (settings, window) = announced(&mut tcp).await;
        assert_eq!(settings.get(&INITIAL_WINDOW_SIZE), Some(&70_000));
        assert_eq!(settings.get(&MAX_CONCURRENT_STREAMS), Some(&7));
        assert_eq!(settings.get(&MAX_FRAME_SIZE), Some(&20_000));
        assert_eq!(settings.get(&MAX_HEADER_LIST_SIZE), Some(&9_000));
        assert_eq!(window, 200_000 - 65_535);
        // Whoever does not answer a ping is left.
        let mut pinged = false;
        let ended = loop {
            match read(&mut tcp).await {
                Ok(frame) => pinged |= frame.kind == PING && frame.flags == 0,
                Err(_) => break true,
            }
        };
        assert!(pinged && ended);
    }
}

/// A server that answers nothing; what the proxy tells it.
async fn told(listener: &TcpListener) -> (BTreeMap<u16, u32>, u32, TcpStream) {
    let (mut tcp, _) = soon(listener.accept()).await.unwrap();
    let mut preface = [0; 24];
    soon(tcp.read_exact(&mut preface)).await.unwrap();
    assert_eq!(preface, PREFACE);
    write(&mut tcp, SETTINGS, 0, 0, &[]).await;
    let (settings, window) = announced(&mut tcp).await;
    (settings, window, tcp)
}

#[tokio::test]
async fn servers_are_told_what_is_configured_or_what_discovery_says() {
    let own = [
        ("LINKERD2_PROXY_HTTP2_INITIAL_STREAM_WINDOW_SIZE", "80000"),
        ("LINKERD2_PROXY_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE", "300000"),
    ];
    let mesh = Mesh::with(&own, &own).await;
    // One server each: a request that nobody answers may be sent to its server again.
    let mut listeners = vec![];
    for _ in 0..3 {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let addr = |n: usize| listeners[n].local_addr().unwrap();
    let plain = mesh.service(&[Endpoint::plain(addr(0))]);
    let params = Http2Params {
        connection_window: Some(400_000),
        stream_window: Some(90_000),
        keep_alive: Some(Http2KeepAlive {
            interval: Duration::from_millis(100),
            timeout: Duration::from_millis(200),
            while_idle: false,
        }),
        max_frame_size: Some(30_000),
        ..Http2Params::default()
    };
    let described = mesh.service(&[Endpoint { http2: params, ..Endpoint::plain(addr(1)) }]);
    let call = |tcp| async move {
        let mut client = http2::Client::over(tcp).await.unwrap();
        // Nobody answers; the request goes when the server does.
        let _ = client.call(crate::mesh::get()).await;
    };
    for (service, stream, connection, frame) in
        [(&plain, 80_000, 300_000, 16_384), (&described, 90_000, 400_000, 30_000)]
    {
        let calling = tokio::spawn(call(mesh.connect(service).await));
        let (settings, window, mut tcp) = told(&listeners[usize::from(frame == 30_000)]).await;
        assert_eq!(settings.get(&INITIAL_WINDOW_SIZE), Some(&stream));
        assert_eq!(settings.get(&MAX_FRAME_SIZE).copied().unwrap_or(16_384), frame);
        assert_eq!(window, connection - 65_535);
        if frame == 30_000 {
            let mut pinged = false;
            while let Ok(frame) = read(&mut tcp).await {
                pinged |= frame.kind == PING && frame.flags == 0;
            }
            assert!(pinged, "a server that is silent is pinged, and then left");
        }
        calling.abort();
    }
    // The application is told the same, by the other proxy.
    let calling = tokio::spawn(call(mesh.app.connect_inbound(addr(2)).await));
    let (settings, window, _tcp) = told(&listeners[2]).await;
    assert_eq!((settings.get(&INITIAL_WINDOW_SIZE), window), (Some(&80_000), 300_000 - 65_535));
    calling.abort();
}

/// A server's variable of one direction, and a way through the proxy that has it alone.
async fn of_one_direction(outbound: bool, name: &str, value: &str, origin: &http2::Origin) -> (Mesh, TcpStream) {
    let direction = if outbound { "OUTBOUND" } else { "INBOUND" };
    let name = format!("LINKERD2_PROXY_{direction}_SERVER_HTTP2_{name}");
    let (set, unset) = ([(name.as_str(), value)], []);
    let mesh = if outbound { Mesh::with(&set, &unset).await } else { Mesh::with(&unset, &set).await };
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let tcp = if outbound { mesh.connect(&service).await } else { mesh.app.connect_inbound(origin.addr()).await };
    (mesh, tcp)
}

/// A stream's bytes that wait for the client are bounded: each frame is at most as large.
#[tokio::test]
async fn the_send_buffer_bounds_what_waits() {
    let origin =
        http2::Origin::start(|_| async { Ok(http::Response::new(http2::full(vec![7; 50_000]))) }).await.unwrap();
    for outbound in [true, false] {
        let (_mesh, mut tcp) = of_one_direction(outbound, "MAX_SEND_BUF_SIZE", "1000", &origin).await;
        tcp.write_all(PREFACE).await.unwrap();
        write(&mut tcp, SETTINGS, 0, 0, &[]).await;
        // GET, http, "/", and an authority, without a table.
        let head = [&[0x82, 0x86, 0x84, 0x01, 6][..], b"app.ns"].concat();
        write(&mut tcp, 1, 5, 1, &head).await;
        let (mut got, mut largest) = (0, 0);
        while got < 50_000 {
            let frame = read(&mut tcp).await.unwrap();
            if frame.kind == DATA {
                got += frame.payload.len();
                largest = largest.max(frame.payload.len());
            }
        }
        assert!(largest <= 1000, "outbound: {outbound}: {largest}");
    }
}

/// The next frame of that kind.
pub(crate) async fn until(tcp: &mut TcpStream, kind: u8) -> Frame {
    loop {
        let frame = read(tcp).await.unwrap();
        if frame.kind == kind {
            return frame;
        }
    }
}

/// What was announced holds: one stream more than may be open is refused, and has room once another one has ended; a head that is
/// too large goes nowhere.
#[tokio::test]
async fn what_is_announced_holds() {
    const REFUSED_STREAM: u32 = 7;
    let limits = |direction: &str| {
        [("MAX_CONCURRENT_STREAMS", "7"), ("MAX_HEADER_LIST_SIZE", "9000")]
            .map(|(name, value)| (format!("LINKERD2_PROXY_{direction}_SERVER_HTTP2_{name}"), value))
    };
    let (web, app) = (limits("OUTBOUND"), limits("INBOUND"));
    let (web, app) = (web.each_ref().map(|(n, v)| (n.as_str(), *v)), app.each_ref().map(|(n, v)| (n.as_str(), *v)));
    let mesh = Mesh::with(&web, &app).await;
    let origin = crate::mesh::naming("app").await;
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    for (way, dialler) in [("outbound", mesh.web.outbound(service.addr)), ("inbound", mesh.app.inbound(origin.addr()))]
    {
        let mut tcp = dialler.connect().await;
        tcp.write_all(PREFACE).await.unwrap();
        write(&mut tcp, SETTINGS, 0, 0, &[]).await;
        // Requests whose bodies do not come: POST, http, "/", and an authority, without a table.
        let head = [&[0x83, 0x86, 0x84, 0x01, 6][..], b"app.ns"].concat();
        for n in 0..8 {
            write(&mut tcp, HEADERS, END_HEADERS, 2 * n + 1, &head).await;
        }
        let reset = until(&mut tcp, RST_STREAM).await;
        let code = u32::from_be_bytes(reset.payload.try_into().unwrap());
        assert_eq!((reset.stream, code), (15, REFUSED_STREAM), "{way}");
        write(&mut tcp, DATA, END_STREAM, 1, &[]).await;
        assert_eq!(until(&mut tcp, HEADERS).await.stream, 1, "{way}");
        while until(&mut tcp, DATA).await.flags & END_STREAM == 0 {}
        write(&mut tcp, HEADERS, END_HEADERS, 17, &head).await;
        write(&mut tcp, DATA, END_STREAM, 17, &[]).await;
        assert_eq!(until(&mut tcp, HEADERS).await.stream, 17, "{way}");
        drop(tcp);

        let before = origin.seen().requests.len();
        let mut client = http2::Client::over(dialler.connect().await).await.unwrap();
        let with = |bytes: usize| {
            let request = http::Request::get("http://app.ns/").header("x-large", "x".repeat(bytes));
            request.body(http2::full("")).unwrap()
        };
        assert_eq!(soon(client.call(with(8_000))).await.unwrap().head.status, 200, "{way}");
        let refused = soon(client.call(with(9_100))).await.map(|answer| answer.head.status.as_u16());
        assert!(refused.as_ref().is_ok_and(|status| *status == 431), "{way}: {refused:?}");
        assert_eq!(origin.seen().requests.len(), before + 1, "{way}: it went nowhere");
    }
}

/// More streams that are reset before they are looked at than allowed end the connection.
#[tokio::test]
async fn pending_resets_are_bounded() {
    let origin = crate::mesh::naming("app").await;
    for outbound in [true, false] {
        let (_mesh, mut tcp) = of_one_direction(outbound, "MAX_PENDING_ACCEPT_RESET_STREAMS", "2", &origin).await;
        let head = [&[0x82, 0x86, 0x84, 0x01, 6][..], b"app.ns"].concat();
        let mut all = PREFACE.to_vec();
        let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
            let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
            [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
        };
        all.extend(frame(SETTINGS, 0, 0, &[]));
        // All in one write: they are reset before the proxy comes to them.
        for n in 0..20 {
            all.extend(frame(1, 5, 2 * n + 1, &head));
            all.extend(frame(3, 0, 2 * n + 1, &8u32.to_be_bytes()));
        }
        tcp.write_all(&all).await.unwrap();
        let code = loop {
            let frame = read(&mut tcp).await.expect("a GOAWAY comes before the end");
            if frame.kind == GOAWAY {
                break u32::from_be_bytes([frame.payload[4], frame.payload[5], frame.payload[6], frame.payload[7]]);
            }
        };
        assert_eq!(code, 11, "ENHANCE_YOUR_CALM, outbound: {outbound}");
    }
}

/// What a peer may send: of the connection, of its stream, and by the settings.
pub(crate) struct Windows {
    connection: i64,
    stream: i64,
    initial: i64,
    /// That streams were given.
    largest: u32,
}

impl Windows {
    pub(crate) const FIRST: Self = Self { connection: 65_535, stream: 65_535, initial: 65_535, largest: 0 };

    /// Takes note of a frame, and answers it: pings after `rtt`.
    pub(crate) async fn heed(&mut self, tcp: &mut TcpStream, frame: Frame, rtt: Duration) {
        match (frame.kind, frame.flags) {
            (SETTINGS, 0) => {
                for pair in frame.payload.chunks(6).filter(|p| p[..2] == INITIAL_WINDOW_SIZE.to_be_bytes()) {
                    let size = u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]);
                    self.stream += i64::from(size) - self.initial;
                    self.initial = i64::from(size);
                    self.largest = self.largest.max(size);
                }
                write(tcp, SETTINGS, 1, 0, &[]).await;
            }
            (WINDOW_UPDATE, _) => {
                let more = i64::from(u32::from_be_bytes(frame.payload.try_into().unwrap()));
                if frame.stream == 0 { self.connection += more } else { self.stream += more }
            }
            (PING, 0) => {
                tokio::time::sleep(rtt).await;
                write(tcp, PING, 1, 0, &frame.payload).await;
            }
            _ => {}
        }
    }

    /// Sends a body on stream 1 as fast as is allowed, answers pings after `rtt`, and returns the largest window that streams were given.
    pub(crate) async fn fill(mut self, tcp: &mut TcpStream, bytes: usize, rtt: Duration) -> u32 {
        let mut left = bytes;
        loop {
            while self.connection > 0 && self.stream > 0 && left > 0 {
                let n = left.min(16_384).min(usize::try_from(self.connection.min(self.stream)).unwrap());
                write(tcp, DATA, u8::from(n == left), 1, &vec![7; n]).await;
                left -= n;
                self.connection -= i64::try_from(n).unwrap();
                self.stream -= i64::try_from(n).unwrap();
            }
            if left == 0 {
                return self.largest;
            }
            let frame = read(tcp).await.unwrap();
            self.heed(tcp, frame, rtt).await;
        }
    }
}

/// A client's body.
async fn upload(tcp: &mut TcpStream, bytes: usize, rtt: Duration) -> u32 {
    tcp.write_all(PREFACE).await.unwrap();
    write(tcp, SETTINGS, 0, 0, &[]).await;
    // POST, http, "/", and an authority, without a table.
    let head = [&[0x83, 0x86, 0x84, 0x01, 6][..], b"app.ns"].concat();
    write(tcp, HEADERS, END_HEADERS, 1, &head).await;
    Windows::FIRST.fill(tcp, bytes, rtt).await
}

/// On a busy machine a transfer may be too slow for a larger window.
pub(crate) const ATTEMPTS: usize = 20;

/// Windows follow the speed where that is asked for, on either side, and stay where it is not.
#[tokio::test]
async fn windows_grow_with_the_speed() {
    let on = |direction: &str| format!("LINKERD2_PROXY_{direction}_SERVER_HTTP2_ADAPTIVE_FLOW_CONTROL");
    let (web, app) = (on("OUTBOUND"), on("INBOUND"));
    for (value, grows) in [("true", true), ("false", false)] {
        let mesh = Mesh::with(&[(&web, value)], &[(&app, value)]).await;
        let origin = crate::mesh::naming("app").await;
        let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
        for outbound in [true, false] {
            let mut largest = 0;
            for _ in 0..if grows { ATTEMPTS } else { 1 } {
                let mut tcp =
                    if outbound { mesh.connect(&service).await } else { mesh.app.connect_inbound(origin.addr()).await };
                largest = soon(upload(&mut tcp, 8 << 20, Duration::from_millis(30))).await;
                if largest > 65_535 {
                    break;
                }
            }
            assert_eq!(largest > 65_535, grows, "{value}: {largest}");
        }
    }
}

/// What is too much for a connection goes over others, and these are used again. The origin allows 200 requests at once on each.
#[tokio::test]
async fn more_requests_than_a_server_takes_on_a_connection_go_over_the_same_few() {
    const REQUESTS: usize = 500;
    let mesh = Mesh::with(&[("LINKERD2_PROXY_CORES", "1")], &[]).await;
    // Nobody is answered before all are there.
    let together = Arc::new(tokio::sync::Barrier::new(REQUESTS));
    let origin = http2::Origin::start(move |_| {
        let together = together.clone();
        async move {
            together.wait().await;
            Ok(http::Response::new(http2::full("app")))
        }
    })
    .await
    .unwrap();
    let service = mesh.service(&[Endpoint::plain(origin.addr())]);
    let client = mesh.http2(&service).await;
    for _ in 0..8 {
        let calls = (0..REQUESTS).map(|_| {
            let mut client = client.clone();
            async move { client.call(crate::mesh::get()).await.unwrap().head.status.as_u16() }
        });
        let statuses = soon(futures_util::future::join_all(calls)).await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    }
    // Three are enough; a response may be seen before its place is free.
    let connections = origin.seen().connections;
    assert!((3..=6).contains(&connections), "{connections}");
}
