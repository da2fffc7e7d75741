//! Authors and books: rows of JSON in memory.

use super::{Answer, below, failed, json_reply, reply};
use crate::client::Client;
use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Authors,
    Books,
}

pub(super) struct Store {
    kind: Kind,
    /// host:port of the other one.
    other: String,
    failure_rate: f64,
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    by_id: BTreeMap<u64, Value>,
    next: u64,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Authors => "authors",
            Self::Books => "books",
        }
    }
}

impl Store {
    pub(super) fn new(kind: Kind, other: String, failure_rate: f64) -> Self {
        Self { kind, other, failure_rate, rows: Mutex::default() }
    }

    pub(super) async fn answer(self: Arc<Self>, request: Request<Bytes>) -> Answer {
        let (path, kind) = (request.uri().path().to_owned(), self.kind.as_str());
        if path == format!("/{kind}.json") {
            return match *request.method() {
                Method::GET => json_reply(StatusCode::OK, &self.rows.lock().by_id.values().cloned().collect()),
                Method::POST => self.create(request.body()).await.unwrap_or_else(|error| failed(&error)),
                _ => reply(StatusCode::METHOD_NOT_ALLOWED, ""),
            };
        }
        let id = below(&path, kind).and_then(|rest| rest.strip_suffix(".json")?.parse::<u64>().ok());
        let Some(id) = id else { return reply(StatusCode::NOT_FOUND, "no such page") };
        match *request.method() {
            // The failure that is built in: only who asks whether there is such an author meets it.
            Method::HEAD if self.kind == Kind::Authors && fastrand::f64() < self.failure_rate => {
                reply(StatusCode::SERVICE_UNAVAILABLE, "")
            }
            Method::GET | Method::HEAD => match self.rows.lock().by_id.get(&id) {
                Some(row) => json_reply(StatusCode::OK, row),
                None => reply(StatusCode::NOT_FOUND, ""),
            },
            Method::PUT => self.change(id, request.body()),
            Method::DELETE => self.delete(id).await.unwrap_or_else(|error| failed(&error)),
            _ => reply(StatusCode::METHOD_NOT_ALLOWED, ""),
        }
    }

    async fn create(&self, body: &[u8]) -> anyhow::Result<Answer> {
        let mut row: Value = serde_json::from_slice(body).context("the request is no JSON")?;
        ensure!(row.is_object(), "a row is an object");
        if self.kind == Kind::Books {
            let author = format!("/authors/{}.json", row["author_id"]);
            let answer = Client::new(&self.other).send(Method::HEAD, &author, Bytes::new()).await?;
            ensure!(answer.status() == StatusCode::OK, "the author could not be looked up: {}", answer.status());
        }
        let mut rows = self.rows.lock();
        rows.next = rows.next.saturating_add(1);
        let id = rows.next;
        row["id"] = json!(id);
        rows.by_id.insert(id, row.clone());
        Ok(json_reply(StatusCode::CREATED, &row))
    }

    fn change(&self, id: u64, body: &[u8]) -> Answer {
        let mut rows = self.rows.lock();
        let (Some(row), Ok(Value::Object(changes))) = (rows.by_id.get_mut(&id), serde_json::from_slice(body)) else {
            return reply(StatusCode::NOT_FOUND, "");
        };
        for (key, value) in changes {
            row[key] = value;
        }
        json_reply(StatusCode::OK, row)
    }

    async fn delete(&self, id: u64) -> anyhow::Result<Answer> {
        if self.kind == Kind::Authors {
            let mut books = Client::new(&self.other);
            let all = books.send(Method::GET, "/books.json", Bytes::new()).await?;
            let all: Vec<Value> = serde_json::from_slice(all.body()).context("the list of books is no JSON")?;
            for book in all.iter().filter(|book| book["author_id"] == id) {
                books.send(Method::DELETE, &format!("/books/{}.json", book["id"]), Bytes::new()).await?;
            }
        }
        let gone = self.rows.lock().by_id.remove(&id);
        Ok(reply(if gone.is_some() { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }, ""))
    }
}
