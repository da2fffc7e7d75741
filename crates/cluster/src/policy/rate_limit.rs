//! HTTPLocalRateLimitPolicies: how many requests a second a Server takes.

use super::{Mistake, ReferenceSpec, all_right};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitSpec {
    pub target_ref: ReferenceSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<RateSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<RateSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<Vec<OverrideSpec>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateSpec {
    pub requests_per_second: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OverrideSpec {
    pub requests_per_second: i64,
    pub client_refs: Vec<ReferenceSpec>,
}

/// A limit that can be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// The Server of its namespace that it is of.
    pub(crate) server: String,
    pub(crate) total: Option<u32>,
    pub(crate) identity: Option<u32>,
    /// Of some accounts, by namespace and name.
    pub(crate) overrides: Vec<(u32, Vec<(String, String)>)>,
}

impl RateLimitSpec {
    pub(crate) fn checked(&self, namespace: &str) -> Result<Limit, Vec<Mistake>> {
        let Self { target_ref, total, identity, overrides } = self;
        let mut mistakes: Vec<Mistake> = target_ref.named("spec.targetRef").into_iter().collect();
        if !target_ref.is_of_mesh("Server") {
            let message = format!("{target_ref} takes no requests");
            mistakes.push(Mistake::new("spec.targetRef.kind", message, "use Server of policy.linkerd.io"));
        }
        if target_ref.namespace.as_deref().is_some_and(|n| !n.is_empty() && n != namespace) {
            mistakes.push(Mistake::new(
                "spec.targetRef.namespace",
                "the Server is in the policy's own namespace",
                "remove it",
            ));
        }
        if total.is_none() && identity.is_none() && overrides.as_ref().is_none_or(Vec::is_empty) {
            mistakes.push(Mistake::new("spec", "it limits nothing", "give total, identity or overrides"));
        }
        let above = total.as_ref().map(|total| total.requests_per_second);
        let total = total.as_ref().and_then(|r| rate(r.requests_per_second, None, "spec.total", &mut mistakes));
        let identity =
            identity.as_ref().and_then(|r| rate(r.requests_per_second, above, "spec.identity", &mut mistakes));
        let mut found = vec![];
        for (i, OverrideSpec { requests_per_second, client_refs }) in overrides.iter().flatten().enumerate() {
            let at = format!("spec.overrides[{i}]");
            let rate = rate(*requests_per_second, above, &at, &mut mistakes);
            if client_refs.is_empty() {
                mistakes.push(Mistake::new(format!("{at}.clientRefs"), "it is of nobody", "name a ServiceAccount"));
            }
            let mut accounts = vec![];
            for (j, reference) in client_refs.iter().enumerate() {
                let at = format!("{at}.clientRefs[{j}]");
                mistakes.extend(reference.named(&at));
                if !reference.is_core("ServiceAccount") {
                    let message = format!("{reference} is no client");
                    mistakes.push(Mistake::new(format!("{at}.kind"), message, "use ServiceAccount"));
                }
                accounts.push((reference.namespace_or(namespace).to_owned(), reference.name.clone()));
            }
            found.extend(rate.map(|rate| (rate, accounts)));
        }
        let limit = Limit { server: target_ref.name.clone(), total, identity, overrides: found };
        all_right(Some(limit), mistakes)
    }
}

fn rate(given: i64, above: Option<i64>, at: &str, mistakes: &mut Vec<Mistake>) -> Option<u32> {
    let field = format!("{at}.requestsPerSecond");
    let Some(rate) = u32::try_from(given).ok().filter(|rate| *rate > 0) else {
        mistakes.push(Mistake::new(field, format!("{given} is no rate"), "use 1 to 4294967295"));
        return None;
    };
    if above.is_some_and(|above| given > above) {
        mistakes.push(Mistake::new(field, format!("{given} is more than the total"), "use the total at most"));
    }
    Some(rate)
}
