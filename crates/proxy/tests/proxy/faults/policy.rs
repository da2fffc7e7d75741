//! What policies refuse.

use super::{Fault, Saw, Sees, call, dial, end, fault, forwarded, get, grpc, say};
use crate::{
    harness::elsewhere,
    mesh::{Mesh, Service, naming},
};
use weft_model::{
    ClientPolicy, Endpoint, ServerPolicy,
    policy::{
        inbound::{DefaultPolicy, RateLimit, ServerProtocol},
        outbound::{BackendKind, ClientProtocol, Distribution, RouteBackend},
        route::{Filter, Ratio},
    },
};
use weft_proxy::{
    direction::Direction::{Inbound, Outbound},
    error::Code,
};
use weft_testkit::policy::{balance, detect, forward, inbound, opaque, service};

pub(super) fn faults() -> Vec<Fault> {
    let no_route = |name, sees, inject| fault(name, Code::RouteNotFound, Outbound, sees, inject).early();
    let denied = |name, sees, inject| fault(name, Code::Unauthorized, Inbound, sees, inject).pushed();
    vec![
        no_route("no route of HTTP/1", Sees::Reply, |m| {
            Box::pin(async move { get(m.connect(&without_routes(m)).await).await })
        }),
        no_route("no route of HTTP/2", Sees::Reply, |m| {
            Box::pin(async move { call(m.connect(&without_routes(m)).await, crate::mesh::get()).await })
        }),
        no_route("no route of gRPC", Sees::Grpc, |m| {
            Box::pin(async move { call(m.connect(&without_routes(m)).await, grpc()).await })
        }),
        no_route("no route of bytes", Sees::End, |m| {
            Box::pin(async move { end(m.connect(&without_routes(m)).await, "\x00\x01\x02").await })
        }),
        fault("no route of a port", Code::RouteNotFound, Inbound, Sees::Reply, |m| {
            Box::pin(ask(m, |policy| {
                if let ServerProtocol::Detect { routes, .. } = &mut policy.protocol {
                    routes[0].hosts = vec![weft_model::policy::route::HostMatch::Exact("other.ns".to_owned())];
                }
            }))
        })
        .pushed(),
        denied("a client that may not", Sees::Reply, |m| Box::pin(stranger(m, crate::mesh::get()))),
        denied("a gRPC client that may not", Sees::Grpc, |m| Box::pin(stranger(m, grpc()))),
        denied("bytes that may not pass", Sees::End, |m| {
            Box::pin(async move {
                let origin = naming("app").await;
                let mut policy = inbound(DefaultPolicy::Deny);
                policy.protocol = ServerProtocol::Opaque;
                m.control.set_inbound(origin.addr().port(), policy);
                match m.app.connect_inbound_from(elsewhere(), origin.addr()).await {
                    // While the port is still detected it is HTTP that is answered.
                    Ok(tcp) => get(tcp).await,
                    Err(_) => Saw::End,
                }
            })
        }),
        fault("a connection that is forbidden", Code::Unauthorized, Outbound, Sees::End, |m| {
            Box::pin(filtered(m, Filter::Forbidden))
        }),
        fault("a route that is invalid", Code::PolicyUnsupported, Outbound, Sees::End, |m| {
            Box::pin(filtered(m, Filter::Invalid("the test wants it so".to_owned())))
        }),
        fault("a backend without a kind", Code::BackendInvalid, Outbound, Sees::Status(502), |m| {
            Box::pin(async move {
                let known = with(m, |policy| {
                    let mut missing = forward(Endpoint::plain(super::nobody()));
                    missing.kind = BackendKind::Missing;
                    *policy = detect(service("ns", "app", 80), missing);
                });
                get(m.connect(&known).await).await
            })
        }),
        fault("a backend that is not there", Code::BackendInvalid, Outbound, Sees::Reply, |m| {
            Box::pin(async move {
                let known = with(m, |policy| {
                    let mut gone = RouteBackend { backend: forward(Endpoint::plain(super::nobody())), filters: vec![] };
                    gone.backend.kind = BackendKind::Missing;
                    let message = "there is no Service ns/app".to_owned();
                    gone.filters.push(Filter::HttpFailure { status: 500, message, ratio: Ratio::ALWAYS });
                    if let ClientProtocol::Detect { http1, .. } = &mut policy.protocol {
                        http1.routes[0].rules[0].does.backends = Distribution::RandomAvailable(vec![(gone, 1)]);
                    }
                });
                get(m.connect(&known).await).await
            })
        }),
        fault("a route without a backend", Code::LoadShed, Outbound, Sees::Reply, |m| {
            Box::pin(async move {
                let known = with(m, |policy| {
                    if let ClientProtocol::Detect { http1, .. } = &mut policy.protocol {
                        http1.routes[0].rules[0].does.backends = Distribution::Empty;
                    }
                });
                get(m.connect(&known).await).await
            })
        }),
        fault("more requests than the port takes", Code::RateLimited, Inbound, Sees::Reply, |m| {
            Box::pin(ask(m, |policy| {
                if let ServerProtocol::Detect { rate_limit, .. } = &mut policy.protocol {
                    let meta = service("ns", "limit", 0);
                    *rate_limit = Some(RateLimit { meta, total: Some(1), identity: None, overrides: vec![] });
                }
            }))
        })
        .pushed(),
        fault("a connection to nowhere", Code::RouteNotFound, Outbound, Sees::End, |m| {
            Box::pin(async move {
                let known = m.service(&[]);
                let mut policy = opaque(service("ns", "app", 80), forward(Endpoint::plain(super::nobody())));
                policy.protocol = ClientProtocol::Opaque(None);
                m.control.set_outbound(known.addr, policy);
                dial(&m.web, known.addr, "x").await
            })
        }),
        fault("a connection without a server name", Code::NoServerName, Outbound, Sees::End, |m| {
            Box::pin(async move {
                let known = with(m, |policy| policy.protocol = ClientProtocol::Tls(vec![]));
                dial(&m.web, known.addr, "GET / HTTP/1.1\r\n\r\n").await
            })
        }),
        fault("a request that requires another identity", Code::IdentityMismatch, Outbound, Sees::Reply, |m| {
            Box::pin(async move {
                let origin = naming("app").await;
                let known = forwarded(m, m.endpoint(origin.addr(), weft_model::ProtocolHint::H2));
                let asked = "GET / HTTP/1.1\r\nhost: app.ns\r\nl5d-require-id: other.ns\r\n\r\n";
                say(m.connect(&known).await, asked).await
            })
        }),
    ]
}

