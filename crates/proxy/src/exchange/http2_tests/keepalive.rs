//! Peers that fall silent, on either side, and clients that say goodbye.

use super::fake::{Fake, OWN, local, until};
use crate::{
    exchange::serve_http2,
    http2::{ClientSettings, ServerSettings, connect},
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use weft_model::endpoint::{Http2KeepAlive, Http2Params};
use weft_testkit::frames::PREFACE;

const KEEP_ALIVE: Http2KeepAlive =
    Http2KeepAlive { interval: Duration::from_millis(20), timeout: Duration::from_millis(20), while_idle: true };
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Reads frames and answers PINGs until the other side closes; how many there were.
async fn pings(io: &mut DuplexStream, answers: bool) -> usize {
    let mut pings = 0;
    let mut head = [0; 9];
    while io.read_exact(&mut head).await.is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        io.read_exact(&mut payload).await.unwrap();
        if head[3] != 6 || head[4] != 0 {
            continue;
        }
        pings += 1;
        if pings == 5 {
            return pings;
        }
        if answers {
            io.write_all(&[&[0, 0, 8, 6, 1, 0, 0, 0, 0], &payload[..]].concat()).await.unwrap();
        }
    }
    pings
}

#[test]
fn a_client_that_answers_stays_and_a_silent_one_goes() {
    for (answers, expected) in [(true, 5), (false, 1)] {
        local(async move {
            let fake = Fake::to_http2(([127, 0, 0, 1], 1).into());
            let (mut client, io) = tokio::io::duplex(10_000);
            tokio::task::spawn_local(async move {
                let settings = ServerSettings { keep_alive: Some(KEEP_ALIVE), ..ServerSettings::default() };
                serve_http2(io, &settings, fake, std::future::pending()).await;
            });
            client.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
            assert_eq!(pings(&mut client, answers).await, expected);
        });
    }
}

#[test]
fn a_server_that_answers_stays_and_a_silent_one_goes() {
    for (answers, expected) in [(true, 5), (false, 1)] {
        local(async move {
            let (mut server, io) = tokio::io::duplex(10_000);
            let params = Http2Params { keep_alive: Some(KEEP_ALIVE), ..Http2Params::default() };
            let sender = connect(io, &ClientSettings::new(&OWN, &params)).await.unwrap();
            let mut preface = [0; PREFACE.len()];
            server.read_exact(&mut preface).await.unwrap();
            server.write_all(SETTINGS).await.unwrap();
            assert_eq!(pings(&mut server, answers).await, expected);
            if !answers {
                until(|| sender.is_closed()).await;
            }
        });
    }
}

#[test]
fn an_idle_connection_is_left_alone_where_that_is_asked_for() {
    local(async {
        let (mut server, io) = tokio::io::duplex(10_000);
        let keep_alive = Http2KeepAlive { while_idle: false, ..KEEP_ALIVE };
        let params = Http2Params { keep_alive: Some(keep_alive), ..Http2Params::default() };
        let sender = connect(io, &ClientSettings::new(&OWN, &params)).await.unwrap();
        let mut preface = [0; PREFACE.len()];
        server.read_exact(&mut preface).await.unwrap();
        server.write_all(SETTINGS).await.unwrap();
        let pinged = tokio::time::timeout(Duration::from_millis(200), pings(&mut server, true)).await;
        assert!(pinged.is_err() && !sender.is_closed());
    });
}

/// The kinds of the frames that come until the other side closes.
async fn kinds(io: &mut DuplexStream) -> Vec<u8> {
    let (mut kinds, mut head) = (vec![], [0; 9]);
    while io.read_exact(&mut head).await.is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        io.read_exact(&mut payload).await.unwrap();
        kinds.push(head[3]);
    }
    kinds
}

/// RFC 9113 6.8: what a client sends behind its GOAWAY is answered, in whichever segment it comes.
#[test]
fn a_client_that_says_goodbye_is_heard_out() {
    const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff];
    const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    local(async {
        let fake = Fake::to_http2(([127, 0, 0, 1], 1).into());
        let (mut client, io) = tokio::io::duplex(10_000);
        tokio::task::spawn_local(async move {
            serve_http2(io, &ServerSettings::default(), fake, std::future::pending()).await;
        });
        client.write_all(&[PREFACE, SETTINGS, GOAWAY].concat()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.write_all(PING).await.unwrap();
        let kinds = kinds(&mut client).await;
        assert!(kinds.ends_with(&[6, 7]), "{kinds:?}: the answer, then the server's own goodbye");
    });
}
