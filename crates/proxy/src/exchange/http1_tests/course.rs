//! Timeouts and retries of requests on HTTP/1.

use super::{
    GET, OK,
    fake::{Fake, Origin, Seen, local},
};
use crate::{
    error::{Code, ProxyError},
    exchange::Retried,
};
use std::time::Duration;
use weft_model::{
    decide::retry::RetryTerms,
    policy::outbound::{Backoff, Timeouts},
};

const SHORT: Duration = Duration::from_millis(50);
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";

fn retry(limit: u32) -> RetryTerms {
    let statuses = vec![503..=503];
    RetryTerms { limit, body: 64 * 1024, statuses, codes: vec![], timeout: None, backoff: None }
}

fn asks(proxy: &Fake, terms: RetryTerms) {
    proxy.retry.replace(Some(terms));
}

fn post(length: usize) -> String {
    let body: String = (0..length).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[test]
fn a_response_that_does_not_come_is_a_504_and_the_connection_goes_on() {
    local(async {
        let (origin, proxy, mut client) = Origin::begin().await;
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
        for request in [GET, &post(3), &post(10_000), chunked] {
            proxy.timeouts.set(Timeouts { request: Some(SHORT), ..Timeouts::default() });
            let mut server = origin.asked(&mut client, request).await;
            client
                .hear(
                    "HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\n\
                     l5d-proxy-error: request timeout [REQUEST_TIMEOUT]\r\n\r\n",
                )
                .await;
            server.end().await;
        }
        assert_eq!(
            proxy.record().await[..3],
            [Seen::Head(504), Seen::FirstByte, Seen::End(None, Some(Code::RequestTimeout))]
        );
        assert_eq!(*proxy.refused.borrow(), [Code::RequestTimeout; 4]);
        // Of a request that is not read to its end the rest would be taken for another.
        client.say(&post(10_000)[..5_000]).await;
        assert!(client.head().await.contains("connection: close\r\n"));
        client.end().await;
    });
}

#[test]
fn waiting_for_an_endpoint_counts() {
    local(async {
        let (_origin, proxy) = Origin::start().await;
        proxy.timeouts.set(Timeouts { request: Some(SHORT), ..Timeouts::default() });
        proxy.stuck.set(true);
        let mut client = proxy.client().await;
        for _ in 0..2 {
            client.say(GET).await;
            assert!(client.head().await.starts_with("HTTP/1.1 504 "));
        }
    });
}

#[test]
fn a_response_that_does_not_end_is_cut() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        for head in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
            proxy.timeouts.set(Timeouts { response: Some(SHORT), ..Timeouts::default() });
            let mut client = proxy.client().await;
            let mut server = origin.asked(&mut client, GET).await;
            let part = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n2\r\na");
            server.say(&part).await;
            client.hear(&part[..part.len() - 1]).await;
            client.cut().await;
            server.end().await;
        }
        let seen = proxy.record().await;
        assert_eq!(seen[..3], [Seen::Head(200), Seen::FirstByte, Seen::End(None, Some(Code::ResponseTimeout))]);
        assert_eq!(*proxy.refused.borrow(), [Code::ResponseTimeout; 2]);
    });
}

#[test]
fn silence_is_cut_and_movement_is_not() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        proxy.timeouts.set(Timeouts { idle: Some(Duration::from_secs(1)), ..Timeouts::default() });
        let mut client = proxy.client().await;
        let mut server = origin.asked(&mut client, GET).await;
        server.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").await;
        client.head().await;
        for _ in 0..15 {
            tokio::time::sleep(2 * SHORT).await;
            server.answers(&mut client, "x").await;
        }
        client.cut().await;
        assert_eq!(*proxy.refused.borrow(), [Code::IdleTimeout]);
    });
}

/// A client that reads nothing cannot be told anything, but holds the server's connection no longer than any other.
#[test]
fn an_interim_response_that_nobody_reads_is_in_the_requests_time() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        let early = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(60_000));
        let time = Some(Duration::from_secs(1));
        let none = Timeouts::default();
        let mut all = vec![];
        for timeouts in
            [Timeouts { request: time, ..none }, Timeouts { response: time, ..none }, Timeouts { idle: time, ..none }]
        {
            proxy.timeouts.set(timeouts);
            let mut client = proxy.tight_client().await;
            let mut server = origin.asked(&mut client, GET).await;
            server.say(&early).await;
            all.push((client, server));
        }
        for (client, server) in &mut all {
            server.end().await;
            client.cut().await;
        }
        let mut refused = proxy.refused.take();
        refused.sort_by_key(|code| code.as_str());
        assert_eq!(refused, [Code::IdleTimeout, Code::RequestTimeout, Code::ResponseTimeout]);
    });
}

#[test]
fn what_is_sent_again_is_the_same() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        asks(&proxy, retry(2));
        let mut client = proxy.client().await;
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nX-Sum: 1\r\n\r\n";
        let requests = [GET, &post(0), &post(1), &post(4096), &post(64 * 1024), chunked];
        // A request behind it stays where it is.
        client.say(requests.concat()).await;
        client.say(GET).await;
        let mut server = origin.accept().await;
        for request in requests {
            for _ in 0..2 {
                server.hear(request).await;
                server.say(BUSY).await;
            }
            server.hear(request).await;
            server.answers(&mut client, OK).await;
        }
        server.hear(GET).await;
        server.answers(&mut client, OK).await;
        assert_eq!(proxy.connections.get(), 1, "an answer that has come whole leaves the connection good");
        let counted = proxy.route.counted.take();
        assert_eq!(counted[..3], [Retried::Requested, Retried::Requested, Retried::Succeeded]);
        assert_eq!(counted.len(), 3 * requests.len());
        let seen = [Seen::Head(503), Seen::FirstByte, Seen::End(None, None)];
        assert_eq!(proxy.record().await[..6], [seen.clone(), seen].concat());
    });
}

