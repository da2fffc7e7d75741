//! How exchanges end other than well: aborts, stale connections, early answers, drain, upgrades, refusals.

use super::{
    GET, OK,
    fake::{HEAD_TIMEOUT, Origin, Seen, local},
};
use crate::error::{Code, ProxyError};
use std::time::Duration;
use tokio::time::{sleep, timeout};

#[test]
fn a_stale_pooled_connection_is_left_for_another() {
    local(async {
        let (origin, proxy, mut client) = Origin::begin().await;
        let mut server = origin.asked(&mut client, GET).await;
        server.answers(&mut client, OK).await;
        drop(server);
        // The pool hands it out all the same.
        let mut server = origin.asked(&mut client, GET).await;
        server.answers(&mut client, OK).await;
        // One that may have acted on a request is not asked again elsewhere.
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        server.asked(&mut client, post).await;
        drop(server);
        assert!(client.head().await.starts_with("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n"));
        client.end().await;
        assert_eq!(*proxy.refused.borrow(), [Code::UpstreamProtocol]);
    });
}

/// Who is slow and who is only idle are told apart: no clock runs between two requests.
#[test]
fn an_idle_connection_is_kept() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        let mut client = proxy.client().await;
        client.say(GET).await;
        let mut server = origin.accept().await;
        server.hear(GET).await;
        server.say(OK).await;
        client.hear(OK).await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(30 * 60)).await;
        tokio::time::resume();
        client.say(GET).await;
        server.hear(GET).await;
        server.say(OK).await;
        client.hear(OK).await;
    });
}

