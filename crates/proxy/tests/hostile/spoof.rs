//! What strangers say of themselves in headers and trailers.
//!
//! Budget: a request with a forged header costs hardly more than one without.

use crate::{cost::Cost, harness::soon, measure::alone, mesh::Mesh};
use http::{HeaderMap, Request, Response};
use weft_model::ProtocolHint;
use weft_testkit::{http1, http2};

/// In ordinary exchanges the same ways.
const MOST: f64 = 2.0;
/// How often what is looked at once is sent, so that its cost can be told.
const TIMES: usize = 10;

const FORGED: &str = "admin.ns.serviceaccount.identity.linkerd.cluster.local";

#[test]
fn an_identity_is_never_taken_from_headers_or_trailers() {
    alone(module_path!(), "an_identity_is_never_taken_from_headers_or_trailers", never_taken);
}

async fn never_taken() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|request| http1::Reply::ok(&request.body)).await.unwrap();
    let services =
        [ProtocolHint::Unknown, ProtocolHint::H2].map(|hint| mesh.service(&[mesh.endpoint(origin.addr(), hint)]));
    let id = mesh.web.identity();
    // At the server's proxy in plaintext, and through the client's, which says what is known of it.
    let ask = async |request: &str| {
        let mut seen = vec![];
        let ways = [None, Some(&services[0]), Some(&services[1])];
        for service in ways {
            let before = origin.seen().requests.len();
            let tcp = match service {
                None => mesh.app.connect_inbound(origin.addr()).await,
                Some(service) => mesh.connect(service).await,
            };
            assert_eq!(soon(http1::Client::over(tcp).call(request)).await.unwrap().status(), Some(200));
            seen.push((service.is_some(), origin.seen().requests[before].clone()));
        }
        seen
    };
    // HTTP/1: any case, several, nominated, and behind the body.
    let with = |[first, second, nominated, behind]: [&str; 4]| {
        format!(
            "POST / HTTP/1.1\r\nHost: app\r\n{first}{second}Connection: {nominated}x-mine\r\nX-Mine: 1\r\n\
             l5d-orig-proto: HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n{behind}\r\n"
        )
    };
    let honest = with([""; 4]);
    let (upper, lower) = (format!("L5D-CLIENT-ID: {FORGED}\r\n"), format!("l5d-client-id: {FORGED}\r\n"));
    let forged = with([&upper, &lower, "l5d-client-id, ", &lower]);
    let cost = Cost::begin(async || drop(ask(&honest).await)).await;
    for _ in 0..TIMES {
        for (known, seen) in ask(&forged).await {
            let raw = String::from_utf8_lossy(&seen.raw).to_ascii_lowercase();
            assert!(!raw.contains("admin.ns") && !raw.contains("x-mine"), "{raw}");
            // `connection` cannot take it away.
            assert_eq!(seen.headers("l5d-client-id"), Vec::from_iter(known.then(|| id.to_string())));
        }
    }
    cost.end("forged identities", TIMES, MOST);

    // HTTP/2, in headers and trailers.
    let origin = http2::Origin::start(|request| async move {
        let got = http2::complete((), request.into_body()).await?;
        let trailers = got.trailers.unwrap_or_default();
        Ok(Response::new(http2::full(format!("{}", trailers.contains_key("l5d-client-id")))))
    })
    .await
    .unwrap();
    let trailers: HeaderMap = [("l5d-client-id".parse().unwrap(), FORGED.parse().unwrap())].into_iter().collect();
    let request = Request::post("http://app.ns/").header("l5d-client-id", FORGED).header("l5d-client-id", "other");
    let mut client = http2::Client::over(mesh.app.connect_inbound(origin.addr()).await).await.unwrap();
    let answer = soon(client.call(request.body(http2::with_trailers("x", trailers)).unwrap())).await.unwrap();
    assert_eq!(&answer.body[..], b"false");
    assert!(!origin.seen().requests[0].headers.contains_key("l5d-client-id"));
}

/// Ways to write it that a server behind CGI, FastCGI or WSGI reads as one name.
const SPELLINGS: [&str; 5] = ["L5d_Client_Id", "l5d-client_id", "l5d_client-id", "L5D.CLIENT.ID", "l5d+client~id"];

/// Where no real identity is beside it, such a name would be believed.
#[test]
fn no_spelling_of_the_identity_goes_through() {
    alone(module_path!(), "no_spelling_of_the_identity_goes_through", no_spelling);
}

