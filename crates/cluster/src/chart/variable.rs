//! Values as what varies: each has states, one of which may be a stand-in that is found again in the objects.

use crate::{
    inject::requirements,
    manifest,
    values::{Kind, Resources, Values, kinds, may_be_empty},
};
use serde_json::{Value, json};

const OPEN: char = '⟦';
const CLOSE: char = '⟧';
/// Before a stand-in that is no text but a number or a truth value.
pub(super) const BARE: &str = "⟦#⟧";
/// Before a text that is written in base64.
pub(super) const BASE64: &str = "⟦=⟧";
/// The control plane's namespace, which is not of the values.
pub(super) const NAMESPACE: &str = "⟦Release.Namespace⟧";

/// Values that Helm has to be given, so that none of their states is empty.
const REQUIRED: [&str; 3] = ["identityTrustAnchorsPEM", "identity.issuer.tls.crtPEM", "identity.issuer.tls.keyPEM"];
/// What hides others, so that it is left out at first.
const HIDING: [&str; 7] =
    ["externalSecret", "externalCA", "runAsRoot", "privileged", "caBundle", "injectCaFrom", "injectCaFromSecret"];
/// A field of the one list whose items are not handed on as they are.
const OF_RECORD: &str = "configReaders.namespace";

/// A text that stands for a value.
pub(super) fn stand_in(id: &str) -> String {
    format!("{OPEN}{id}{CLOSE}")
}

