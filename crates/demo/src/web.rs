//! Web: the voting page and its JSON API, answered by the gRPC services behind.

use crate::{
    catalogue,
    rpc::{Client, EMOJI_SERVICE, Empty, FindRequest, FindResponse, ListAllResponse, ResultsResponse, VOTING_SERVICE},
    serve::{self, Leave},
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use serde_json::json;
use std::convert::Infallible;
use tokio::net::TcpListener;
use tonic::Status;

const PAGE: &str = include_str!("page.html");

#[derive(Clone)]
struct Web {
    emoji: Client,
    voting: Client,
}

pub(crate) async fn serve(listener: TcpListener, emoji: &str, voting: &str, leave: Leave) -> anyhow::Result<()> {
    let web = Web { emoji: Client::new(emoji)?, voting: Client::new(voting)? };
    let service = service_fn(move |request| {
        let web = web.clone();
        async move { Ok::<_, Infallible>(web.answer(request).await) }
    });
    serve::serve(listener, service, leave).await
}

impl Web {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return json_reply(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "use GET"}));
        }
        let answer = match request.uri().path() {
            "/" | "/leaderboard" => Ok(reply(StatusCode::OK, "text/html; charset=utf-8", PAGE.into())),
            "/api/list" => self.list().await,
            "/api/leaderboard" => self.leaderboard().await,
            "/api/vote" => self.vote(request.uri().query().unwrap_or_default()).await,
            _ => Ok(json_reply(StatusCode::NOT_FOUND, &json!({"error": "no such page"}))),
        };
        answer.unwrap_or_else(|status| {
            let error = format!("{:?}: {}", status.code(), status.message());
            tracing::warn!(path = %request.uri(), error, "backend failed");
            json_reply(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": error}))
        })
    }

    async fn list(&self) -> Result<Response<Full<Bytes>>, Status> {
        let all: ListAllResponse = self.emoji.call(format!("{EMOJI_SERVICE}ListAll"), &Empty {}).await?;
        let list: Vec<_> = all.list.iter().map(|e| json!({"shortcode": e.shortcode, "unicode": e.unicode})).collect();
        Ok(json_reply(StatusCode::OK, &list.into()))
    }

    async fn vote(&self, query: &str) -> Result<Response<Full<Bytes>>, Status> {
        let choice = query.split('&').find_map(|pair| pair.strip_prefix("choice=")).unwrap_or_default();
        let choice = choice.replace("%3A", ":").replace("%3a", ":");
        let wanted = FindRequest { shortcode: choice.clone() };
        let found: FindResponse = self.emoji.call(format!("{EMOJI_SERVICE}FindByShortcode"), &wanted).await?;
        let Some(emoji) = found.emoji else {
            return Ok(json_reply(StatusCode::BAD_REQUEST, &json!({"error": format!("no emoji {choice:?}")})));
        };
        let method = catalogue::method(&emoji.shortcode);
        let Empty {} = self.voting.call(format!("{VOTING_SERVICE}{method}"), &Empty {}).await?;
        Ok(reply(StatusCode::OK, "text/plain", Bytes::new()))
    }

    /// One look-up per result: the fan-out is part of the demo.
    async fn leaderboard(&self) -> Result<Response<Full<Bytes>>, Status> {
        let all: ResultsResponse = self.voting.call(format!("{VOTING_SERVICE}Results"), &Empty {}).await?;
        let mut board = vec![];
        for result in all.results {
            let wanted = FindRequest { shortcode: result.shortcode };
            let found: FindResponse = self.emoji.call(format!("{EMOJI_SERVICE}FindByShortcode"), &wanted).await?;
            if let Some(emoji) = found.emoji {
                let votes = result.votes.to_string();
                board.push(json!({"shortcode": emoji.shortcode, "unicode": emoji.unicode, "votes": votes}));
            }
        }
        Ok(json_reply(StatusCode::OK, &board.into()))
    }
}

pub(crate) fn json_reply(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    reply(status, "application/json", value.to_string().into())
}

fn reply(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}
