//! Answers that do not come in the time that the policy gives them.

use super::{Fault, Saw, Sees, call, fault, get, grpc};
use crate::{mesh::Mesh, retry::ask};
use std::time::Duration;
use weft_model::{ProtocolHint, policy::outbound::Timeouts};
use weft_proxy::{direction::Direction::Outbound, error::Code};
use weft_testkit::{
    http1::{Origin, Reply},
    http2,
};

const SHORT: Duration = Duration::from_millis(200);
const NONE: Timeouts = Timeouts { request: None, response: None, idle: None };

pub(super) fn faults() -> Vec<Fault> {
    vec![
        fault("a request that takes too long", Code::RequestTimeout, Outbound, Sees::Reply, |m| {
            Box::pin(hanging(m, Timeouts { request: Some(SHORT), ..NONE }))
        }),
        fault("a request that waits too long for an endpoint", Code::RequestTimeout, Outbound, Sees::Reply, |m| {
            Box::pin(async move {
                let known = m.service(&[]);
                ask(m, &known, |rule| rule.timeouts = Timeouts { request: Some(SHORT), ..NONE });
                get(m.connect(&known).await).await
            })
        })
        .web(&[("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "60s")]),
        fault("a response that takes too long", Code::ResponseTimeout, Outbound, Sees::Reply, |m| {
            Box::pin(hanging(m, Timeouts { response: Some(SHORT), ..NONE }))
        }),
        fault("a request on which nothing moves", Code::IdleTimeout, Outbound, Sees::Reply, |m| {
            Box::pin(hanging(m, Timeouts { idle: Some(SHORT), ..NONE }))
        }),
        fault("a call of gRPC that takes too long", Code::RequestTimeout, Outbound, Sees::Grpc, |m| {
            Box::pin(async move {
                let origin = http2::Origin::start(|_| std::future::pending()).await.unwrap();
                let known = m.service(&[m.endpoint(origin.addr(), ProtocolHint::H2)]);
                ask(m, &known, |rule| rule.timeouts = Timeouts { request: Some(SHORT), ..NONE });
                call(m.connect(&known).await, grpc()).await
            })
        }),
    ]
}

/// A request to a server that never answers.
async fn hanging(mesh: &Mesh, timeouts: Timeouts) -> Saw {
    let origin = Origin::start(|_| Reply::Hang).await.unwrap();
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    ask(mesh, &known, |rule| rule.timeouts = timeouts);
    get(mesh.connect(&known).await).await
}
