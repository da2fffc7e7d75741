//! What people see: pages over the two stores, and forms that lead to the next page by 303.

use super::{Answer, below, failed, reply};
use crate::client::Client;
use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header::LOCATION};
use serde_json::Value;
use std::sync::Arc;

pub(super) struct Webapp {
    pub(super) authors: String,
    pub(super) books: String,
}

impl Webapp {
    pub(super) async fn answer(self: Arc<Self>, request: Request<Bytes>) -> Answer {
        self.page(request).await.unwrap_or_else(|error| failed(&error))
    }

    fn site(&self, kind: &str) -> &str {
        if kind == "authors" { &self.authors } else { &self.books }
    }

    async fn page(&self, request: Request<Bytes>) -> anyhow::Result<Answer> {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        if path == "/" {
            let (authors, books) = (self.ask("authors", ".json").await?, self.ask("books", ".json").await?);
            return Ok(reply(StatusCode::OK, format!("<h1>Books</h1><pre>{authors}\n{books}</pre>")));
        }
        for kind in ["authors", "books"] {
            if path.strip_prefix('/') == Some(kind) && head.method == Method::POST {
                let row = self.tell(kind, Method::POST, ".json", body).await?;
                return Ok(see(&format!("/{kind}/{}", row["id"])));
            }
            let Some(rest) = below(path, kind) else { continue };
            match (&head.method, rest.split_once('/')) {
                (&Method::GET, None) => {
                    let row = self.ask(kind, &format!("/{rest}.json")).await?;
                    return Ok(reply(StatusCode::OK, format!("<h1>{kind}</h1><pre>{row}</pre>")));
                }
                (&Method::POST, Some((id, "edit"))) => {
                    self.tell(kind, Method::PUT, &format!("/{id}.json"), body).await?;
                    return Ok(see(&format!("/{kind}/{id}")));
                }
                (&Method::POST, Some((id, "delete"))) => {
                    self.tell(kind, Method::DELETE, &format!("/{id}.json"), Bytes::new()).await?;
                    return Ok(see("/"));
                }
                _ => {}
            }
        }
        Ok(reply(StatusCode::NOT_FOUND, "no such page"))
    }

    async fn ask(&self, kind: &str, rest: &str) -> anyhow::Result<Value> {
        self.tell(kind, Method::GET, rest, Bytes::new()).await
    }

    /// What the store answers, if that is a success.
    async fn tell(&self, kind: &str, method: Method, rest: &str, body: Bytes) -> anyhow::Result<Value> {
        let path = format!("/{kind}{rest}");
        let answer = Client::new(self.site(kind)).send(method.clone(), &path, body).await?;
        ensure!(answer.status().is_success(), "{method} {path}: {}", answer.status());
        let body = answer.into_body();
        if body.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&body).context("an answer is no JSON") }
    }
}

fn see(path: &str) -> Answer {
    let mut answer = reply(StatusCode::SEE_OTHER, "");
    // What ids are made of is fit for a header.
    if let Ok(path) = HeaderValue::try_from(path) {
        answer.headers_mut().insert(LOCATION, path);
    }
    answer
}
