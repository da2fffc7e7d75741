//! Destination profiles.

use crate::{
    endpoint,
    error::{Invalid, Within, each, here, if_usable, optional, require, required, usable},
    meta,
    route::{decode_method, decode_pattern, encode_method},
    time,
};
use linkerd2_proxy_api::destination as proto;
use std::{ops::RangeInclusive, time::Duration};
use weft_model::{
    Profile,
    profile::{ProfileRoute, RequestMatch, ResponseClass, ResponseMatch, RetryBudget, WeightedTarget},
};

/// What Linkerd's proxies accept (data plane 4.10).
const BUDGET_TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);
const BUDGET_RATIO: RangeInclusive<f32> = 0.0..=1000.0;

/// What of a profile can be used, then what cannot: a part that is wrong costs no other one (data plane 10.2).
pub(crate) fn decode(profile: proto::DestinationProfile) -> (Profile, Vec<Invalid>) {
    let proto::DestinationProfile {
        fully_qualified_name,
        opaque_protocol,
        routes,
        retry_budget,
        dst_overrides,
        endpoint,
        parent_ref,
        profile_ref,
    } = profile;
    let mut invalid = vec![];
    let name = Some(fully_qualified_name).filter(|name| !name.is_empty());
    let name = optional("fully_qualified_name", name, |name| name.parse().map_err(here));
    let (routes, within_routes) = decode_routes(routes);
    invalid.extend(within_routes);
    // A target without weight gets no request.
    let targets = dst_overrides.into_iter().filter(|target| target.weight > 0);
    let (targets, no_targets) = usable("dst_overrides", targets, decode_target);
    invalid.extend(no_targets);
    let profile = Profile {
        name: if_usable(name, &mut invalid),
        opaque: opaque_protocol,
        endpoint: if_usable(optional("endpoint", endpoint, endpoint::decode), &mut invalid),
        routes,
        // Without one nothing is tried again.
        retry_budget: if_usable(optional("retry_budget", retry_budget, decode_budget), &mut invalid),
        targets,
        // Nothing is decided by either.
        parent: parent_ref.and_then(|parent| meta::decode(parent).ok()),
        origin: profile_ref.and_then(|origin| meta::decode(origin).ok()),
    };
    (profile, invalid)
}

/// Only what can be used as a whole.
#[cfg(test)]
pub(crate) fn decode_whole(profile: proto::DestinationProfile) -> Result<Profile, Invalid> {
    let (profile, invalid) = decode(profile);
    invalid.into_iter().next().map_or(Ok(profile), Err)
}

pub(crate) fn encode(profile: &Profile) -> Result<proto::DestinationProfile, Invalid> {
    let Profile { name, opaque, endpoint, routes, retry_budget, targets, parent, origin } = profile;
    Ok(proto::DestinationProfile {
        fully_qualified_name: name.as_ref().map(ToString::to_string).unwrap_or_default(),
        opaque_protocol: *opaque,
        routes: each("routes", routes, encode_route)?,
        retry_budget: optional("retry_budget", retry_budget.as_ref(), encode_budget)?,
        dst_overrides: targets.iter().map(encode_target).collect(),
        endpoint: optional("endpoint", endpoint.as_ref(), endpoint::encode)?,
        parent_ref: parent.as_ref().map(meta::encode),
        profile_ref: origin.as_ref().map(meta::encode),
    })
}

fn decode_routes(routes: Vec<proto::Route>) -> (Vec<ProfileRoute>, Vec<Invalid>) {
    let (mut all, mut invalid) = (vec![], vec![]);
    for (i, route) in routes.into_iter().enumerate() {
        let mut within = vec![];
        match decode_route(route, &mut within) {
            Ok(route) => all.push(route),
            Err(none) => within.push(none),
        }
        invalid.extend(within.into_iter().map(|part| part.within(&format!("routes[{i}]"))));
    }
    (all, invalid)
}

/// What of a route cannot be used is left out of it. A condition is needed, and needed whole: without a part of it the route
/// would be for other requests.
fn decode_route(route: proto::Route, invalid: &mut Vec<Invalid>) -> Result<ProfileRoute, Invalid> {
    let proto::Route { condition, response_classes, metrics_labels, is_retryable, timeout } = route;
    let matches = required("condition", condition, decode_request_match)?;
    let (response_classes, no_classes) = usable("response_classes", response_classes, decode_class);
    invalid.extend(no_classes);
    Ok(ProfileRoute {
        matches,
        response_classes,
        labels: metrics_labels.into_iter().collect(),
        retryable: is_retryable,
        timeout: if_usable(time::decode_optional("timeout", timeout), invalid),
    })
}

fn encode_route(route: &ProfileRoute) -> Result<proto::Route, Invalid> {
    let ProfileRoute { matches, response_classes, labels, retryable, timeout } = route;
    Ok(proto::Route {
        condition: Some(encode_request_match(matches)),
        response_classes: response_classes.iter().map(encode_class).collect(),
        metrics_labels: labels.clone().into_iter().collect(),
        is_retryable: *retryable,
        timeout: time::encode_optional("timeout", *timeout)?,
    })
}

