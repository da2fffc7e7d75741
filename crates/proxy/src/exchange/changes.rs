//! What a policy changes in the headers of a message, made once per policy and applied to either framing.
//!
//! Names and values are checked here; which names may be changed at all the policy's check has decided before.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::rc::Rc;
use weft_model::decide::filter::HeaderChange;

/// Changes with one entry per name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HeaderChanges(Box<[Change]>);

#[derive(Debug, PartialEq, Eq)]
struct Change {
    name: HeaderName,
    replaces: bool,
    values: Box<[HeaderValue]>,
}

impl HeaderChanges {
    /// `None` if nothing changes. A name or value that cannot be one is left out: what comes over the wire has been checked.
    pub(crate) fn new(changes: Vec<HeaderChange>) -> Option<Rc<Self>> {
        let changes = changes.into_iter().filter_map(|HeaderChange { name, replaces, values }| {
            let values = values.iter().filter_map(|value| HeaderValue::from_bytes(value).ok()).collect();
            Some(Change { name: name.parse().ok()?, replaces, values })
        });
        let changes: Box<[Change]> = changes.collect();
        (!changes.is_empty()).then(|| Rc::new(Self(changes)))
    }

    /// Whether a field of this name does not go on.
    pub(crate) fn drops(&self, name: &[u8]) -> bool {
        self.0.iter().any(|change| change.replaces && change.name.as_str().as_bytes().eq_ignore_ascii_case(name))
    }

    /// The fields that come behind those that go on.
    pub(crate) fn added(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter().flat_map(|change| change.values.iter().map(|value| (&change.name, value)))
    }

    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for Change { name, replaces, values } in &self.0 {
            if *replaces {
                headers.remove(name);
            }
            for value in values {
                headers.append(name, value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(name: &str, replaces: bool, values: &[&str]) -> HeaderChange {
        let values = values.iter().map(|value| value.as_bytes().to_vec()).collect();
        HeaderChange { name: name.to_owned(), replaces, values }
    }

    #[test]
    fn maps_and_lines_change_alike() {
        let changes = HeaderChanges::new(vec![
            change("a", false, &["2", "3"]),
            change("b", true, &["2"]),
            change("c", true, &[]),
            change("d", false, &["1"]),
            change("e f", false, &["1"]),
            change("g", false, &["1\r\n2"]),
        ])
        .unwrap();
        let mut map = HeaderMap::new();
        let mut lines = vec![];
        for (name, value) in [("a", "1"), ("b", "1"), ("b", "1"), ("c", "1"), ("z", "1")] {
            map.append(name, HeaderValue::from_static(value));
            if !changes.drops(name.to_ascii_uppercase().as_bytes()) {
                lines.push((name.to_owned(), value.to_owned()));
            }
        }
        changes.apply(&mut map);
        let owned = |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.to_str().unwrap().to_owned());
        lines.extend(changes.added().map(owned));
        let mut of_map: Vec<_> = map.iter().map(owned).collect();
        lines.sort();
        of_map.sort();
        assert_eq!(lines, of_map);
        let expected = [("a", "1"), ("a", "2"), ("a", "3"), ("b", "2"), ("d", "1"), ("z", "1")];
        assert_eq!(lines, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(HeaderChanges::new(vec![]), None);
    }
}
