//! HTTP in front of the world.

use super::world::{Failure, Id, News, Request, World, kind_of, kind_shown, plurals, version_of};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Response, StatusCode,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{collections::HashMap, io, sync::Arc, time::Duration};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};

/// What it says of itself.
const RELEASE: &str = "v1.34.4";

type Body = BoxBody<Bytes, io::Error>;

pub(super) async fn serve(listener: TcpListener, world: Arc<World>) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let world = world.clone();
        connections.spawn(async move {
            // As Go's: an event does not wait for the one before to be acknowledged.
            let _ = tcp.set_nodelay(true);
            let service = service_fn(|request| answer(request, world.clone()));
            // Who breaks off has no answer to get.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(tcp), service).await;
        });
    }
}

async fn answer(request: hyper::Request<Incoming>, world: Arc<World>) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
    world.record(Request { method: parts.method.to_string(), path: path.clone(), query: query.clone() });
    let query: HashMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let watches = query.get("watch").is_some_and(|w| *w == "true");
    let mut changes = world.changes();
    while world.is_path_held(&path) {
        changes.changed().await.map_err(io::Error::other)?;
    }
    let failure = world.state().failure;
    match failure {
        Some(Failure::Status(code)) => return Ok(status(code, "Failed")),
        Some(Failure::Close) => return Err(io::Error::other("closed by the test")),
        Some(Failure::Watches(code)) if watches => return Ok(status(code, "Failed")),
        Some(Failure::WatchesOf(plural, code)) if watches && path.split('/').any(|part| part == plural) => {
            return Ok(status(code, "Failed"));
        }
        Some(Failure::Of(plural, code)) if path.split('/').any(|part| part == plural) => {
            return Ok(status(code, "Failed"));
        }
        Some(Failure::At(of, code)) if path == of => return Ok(status(code, "Forbidden")),
        Some(Failure::SecondPage) if query.contains_key("continue") => return Ok(status(410, "Expired")),
        _ => {}
    }
    if path == "/version" {
        let release = world.state().release.clone().unwrap_or_else(|| RELEASE.to_owned());
        return Ok(json_response(200, &version_info(&release)));
    }
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
    let parts_of_path: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (version, rest) = match parts_of_path.as_slice() {
        ["api", "v1", rest @ ..] => ("v1".to_owned(), rest),
        ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
        _ => return Ok(status(404, "NotFound")),
    };
    if rest.is_empty() {
        return Ok(discovered(&world, &version));
    }
    if rest == ["tokenreviews"] {
        while world.is_held(&sent) {
            changes.changed().await.map_err(io::Error::other)?;
        }
        return Ok(json_response(201, &world.review(sent)));
    }
    if rest == ["selfsubjectaccessreviews"] {
        return Ok(json_response(201, &world.access(sent)));
    }
    let (namespace, plural, name) = match rest {
        ["namespaces", namespace, plural, name] | ["namespaces", namespace, plural, name, "status"] => {
            (Some(*namespace), *plural, Some(*name))
        }
        ["namespaces", namespace, plural] => (Some(*namespace), *plural, None),
        [plural, name] => (None, *plural, Some(*name)),
        [plural] => (None, *plural, None),
        _ => return Ok(status(404, "NotFound")),
    };
    let Some((kind, _)) = kind_of(&version, plural) else { return Ok(status(404, "NotFound")) };
    if !world.serves(kind, &version) {
        return Ok(status(404, "NotFound"));
    }
    let id = |name: &str| Id::new(kind, namespace.unwrap_or_default(), name);
    let written = |result: Result<Value, (u16, &'static str)>, code: u16| match result {
        Ok(object) => json_response(code, &object),
        Err((code, reason)) => status(code, reason),
    };
    Ok(match (parts.method, name) {
        (Method::GET, None) if watches => watch(world, kind, namespace.map(str::to_owned), &query),
        (Method::GET, None) => list(&world, kind, namespace, &query),
        (Method::GET, Some(name)) => {
            world.get(&id(name)).map_or_else(|| status(404, "NotFound"), |o| json_response(200, &o))
        }
        (Method::POST, None) if world.is_forbidden(plural) => status(403, "Forbidden"),
        (Method::POST, None) => match sent["metadata"]["name"].as_str().or(sent["metadata"]["generateName"].as_str()) {
            Some(name) if query.get("dryRun").is_some_and(|run| *run == "All") => match world.get(&id(name)) {
                Some(_) => status(409, "AlreadyExists"),
                None => json_response(201, &sent),
            },
            Some(name) => written(world.create(id(name), sent.clone()), 201),
            None => status(422, "Invalid"),
        },
        (Method::PUT, Some(name)) => written(world.replace(id(name), sent), 200),
        // Of a status nothing else is written.
        (Method::PATCH, Some(name)) if path.ends_with("/status") => {
            let status =
                json!({"metadata": {"resourceVersion": sent["metadata"]["resourceVersion"]}, "status": sent["status"]});
            written(world.patch(id(name), status, merge), 200)
        }
        (Method::PATCH, Some(name)) => written(world.patch(id(name), sent, merge), 200),
        (Method::DELETE, Some(name)) => written(world.delete_as(&id(name), &sent["preconditions"]), 200),
        _ => status(405, "MethodNotAllowed"),
    })
}

/// What a version of a group has.
fn discovered(world: &World, version: &str) -> Response<Body> {
    let served = plurals(version).filter(|(_, kind)| world.serves(kind, version));
    let resource = |(plural, kind): (&str, &str)| json!({"name": plural, "singularName": "", "namespaced": true, "kind": kind_shown(kind), "verbs": ["list", "watch"]});
    let resources: Vec<Value> = served.map(resource).collect();
    if resources.is_empty() {
        return status(404, "NotFound");
    }
    json_response(
        200,
        &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}),
    )
}

