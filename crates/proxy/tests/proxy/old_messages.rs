//! What an older control plane says and ours cannot: messages by hand, field by field as data plane 10.2 numbers them.

use crate::{
    harness::{LONG, Setup, soon},
    mesh::Mesh,
};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};
use weft_testkit::http2;

const WATCH: &str = "/io.linkerd.proxy.outbound.OutboundPolicies/Watch";
/// The request timeout as it was once said.
const SHORT: Duration = Duration::from_millis(200);
/// Later than that, and soon enough for whoever has more time.
const LATE: Duration = Duration::from_millis(500);

fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while n >= 0x80 {
        bytes.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

fn number(field: u64, n: u64) -> Vec<u8> {
    [varint(field << 3), varint(n)].concat()
}

/// A text or a message.
fn text(field: u64, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [varint(field << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn message(field: u64, parts: &[Vec<u8>]) -> Vec<u8> {
    text(field, parts.concat())
}

fn duration(field: u64, duration: Duration) -> Vec<u8> {
    message(field, &[number(1, duration.as_secs()), number(2, duration.subsec_nanos().into())])
}

/// `meta.Metadata` {default 1}.
fn named(field: u64, name: &str) -> Vec<u8> {
    message(field, &[text(1, name)])
}

/// `OutboundPolicy` of one rule that sends everything to `addr`; `kind` is the number of the protocol: http2 4, grpc 5.
fn policy(kind: u64, addr: SocketAddr, timeouts: &[Vec<u8>]) -> Vec<u8> {
    let SocketAddr::V4(addr) = addr else { panic!("{addr} is not of version 4") };
    // ipv4 1 is a fixed32, least significant byte first.
    let ip = [vec![1 << 3 | 5], u32::from(*addr.ip()).to_le_bytes().to_vec()].concat();
    let tcp_address = message(1, &[message(1, &[ip]), number(2, addr.port().into())]);
    let forward = message(2, &[tcp_address]);
    let queue = message(4, &[number(1, 100), duration(2, Duration::from_secs(3))]);
    let backend = message(1, &[named(1, "forward"), forward, queue]);
    // Distribution {first_available 2 {backends 1 {backend 1}}}.
    let backends = message(3, &[message(2, &[message(1, &[backend])])]);
    let rule = message(3, &[&[backends][..], timeouts].concat());
    let route = message(1, &[named(1, "old"), rule]);
    let protocol = message(1, &[message(kind, &[route])]);
    [protocol, named(2, "old")].concat()
}

/// A policy service that answers each `Watch` for `addr:port` with the message for that port, and knows nothing else.
async fn control(known: Vec<(SocketAddr, Vec<u8>)>) -> http2::Origin {
    http2::Origin::start(move |request| {
        let (path, known) = (request.uri().path().to_owned(), known.clone());
        async move {
            let answer = || Response::builder().header("content-type", "application/grpc");
            let missing = || Ok(answer().header("grpc-status", "5").body(http2::full(""))?);
            if path != WATCH {
                return missing();
            }
            // Of a stream of requests there is one; its end need not come.
            let mut body = request.into_body();
            let Some(Ok(frame)) = body.frame().await else { return missing() };
            let asked = frame.into_data().unwrap_or_default();
            let wants = |addr: &SocketAddr| {
                let port = number(2, addr.port().into());
                asked.windows(port.len()).any(|part| part == port)
            };
            let Some((_, policy)) = known.iter().find(|(addr, _)| wants(addr)) else { return missing() };
            let framed = [&[0][..], &u32::try_from(policy.len())?.to_be_bytes(), policy].concat();
            let said = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(framed)))]);
            let body = BodyExt::boxed(StreamBody::new(said.chain(futures_util::stream::pending())));
            Ok(answer().body(body)?)
        }
    })
    .await
    .unwrap()
}

/// Answers late, or for `/s.S/Never` not at all.
async fn late() -> http2::Origin {
    http2::Origin::start(|request| async move {
        if request.uri().path() == "/s.S/Never" {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(LATE).await;
        let trailers = [("grpc-status".parse()?, "0".parse()?)].into_iter().collect();
        Ok(Response::new(http2::with_trailers("late", trailers)))
    })
    .await
    .unwrap()
}

/// An address that nobody has asked for.
fn target() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    SocketAddr::from(([10, 97, 0, 1], 1000 + u16::from(NEXT.fetch_add(1, Ordering::Relaxed))))
}

#[tokio::test]
async fn the_old_request_timeout_ends_a_request_where_there_is_no_new_one() {
    let server = late().await;
    let old = duration(4, SHORT);
    // timeouts 5 {request 2}.
    let new = message(5, &[duration(2, LONG)]);
    let mut known = vec![];
    for kind in [4, 5] {
        for (timeouts, ends) in [(vec![old.clone()], true), (vec![old.clone(), new.clone()], false)] {
            known.push((target(), kind, ends, timeouts));
        }
    }
    let answers = known.iter().map(|(addr, kind, _, timeouts)| (*addr, policy(*kind, server.addr(), timeouts)));
    let control = control(answers.collect()).await;
    let elder = |setup: Setup| setup.env("LINKERD2_PROXY_POLICY_SVC_ADDR", control.addr());
    let mesh = Mesh::of(elder, |app| app).await;
    let mut ended = 0.0;
    for (addr, kind, ends, _) in known {
        let mut client = http2::Client::over(mesh.web.connect_outbound(addr).await).await.unwrap();
        let path = if ends { "/s.S/Never" } else { "/s.S/Late" };
        let grpc = kind == 5;
        let content = if grpc { "application/grpc" } else { "text/plain" };
        let request = Request::post(format!("http://old.ns{path}")).header("content-type", content);
        let answer = soon(client.call(request.body(http2::full("")).unwrap())).await.unwrap();
        let status = answer.head.status.as_u16();
        if !ends {
            assert_eq!((status, &answer.body[..]), (200, &b"late"[..]), "{kind}: the new one counts");
            continue;
        }
        ended += 1.0;
        if grpc {
            // DEADLINE_EXCEEDED
            assert_eq!((status, &answer.head.headers["grpc-status"]), (200, &"4".parse().unwrap()));
        } else {
            assert_eq!(status, 504);
        }
        assert_eq!(answer.head.headers["l5d-proxy-error"], "request timeout [REQUEST_TIMEOUT]");
    }
    mesh.web.reaches("weft_proxy_errors_total{direction=\"outbound\",code=\"REQUEST_TIMEOUT\"}", ended).await;
    let counted = |kind: &str, status: &str| {
        format!(
            "outbound_{kind}_route_request_statuses_total{{parent_group=\"\",parent_kind=\"default\",parent_namespace=\"\",parent_name=\"old\",\
             parent_port=\"\",parent_section_name=\"\",route_group=\"\",route_kind=\"default\",route_namespace=\"\",route_name=\"old\",\
             hostname=\"\",{status}"
        )
    };
    mesh.web.reaches(&counted("http", "http_status=\"200\",error=\"\""), 1.0).await;
    mesh.web.reaches(&counted("grpc", "grpc_status=\"OK\",error=\"\""), 1.0).await;
}
