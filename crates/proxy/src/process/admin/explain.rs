//! `GET /explain`: the last decision records that match a query, with cause and remedy of the codes in them. Loopback only.

use super::answer::{not_allowed, only_loopback, text};
use crate::{
    error::{Code, reference},
    records::{Query, Readers, Told},
};
use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;
use std::{collections::BTreeMap, time::Instant};

#[derive(Serialize)]
struct Explained {
    /// The newest first.
    records: Vec<Told>,
    /// The codes that stand in the records.
    codes: BTreeMap<&'static str, Explanation>,
    /// Workers that did not answer in time.
    #[serde(skip_serializing_if = "is_zero")]
    workers_missing: usize,
}

#[derive(Serialize)]
struct Explanation {
    cause: &'static str,
    remedy: &'static str,
}

pub(super) async fn answer(
    readers: &Readers,
    local: bool,
    method: &Method,
    query: Option<&str>,
) -> Response<Full<Bytes>> {
    if !local {
        return only_loopback();
    }
    if method != Method::GET {
        return not_allowed("GET");
    }
    let query = match Query::parse(query.unwrap_or_default()) {
        Ok(query) => query,
        Err(invalid) => return text(StatusCode::BAD_REQUEST, format!("{invalid}\n")),
    };
    let mut found = readers.find(&query).await;
    let (now, clock) = (Instant::now(), jiff::Timestamp::now());
    for record in &mut found.records {
        let ago = jiff::SignedDuration::try_from(now.saturating_duration_since(record.began)).unwrap_or_default();
        record.time = clock.checked_sub(ago).unwrap_or(clock).to_string();
    }
    let codes = found.records.iter().filter_map(|record| Code::named(record.code?)).map(|code| {
        let (cause, remedy) = reference::explained(code);
        (code.as_str(), Explanation { cause, remedy })
    });
    let codes = codes.collect();
    json(&Explained { records: found.records, codes, workers_missing: found.missing })
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec_pretty(value) {
        Ok(mut body) => {
            body.push(b'\n');
            let mut response = text(StatusCode::OK, body);
            let format = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, format);
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}