fn list(world: &World, kind: &str, namespace: Option<&str>, query: &HashMap<&str, &str>) -> Response<Body> {
    let number = |name: &str| query.get(name).and_then(|v| v.parse::<usize>().ok());
    let page = world.state().page(kind, namespace, number("continue"), number("limit").unwrap_or(usize::MAX));
    let Some((items, version, next)) = page else { return status(410, "Expired") };
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let Some(next) = next {
        metadata["continue"] = next.to_string().into();
    }
    let selector = query.get("labelSelector").map(|selector| decoded(selector)).unwrap_or_default();
    let fields = query.get("fieldSelector").map(|selector| decoded(selector)).unwrap_or_default();
    let is_named =
        |item: &Value| fields.strip_prefix("metadata.name=").is_none_or(|name| item["metadata"]["name"] == name);
    let items: Vec<Value> = items.into_iter().filter(|item| is_selected(item, &selector) && is_named(item)).collect();
    let list = json!({"kind": format!("{}List", kind_shown(kind)), "apiVersion": version_of(kind), "metadata": metadata, "items": items});
    json_response(200, &list)
}

/// By labels that are there, or have a value.
fn is_selected(item: &Value, selector: &str) -> bool {
    let labels = &item["metadata"]["labels"];
    selector.split(',').filter(|wanted| !wanted.is_empty()).all(|wanted| match wanted.split_once('=') {
        Some((name, value)) => labels[name] == *value.trim_start_matches('='),
        None => labels[wanted].is_string(),
    })
}

/// A part of a query, without its escapes.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).unwrap_or_default();
        decoded.extend(u8::from_str_radix(code, 16).ok().map(char::from));
        decoded += rest;
    }
    decoded
}

fn version_info(release: &str) -> Value {
    let mut info = json!({"gitVersion": release});
    let numbers: Vec<&str> = release.trim_start_matches('v').split('.').collect();
    for (key, value) in [("major", numbers.first()), ("minor", numbers.get(1))] {
        info[key] = json!(value);
    }
    for key in ["gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"] {
        info[key] = json!("");
    }
    info
}

/// A watch ends when its time is over, with a bookmark, or when the test cuts it, in the middle of a chunk.
fn watch(
    world: Arc<World>,
    kind: &'static str,
    namespace: Option<String>,
    query: &HashMap<&str, &str>,
) -> Response<Body> {
    let seen: u64 = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
    let time = query.get("timeoutSeconds").and_then(|v| v.parse().ok()).unwrap_or(290);
    let until = Instant::now() + Duration::from_secs(time);
    let (generation, marks) = {
        let state = world.state();
        (state.generation, state.bookmarks)
    };
    let wake = world.changes();
    let start = (world, wake, seen, marks, false);
    let lines = stream::unfold(start, move |(world, mut wake, mut seen, mut marks, over)| {
        let namespace = namespace.clone();
        async move {
            if over {
                return None;
            }
            loop {
                let (generation_now, held, marks_now, news) = {
                    let state = world.state();
                    (state.generation, state.held, state.bookmarks, state.news(kind, namespace.as_deref(), seen))
                };
                if generation_now != generation {
                    return Some((Err(io::Error::other("cut by the test")), (world, wake, seen, marks, true)));
                }
                match news {
                    _ if held => {}
                    News::Forgotten => {
                        let gone = json!({"type": "ERROR", "object": status_of(410, "Expired")});
                        return Some((Ok(line(&[gone])), (world, wake, seen, marks, true)));
                    }
                    News::Events(version, events) if !events.is_empty() => {
                        seen = version;
                        return Some((Ok(line(&events)), (world, wake, seen, marks, false)));
                    }
                    News::Events(version, _) if marks_now != marks => {
                        (seen, marks) = (version, marks_now);
                        return Some((Ok(line(&[bookmark(kind, seen)])), (world, wake, seen, marks, false)));
                    }
                    News::Events(..) => {}
                }
                tokio::select! {
                    changed = wake.changed() => if changed.is_err() { return None },
                    () = tokio::time::sleep_until(until) => {
                        let version = world.state().version();
                        return Some((Ok(line(&[bookmark(kind, version)])), (world, wake, seen, marks, true)));
                    }
                }
            }
        }
    });
    Response::new(BodyExt::boxed(StreamBody::new(lines)))
}

fn bookmark(kind: &str, version: u64) -> Value {
    let metadata = json!({"resourceVersion": version.to_string()});
    json!({"type": "BOOKMARK", "object": {"kind": kind, "apiVersion": version_of(kind), "metadata": metadata}})
}

fn line(events: &[Value]) -> Frame<Bytes> {
    Frame::data(events.iter().map(|e| format!("{e}\n")).collect::<String>().into())
}

fn status_of(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason})
}

fn status(code: u16, reason: &str) -> Response<Body> {
    json_response(code, &status_of(code, reason))
}

fn json_response(code: u16, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {});
    let mut response = Response::new(BodyExt::boxed(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    response
}

/// A merge patch.
fn merge(into: &mut Value, patch: Value) {
    match patch {
        Value::Object(fields) => {
            if !into.is_object() {
                *into = json!({});
            }
            for (name, value) in fields {
                if value.is_null() {
                    into.as_object_mut().map(|o| o.remove(&name));
                } else {
                    merge(&mut into[name.as_str()], value);
                }
            }
        }
        other => *into = other,
    }
}
