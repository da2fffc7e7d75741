//! Streams that are reset, by either side.

use super::fake::{Fake, Seen, get, grpc, local, ok, read, server, until};
use h2::Reason;
use http::Response;
use std::{cell::Cell, rc::Rc};

#[test]
fn resets_of_the_server_keep_their_code() {
    local(async {
        let server = server(|request, mut respond| async move {
            if request.uri().path() == "/head" {
                respond.send_reset(Reason::ENHANCE_YOUR_CALM);
            } else {
                let mut send = respond.send_response(ok(), false).unwrap();
                send.send_data("half".into(), false).unwrap();
                send.send_reset(Reason::HTTP_1_1_REQUIRED);
            }
        });
        let fake = Fake::to_http2(server.await);
        let mut client = fake.client().await;
        let (response, _send) = client.send_request(get("/head"), true).unwrap();
        assert_eq!(response.await.unwrap_err().reason(), Some(Reason::ENHANCE_YOUR_CALM));
        let (response, _send) = client.send_request(get("/body"), true).unwrap();
        let reason = match response.await {
            Ok(mut response) => read(response.body_mut()).await.unwrap_err().reason(),
            Err(error) => error.reason(),
        };
        assert_eq!(reason, Some(Reason::HTTP_1_1_REQUIRED));
        until(|| fake.seen.borrow().iter().filter(|seen| matches!(seen, Seen::End(..))).count() == 2).await;
        assert!(fake.refused.borrow().is_empty(), "the server has ended them, and nobody else");
    });
}

#[test]
fn resets_of_the_client_keep_their_code() {
    for path in ["/before", "/during"] {
        local(async {
            let (reset, asked) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(false)));
            let (told, asking) = (reset.clone(), asked.clone());
            let server = server(move |request, mut respond| {
                let told = told.clone();
                asking.set(true);
                async move {
                    let reason = if request.uri().path() == "/before" {
                        std::future::poll_fn(|cx| respond.poll_reset(cx)).await
                    } else {
                        let mut send = respond.send_response(ok(), false).unwrap();
                        std::future::poll_fn(|cx| send.poll_reset(cx)).await
                    };
                    told.set(Some(reason.unwrap()));
                }
            });
            let fake = Fake::to_http2(server.await);
            let (response, mut send) = fake.client().await.send_request(get(path), false).unwrap();
            if path == "/during" {
                response.await.unwrap();
            } else {
                until(|| asked.get()).await;
            }
            send.send_reset(Reason::INADEQUATE_SECURITY);
            until(|| reset.get().is_some()).await;
            assert_eq!(reset.get(), Some(Reason::INADEQUATE_SECURITY));
            assert_eq!(fake.record().await.last(), Some(&Seen::Aborted));
        });
    }
}

#[test]
fn an_early_response_ends_the_request_without_an_error() {
    local(async {
        let server = server(|request, mut respond| async move {
            respond.send_response(Response::builder().status(413).body(()).unwrap(), true).unwrap();
            drop(request); // Dropped unread: the server resets with NO_ERROR.
        });
        let fake = Fake::to_http2(server.await);
        let (response, mut send) = fake.client().await.send_request(grpc(), false).unwrap();
        send.send_data("part".into(), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 413);
        let reason = std::future::poll_fn(|cx| send.poll_reset(cx)).await.unwrap();
        assert_eq!(reason, Reason::NO_ERROR);
    });
}

#[test]
fn a_client_that_goes_away_while_the_direction_decides_ends_the_wait() {
    local(async {
        let fake = Fake::to_http2(([127, 0, 0, 1], 1).into());
        fake.stuck.set(true);
        let (response, mut send) = fake.client().await.send_request(get("/"), false).unwrap();
        until(|| !fake.stuck.get()).await;
        send.send_reset(Reason::CANCEL);
        drop(response);
        assert_eq!(fake.record().await, [Seen::Aborted]);
    });
}
