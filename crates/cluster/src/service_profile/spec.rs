//! ServiceProfiles as they are written.

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceProfileSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<Option<RouteSpec>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudgetSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst_overrides: Option<Vec<OverrideSpec>>,
    /// Nobody reads them, as with Linkerd: what a Service's own annotation says counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque_ports: Option<Vec<Value>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<RequestConditionSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_classes: Option<Vec<Option<ResponseClassSpec>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_retryable: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestConditionSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_regex: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<Vec<Option<RequestConditionSpec>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any: Option<Vec<Option<RequestConditionSpec>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not: Option<Box<RequestConditionSpec>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResponseClassSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<ResponseConditionSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_failure: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResponseConditionSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusRangeSpec>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<Vec<Option<ResponseConditionSpec>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any: Option<Vec<Option<ResponseConditionSpec>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not: Option<Box<ResponseConditionSpec>>,
}

/// An end that is 0, or is not given, is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRangeSpec {
    #[serde(default)]
    pub min: i64,
    #[serde(default)]
    pub max: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryBudgetSpec {
    #[serde(default)]
    pub retry_ratio: f64,
    #[serde(default)]
    pub min_retries_per_second: u32,
    #[serde(default)]
    pub ttl: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OverrideSpec {
    #[serde(default)]
    pub authority: String,
    /// A quantity: a number or a text.
    #[serde(default)]
    pub weight: Value,
}