/// The pieces of a text: words, and names of stand-ins.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = vec![];
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(OPEN) {
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        let (id, after) = behind.split_once(CLOSE).unwrap_or((behind, ""));
        pieces.push(Piece::StandIn(id));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    Text(&'t str),
    StandIn(&'t str),
}

/// One thing that a value may be.
#[derive(Clone, Debug)]
pub(super) struct State {
    value: Value,
    /// Helm's condition for it.
    pub(super) when: String,
    /// What stands in this state where the stand-in stands in another; `None` where that cannot be said.
    pub(super) instead: Option<String>,
    /// How a value that is handed on as it is looks in an object.
    pub(super) shown: Option<Value>,
}

#[derive(Clone, Debug)]
pub(super) struct Variable {
    pub(super) path: String,
    pub(super) kind: Kind,
    pub(super) states: Vec<State>,
    /// The state in which most is seen.
    base: usize,
    /// The number that stands for it, as a text.
    number: Option<String>,
}

/// The state of each variable, in their order.
pub(super) type Assignment = Vec<usize>;

pub(super) struct Variables(pub(super) Vec<Variable>);

impl Variables {
    pub(super) fn of_values() -> Self {
        let mut all: Vec<Variable> = vec![];
        for (path, kind, default) in kinds() {
            let number = all.len();
            all.push(variable(path, kind, &default, number));
        }
        all.push(variable(OF_RECORD.to_owned(), Kind::Text, &json!(""), 0));
        let mut variables = Self(all);
        variables.show();
        variables
    }

    /// Definitions know these alone, and the version, which is the chart's.
    pub(super) fn of_definitions(known: &[&str]) -> Self {
        let mut variables = Self::of_values();
        for variable in variables.0.iter_mut().filter(|variable| !known.contains(&variable.path.as_str())) {
            variable.states.truncate(1);
            variable.base = 0;
        }
        variables
    }

    pub(super) fn base(&self) -> Assignment {
        self.0.iter().map(|variable| variable.base).collect()
    }

    pub(super) fn values(&self, assignment: &Assignment) -> Values {
        let mut tree = json!({});
        for (variable, state) in self.0.iter().zip(assignment) {
            let mut at = &mut tree;
            if variable.path == OF_RECORD {
                match at.pointer_mut("/configReaders/0/namespace") {
                    Some(field) => at = field,
                    None => continue,
                }
            } else {
                for step in variable.path.split('.') {
                    at = &mut at[step];
                }
            }
            *at = variable.states[*state].value.clone();
        }
        match serde_json::from_value(tree) {
            Ok(values) => values,
            Err(error) => unreachable!("an example of a value is no value: {error}"),
        }
    }

    /// Puts stand-ins where numbers stand.
    pub(super) fn put_stand_ins(&self, object: &mut Value) {
        match object {
            Value::Number(number) => {
                let number = number.to_string();
                if let Some(variable) = self.0.iter().find(|v| v.number.as_ref() == Some(&number)) {
                    *object = Value::String(BARE.to_owned() + &stand_in(&variable.path));
                }
            }
            // As every number begins that stands for a value.
            Value::String(text) if ["61", "7700", "0.77"].iter().any(|begin| text.contains(begin)) => {
                for variable in &self.0 {
                    if let Some(number) = variable.number.as_ref().filter(|number| text.contains(number.as_str())) {
                        *text = text.replace(number, &stand_in(&variable.path));
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.put_stand_ins(item)),
            Value::Object(map) => map.values_mut().for_each(|value| self.put_stand_ins(value)),
            Value::String(_) | Value::Null | Value::Bool(_) => {}
        }
    }

    /// The value that is handed on whole here, if one is.
    pub(super) fn whole(&self, value: &Value, assignment: &Assignment) -> Option<usize> {
        let is = |(variable, state): (&Variable, &usize)| variable.states[*state].shown.as_ref() == Some(value);
        self.0.iter().zip(assignment).position(is)
    }

    pub(super) fn find(&self, id: &str) -> Option<(usize, &Variable)> {
        self.0.iter().enumerate().find(|(_, variable)| variable.path == id)
    }

    /// The order of entries of a map whose names are the user's: what is more special beats what is general.
    pub(super) fn rank(id: &str) -> usize {
        id.matches('.').count()
    }

    /// Sees how values look that are handed on as they are: as our types write them.
    fn show(&mut self) {
        let all = self.base();
        let filled: Assignment =
            self.0.iter().zip(&all).map(|(v, base)| if v.is_handed_on() { 0 } else { *base }).collect();
        let values = self.values(&filled);
        let tree = serde_json::to_value(&values).unwrap_or_default();
        for variable in &mut self.0 {
            let written = tree.pointer(&format!("/{}", variable.path.replace('.', "/"))).cloned();
            let shown = match variable.kind {
                Kind::Yaml => {
                    written.as_ref().and_then(Value::as_str).and_then(|text| manifest::one_document(text).ok())
                }
                Kind::Resources => written
                    .and_then(|written| serde_json::from_value::<Resources>(written).ok())
                    .and_then(|resources| serde_json::to_value(requirements(&resources)).ok()),
                Kind::Texts | Kind::SecurityContext | Kind::Object(..) => written,
                Kind::Objects(_) | Kind::TextList => written.and_then(|written| written.get(0).cloned()),
                _ => None,
            };
            if let Some(state) = variable.states.first_mut() {
                state.shown = shown;
            }
        }
    }
}

impl Variable {
    /// What Helm reads it by.
    pub(super) fn go(&self) -> String {
        go(&self.path)
    }

    fn is_handed_on(&self) -> bool {
        !matches!(self.kind, Kind::Flag | Kind::FlagOrNone | Kind::Choice(_) | Kind::Text | Kind::Number | Kind::Port)
    }

    pub(super) fn may_be_empty(&self) -> bool {
        self.states.iter().any(|state| state.instead.as_deref() == Some(""))
    }

    /// Whether its first state is a stand-in.
    pub(super) fn has_stand_in(&self) -> bool {
        !matches!(self.kind, Kind::Flag | Kind::FlagOrNone)
    }
}

fn go(path: &str) -> String {
    match path {
        OF_RECORD => ".namespace".to_owned(),
        _ => format!(".Values.{path}"),
    }
}

fn variable(path: String, kind: Kind, default: &Value, place: usize) -> Variable {
    let (go, text) = (go(&path), stand_in(&path));
    let state = |value: Value, when: &str, instead: Option<&str>| State {
        value,
        when: when.to_owned(),
        instead: instead.map(str::to_owned),
        shown: None,
    };
    let (is, not) = (go.clone(), format!("not {go}"));
    let mut number = None;
    let mut numbered = |number_is: Value| {
        number = Some(number_is.to_string());
        number_is
    };
    let states = match &kind {
        Kind::Flag => vec![state(json!(true), &is, None), state(json!(false), &not, None)],
        Kind::FlagOrNone => vec![
            state(Value::Null, &format!("kindIs \"invalid\" {go}"), None),
            state(json!(true), &is, None),
            state(json!(false), &format!("eq (toString {go}) \"false\""), None),
        ],
        Kind::Text if REQUIRED.contains(&path.as_str()) || !may_be_empty(&path, default) => {
            vec![state(json!(text), &is, None)]
        }
        Kind::Text => vec![state(json!(text), &is, None), state(json!(""), &not, Some(""))],
        Kind::Yaml => {
            vec![state(json!(format!("matchNames: [\"{text}\"]\n")), &is, None), state(json!(""), &not, None)]
        }
        Kind::Choice(texts) => {
            let choice = |choice: &&str| {
                let when = if choice.is_empty() { not.clone() } else { format!("eq {go} {choice:?}") };
                state(json!(choice), &when, Some(choice))
            };
            std::iter::once(state(json!(text), &is, None)).chain(texts.iter().map(choice)).collect()
        }
        Kind::Port => vec![state(numbered(json!(61_001 + place)), &is, None)],
        Kind::Number if *default == json!(-1) => {
            let given = format!("ge (int64 {go}) 0");
            vec![
                state(numbered(json!(7_700_001 + place)), &given, None),
                state(json!(-1), &format!("lt (int64 {go}) 0"), Some("-1")),
            ]
        }
        Kind::Number => vec![state(numbered(json!(7_700_001 + place)), &is, None), state(json!(0), &not, Some("0"))],
        Kind::Count | Kind::Ratio => {
            let example = if matches!(kind, Kind::Count) { json!(7_700_001 + place) } else { json!(0.7701) };
            let given = format!("not (kindIs \"invalid\" {go})");
            vec![state(numbered(example), &given, None), state(Value::Null, &format!("kindIs \"invalid\" {go}"), None)]
        }
        Kind::Share => vec![state(json!(text), &is, None)],
        Kind::Texts | Kind::SecurityContext => {
            vec![state(json!({ text.clone(): text }), &is, None), state(json!({}), &not, None)]
        }
        Kind::TextList => vec![state(json!([text]), &is, None), state(json!([]), &not, None)],
        Kind::Objects(fields) => {
            let item: serde_json::Map<String, Value> =
                fields.iter().take(1).map(|field| ((*field).to_owned(), json!(text))).collect();
            vec![state(json!([item]), &is, None), state(json!([]), &not, None)]
        }
        Kind::Records(fields) => {
            let record: serde_json::Map<String, Value> =
                fields.iter().map(|field| ((*field).to_owned(), json!(stand_in(&format!("{path}.{field}"))))).collect();
            vec![state(json!([record]), &is, None), state(json!([]), &not, None)]
        }
        Kind::Resources => {
            let amounts = |name: &str| {
                let amount = |which: &str| format!("{text} {name} {which}");
                json!({ "limit": amount("limit"), "request": amount("request") })
            };
            let all = json!({ "cpu": amounts("cpu"), "ephemeral-storage": amounts("ephemeral-storage"), "memory": amounts("memory") });
            let mut states = vec![state(all, &format!("kindIs \"map\" {go}"), None)];
            if default.is_null() {
                states.push(state(Value::Null, &format!("not (kindIs \"map\" {go})"), None));
            }
            states
        }
        Kind::Object(example, _) => {
            let mut states = vec![state(example(&text), &is, None)];
            if default.is_null() {
                states.push(state(Value::Null, &not, None));
            }
            states
        }
    };
    let hides = HIDING.contains(&path.rsplit('.').next().unwrap_or(&path));
    let base = match &kind {
        _ if hides => 1,
        // A choice that objects only repeat is a text to them.
        Kind::Choice(texts) => texts.iter().position(|text| default == text).map_or(0, |at| at + 1),
        _ => 0,
    };
    Variable { path, kind, states, base, number }
}