fn decode_request_match(m: proto::RequestMatch) -> Result<RequestMatch, Invalid> {
    use proto::request_match::{Match, Seq};
    Ok(match require("match", m.r#match)? {
        Match::All(Seq { matches }) => RequestMatch::All(each("all.matches", matches, decode_request_match)?),
        Match::Any(Seq { matches }) => RequestMatch::Any(each("any.matches", matches, decode_request_match)?),
        Match::Not(inner) => RequestMatch::Not(Box::new(decode_request_match(*inner).within("not")?)),
        Match::Path(proto::PathMatch { regex }) => RequestMatch::Path(decode_pattern(&regex).within("path")?),
        Match::Method(method) => RequestMatch::Method(decode_method(method).within("method")?),
    })
}

fn encode_request_match(m: &RequestMatch) -> proto::RequestMatch {
    use proto::request_match::{Match, Seq};
    let seq = |all: &[RequestMatch]| Seq { matches: all.iter().map(encode_request_match).collect() };
    let m = match m {
        RequestMatch::All(all) => Match::All(seq(all)),
        RequestMatch::Any(any) => Match::Any(seq(any)),
        RequestMatch::Not(inner) => Match::Not(Box::new(encode_request_match(inner))),
        RequestMatch::Path(pattern) => Match::Path(proto::PathMatch { regex: pattern.as_str().to_owned() }),
        RequestMatch::Method(method) => Match::Method(encode_method(method)),
    };
    proto::RequestMatch { r#match: Some(m) }
}

fn decode_class(class: proto::ResponseClass) -> Result<ResponseClass, Invalid> {
    let proto::ResponseClass { condition, is_failure } = class;
    Ok(ResponseClass { matches: required("condition", condition, decode_response_match)?, failure: is_failure })
}

fn encode_class(class: &ResponseClass) -> proto::ResponseClass {
    let ResponseClass { matches, failure } = class;
    proto::ResponseClass { condition: Some(encode_response_match(matches)), is_failure: *failure }
}

fn decode_response_match(m: proto::ResponseMatch) -> Result<ResponseMatch, Invalid> {
    use proto::response_match::{Match, Seq};
    Ok(match require("match", m.r#match)? {
        Match::All(Seq { matches }) => ResponseMatch::All(each("all.matches", matches, decode_response_match)?),
        Match::Any(Seq { matches }) => ResponseMatch::Any(each("any.matches", matches, decode_response_match)?),
        Match::Not(inner) => ResponseMatch::Not(Box::new(decode_response_match(*inner).within("not")?)),
        Match::Status(range) => ResponseMatch::Status(decode_range(range).within("status")?),
    })
}

fn encode_response_match(m: &ResponseMatch) -> proto::ResponseMatch {
    use proto::response_match::{Match, Seq};
    let seq = |all: &[ResponseMatch]| Seq { matches: all.iter().map(encode_response_match).collect() };
    let m = match m {
        ResponseMatch::All(all) => Match::All(seq(all)),
        ResponseMatch::Any(any) => Match::Any(seq(any)),
        ResponseMatch::Not(inner) => Match::Not(Box::new(encode_response_match(inner))),
        ResponseMatch::Status(range) => {
            Match::Status(proto::HttpStatusRange { min: (*range.start()).into(), max: (*range.end()).into() })
        }
    };
    proto::ResponseMatch { r#match: Some(m) }
}

/// If only one end is given, the range is that status.
fn decode_range(range: proto::HttpStatusRange) -> Result<RangeInclusive<u16>, Invalid> {
    let (min, max) = match range {
        proto::HttpStatusRange { min: 0, max: 0 } => return Err(Invalid::missing("min")),
        proto::HttpStatusRange { min: 0, max } => (max, max),
        proto::HttpStatusRange { min, max: 0 } => (min, min),
        proto::HttpStatusRange { min, max } => (min, max),
    };
    match (u16::try_from(min), u16::try_from(max)) {
        (Ok(min), Ok(max)) if 100 <= min && min <= max && max <= 599 => Ok(min..=max),
        _ => Err(here(format_args!("{min} to {max} is no range within 100 to 599"))),
    }
}

fn decode_budget(budget: proto::RetryBudget) -> Result<RetryBudget, Invalid> {
    let proto::RetryBudget { retry_ratio: ratio, min_retries_per_second, ttl } = budget;
    let ttl = time::decode_required("ttl", ttl)?;
    if !BUDGET_TTL.contains(&ttl) {
        return Err(Invalid::new("ttl", "is 1 to 60 seconds"));
    }
    if !BUDGET_RATIO.contains(&ratio) {
        return Err(Invalid::new("retry_ratio", "is 0 to 1000"));
    }
    Ok(RetryBudget { ratio, min_retries_per_second, ttl })
}

fn encode_budget(budget: &RetryBudget) -> Result<proto::RetryBudget, Invalid> {
    let RetryBudget { ratio, min_retries_per_second, ttl } = *budget;
    Ok(proto::RetryBudget { retry_ratio: ratio, min_retries_per_second, ttl: Some(time::encode(ttl).within("ttl")?) })
}

fn decode_target(target: proto::WeightedDst) -> Result<WeightedTarget, Invalid> {
    let proto::WeightedDst { authority, weight, backend_ref: _ } = target;
    Ok(WeightedTarget { target: authority.parse().map_err(|e| Invalid::new("authority", e))?, weight })
}

fn encode_target(target: &WeightedTarget) -> proto::WeightedDst {
    let WeightedTarget { target, weight } = target;
    proto::WeightedDst { authority: target.to_string(), weight: *weight, backend_ref: None }
}
