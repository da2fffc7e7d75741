//! What the API server would refuse of what selects nodes, namespaces and objects.

use super::{
    Values,
    check::{Check, shown},
};
use crate::object::{KEY_REMEDY, LABEL_TEXT_REMEDY, is_label_key, is_label_text};
use k8s_openapi::{
    api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Toleration},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use std::{
    collections::BTreeMap,
    ops::{Deref, RangeInclusive},
};

/// The one field that a node can be selected by.
const NAME_OF_NODE: &str = "metadata.name";
/// How much a preference may weigh.
const WEIGHTS: RangeInclusive<i32> = 1..=100;

impl Check {
    pub(super) fn selectors(&mut self, values: &Values) {
        for (at, toleration) in values.tolerations.iter().enumerate() {
            self.toleration(&format!("tolerations[{at}]"), toleration);
        }
        self.node_affinity(values);
        let (profiles, policies, injector) =
            (&values.profile_validator, &values.policy_validator, &values.proxy_injector);
        for (path, selector) in [
            ("profileValidator.namespaceSelector", &profiles.namespace_selector),
            ("policyValidator.namespaceSelector", &policies.namespace_selector),
            ("proxyInjector.namespaceSelector", &injector.namespace_selector),
            ("proxyInjector.objectSelector", &injector.object_selector),
        ] {
            self.label_selector(path, selector);
        }
    }

    pub(super) fn labels<T: Deref<Target = str>>(&mut self, path: &str, labels: &BTreeMap<String, T>) {
        for (key, value) in labels {
            self.label_key(path, key);
            self.label_value(&format!("{path}.{key}"), value);
        }
    }

    fn label_key(&mut self, path: &str, key: &str) {
        if !is_label_key(key) {
            self.wrong(path, format!("{} is no valid label key", shown(key)), KEY_REMEDY);
        }
    }

    fn label_value(&mut self, path: &str, value: &str) {
        if !(value.is_empty() || is_label_text(value)) {
            self.wrong(path, format!("{} is no valid label value", shown(value)), LABEL_TEXT_REMEDY);
        }
    }

    fn toleration(&mut self, path: &str, toleration: &Toleration) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (key, operator) = (text(&toleration.key), text(&toleration.operator));
        let (effect, value) = (text(&toleration.effect), text(&toleration.value));
        self.one_of(&format!("{path}.operator"), &operator, &["Exists", "Equal", ""]);
        self.one_of(&format!("{path}.effect"), &effect, &["NoSchedule", "PreferNoSchedule", "NoExecute", ""]);
        if key.is_empty() && operator != "Exists" {
            self.wrong(format!("{path}.key"), "it is missing", "give it, or the operator Exists for every taint");
        } else if !key.is_empty() {
            self.label_key(&format!("{path}.key"), &key);
        }
        if operator == "Exists" && !value.is_empty() {
            self.wrong(format!("{path}.value"), "the operator Exists compares none", "leave it out, or use Equal");
        } else {
            self.label_value(&format!("{path}.value"), &value);
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let message = "only what is evicted is given time";
            self.wrong(format!("{path}.tolerationSeconds"), message, "leave it out, or use the effect NoExecute");
        }
    }

    fn node_affinity(&mut self, values: &Values) {
        let Some(affinity) = &values.node_affinity else { return };
        if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
            let path = "nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
            if required.node_selector_terms.is_empty() {
                self.wrong(path, "it is empty", "give a term, or leave all of it out");
            }
            for (at, term) in required.node_selector_terms.iter().enumerate() {
                self.node_term(&format!("{path}[{at}]"), term);
            }
        }
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        for (at, preferred) in preferred.enumerate() {
            let path = format!("nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[{at}]");
            if !WEIGHTS.contains(&preferred.weight) {
                let remedy = format!("use a number from {} to {}", WEIGHTS.start(), WEIGHTS.end());
                self.wrong(format!("{path}.weight"), format!("{} is out of bounds", preferred.weight), remedy);
            }
            self.node_term(&format!("{path}.preference"), &preferred.preference);
        }
    }

    fn node_term(&mut self, path: &str, term: &NodeSelectorTerm) {
        for (at, wanted) in term.match_expressions.iter().flatten().enumerate() {
            let path = format!("{path}.matchExpressions[{at}]");
            self.label_key(&format!("{path}.key"), &wanted.key);
            match (wanted.operator.as_str(), values_of(wanted)) {
                ("Gt" | "Lt", values) if values.len() != 1 => {
                    self.wrong(format!("{path}.values"), "it compares with one number", "give one");
                }
                ("Gt" | "Lt", _) => {}
                (operator, values) => self.compares(&path, operator, values, &["Gt", "Lt"]),
            }
        }
        for (at, wanted) in term.match_fields.iter().flatten().enumerate() {
            let path = format!("{path}.matchFields[{at}]");
            self.one_of(&format!("{path}.key"), &wanted.key, &[NAME_OF_NODE]);
            self.one_of(&format!("{path}.operator"), &wanted.operator, &["In", "NotIn"]);
            if values_of(wanted).len() != 1 {
                self.wrong(format!("{path}.values"), "it compares with one name of a node", "give one");
            }
        }
    }

    fn label_selector(&mut self, path: &str, selector: &LabelSelector) {
        if let Some(labels) = &selector.match_labels {
            self.labels(&format!("{path}.matchLabels"), labels);
        }
        for (at, wanted) in selector.match_expressions.iter().flatten().enumerate() {
            let path = format!("{path}.matchExpressions[{at}]");
            self.label_key(&format!("{path}.key"), &wanted.key);
            let values = wanted.values.as_deref().unwrap_or_default();
            for value in values {
                self.label_value(&format!("{path}.values"), value);
            }
            self.compares(&path, &wanted.operator, values, &[]);
        }
    }

    /// What sets of values are compared by, and `more` operators that are looked at elsewhere.
    fn compares(&mut self, path: &str, operator: &str, values: &[String], more: &[&str]) {
        self.one_of(
            &format!("{path}.operator"),
            operator,
            &[&["In", "NotIn", "Exists", "DoesNotExist"], more].concat(),
        );
        let path = format!("{path}.values");
        match operator {
            "In" | "NotIn" if values.is_empty() => self.wrong(path, "it is empty", "give one to compare with"),
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                self.wrong(path, format!("the operator {operator} compares none"), "leave it out");
            }
            _ => {}
        }
    }
}

fn values_of(wanted: &NodeSelectorRequirement) -> &[String] {
    wanted.values.as_deref().unwrap_or_default()
}
