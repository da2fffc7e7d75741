//! The access log: a line per inbound request, and none of anything else.

use crate::{
    harness::{Setup, eventually, soon},
    mesh::{Mesh, get, naming},
};
use http::Request;
use std::time::Duration;
use tokio::{io::AsyncReadExt, net::TcpListener};
use weft_model::{ProtocolHint, policy::inbound::DefaultPolicy};
use weft_testkit::{control::FakeControl, http1, http2, policy::inbound};

/// How long a server takes.
const SLOW: Duration = Duration::from_millis(50);

#[tokio::test]
async fn inbound_requests_are_logged_when_their_response_begins() {
    let control = FakeControl::start().unwrap();
    let (log, out) = crate::harness::Log::new();
    let app = Setup::new(&control, "app").env("LINKERD2_PROXY_ACCESS_LOG", "json").access_log(out).ready().await;
    let slow = |_| async {
        tokio::time::sleep(SLOW).await;
        Ok(http::Response::new(http2::full("app")))
    };
    let origin = http2::Origin::start(slow).await.unwrap();
    control.set_inbound(origin.addr().port(), inbound(DefaultPolicy::AllUnauthenticated));
    let mut client = http2::Client::over(app.connect_inbound(origin.addr()).await).await.unwrap();
    let request = Request::post("http://app.ns/a?b=1")
        .header("user-agent", "curl/8")
        .header("x-request-id", "r-1")
        .header("content-length", "2");
    assert_eq!(soon(client.call(request.body(http2::full("hi")).unwrap())).await.unwrap().head.status, 200);
    eventually("the line is written", || log.text().ends_with('\n')).await;
    let text = log.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    let field = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    assert!(field("client.addr").starts_with("127.0.0.1:"), "{text}");
    assert_eq!((field("client.id"), field("host"), field("method")), ("-".into(), "app.ns".into(), "POST".into()));
    assert_eq!((field("uri"), field("version")), ("http://app.ns/a?b=1".into(), "HTTP/2.0".into()));
    assert_eq!((field("request_bytes"), field("response_bytes")), ("2".into(), "3".into()));
    assert_eq!((field("user_agent"), field("trace_id")), ("curl/8".into(), "r-1".into()));
    let nanos = |name: &str| field(name).parse::<u64>().unwrap();
    assert_eq!(line["status"], 200, "{text}");
    // What the server took is no time of the proxy's.
    let (processing, waited) = (nanos("processing_ns"), u64::try_from(SLOW.as_nanos()).unwrap());
    assert!(processing > 0 && nanos("total_ns").saturating_sub(processing) >= waited, "{text}");

    // Nobody is there: the proxy's own reply is logged too.
    let gone = crate::harness::nobody();
    let mut client = http2::Client::over(app.connect_inbound(gone).await).await.unwrap();
    assert_eq!(soon(client.call(get())).await.unwrap().head.status, 502);
    eventually("the line is written", || log.text().lines().count() == 2).await;
    assert!(log.text().lines().nth(1).unwrap().contains("\"status\":502"), "{}", log.text());
    assert_eq!(app.metric("weft_proxy_access_log_dropped_total"), 0.0);
    // What was written before the end is there after it.
    app.shutdown().await;
}

#[tokio::test]
async fn apache_is_the_other_form_and_outbound_is_not_logged() {
    let control = FakeControl::start().unwrap();
    let (log, out) = crate::harness::Log::new();
    let app = Setup::new(&control, "app").env("LINKERD2_PROXY_ACCESS_LOG", "apache").access_log(out).ready().await;
    let origin = naming("app").await;
    control.set_inbound(origin.addr().port(), inbound(DefaultPolicy::AllUnauthenticated));
    let mut outside = http2::Client::over(app.connect_outbound(([10, 96, 1, 1], 80).into()).await).await.unwrap();
    let _ = soon(outside.call(get())).await;
    let mut client = http2::Client::over(app.connect_inbound(origin.addr()).await).await.unwrap();
    assert_eq!(soon(client.call(get())).await.unwrap().head.status, 200);
    eventually("the line is written", || log.text().ends_with('\n')).await;
    let text = log.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("127.0.0.1:") && text.ends_with("] \"GET http://app.ns/ HTTP/2.0\" 200\n"), "{text}");
}

