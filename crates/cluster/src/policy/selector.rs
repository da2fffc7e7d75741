//! Which objects are meant, by their labels.

use super::Mistake;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::{BTreeMap, BTreeSet};

/// A selector; one without requirements selects everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    wants: Wants,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wants {
    In(Vec<String>),
    /// Also satisfied where the label is missing.
    NotIn(Vec<String>),
    Present,
    Absent,
}

impl Selector {
    pub(crate) fn checked(selector: &LabelSelector, at: &str) -> Result<Self, Vec<Mistake>> {
        let (mut requirements, mut mistakes) = (vec![], vec![]);
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement { key: key.clone(), wants: Wants::In(vec![value.clone()]) });
        }
        for (i, e) in selector.match_expressions.iter().flatten().enumerate() {
            let at = format!("{at}.matchExpressions[{i}]");
            let values = e.values.clone().unwrap_or_default();
            let wants = match (e.operator.as_str(), values.is_empty()) {
                ("In", false) => Wants::In(values),
                ("NotIn", false) => Wants::NotIn(values),
                ("Exists", true) => Wants::Present,
                ("DoesNotExist", true) => Wants::Absent,
                ("In" | "NotIn", true) => {
                    let message = format!("{} has no values", e.operator);
                    mistakes.push(Mistake::new(format!("{at}.values"), message, "give at least one"));
                    continue;
                }
                ("Exists" | "DoesNotExist", false) => {
                    let message = format!("{} takes no values", e.operator);
                    mistakes.push(Mistake::new(format!("{at}.values"), message, "remove them, or use In or NotIn"));
                    continue;
                }
                (other, _) => {
                    let message = format!("{other:?} is no operator");
                    let remedy = "use In, NotIn, Exists or DoesNotExist";
                    mistakes.push(Mistake::new(format!("{at}.operator"), message, remedy));
                    continue;
                }
            };
            requirements.push(Requirement { key: e.key.clone(), wants });
        }
        super::all_right(Some(Self(requirements)), mistakes)
    }

    pub(crate) fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| requirement.is_met(labels))
    }

    /// The label by which it selects or not, where the values of some are not known; one of them that is missing may be there.
    pub(crate) fn hangs_on(&self, labels: &BTreeMap<String, String>, unknown: &BTreeSet<String>) -> Option<&str> {
        let is_open = |Requirement { key, wants }: &Requirement| {
            let is_there = labels.contains_key(key) && matches!(wants, Wants::Present | Wants::Absent);
            unknown.contains(key) && !is_there
        };
        let (open, others): (Vec<_>, Vec<_>) = self.0.iter().partition(|requirement| is_open(requirement));
        let first = open.first().filter(|_| others.iter().all(|requirement| requirement.is_met(labels)));
        first.map(|requirement| requirement.key.as_str())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Requirement {
    fn is_met(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match &self.wants {
            Wants::In(values) => value.is_some_and(|v| values.contains(v)),
            Wants::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
            Wants::Present => value.is_some(),
            Wants::Absent => value.is_none(),
        }
    }
}
