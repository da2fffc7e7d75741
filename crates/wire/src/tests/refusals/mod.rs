//! A complete message without one thing it needs, or with one thing that is out of bounds, is refused, and the error names the
//! field.

mod destination;
mod inbound;
mod outbound;
mod small;

use crate::Invalid;

/// One thing done to a complete message, and the field that the error names; `None` is harmless.
type Case<P> = (fn(&mut P), Option<&'static str>);

fn check<P: Clone, T: std::fmt::Debug>(complete: &P, decode: fn(P) -> Result<T, Invalid>, cases: &[Case<P>]) {
    check_below("", complete, decode, cases);
}

/// Fields are relative to `way`.
fn check_below<P: Clone, T: std::fmt::Debug>(
    way: &str,
    complete: &P,
    decode: fn(P) -> Result<T, Invalid>,
    cases: &[Case<P>],
) {
    decode(complete.clone()).expect("the complete message is accepted");
    for (i, (change, expected)) in cases.iter().enumerate() {
        let mut message = complete.clone();
        change(&mut message);
        let field = decode(message).err().map(|invalid| invalid.field);
        assert_eq!(field, expected.map(|field| format!("{way}{field}")), "case {i}");
    }
}

/// The shortest way into the optional parts of a message that is known to be complete.
fn on<T>(part: &mut Option<T>) -> &mut T {
    part.as_mut().expect("the complete message has it")
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn service() -> Option<linkerd2_proxy_api::meta::Metadata> {
    use linkerd2_proxy_api::meta::{Metadata, Resource, metadata::Kind};
    Some(Metadata {
        kind: Some(Kind::Resource(Resource {
            group: "core".to_owned(),
            kind: "Service".to_owned(),
            name: "web".to_owned(),
            namespace: "ns".to_owned(),
            section: String::new(),
            port: 80,
        })),
    })
}

/// The metadata of [`service`], to be changed.
fn resource(metadata: &mut Option<linkerd2_proxy_api::meta::Metadata>) -> &mut linkerd2_proxy_api::meta::Resource {
    match on(&mut on(metadata).kind) {
        linkerd2_proxy_api::meta::metadata::Kind::Resource(resource) => resource,
        linkerd2_proxy_api::meta::metadata::Kind::Default(_) => panic!("a default"),
    }
}