/// A connection of HTTP/1 that goes on has a line for each request, and a client of the mesh its name, whatever its proxy carries
/// its requests on.
#[tokio::test]
async fn http1_and_clients_of_the_mesh_are_logged_in_both_forms() {
    for form in ["apache", "json"] {
        let (log, out) = crate::harness::Log::new();
        let app = |app: Setup| app.env("LINKERD2_PROXY_ACCESS_LOG", form).access_log(out);
        let mesh = Mesh::of(|web| web, app).await;
        let origin = http1::Origin::start(|request| http1::Reply::ok(&request.body)).await.unwrap();
        mesh.control.set_inbound(origin.addr().port(), inbound(DefaultPolicy::AllUnauthenticated));
        let stranger = mesh.app.connect_inbound(origin.addr()).await;
        let from = stranger.local_addr().unwrap().to_string();
        let mut client = http1::Client::over(stranger);
        for request in [
            "POST /one?q HTTP/1.1\r\nHost: app.ns\r\nContent-Length: 5\r\n\r\nhello",
            "GET /two HTTP/1.1\r\nHost: app.ns\r\n\r\n",
        ] {
            assert_eq!(soon(client.call(request)).await.unwrap().status(), Some(200));
        }
        for hint in [ProtocolHint::Unknown, ProtocolHint::H2] {
            let known = mesh.service(&[mesh.endpoint(origin.addr(), hint)]);
            let mut client = http1::Client::over(mesh.connect(&known).await);
            let request = format!("PUT /{hint:?} HTTP/1.1\r\nHost: app.ns\r\nContent-Length: 2\r\n\r\nhi");
            assert_eq!(soon(client.call(request)).await.unwrap().status(), Some(200), "{hint:?}");
        }
        eventually("the lines are written", || log.text().lines().count() >= 4).await;
        // What each line says: of whom, of what, and how much came and went.
        let web = mesh.web.identity();
        let expected = [
            ("-", "POST", "/one?q", "HTTP/1.1", ["5", "5"]),
            ("-", "GET", "/two", "HTTP/1.1", ["", "0"]),
            (web.as_str(), "PUT", "/Unknown", "HTTP/1.1", ["2", "2"]),
            (web.as_str(), "PUT", "http://app.ns/H2", "HTTP/2.0", ["2", "2"]),
        ];
        let text = log.text();
        assert_eq!(text.lines().count(), expected.len(), "{text}");
        for (line, (id, method, uri, version, bytes)) in text.lines().zip(expected) {
            let peer = if form == "apache" {
                let (who, rest) = line.split_once(" - [").unwrap();
                let (peer, who) = who.split_once(' ').unwrap();
                let (timestamp, rest) = rest.split_once("] ").unwrap();
                assert!(timestamp.ends_with('Z'), "{line}");
                assert_eq!((who, rest), (id, &*format!("\"{method} {uri} {version}\" 200")));
                peer.to_owned()
            } else {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                let field = |name: &str| line[name].as_str().unwrap_or_else(|| panic!("{name}: {line}")).to_owned();
                let [client_id, host] = ["client.id", "host"].map(field);
                assert_eq!([client_id, host], [id, "app.ns"], "{line}");
                assert_eq!(["method", "uri", "version"].map(field), [method, uri, version], "{line}");
                assert_eq!(["request_bytes", "response_bytes"].map(field), bytes, "{line}");
                assert_eq!(line["status"], 200, "{line}");
                field("client.addr")
            };
            assert!(if id == "-" { peer == from } else { peer.starts_with("127.0.0.1:") && peer != from }, "{line}");
        }
    }
}

/// One line per request: of one whose client gave up before there was an answer as well, which has no status then. Of CONNECT it
/// names what was asked for.
#[tokio::test]
async fn who_leaves_before_the_answer_and_who_connects_has_a_line() {
    for (form, left, connected) in [
        ("apache", "\"GET /late HTTP/1.1\" -", "\"CONNECT web:80 HTTP/1.1\" 200"),
        ("json", "\"uri\":\"/late\"", "\"uri\":\"web:80\""),
    ] {
        let control = FakeControl::start().unwrap();
        let (log, out) = crate::harness::Log::new();
        let app = Setup::new(&control, "app").env("LINKERD2_PROXY_ACCESS_LOG", form).access_log(out).ready().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        control.set_inbound(addr.port(), inbound(DefaultPolicy::AllUnauthenticated));
        let mut client = http1::Client::over(app.connect_inbound(addr).await);
        soon(client.send("GET /late HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
        let (mut server, _) = soon(listener.accept()).await.unwrap();
        soon(server.read_exact(&mut [0; 16])).await.unwrap();
        assert_eq!(log.text(), "", "nothing is known of it yet");
        drop(client);
        eventually("the line is written", || log.text().ends_with('\n')).await;
        let text = log.text();
        assert!(text.contains(left) && !text.contains("status"), "{text}");
        drop((server, listener));

        let origin = http1::Origin::start(|_| http1::Reply::ok("")).await.unwrap();
        control.set_inbound(origin.addr().port(), inbound(DefaultPolicy::AllUnauthenticated));
        let mut client = http1::Client::over(app.connect_inbound(origin.addr()).await);
        soon(client.send("CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n")).await.unwrap();
        eventually("the line is written", || log.text().lines().count() == 2).await;
        let text = log.text();
        assert!(text.lines().nth(1).unwrap().contains(connected), "{text}");
        // A tunnel is known when it is over.
        drop(client);
        let known = async {
            loop {
                let (_, records) = app.admin("GET", "/explain").await;
                if records.contains("\"authority\": \"web:80\"") {
                    return records;
                }
            }
        };
        let records = soon(known).await;
        assert!(!records.contains("\"path\": \"/\""), "{records}");
    }
}