/// A service whose policy is changed.
fn with(mesh: &Mesh, change: impl FnOnce(&mut ClientPolicy)) -> Service {
    let known = mesh.service(&[]);
    let meta = service("ns", "app", 80);
    let mut policy = detect(meta.clone(), balance(meta, known.target.parse().unwrap()));
    change(&mut policy);
    mesh.control.set_outbound(known.addr, policy);
    known
}

fn without_routes(mesh: &Mesh) -> Service {
    with(mesh, |policy| {
        if let ClientProtocol::Detect { http1, http2, opaque, .. } = &mut policy.protocol {
            http1.routes.clear();
            http2.routes.clear();
            *opaque = None;
        }
    })
}

/// A connection to a service whose bytes meet this filter.
async fn filtered(mesh: &Mesh, filter: Filter) -> Saw {
    let known = with(mesh, |policy| {
        if let ClientProtocol::Detect { opaque: Some(route), .. } = &mut policy.protocol {
            route.filters = vec![filter];
        }
    });
    dial(&mesh.web, known.addr, "\x00\x01\x02").await
}

/// A request in plaintext to a port whose policy is changed.
async fn ask(mesh: &Mesh, change: impl FnOnce(&mut ServerPolicy)) -> Saw {
    let origin = naming("app").await;
    let mut policy = inbound(DefaultPolicy::AllUnauthenticated);
    change(&mut policy);
    mesh.control.set_inbound(origin.addr().port(), policy);
    let mut saw = Saw::End;
    for _ in 0..20 {
        saw = call(mesh.app.connect_inbound(origin.addr()).await, crate::mesh::get()).await;
        if !matches!(saw, Saw::Reply { status: 200, .. }) {
            break;
        }
    }
    saw
}

/// A request from elsewhere to a port that lets nobody in.
async fn stranger(mesh: &Mesh, request: http::Request<weft_testkit::http2::Body>) -> Saw {
    let origin = naming("app").await;
    mesh.control.set_inbound(origin.addr().port(), inbound(DefaultPolicy::Deny));
    match mesh.app.connect_inbound_from(elsewhere(), origin.addr()).await {
        Ok(tcp) => call(tcp, request).await,
        Err(_) => Saw::End,
    }
}
