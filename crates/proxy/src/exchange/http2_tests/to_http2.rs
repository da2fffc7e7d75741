//! HTTP/2 carried on HTTP/2: messages as they should be.

use super::fake::{Fake, Seen, get, grpc, local, ok, read, server, write};
use crate::error::Code;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use std::{cell::Cell, rc::Rc};

fn trailers(status: &'static str) -> HeaderMap {
    [("grpc-status".parse().unwrap(), HeaderValue::from_static(status))].into_iter().collect()
}

#[test]
fn a_unary_call_carries_trailers_and_its_status_is_recorded() {
    local(async {
        let server = server(|request, mut respond| async move {
            assert_eq!(request.uri().authority().unwrap(), "voting.test");
            let (body, _) = read(&mut request.into_body()).await.unwrap();
            assert_eq!(body, "ask");
            let mut send = respond.send_response(ok(), false).unwrap();
            send.send_data("answer".into(), false).unwrap();
            send.send_trailers(trailers("2")).unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let (response, mut send) = fake.client().await.send_request(grpc(), false).unwrap();
        send.send_data("ask".into(), true).unwrap();
        let (body, got) = read(response.await.unwrap().body_mut()).await.unwrap();
        assert_eq!((body, got), ("answer".into(), Some(trailers("2"))));
        assert_eq!(fake.record().await, [Seen::Head(200), Seen::FirstByte, Seen::End(Some(2), None)]);
        assert_eq!(fake.rtts.get(), 1);
    });
}

#[test]
fn a_trailers_only_reply_stays_one_frame() {
    local(async {
        let server = server(|_, mut respond| async move {
            respond.send_response(Response::builder().header("grpc-status", "5").body(()).unwrap(), true).unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let (response, _send) = fake.client().await.send_request(grpc(), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "5");
        assert!(response.body().is_end_stream());
        assert_eq!(fake.record().await, [Seen::Head(200), Seen::FirstByte, Seen::End(Some(5), None)]);
    });
}

#[test]
fn streams_run_both_ways_at_once() {
    local(async {
        let server = server(|request, mut respond| async move {
            let mut send = respond.send_response(ok(), false).unwrap();
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                write(&mut send, data, false).await.unwrap();
            }
            send.send_trailers(trailers("0")).unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let (response, mut send) = fake.client().await.send_request(grpc(), false).unwrap();
        let mut response = response.await.unwrap();
        for n in 0..100 {
            let message = Bytes::from(format!("message {n}"));
            send.send_data(message.clone(), false).unwrap();
            assert_eq!(response.body_mut().data().await.unwrap().unwrap(), message);
        }
        send.send_data(Bytes::new(), true).unwrap();
        assert_eq!(read(response.body_mut()).await.unwrap().1, Some(trailers("0")));
    });
}

#[test]
fn ten_megabytes_go_both_ways_unchanged() {
    local(async {
        let server = server(|request, mut respond| async move {
            let (body, _) = read(&mut request.into_body()).await.unwrap();
            let mut send = respond.send_response(ok(), false).unwrap();
            write(&mut send, body, true).await.unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let (response, mut send) = fake.client().await.send_request(grpc(), false).unwrap();
        let data: Bytes = (0..10_000_000_u32).map(|n| (n % 251) as u8).collect();
        write(&mut send, data.clone(), true).await.unwrap();
        let (got, _) = read(response.await.unwrap().body_mut()).await.unwrap();
        assert!(got == data);
    });
}

#[test]
fn a_reader_that_stops_stops_the_writer() {
    local(async {
        let sent = Rc::new(Cell::new(0));
        let counted = sent.clone();
        let server = server(move |_, mut respond| {
            let sent = counted.clone();
            async move {
                let mut send = respond.send_response(ok(), false).unwrap();
                loop {
                    write(&mut send, Bytes::from_static(&[7; 10_000]), false).await.unwrap();
                    sent.set(sent.get() + 10_000);
                }
            }
        });
        let fake = Fake::to_http2(server.await);
        let (response, _send) = fake.client().await.send_request(get("/"), true).unwrap();
        let _response = response.await.unwrap();
        let mut before = 0;
        let mut still = 0;
        while still < 50 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            still = if sent.get() == before { still + 1 } else { 0 };
            before = sent.get();
        }
        // One window at the client, one in the proxy, and what the server holds back itself.
        assert!(sent.get() < 4 * 65_535 + 400_000, "{} bytes in flight", sent.get());
    });
}

#[test]
fn informational_responses_are_passed_on() {
    local(async {
        let server = server(|_, mut respond| async move {
            respond.send_informational(Response::builder().status(103).header("link", "x").body(()).unwrap()).unwrap();
            tokio::task::yield_now().await;
            respond.send_response(ok(), true).unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let (mut response, _send) = fake.client().await.send_request(get("/"), true).unwrap();
        let early = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(
            (early.status(), &early.headers()["link"]),
            (StatusCode::EARLY_HINTS, &HeaderValue::from_static("x"))
        );
        assert_eq!(response.await.unwrap().status(), 200);
    });
}

#[test]
fn a_server_that_switches_protocols_is_a_502() {
    local(async {
        let server = server(|_, mut respond| async move {
            let switch = Response::builder().status(101).body(()).unwrap();
            respond.send_informational(switch).unwrap();
            tokio::task::yield_now().await;
            // By then the proxy has given the stream up, or not.
            let _ = respond.send_response(ok(), true);
        });
        let fake = Fake::to_http2(server.await);
        let (response, _send) = fake.client().await.send_request(get("/"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 502);
        let seen = [Seen::Head(502), Seen::FirstByte, Seen::End(None, Some(Code::UpstreamProtocol))];
        assert_eq!(fake.record().await, seen);
    });
}

#[test]
fn mesh_headers_of_the_response_are_removed_where_the_direction_says_so() {
    local(async {
        let server = server(|request, mut respond| async move {
            assert_eq!(request.headers()["l5d-client-id"], "web.default");
            assert_eq!(request.headers().get("l5d-forged"), None);
            let response = Response::builder()
                .header("l5d-proxy-error", "x")
                .header("l5d-proxy-connection", "close")
                .header("x", "y")
                .body(())
                .unwrap();
            respond.send_response(response, true).unwrap();
        });
        let fake = Fake::to_http2(server.await);
        fake.edits.replace(crate::exchange::Edits {
            remove: &["l5d-forged"],
            set: [("l5d-client-id", Rc::from("web.default"))].into_iter().collect(),
            strip_mesh_response: true,
            ..Default::default()
        });
        let mut request = get("/");
        request.headers_mut().insert("l5d-forged", HeaderValue::from_static("1"));
        request.headers_mut().insert("l5d-client-id", HeaderValue::from_static("forged"));
        let (response, _send) = fake.client().await.send_request(request, true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers().len(), 1, "{:?}", response.headers());
    });
}