/// The clock runs while a head is not whole, for each head anew.
#[test]
fn a_head_that_has_begun_has_its_time() {
    local(async {
        let pass = async |time| {
            tokio::time::pause();
            tokio::time::advance(time).await;
            tokio::time::resume();
        };
        let (origin, proxy) = Origin::start().await;
        let mut client = proxy.client().await;
        let (begin, end) = GET.split_at(20);
        let mut server = None;
        for _ in 0..2 {
            client.say(begin).await;
            proxy.armed.notified().await;
            pass(HEAD_TIMEOUT - Duration::from_secs(1)).await;
            client.say(end).await;
            let server = match &mut server {
                Some(server) => server,
                none => none.insert(origin.accept().await),
            };
            server.hear(GET).await;
            server.say(OK).await;
            client.hear(OK).await;
        }
        // A line of its own, in two pieces, is no head that has begun.
        client.say("\r").await;
        proxy.armed.notified().await;
        client.say("\n").await;
        // Until it has been read, whatever else is ready runs.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        pass(HEAD_TIMEOUT).await;
        client.say(begin).await;
        let anew = tokio::time::timeout(HEAD_TIMEOUT / 2, proxy.armed.notified()).await;
        anew.expect("the clock begins anew");
        let server = server.as_mut().unwrap();
        client.say(end).await;
        server.hear(GET).await;
        server.say(OK).await;
        client.hear(OK).await;
        pass(HEAD_TIMEOUT).await;
        assert!(proxy.refused.borrow().is_empty(), "it was idle");
        client.say(&begin[..1]).await;
        proxy.armed.notified().await;
        pass(HEAD_TIMEOUT / 2).await;
        client.say(&begin[1..]).await;
        pass(HEAD_TIMEOUT / 2).await;
        let answer = client.head().await;
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
        assert!(answer.contains("[HEAD_TIMEOUT]\r\n") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
        client.end().await;
        assert_eq!(*proxy.refused.borrow(), [Code::HeadTimeout]);
    });
}

#[test]
fn a_fresh_connection_that_closes_without_a_word_is_left_for_one_other() {
    local(async {
        let (origin, proxy, mut client) = Origin::begin().await;
        client.say(GET).await;
        origin.accept().await.hear(GET).await;
        let mut server = origin.accept().await;
        server.hear(GET).await;
        server.say(OK.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
        client.hear(OK).await;
        // Not for ever: the request may be what ends the server.
        client.say(GET).await;
        origin.accept().await.hear(GET).await;
        origin.accept().await.hear(GET).await;
        assert!(client.head().await.starts_with("HTTP/1.1 502 Bad Gateway\r\n"));
        assert_eq!(proxy.connections.get(), 4);
        // And not where acting twice does harm.
        let mut client = proxy.client().await;
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        client.say(post).await;
        origin.accept().await.hear(post).await;
        assert!(client.head().await.starts_with("HTTP/1.1 502 Bad Gateway\r\n"));
        assert_eq!(proxy.connections.get(), 5);
    });
}

#[test]
fn an_answer_that_breaks_off_is_not_asked_for_again() {
    local(async {
        let (origin, _proxy, mut client) = Origin::begin().await;
        let mut server = origin.asked(&mut client, GET).await;
        server.answers(&mut client, OK).await;
        server.asked(&mut client, GET).await;
        server.say("HTTP/1.1 2").await;
        drop(server);
        assert!(client.head().await.contains("l5d-proxy-error: the server closed the connection without an answer [UPSTREAM_PROTOCOL]\r\nl5d-proxy-connection: close\r\nconnection: close\r\n"));
        client.end().await;
    });
}

#[test]
fn a_body_that_breaks_off_resets_the_client() {
    local(async {
        let (origin, proxy, mut client) = Origin::begin().await;
        let mut server = origin.asked(&mut client, GET).await;
        server.answers(&mut client, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab").await;
        drop(server);
        client.cut().await;
        let seen = proxy.record().await;
        assert_eq!(seen, [Seen::Head(200), Seen::FirstByte, Seen::End(None, Some(Code::UpstreamProtocol))]);
        assert_eq!(*proxy.refused.borrow(), [Code::UpstreamProtocol]);
    });
}

/// The kernel tells of a reset only once. Here the request's body is told, while the client takes no more of the response.
#[test]
fn a_reset_that_the_request_meets_first_does_not_end_the_response() {
    local(async {
        let (origin, proxy, mut client) = Origin::begin().await;
        let part = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab";
        let mut server = origin.asked(&mut client, part).await;
        server.say("HTTP/1.1 200 OK\r\n\r\n").await;
        let piece = vec![b'x'; 100_000];
        while timeout(Duration::from_millis(200), server.say(&piece)).await.is_ok() {}
        server.reset();
        client.say("c").await;
        // Time for it to go on to the server: the client that reads would let the proxy read as well.
        sleep(Duration::from_millis(200)).await;
        client.cut().await;
        let seen = proxy.record().await;
        assert_eq!(seen, [Seen::Head(200), Seen::FirstByte, Seen::End(None, Some(Code::UpstreamProtocol))]);
    });
}

/// A client that ends its own side is taken for gone: what it has got of a response by then ends with the connection, and is cut.
#[test]
fn a_response_that_a_half_closed_client_gets_only_in_part_does_not_look_complete() {
    for response in ["HTTP/1.0 200 OK\r\n\r\nbo", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n"] {
        local(async move {
            let (origin, proxy, mut client) = Origin::begin().await;
            let mut server = origin.asked(&mut client, "GET / HTTP/1.0\r\n\r\n").await;
            server.say(response).await;
            assert!(client.head().await.contains("connection: close\r\n"));
            client.hear("bo").await;
            client.finish().await;
            client.cut().await;
            server.end().await;
            assert_eq!(proxy.record().await, [Seen::Head(200), Seen::FirstByte, Seen::Aborted]);
        });
    }
}

#[test]
fn a_client_that_goes_away_is_noticed_while_the_server_is_silent() {
    local(async {
        let (origin, proxy, mut client) = Origin::begin().await;
        let mut server = origin.asked(&mut client, GET).await;
        drop(client);
        server.end().await;
        assert_eq!(proxy.record().await, [Seen::Aborted]);
    });
}

#[test]
fn a_client_that_resets_amid_its_body_ends_the_request() {
    local(async {
        let (origin, proxy, mut client) = Origin::begin().await;
        let part = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab";
        let mut server = origin.asked(&mut client, part).await;
        client.reset();
        server.end().await;
        assert_eq!(proxy.record().await, [Seen::Aborted]);
    });
}

#[test]
fn a_client_that_goes_away_is_noticed_while_nothing_is_decided() {
    local(async {
        let (_origin, proxy) = Origin::start().await;
        proxy.stuck.set(true);
        let mut client = proxy.client().await;
        client.say(GET).await;
        proxy.directing.notified().await;
        drop(client);
        assert_eq!(proxy.record().await, [Seen::Aborted]);
    });
}

#[test]
fn what_is_said_while_nothing_is_decided_is_kept() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        proxy.stuck.set(true);
        let mut client = proxy.client().await;
        client.say(&GET[..10]).await;
        client.say(&GET[10..]).await;
        proxy.directing.notified().await;
        client.say(GET).await;
        proxy.stuck.set(false);
        proxy.released.notify_one();
        let mut server = origin.accept().await;
        for _ in 0..2 {
            server.hear(GET).await;
            server.answers(&mut client, OK).await;
        }
    });
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    local(async {
        let (origin, proxy, mut client) = Origin::begin().await;
        let part = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\nab";
        let mut server = origin.asked(&mut client, part).await;
        server.say("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        drop(server);
        assert!(client.head().await.starts_with("HTTP/1.1 413 Too Large\r\n"));
        client.end().await;
        assert!(proxy.kept.borrow().is_empty());
    });
}

#[test]
fn refusals_that_do_not_close_leave_the_connection() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        *proxy.refusal.borrow_mut() = Some(ProxyError::new(Code::Unauthorized, "unauthorized\r\nforged: 1"));
        let mut client = proxy.client().await;
        client.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await;
        client
            .hear("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nl5d-proxy-error: unauthorized??forged: 1 [UNAUTHORIZED]\r\n\r\n")
            .await;
        proxy.informational.set(false);
        client.say("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n").await;
        client.hear("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
        proxy.refusal.borrow_mut().take();
        let mut server = origin.asked(&mut client, GET).await;
        server.answers(&mut client, OK).await;
        *proxy.refusal.borrow_mut() = Some(ProxyError::new(Code::Failfast, "no endpoint"));
        client.say(GET).await;
        client.hear("HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        client.end().await;
        assert_eq!(*proxy.refused.borrow(), [Code::Unauthorized, Code::Unauthorized, Code::Failfast]);
    });
}

