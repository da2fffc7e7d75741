//! `GET /env.json`: the environment of the process, or the variables that the query names.

use std::collections::BTreeMap;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// A query of the form `key=value`.
    Query,
    /// The client takes no JSON.
    NotAcceptable,
}

/// The JSON. A variable that is asked for and not set is `null`.
pub(super) fn json(
    environment: impl Iterator<Item = (String, String)>,
    query: Option<&str>,
    accept: &[&str],
) -> Result<String, Refused> {
    if !accept.is_empty() && !accept.iter().any(|accepted| takes_json(accepted)) {
        return Err(Refused::NotAcceptable);
    }
    let names: Vec<&str> = query.unwrap_or_default().split('&').filter(|name| !name.is_empty()).collect();
    if names.iter().any(|name| name.contains('=')) {
        return Err(Refused::Query);
    }
    let mut asked: BTreeMap<String, Option<String>> = names.iter().map(|name| ((*name).to_owned(), None)).collect();
    for (name, value) in environment {
        if names.is_empty() || asked.contains_key(&name) {
            asked.insert(name, Some(value));
        }
    }
    // A map of texts has a JSON form.
    Ok(serde_json::to_string(&asked).unwrap_or_default())
}

fn takes_json(accept: &str) -> bool {
    accept
        .split(',')
        .filter_map(|range| range.split(';').next())
        .any(|range| matches!(range.trim(), "*/*" | "application/*" | "application/json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let environment = || [("B", "2"), ("A", "1")].map(|(n, v)| (n.to_owned(), v.to_owned())).into_iter();
        let ask = |query, accept: &[&str]| json(environment(), query, accept);
        let all = Ok(r#"{"A":"1","B":"2"}"#.to_owned());
        assert_eq!(ask(None, &[]), all);
        assert_eq!(ask(Some(""), &["text/html, application/json;q=0.5"]), all);
        assert_eq!(ask(Some("A&C"), &["*/*"]), Ok(r#"{"A":"1","C":null}"#.to_owned()));
        assert_eq!(ask(Some("A=1"), &[]), Err(Refused::Query));
        assert_eq!(ask(None, &["text/html"]), Err(Refused::NotAcceptable));
    }
}
