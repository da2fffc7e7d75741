//! Requests that policy and server could read in two ways: paths, hosts and header bytes.
//!
//! Budget: none costs more than two requests for a plain path on a connection of their own, however often a path can be undone.

use crate::{
    cost::Cost,
    harness::{LONG, elsewhere, eventually, soon},
    measure::alone,
    mesh::{Mesh, naming},
};
use http::Request;
use std::{net::SocketAddr, time::Duration};
use weft_model::{
    Meta, ServerPolicy,
    policy::{
        inbound::{DefaultPolicy, InboundRule, ServerProtocol},
        route::{HeaderMatch, HttpMatch, HttpRoute, PathMatch, Rule, ValueMatch},
    },
};
use weft_testkit::{http1, http2, policy::inbound};

/// Everybody may use what is below `/`, and members of the mesh `/admin` and `/caf%c3%a9` on every host, and all of `admin.ns` and of
/// `keys.ns`, which a header names.
fn guarded() -> ServerPolicy {
    let mut policy = inbound(DefaultPolicy::Deny);
    let ServerProtocol::Detect { routes, .. } = &mut policy.protocol else { unreachable!() };
    let route = |name: &str, hosts, prefix: &str, default| {
        let matches = vec![HttpMatch { path: Some(PathMatch::Prefix(prefix.to_owned())), ..HttpMatch::default() }];
        let does = InboundRule { authorizations: inbound(default).authorizations };
        HttpRoute { meta: Meta::default_named(name), hosts, rules: vec![Rule { matches, filters: vec![], does }] }
    };
    let host = |name: &str| vec![weft_model::policy::route::HostMatch::Exact(name.to_owned())];
    let mut of_header = route("keys", vec![], "/", DefaultPolicy::AllAuthenticated);
    let keys = HeaderMatch { name: "host".to_owned(), value: ValueMatch::Exact(b"keys.ns".to_vec()) };
    of_header.rules[0].matches[0].headers = vec![keys];
    *routes = vec![
        of_header,
        route("escaped", vec![], "/caf%c3%a9", DefaultPolicy::AllAuthenticated),
        route("open", vec![], "/", DefaultPolicy::AllUnauthenticated),
        route("admin", vec![], "/admin", DefaultPolicy::AllAuthenticated),
        route("admin-host", host("admin.ns"), "/", DefaultPolicy::AllAuthenticated),
    ];
    policy
}

/// The status that a stranger's request gets; `None` if the connection is only closed.
async fn status(mesh: &Mesh, addr: SocketAddr, request: &str) -> Option<u16> {
    let tcp = mesh.app.connect_inbound_from(elsewhere(), addr).await.unwrap();
    let mut client = http1::Client::over(tcp);
    soon(client.call(request)).await.ok()?.status()
}

/// A request with nothing to find out.
async fn plain(mesh: &Mesh, addr: SocketAddr) {
    assert_eq!(status(mesh, addr, "GET /plain HTTP/1.1\r\nHost: app\r\n\r\n").await, Some(200));
}

