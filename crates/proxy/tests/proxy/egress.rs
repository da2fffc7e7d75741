//! Traffic that leaves the mesh: forwarded to where the application dialled, or forbidden, as the control plane says (data
//! plane 4.14).

use crate::{
    harness::{eventually, soon},
    mesh::{Mesh, Service, shouting},
};
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_model::{
    ClientPolicy, Endpoint, Meta,
    policy::{
        outbound::{ClientProtocol, Distribution},
        route::Filter,
    },
};
use weft_testkit::{
    http1,
    policy::{detect, forward, opaque},
};

fn fallback() -> Meta {
    Meta::default_named("egress-fallback")
}

fn policy(mesh: &Mesh, policy: ClientPolicy) -> Service {
    let service = Service::new();
    mesh.control.set_outbound(service.addr, policy);
    service
}

#[tokio::test]
async fn a_forward_policy_reaches_the_outside_in_every_protocol() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|_| http1::Reply::ok(b"outside")).await.unwrap();
    let web = policy(&mesh, detect(fallback(), forward(Endpoint::plain(origin.addr()))));
    let mut client = http1::Client::over(mesh.connect(&web).await);
    let answer = soon(client.call("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")).await.unwrap();
    assert_eq!((answer.status(), &answer.body[..]), (Some(200), &b"outside"[..]));
    assert_eq!(origin.seen().requests[0].header("host").as_deref(), Some("example.com"));

    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let bytes = policy(&mesh, detect(fallback(), forward(Endpoint::plain(addr))));
    let mut tcp = mesh.connect(&bytes).await;
    tcp.write_all(b"\x00bytes\n").await.unwrap();
    tcp.shutdown().await.unwrap();
    let mut all = String::new();
    soon(tcp.read_to_string(&mut all)).await.unwrap();
    assert_eq!(all, "hello\n\0BYTES\nbye\n");
    let opened = "outbound_tcp_route_open_total{parent_group=\"\",parent_kind=\"default\",parent_namespace=\"\",\
                  parent_name=\"egress-fallback\",parent_port=\"\",parent_section_name=\"\",";
    mesh.web.reaches(opened, 1.0).await;
    server.abort();
}

#[tokio::test]
async fn a_port_that_does_not_exist_and_what_is_forbidden_are_refused() {
    let mesh = Mesh::start().await;
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    // What Linkerd's control plane sends for a port that a Service does not have.
    let mut undefined = opaque(Meta::default_named("undefined-port"), forward(Endpoint::plain(addr)));
    let mut denied = detect(fallback(), forward(Endpoint::plain(addr)));
    if let ClientProtocol::Opaque(Some(route)) = &mut undefined.protocol {
        (route.backends, route.filters) = (Distribution::Empty, vec![Filter::Forbidden]);
    }
    if let ClientProtocol::Detect { opaque: Some(route), .. } = &mut denied.protocol {
        route.filters = vec![Filter::Forbidden];
    }
    for (n, refused) in [(1.0, undefined), (2.0, denied)] {
        let name = refused.meta.name().to_owned();
        let service = policy(&mesh, refused);
        let mut tcp = mesh.connect(&service).await;
        // A reset may come before the bytes are sent.
        let _ = tcp.write_all(b"\x00bytes").await;
        assert!(soon(tcp.read_to_end(&mut vec![])).await.is_err(), "{name}");
        let code = "weft_proxy_errors_total{direction=\"outbound\",code=\"UNAUTHORIZED\"}";
        eventually("it is counted", || mesh.web.metric(code) == n).await;
        let metrics = mesh.web.handle().metrics();
        let closed = metrics.lines().filter(|l| {
            l.starts_with("outbound_tcp_route_close_total{") && l.contains(&name) && l.contains("error=\"forbidden\"")
        });
        assert_eq!(closed.count(), 1, "{metrics}");
    }
    assert_eq!(mesh.web.metric("tcp_open_total{direction=\"outbound\",peer=\"dst\""), 0.0, "nobody was dialled");
    server.abort();
}
