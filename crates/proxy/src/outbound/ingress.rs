//! Ingress mode: a request may name its target, which is then discovered by that name (data plane 4.15).
//!
//! Whoever runs an ingress must strip the header from what comes from outside: with it a request goes wherever it says.

use super::{Outbound, accept, discover::Target};
use crate::{
    error::{Code, ProxyError},
    process::discovery::TargetKey,
};
use std::{net::SocketAddr, rc::Rc};
use weft_model::{NameAddr, decide::route::RequestView, names::header};

/// Where a name without a port is.
const PORT: u16 = 80;

/// The target that `request` names; `None` if it names none.
///
/// # Errors
/// The header holds no target, nobody knows the target, or the control plane does not answer for it.
pub(super) async fn target(outbound: &Outbound, request: &dyn RequestView) -> Result<Option<Rc<Target>>, ProxyError> {
    let Some(value) = value(request) else { return Ok(None) };
    let key = parse(&value)
        .ok_or_else(|| ProxyError::new(Code::BadRequest, format!("{} names no target", header::DST_OVERRIDE)))?;
    outbound.targets.get(key).await.map(Some)
}

/// The header's value; all of them if there are several, which is no target.
fn value(request: &dyn RequestView) -> Option<String> {
    let mut all: Option<String> = None;
    request.header(header::DST_OVERRIDE, &mut |value| {
        let value = String::from_utf8_lossy(value);
        all = Some(match all.take() {
            None => value.into_owned(),
            Some(before) => format!("{before},{value}"),
        });
        false
    });
    all
}

fn parse(value: &str) -> Option<TargetKey> {
    if let Ok(addr) = value.parse::<SocketAddr>() {
        return (!accept::is_own(addr)).then(|| SocketAddr::new(addr.ip().to_canonical(), addr.port()).into());
    }
    if let Ok(named) = value.parse::<NameAddr>() {
        return Some(named.into());
    }
    Some(NameAddr { name: value.parse().ok()?, port: PORT }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_name_with_port_80_unless_it_says_otherwise() {
        let parsed = |text: &str| parse(text).map(|key| key.to_string());
        assert_eq!(parsed("Web.ns.svc.cluster.local").as_deref(), Some("web.ns.svc.cluster.local:80"));
        assert_eq!(parsed("web.ns.svc.cluster.local.:8080").as_deref(), Some("web.ns.svc.cluster.local:8080"));
        assert_eq!(parsed("10.0.0.1:8080").as_deref(), Some("10.0.0.1:8080"));
        assert_eq!(parsed("[fd00::1]:80").as_deref(), Some("[fd00::1]:80"));
        for bad in ["", ":80", "web:0", "web:x", "a b", "web,db", "127.0.0.1:80", "[::ffff:127.0.0.1]:80", "0.0.0.0:80"]
        {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