#[test]
fn a_server_that_refuses_connections_is_a_502() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        drop(origin);
        let mut client = proxy.client().await;
        client.say(GET).await;
        assert!(client.head().await.starts_with("HTTP/1.1 502 Bad Gateway\r\n"));
        client.end().await;
        let seen = proxy.record().await;
        assert_eq!(seen, [Seen::Head(502), Seen::FirstByte, Seen::End(None, Some(Code::ConnectFailed))]);
    });
}

#[test]
fn a_drain_ends_idle_connections_and_lets_others_finish() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        let mut idle = proxy.client().await;
        let mut used = proxy.client().await;
        let mut busy = proxy.client().await;
        used.say(GET).await;
        let mut server = origin.accept().await;
        server.hear(GET).await;
        server.say(OK).await;
        used.hear(OK).await;
        busy.say(GET).await;
        server.hear(GET).await;
        let drained = tokio::task::spawn_local(proxy.drain());
        idle.end().await;
        used.end().await;
        server.say(OK).await;
        busy.hear("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: close\r\n\r\nhi").await;
        busy.end().await;
        drop((idle, used, busy));
        assert_eq!(drained.await.unwrap(), weft_transport::drain::Drained::Done);
    });
}

#[test]
fn a_drain_leaves_a_fresh_connection_its_first_request() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        let mut fresh = proxy.client().await;
        let drained = tokio::task::spawn_local(proxy.drain());
        tokio::time::sleep(Duration::from_millis(50)).await;
        fresh.say(GET).await;
        let mut server = origin.accept().await;
        server.hear(GET).await;
        server.say(OK).await;
        fresh.hear("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: close\r\n\r\nhi").await;
        fresh.end().await;
        drop(fresh);
        assert_eq!(drained.await.unwrap(), weft_transport::drain::Drained::Done);
    });
}