/// Waits until the policy is known.
async fn until_refused(mesh: &Mesh, addr: SocketAddr, path: &str) {
    let start = std::time::Instant::now();
    while status(mesh, addr, &format!("GET {path} HTTP/1.1\r\nHost: app\r\n\r\n")).await != Some(403) {
        assert!(start.elapsed() < LONG, "the policy never comes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What servers of several kinds make of a path: each undoes escapes none, one or two times, takes parameters off before or behind
/// that or not at all, takes a backslash for a slash or not, drops empty segments or not, and then follows the dots (RFC 3986 5.2.4).
fn as_servers_read(path: &str) -> Vec<String> {
    let path = path.split('?').next().unwrap();
    let cut = |path: &str| {
        let segments: Vec<_> = path.split('/').map(|segment| segment.split(';').next().unwrap()).collect();
        segments.join("/")
    };
    let undone = |path: &str| {
        let (mut out, mut rest) = (String::new(), path);
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            let byte = rest.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(u8::is_ascii);
            out.push(byte.map_or('%', char::from));
            rest = &rest[at + if byte.is_some() { 3 } else { 1 }..];
        }
        out + rest
    };
    let followed = |path: &str, empty: bool| {
        let mut kept: Vec<&str> = vec![];
        for segment in path.split('/').skip(1) {
            match segment {
                ".." => drop(kept.pop()),
                "." => {}
                "" if !empty => {}
                segment => kept.push(segment),
            }
        }
        format!("/{}", kept.join("/"))
    };
    let mut all = vec![];
    for rounds in 0..=2 {
        for (before, behind) in [(false, false), (true, false), (false, true)] {
            let mut read = if before { cut(path) } else { path.to_owned() };
            (0..rounds).for_each(|_| read = undone(&read));
            if behind {
                read = cut(&read);
            }
            for slashes in [read.clone(), read.replace('\\', "/")] {
                all.extend([true, false].map(|empty| followed(&slashes, empty)));
            }
        }
    }
    all
}

/// Paths are put together by chance; each that any server would read as one below `/admin` is refused.
#[test]
fn what_any_server_would_read_as_guarded_is() {
    alone(module_path!(), "what_any_server_would_read_as_guarded_is", paths_by_chance);
}

async fn paths_by_chance() {
    const PARTS: &[&str] = &[
        "/",
        "//",
        "/.",
        "/..",
        "/%2e",
        "/%2E%2e",
        "/.%2e",
        "%2f",
        "%5c",
        "\\",
        ";x",
        ";",
        "/x",
        "/admin",
        "/admin",
        "/%61dmin",
        "/%2561dmin",
        "admin",
        "..",
        ".",
        "%252f",
        "%252e",
        "?",
        "/y;z=/admin",
        "%00",
        "/~",
        "/adm",
        "in",
    ];
    let mesh = Mesh::start().await;
    let addr = crate::plain::application().await;
    mesh.control.set_inbound(addr.port(), guarded());
    until_refused(&mesh, addr, "/admin").await;
    let mut client = None;
    let (mut seed, mut refused, mut passed) = (7_u64, 0, 0);
    let mut wrong = vec![];
    let cost = Cost::begin(async || plain(&mesh, addr).await).await;
    for _ in 0..1500 {
        let mut below = |n: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(seed >> 33).unwrap() % n
        };
        let parts: String = (0..2 + below(5)).map(|_| PARTS[below(PARTS.len())]).collect();
        let path = if parts.starts_with('/') { parts } else { format!("/{parts}") };
        let tcp = async || http1::Client::over(mesh.app.connect_inbound_from(elsewhere(), addr).await.unwrap());
        let mut asking: http1::Client<_> = match client.take() {
            Some(client) => client,
            None => tcp().await,
        };
        let answer = soon(asking.call(format!("GET {path} HTTP/1.1\r\nHost: app\r\n\r\n"))).await.unwrap();
        let status = answer.status().unwrap();
        if status != 400 && answer.header("connection").is_none_or(|value| value != "close") {
            client = Some(asking);
        }
        let is_guarded = |read: &String| read == "/admin" || read.starts_with("/admin/");
        match as_servers_read(&path).iter().find(|read| is_guarded(read)) {
            Some(read) if status == 200 => wrong.push(format!("{path} is let in, and a server may read {read}")),
            Some(_) => refused += 1,
            None if status == 200 => passed += 1,
            None => {}
        }
    }
    cost.end("paths by chance", 1500, 2.0);
    wrong.truncate(20);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(refused > 300 && passed > 300, "{refused} refused, {passed} passed: both are seen");
}

/// Each byte behind, within and before a guarded path, against each kind of match.
#[test]
fn no_byte_makes_a_guarded_path_another() {
    alone(module_path!(), "no_byte_makes_a_guarded_path_another", every_byte);
}

async fn every_byte() {
    let mesh = Mesh::start().await;
    let addr = crate::plain::application().await;
    let mut policy = guarded();
    let ServerProtocol::Detect { routes, .. } = &mut policy.protocol else { unreachable!() };
    let shut = |name: &str, path| {
        let matches = vec![HttpMatch { path: Some(path), ..HttpMatch::default() }];
        let does = InboundRule { authorizations: inbound(DefaultPolicy::AllAuthenticated).authorizations };
        HttpRoute {
            meta: Meta::default_named(name),
            hosts: vec![],
            rules: vec![Rule { matches, filters: vec![], does }],
        }
    };
    routes.push(shut("exact", PathMatch::Exact("/exact".to_owned())));
    mesh.control.set_inbound(addr.port(), policy);
    for path in ["/exact", "/admin"] {
        until_refused(&mesh, addr, path).await;
    }
    let mut client = None;
    let cost = Cost::begin(async || plain(&mesh, addr).await).await;
    for guarded in ["/exact", "/admin"] {
        for byte in 0..=255_u8 {
            for at in [1, guarded.len()] {
                let mut path = guarded.as_bytes().to_vec();
                path.insert(at, byte);
                let tcp = async || http1::Client::over(mesh.app.connect_inbound_from(elsewhere(), addr).await.unwrap());
                let mut asking: http1::Client<_> = match client.take() {
                    Some(client) => client,
                    None => tcp().await,
                };
                let request = [b"GET ", &path[..], b" HTTP/1.1\r\nHost: app\r\n\r\n"].concat();
                // What is no request at all is closed.
                let status = soon(asking.call(request)).await.ok().and_then(|answer| answer.status());
                if matches!(status, Some(200 | 403)) {
                    client = Some(asking);
                }
                // Bytes that servers cut at, skip, or take for the end.
                let loose = byte <= b' ' || matches!(byte, 0x7f | b'#');
                let slash = matches!(byte, b'/' | b'\\');
                let same = match at {
                    1 => slash,
                    _ => matches!(byte, b'?' | b';') || slash && guarded == "/admin",
                };
                let right = match status {
                    Some(200) => !loose && !same,
                    Some(403) => !loose,
                    Some(400) | None => true,
                    _ => false,
                };
                assert!(right, "{:?}: {status:?}", String::from_utf8_lossy(&path));
            }
        }
    }
    cost.end("every byte", 4 * 256, 2.0);
}

#[test]
fn paths_and_hosts_are_read_once() {
    alone(module_path!(), "paths_and_hosts_are_read_once", paths_and_hosts);
}

async fn paths_and_hosts() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|_| http1::Reply::ok("open")).await.unwrap();
    let addr = origin.addr();
    mesh.control.set_inbound(addr.port(), guarded());
    let get = |path: &str, host: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    until_refused(&mesh, addr, "/admin").await;
    let cost = Cost::begin(async || plain(&mesh, addr).await).await;
    let before = origin.seen().requests.len();
    for (path, host) in [
        ("/admin/x", "app"),
        ("//admin", "app"),
        ("/./admin", "app"),
        ("/x/../admin", "app"),
        ("/%61dmin", "app"),
        ("/x%2f..%2fadmin", "app"),
        ("/x/..;a/admin", "app"),
        ("/admin;a=b", "app"),
        ("/x/..\\admin", "app"),
        ("http://app/admin", "app"),
        ("http://app//admin", "app"),
        // The request line wins over the header, which the server is then told.
        ("http://admin.ns/", "app"),
        ("/", "admin.ns"),
        ("/", "ADMIN.NS"),
        ("/", "admin.ns."),
        ("/", "admin.ns:80"),
        ("http://ADMIN.ns:8080", "app"),
        ("/", "keys.ns"),
        ("http://keys.ns/", "app"),
        ("/caf%C3%A9", "app"),
        ("/c%61f%c3%A9/x", "app"),
    ] {
        let got = status(&mesh, addr, &get(path, host)).await;
        assert!(matches!(got, Some(400 | 403)), "{path} of {host}: {got:?}");
    }
    for request in [
        "GET / HTTP/1.1\r\nHost: app\r\nHost: admin.ns\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: app,admin.ns\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@admin.ns\r\n\r\n",
        "GET http://user@admin.ns/ HTTP/1.1\r\nHost: app\r\n\r\n",
        "GET /admin#x HTTP/1.1\r\nHost: app\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: app\r\n Host: admin.ns\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : admin.ns\r\n\r\n",
    ] {
        assert_eq!(status(&mesh, addr, request).await, Some(400), "{request:?}");
    }
    cost.end("paths and hosts", 28, 2.0);
    assert_eq!(origin.seen().requests.len(), before, "none of them reached the server");
    for path in ["/", "/x//y", "/administrator", "/a%20b", "/.well-known/a", "/ADMIN"] {
        assert_eq!(status(&mesh, addr, &get(path, "app")).await, Some(200), "{path}");
        assert!(origin.seen().requests.last().unwrap().first_line().contains(path), "{path} goes on as it came");
    }
}