#[test]
fn what_cannot_be_kept_is_sent_once() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        asks(&proxy, retry(2));
        let mut client = proxy.client().await;
        let body = "x".repeat(64 * 1024 + 1);
        let chunked = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n{}\r\n1\r\nx\r\n0\r\n\r\n",
            &body[1..]
        );
        let mut server = None;
        for request in [post(64 * 1024 + 1), chunked] {
            client.say(&request).await;
            let server = match &mut server {
                Some(server) => server,
                none => none.insert(origin.accept().await),
            };
            server.hear(&request).await;
            server.answers(&mut client, BUSY).await;
        }
        // Nor is what has not come whole when the answer does.
        let request = post(10_000);
        client.say(&request[..5_000]).await;
        let server = server.as_mut().unwrap();
        server.hear(&request[..5_000]).await;
        server.answers(&mut client, BUSY).await;
        assert_eq!(*proxy.route.counted.borrow(), []);
    });
}

#[test]
fn what_is_not_asked_for_is_the_answer() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        asks(&proxy, retry(1));
        let mut client = proxy.client().await;
        let mut server = origin.asked(&mut client, GET).await;
        server.answers(&mut client, BUSY.replace("503", "500")).await;
        client.say(GET).await;
        for _ in 0..2 {
            server.hear(GET).await;
            server.say(BUSY).await;
        }
        client.hear(BUSY).await;
        proxy.route.ready.set(false);
        server.asked(&mut client, GET).await;
        server.answers(&mut client, BUSY).await;
        assert_eq!(*proxy.route.counted.borrow(), [Retried::Requested, Retried::LimitExceeded, Retried::Overflow]);
        assert_eq!(*proxy.refused.borrow(), []);
    });
}

#[test]
fn an_attempt_that_is_too_slow_is_left_for_another() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        asks(&proxy, RetryTerms { timeout: Some(SHORT), ..retry(1) });
        for request in [GET, &post(10_000)] {
            let mut client = proxy.client().await;
            client.say(request).await;
            let mut slow = origin.accept().await;
            slow.hear(request).await;
            slow.end().await;
            let mut server = origin.accept().await;
            server.hear(request).await;
            // The last one has all the time there is.
            tokio::time::sleep(3 * SHORT).await;
            server.say(OK.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
            client.hear(OK).await;
        }
        assert_eq!(*proxy.route.counted.borrow(), [Retried::Requested, Retried::Succeeded].repeat(2));
        asks(&proxy, RetryTerms { timeout: Some(SHORT), body: 2, ..retry(1) });
        let mut client = proxy.client().await;
        client.say(post(3)).await;
        let mut slow = origin.accept().await;
        slow.hear(post(3)).await;
        assert!(
            client
                .head()
                .await
                .contains("l5d-proxy-error: response headers timeout [RESPONSE_HEADERS_TIMEOUT]\r\n\r\n")
        );
        slow.end().await;
    });
}

#[test]
fn waiting_for_an_endpoint_in_vain_is_tried_again() {
    local(async {
        let (_origin, proxy) = Origin::start().await;
        asks(&proxy, retry(2));
        for (code, retried) in [(Code::Failfast, 3), (Code::LoadShed, 0), (Code::ConnectFailed, 0)] {
            *proxy.refusal.borrow_mut() = Some(ProxyError::new(code, "no"));
            let mut client = proxy.client().await;
            client.say(GET).await;
            client.head().await;
            let counted = std::mem::take(&mut *proxy.route.counted.borrow_mut());
            assert_eq!(counted.len(), retried, "{code:?} {counted:?}");
        }
    });
}

#[test]
fn no_attempt_is_made_that_would_be_too_late() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        let backoff = Backoff { min: 2 * SHORT, max: 2 * SHORT, jitter: 0.0 };
        asks(&proxy, RetryTerms { backoff: Some(backoff), ..retry(1_000) });
        proxy.timeouts.set(Timeouts { request: Some(10 * SHORT), ..Timeouts::default() });
        let mut client = proxy.client().await;
        client.say(GET).await;
        let mut server = origin.accept().await;
        let answering = tokio::task::spawn_local(async move {
            let mut attempts = 0;
            // Each comes in one piece.
            while server.fill().await > 0 {
                attempts += 1;
                server.say(BUSY).await;
            }
            attempts
        });
        client.hear(BUSY).await;
        drop(client);
        proxy.kept.borrow_mut().clear();
        let attempts = answering.await.unwrap();
        assert!((1..=5).contains(&attempts), "{attempts}");
    });
}

/// Whatever the attempt before was answered.
#[test]
fn a_stale_connection_is_left_for_another_by_a_retry_too() {
    local(async {
        let (origin, proxy, mut client) = Origin::begin().await;
        asks(&proxy, retry(2));
        let mut server = origin.asked(&mut client, GET).await;
        server.say(BUSY).await;
        server.hear(GET).await;
        drop(server);
        let mut server = origin.accept().await;
        server.hear(GET).await;
        server.answers(&mut client, OK).await;
    });
}
