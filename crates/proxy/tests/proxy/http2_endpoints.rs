//! Parameters of HTTP/2 that discovery gives of an endpoint, seen on the wire by a server that the test plays frame by frame.

use crate::{
    harness::soon,
    http2_settings::{
        ATTEMPTS, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, Windows, read, until, write,
    },
    mesh::{Mesh, get},
};
use std::time::Duration;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};
use weft_model::{Endpoint, endpoint::Http2Params};
use weft_testkit::{frames::PREFACE, http2};

/// Status 200, of the static table.
const OK: [u8; 1] = [0x88];

/// A connection of the proxy's, greeted.
async fn accepted(listener: &TcpListener) -> TcpStream {
    let (mut tcp, _) = soon(listener.accept()).await.unwrap();
    soon(tcp.read_exact(&mut [0; PREFACE.len()])).await.unwrap();
    write(&mut tcp, SETTINGS, 0, 0, &[]).await;
    tcp
}

/// Bytes that wait for a server are bounded: each frame is at most as large.
#[tokio::test]
async fn the_send_buffer_of_an_endpoint_bounds_what_waits_for_it() {
    let mesh = Mesh::start().await;
    for (max_send_buf_size, most) in [(Some(1000), 1000), (None, 16_384)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http2 = Http2Params { max_send_buf_size, ..Http2Params::default() };
        let service = mesh.service(&[Endpoint { http2, ..Endpoint::plain(listener.local_addr().unwrap()) }]);
        let mut client = mesh.http2(&service).await;
        let body = http2::full(vec![7; 50_000]);
        let call = client.call(http::Request::post("http://app.ns/").body(body).unwrap());
        let serve = async {
            let mut tcp = accepted(&listener).await;
            let (mut got, mut largest) = (0, 0);
            while got < 50_000 {
                let frame = read(&mut tcp).await.unwrap();
                if frame.kind == DATA {
                    got += frame.payload.len();
                    largest = largest.max(frame.payload.len());
                }
            }
            write(&mut tcp, HEADERS, END_HEADERS | END_STREAM, 1, &OK).await;
            (largest, tcp)
        };
        let (answer, (largest, _tcp)) = tokio::join!(soon(call), serve);
        assert_eq!(answer.unwrap().head.status, 200);
        assert!(largest <= most && largest > most / 2, "{max_send_buf_size:?}: {largest}");
    }
}

/// Streams that the proxy has reset are remembered for what the server may have sent meanwhile; discovery says of an endpoint how many.
/// What comes for one that is forgotten is told to be of a stream that is closed.
#[tokio::test]
async fn as_many_reset_streams_are_remembered_as_an_endpoint_has() {
    const STREAM_CLOSED: u32 = 5;
    let mesh = Mesh::start().await;
    for (max_concurrent_reset_streams, told) in [(Some(1), 1), (None, 0)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http2 = Http2Params { max_concurrent_reset_streams, ..Http2Params::default() };
        let service = mesh.service(&[Endpoint { http2, ..Endpoint::plain(listener.local_addr().unwrap()) }]);
        let client = mesh.http2(&service).await;
        let call = || {
            let mut client = client.clone();
            tokio::spawn(async move { client.call(get()).await.map(drop) })
        };
        let calls = [call(), call()];
        let mut tcp = accepted(&listener).await;
        let streams = [until(&mut tcp, HEADERS).await.stream, until(&mut tcp, HEADERS).await.stream];
        calls.iter().for_each(|call| call.abort());
        for _ in streams {
            until(&mut tcp, RST_STREAM).await;
        }
        for stream in streams {
            write(&mut tcp, HEADERS, END_HEADERS, stream, &OK).await;
        }
        let mut codes = vec![];
        // What is said to the heads goes before the answer to what comes behind the answer to this.
        for ping in [b"is it so", b"all seen"] {
            write(&mut tcp, PING, 0, 0, ping).await;
            loop {
                let frame = read(&mut tcp).await.unwrap();
                match (frame.kind, frame.flags) {
                    (RST_STREAM, _) => codes.push(u32::from_be_bytes(frame.payload.try_into().unwrap())),
                    (PING, 1) if frame.payload == ping => break,
                    _ => {}
                }
            }
        }
        assert_eq!(codes, vec![STREAM_CLOSED; told], "{max_concurrent_reset_streams:?}");
    }
}

/// Windows follow the speed of what a server sends where that is asked for, and stay where it is not.
#[tokio::test]
async fn windows_grow_with_the_speed_of_an_endpoint() {
    let mesh = Mesh::start().await;
    for adaptive_window in [true, false] {
        let mut largest = 0;
        for _ in 0..if adaptive_window { ATTEMPTS } else { 1 } {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let http2 = Http2Params { adaptive_window, ..Http2Params::default() };
            let service = mesh.service(&[Endpoint { http2, ..Endpoint::plain(listener.local_addr().unwrap()) }]);
            let mut client = mesh.http2(&service).await;
            let serve = async {
                let mut tcp = accepted(&listener).await;
                let largest = soon(download(&mut tcp, 4 << 20, Duration::from_millis(30))).await;
                (largest, tcp)
            };
            let (answer, (seen, _tcp)) = tokio::join!(client.call(get()), serve);
            assert_eq!(answer.unwrap().body.len(), 4 << 20);
            largest = seen;
            if largest > 65_535 {
                break;
            }
        }
        assert_eq!(largest > 65_535, adaptive_window, "{largest}");
    }
}

/// A server's body, for the first request.
async fn download(tcp: &mut TcpStream, bytes: usize, rtt: Duration) -> u32 {
    let mut windows = Windows::FIRST;
    loop {
        let frame = read(tcp).await.unwrap();
        let asked = frame.kind == HEADERS;
        windows.heed(tcp, frame, rtt).await;
        if asked {
            write(tcp, HEADERS, END_HEADERS, 1, &OK).await;
            return windows.fill(tcp, bytes, rtt).await;
        }
    }
}