#[test]
fn http2_has_one_host_too() {
    alone(module_path!(), "http2_has_one_host_too", hosts_of_http2);
}

async fn hosts_of_http2() {
    let mesh = Mesh::start().await;
    let origin = naming("app").await;
    mesh.control.set_inbound(origin.addr().port(), guarded());
    let ask = async |uri: &str, host: Option<&str>| {
        let tcp = mesh.app.connect_inbound_from(elsewhere(), origin.addr()).await.unwrap();
        let mut request = Request::get(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        // Without an authority it must say that it was HTTP/1, else the client refuses to send it.
        let request = request.version(http::Version::HTTP_11);
        let request = request.body(http2::full("")).unwrap();
        let mut client = http2::Client::over(tcp).await.unwrap();
        soon(client.call(request)).await.ok().map(|answer| answer.head.status.as_u16())
    };
    eventually_is(&ask, 403).await;
    let cost = Cost::begin(async || assert_eq!(ask("http://app/", None).await, Some(200))).await;
    let before = origin.seen().requests.len();
    assert_eq!(ask("http://ADMIN.ns:80/", None).await, Some(403));
    assert_eq!(ask("http://keys.ns/", None).await, Some(403), "as the header host");
    assert_eq!(ask("http://app/", Some("admin.ns")).await, None, "reset: two hosts");
    assert_eq!(ask("http://app//admin", None).await, Some(403));
    for (uri, host) in [
        ("http://app,admin.ns/", None),
        ("http://app,admin.ns/", Some("app,admin.ns")),
        ("http://user@admin.ns/", None),
        ("http://admin.ns:65536/", None),
        ("/", Some("app,admin.ns")),
        ("/", Some("user@admin.ns")),
        ("/", Some("admin.ns/")),
        ("/", Some("admin.ns:x")),
    ] {
        assert_eq!(ask(uri, host).await, None, "reset: {uri} {host:?} is no host");
    }
    assert_eq!(ask("/", Some("admin.ns:80")).await, Some(403));
    cost.end("hosts of HTTP/2", 13, 2.0);
    assert_eq!(origin.seen().requests.len(), before);
    assert_eq!(ask("http://app/", Some("app")).await, Some(200));
    assert_eq!(ask("/", Some("app")).await, Some(200));
    eventually("refusals are counted", || mesh.app.metric("inbound_http_authz_deny_total{") >= 3.0).await;
}

async fn eventually_is(ask: &impl AsyncFn(&str, Option<&str>) -> Option<u16>, wanted: u16) {
    let start = std::time::Instant::now();
    while ask("http://app/admin", None).await != Some(wanted) {
        assert!(start.elapsed() < LONG);
    }
}