#[test]
fn connection_close_is_kept_on_either_side() {
    local(async {
        let (origin, proxy, mut client) = Origin::begin().await;
        let mut server = origin.asked(&mut client, GET).await;
        server.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi").await;
        client.hear(OK).await;
        server.end().await;
        client.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let mut server = origin.accept().await;
        server.hear("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        server.say(OK).await;
        client.hear("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: close\r\n\r\nhi").await;
        client.end().await;
        assert_eq!(proxy.kept.borrow().len(), 1, "the endpoint's connection lives on");
    });
}

#[test]
fn upgrades_and_connect_become_tunnels_only_when_the_server_agrees() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        let upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        let mut client = proxy.client().await;
        // What comes behind waits for the answer, and is a request if that is no.
        client.say([upgrade, GET].concat()).await;
        let mut server = origin.accept().await;
        server.hear(upgrade).await;
        server.answers(&mut client, OK).await;
        server.hear(GET).await;
        server.answers(&mut client, OK).await;
        assert_eq!(proxy.views.borrow().len(), 2, "the second request was decided too");
        client.say([upgrade, "early"].concat()).await;
        server.hear(upgrade).await;
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        server.answers(&mut client, [switch, "first"].concat()).await;
        server.hear("early").await;
        server.asked(&mut client, "up").await;
        client.finish().await;
        server.end().await;
        server.say("down").await;
        drop(server);
        client.hear("down").await;
        client.end().await;
        assert!(proxy.kept.borrow().is_empty(), "a tunnel never returns to the pool");

        let mut client = proxy.client().await;
        client.say("CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n").await;
        let mut server = origin.accept().await;
        server.hear("CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n").await;
        server.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 502"), "ambiguous even where it has no meaning");

        let mut client = proxy.client().await;
        client.say("CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n").await;
        let mut server = origin.accept().await;
        server.hear("CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n").await;
        server.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbytes").await;
        client.hear("HTTP/1.1 200 OK\r\n\r\nbytes").await;
        server.asked(&mut client, "x").await;
    });
}

/// As `docker exec` and `attach` ask: a body whose length is stated belongs to the request, and the other protocol begins behind it.
#[test]
fn an_upgrade_switches_behind_the_whole_body() {
    local(async {
        let (origin, proxy) = Origin::start().await;
        let head = |length: usize| {
            format!(
                "POST /exec HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n"
            )
        };
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n";
        // One that goes in one piece with its head, and one that does not.
        for body in ["abc".to_owned(), "x".repeat(100_000)] {
            let asked = [head(body.len()), body].concat();
            // Whoever does not switch has read one request, and what is behind it is another.
            let mut client = proxy.client().await;
            let before = proxy.views.borrow().len();
            client.say([&*asked, GET].concat()).await;
            let mut server = origin.accept().await;
            server.hear(&asked).await;
            server.answers(&mut client, OK).await;
            server.hear(GET).await;
            server.answers(&mut client, OK).await;
            assert_eq!(proxy.views.borrow().len(), before + 2, "the second request was decided too");
            client.say([&*asked, "early"].concat()).await;
            server.hear(&asked).await;
            server.answers(&mut client, switch).await;
            server.hear("early").await;
            server.asked(&mut client, "up").await;
            client.finish().await;
            server.end().await;
            drop(server);
            client.end().await;
        }
        // What is left of a body is no byte of another protocol.
        let mut client = proxy.client().await;
        client.say([&*head(5), "ab"].concat()).await;
        let mut server = origin.accept().await;
        server.hear([&*head(5), "ab"].concat()).await;
        server.say(switch).await;
        assert!(client.head().await.starts_with("HTTP/1.1 502"));
        client.end().await;
        server.end().await;
        // Where a body ends that comes in chunks is nobody's but HTTP's to say.
        let mut client = proxy.client().await;
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n";
        client.say([chunked, "Connection: upgrade\r\nUpgrade: tcp\r\n\r\n0\r\n\r\n"].concat()).await;
        let mut server = origin.accept().await;
        server.hear([chunked, "\r\n0\r\n\r\n"].concat()).await;
        server.say(switch).await;
        assert!(client.head().await.starts_with("HTTP/1.1 502"));
    });
}

#[test]
fn upgrades_that_would_hide_requests_are_not_offered() {
    for upgrade in [
        "Upgrade: h2c",
        "Upgrade: H2C/1",
        "Upgrade: HTTP/2.0",
        "Upgrade: websocket, h2c",
        "Upgrade: websocket\r\nUpgrade: h2c",
        "Upgrade: h2c\r\nUpgrade: websocket",
    ] {
        local(async move {
            let (origin, _proxy, mut client) = Origin::begin().await;
            let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: x\r\n";
            client.say([head, upgrade, "\r\n\r\n"].concat()).await;
            let mut server = origin.accept().await;
            server.hear("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            server.say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n").await;
            assert!(client.head().await.starts_with("HTTP/1.1 502"), "{upgrade}");
            client.end().await;
            server.end().await;
        });
    }
}