async fn no_spelling() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|_| http1::Reply::ok(b"")).await.unwrap();
    let service =
        |hint| (hint, mesh.service(&[mesh.endpoint(origin.addr(), hint)]), mesh.web.identity().as_str().to_owned());
    let services = [service(ProtocolHint::Unknown), service(ProtocolHint::H2)];
    let asking = |name: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: app\r\n{name}: {FORGED}\r\nx-l5d_client_id: kept\r\nTransfer-Encoding: chunked\r\n\r\n\
             1\r\nx\r\n0\r\nx-sum: 1\r\n{name}: {FORGED}\r\n\r\n"
        )
    };
    let honest = asking("x-client-id");
    let cost = Cost::begin(async || {
        for tcp in [
            mesh.app.connect_inbound(origin.addr()).await,
            mesh.connect(&services[0].1).await,
            mesh.connect(&services[1].1).await,
        ] {
            assert_eq!(soon(http1::Client::over(tcp).call(&honest)).await.unwrap().status(), Some(200));
        }
    })
    .await;
    for name in SPELLINGS {
        let request = asking(name);
        let mut ways = vec![(None, mesh.app.connect_inbound(origin.addr()).await)];
        for (_, service, id) in &services {
            ways.push((Some(id), mesh.connect(service).await));
        }
        for (n, (known, tcp)) in ways.into_iter().enumerate() {
            let before = origin.seen().requests.len();
            assert_eq!(soon(http1::Client::over(tcp).call(&request)).await.unwrap().status(), Some(200), "{name} {n}");
            let seen = origin.seen().requests[before].clone();
            let raw = String::from_utf8_lossy(&seen.raw).into_owned();
            assert!(
                !raw.contains("admin.ns") && raw.contains("x-sum: 1") && raw.contains(": kept"),
                "{name} {n}: {raw}"
            );
            assert_eq!(seen.headers("l5d-client-id"), Vec::from_iter(known.cloned()), "{name} {n}");
        }
    }
    cost.end("spellings", SPELLINGS.len(), MOST);

    let origin = http2::Origin::start(|request| async move {
        let got = http2::complete((), request.into_body()).await?;
        let names: Vec<_> = got.trailers.iter().flat_map(HeaderMap::keys).map(|name| name.as_str()).collect();
        Ok(Response::new(http2::full(names.join(" "))))
    })
    .await
    .unwrap();
    let (h2, id) = (mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]), mesh.web.identity());
    for (known, tcp) in
        [(None, mesh.app.connect_inbound(origin.addr()).await), (Some(id.as_str()), mesh.connect(&h2).await)]
    {
        let mut client = http2::Client::over(tcp).await.unwrap();
        for name in SPELLINGS {
            let name: http::HeaderName = name.parse().unwrap();
            let trailers = [("x-sum".parse().unwrap(), "1".parse().unwrap()), (name.clone(), FORGED.parse().unwrap())];
            let request = Request::post("http://app.ns/").header(&name, FORGED).header("l5d-x_y", "kept");
            let body = http2::with_trailers("x", trailers.into_iter().collect());
            let answer = soon(client.call(request.body(body).unwrap())).await.unwrap();
            assert_eq!(&answer.body[..], b"x-sum", "{name}");
            let seen = origin.seen().requests.pop().unwrap().headers.clone();
            assert!(!seen.contains_key(&name) && seen.contains_key("l5d-x_y"), "{name}: {seen:?}");
            assert_eq!(seen.get("l5d-client-id").map(|id| id.to_str().unwrap()), known, "{name}");
        }
    }
}

/// What follows a body may be merged into the head by whoever reads it: that frames nothing, and of a request says nothing of who asks.
/// What a server says behind its own response, as gRPC's do, is its own.
#[test]
fn trailers_say_nothing_of_who_asks_and_a_servers_are_its_own() {
    alone(module_path!(), "trailers_say_nothing_of_who_asks_and_a_servers_are_its_own", of_trailers);
}

async fn of_trailers() {
    const ASKING: [&str; 4] = ["authorization", "cookie", "x-forwarded-for", "forwarded"];
    const NEVER: [&str; 3] = ["host", "l5d-proxy-error", "l5d-orig-proto"];
    const METADATA: [&str; 4] = ["grpc-status", "grpc-status-details-bin", "x-token", "location"];
    let all = || ASKING.into_iter().chain(NEVER).chain(METADATA);
    let trailers = move || -> HeaderMap {
        all().map(|name| (name.parse().unwrap(), "1".parse::<http::HeaderValue>().unwrap())).collect()
    };
    let names = |trailers: &HeaderMap| {
        let mut names: Vec<_> = trailers.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        names
    };
    let expected = |names: &[&[&str]]| {
        let mut names: Vec<String> = names.concat().into_iter().map(str::to_owned).collect();
        names.sort();
        names
    };
    let mesh = Mesh::start().await;
    let origin = http2::Origin::start(move |request| async move {
        let got = http2::complete((), request.into_body()).await?;
        let seen = names(&got.trailers.unwrap_or_default()).join(" ");
        Ok(Response::builder().header("seen", seen).body(http2::with_trailers("x", trailers()))?)
    })
    .await
    .unwrap();
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let ask = async |trailers: HeaderMap| {
        let mut answers = vec![];
        for tcp in [mesh.app.connect_inbound(origin.addr()).await, mesh.connect(&service).await] {
            let mut client = http2::Client::over(tcp).await.unwrap();
            let request = Request::post("http://app.ns/").body(http2::with_trailers("x", trailers.clone())).unwrap();
            answers.push(soon(client.call(request)).await.unwrap());
        }
        answers
    };
    let honest = || -> HeaderMap {
        METADATA.iter().map(|name| (name.parse().unwrap(), "1".parse::<http::HeaderValue>().unwrap())).collect()
    };
    let cost = Cost::begin(async || drop(ask(honest()).await)).await;
    for _ in 0..TIMES {
        for answer in ask(trailers()).await {
            assert_eq!(answer.head.headers["seen"].to_str().unwrap(), expected(&[&METADATA[..3]]).join(" "));
            assert_eq!(names(&answer.trailers.unwrap()), expected(&[&ASKING, &METADATA]));
        }
    }
    cost.end("forged trailers", TIMES, MOST);
}
