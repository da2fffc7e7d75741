//! Decisions: what comes of which states.

use super::variable::{Assignment, BARE, Piece, Variable, Variables, pieces, stand_in};
use serde_json::Value;

/// What a value, or whether something is there, depends on.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    /// Does not matter: what is around it is not there.
    Any,
    Leaf(Value),
    Split {
        of: usize,
        branches: Vec<(usize, Tree)>,
    },
}

/// Whether something is there, as a leaf.
pub(super) const THERE: Value = Value::Bool(true);
pub(super) const ABSENT: Value = Value::Null;

impl Tree {
    /// Enumerates the states of `of`, from `from` on.
    pub(super) fn grow(
        variables: &Variables,
        from: &Assignment,
        of: &[usize],
        outcome: &dyn Fn(&Assignment) -> Option<Value>,
    ) -> Self {
        let Some((first, rest)) = of.split_first() else { return outcome(from).map_or(Self::Any, Self::Leaf) };
        let branches = (0..variables.0[*first].states.len()).map(|state| {
            let mut assignment = from.clone();
            assignment[*first] = state;
            (state, Self::grow(variables, &assignment, rest, outcome))
        });
        joined(variables, *first, branches.collect())
    }

    /// With another text where a stand-in is.
    fn with(&self, stand_in: &str, text: &str) -> Self {
        match self {
            Self::Any => Self::Any,
            Self::Leaf(leaf) => Self::Leaf(with(leaf, stand_in, text)),
            Self::Split { of, branches } => Self::Split {
                of: *of,
                branches: branches.iter().map(|(state, tree)| (*state, tree.with(stand_in, text))).collect(),
            },
        }
    }

    /// Helm's condition for something to be there; `None` is always.
    pub(super) fn condition(&self, variables: &Variables) -> Option<String> {
        match self.shortened(variables) {
            Condition::Always => None,
            Condition::Never => Some("false".to_owned()),
            Condition::If(text) => Some(text),
        }
    }

    fn shortened(&self, variables: &Variables) -> Condition {
        match self {
            Self::Any => Condition::Never,
            Self::Leaf(leaf) if *leaf == ABSENT => Condition::Never,
            Self::Leaf(_) => Condition::Always,
            Self::Split { of, branches } => {
                let of = &variables.0[*of];
                let when = |state: usize| of.states[state].when.clone();
                if let [(first, one), (second, other)] = branches.as_slice()
                    && let Some(opposite) = opposite(of, *first, *second)
                {
                    // The other state adds nothing to say where one of two is enough.
                    return match (one.shortened(variables), other.shortened(variables)) {
                        (Condition::Always, other) => Condition::If(when(*first)).or(other),
                        (one, Condition::Always) => Condition::If(opposite).or(one),
                        (one, other) => Condition::If(when(*first)).and(one).or(Condition::If(opposite).and(other)),
                    };
                }
                let each =
                    branches.iter().map(|(state, tree)| Condition::If(when(*state)).and(tree.shortened(variables)));
                each.fold(Condition::Never, Condition::or)
            }
        }
    }

    /// Changes an assignment so that something is not there.
    pub(super) fn take_away(&self, assignment: &mut Assignment) -> bool {
        match self {
            Self::Any => true,
            Self::Leaf(leaf) => *leaf == ABSENT,
            Self::Split { of, branches } => {
                let before = assignment[*of];
                let mut order: Vec<_> = branches.iter().collect();
                order.sort_by_key(|(state, _)| *state != before);
                for (state, tree) in order {
                    assignment[*of] = *state;
                    if tree.take_away(assignment) {
                        return true;
                    }
                }
                assignment[*of] = before;
                false
            }
        }
    }
}

/// The condition for the second of two states that are all there is.
fn opposite(variable: &Variable, one: usize, other: usize) -> Option<String> {
    let (when, other_when) = (&variable.states[one].when, &variable.states[other].when);
    if other == 0 && variable.states.len() > 2 {
        // Every other text.
        return Some(format!("not {}", closed(when)));
    }
    (variable.states.len() == 2 || *other_when == format!("not {when}")).then(|| other_when.clone())
}

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    Always,
    Never,
    If(String),
}

impl Condition {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Never, _) | (_, Self::Never) => Self::Never,
            (Self::Always, it) | (it, Self::Always) => it,
            (Self::If(one), Self::If(other)) => Self::If(all_of(&one, &other)),
        }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Always, _) | (_, Self::Always) => Self::Always,
            (Self::Never, it) | (it, Self::Never) => it,
            (Self::If(one), Self::If(other)) => Self::If(any_of(&[one, other])),
        }
    }
}

pub(super) fn all_of(one: &str, other: &str) -> String {
    format!("and {} {}", closed(one), closed(other))
}

pub(super) fn any_of(conditions: &[String]) -> String {
    match conditions {
        [one] => one.clone(),
        all => format!("or {}", all.iter().map(|one| closed(one)).collect::<Vec<_>>().join(" ")),
    }
}

/// As an argument.
pub(super) fn closed(expression: &str) -> String {
    if expression.contains(' ') && !expression.starts_with('(') {
        format!("({expression})")
    } else {
        expression.to_owned()
    }
}

fn with(leaf: &Value, stand_in: &str, text: &str) -> Value {
    let Value::String(before) = leaf else { return leaf.clone() };
    if !before.contains(stand_in) {
        return leaf.clone();
    }
    let after = before.replace(stand_in, text);
    match after.strip_prefix(BARE) {
        Some(number) if pieces(number).iter().all(|piece| matches!(piece, Piece::Text(_))) => {
            serde_json::from_str(number).unwrap_or(Value::String(after))
        }
        _ => Value::String(after),
    }
}

/// One decision, as short as it can be said.
fn joined(variables: &Variables, of: usize, branches: Vec<(usize, Tree)>) -> Tree {
    let variable = &variables.0[of];
    let mut known: Vec<&(usize, Tree)> = branches.iter().filter(|(_, tree)| *tree != Tree::Any).collect();
    let Some((_, first)) = known.first().copied() else { return Tree::Any };
    if known.iter().all(|(_, tree)| tree == first) {
        return first.clone();
    }
    let own = stand_in(&variable.path);
    if let Some((_, filled)) = known.iter().find(|(state, _)| *state == 0 && variable.has_stand_in()) {
        let says = |(state, tree): &(usize, Tree)| {
            *state == 0 || variable.states[*state].instead.as_ref().is_some_and(|text| filled.with(&own, text) == *tree)
        };
        let odd: Vec<_> = known.iter().filter(|branch| !says(branch)).copied().collect();
        match odd.as_slice() {
            [] => return filled.clone(),
            // Empty is another thing than every text.
            [empty] if variable.states[empty.0].instead.as_deref() == Some("") => {
                known.retain(|b| b.0 == 0 || b.0 == empty.0)
            }
            // Every other text behind it.
            [odd] if variable.states.len() > 2 => {
                let filled = known.first().copied().into_iter().filter(|branch| branch.0 == 0);
                known = [*odd].into_iter().chain(filled).collect();
            }
            // A choice that is only looked at has its own name in no object.
            _ if variable.states.len() > 2 => known.retain(|(state, _)| *state != 0),
            _ => {}
        }
        if let Some((_, first)) = known.first().copied()
            && known.iter().all(|(_, tree)| tree == first)
        {
            return first.clone();
        }
    }
    if let [(0, Tree::Leaf(one)), (_, Tree::Leaf(other))] = known.as_slice()
        && let Some(leaf) = said_at_once(one, other, &variable.path, variable.has_stand_in())
    {
        return Tree::Leaf(leaf);
    }
    Tree::Split { of, branches: known.into_iter().cloned().collect() }
}

/// One expression for both states: the truth value itself, or one text in default of another.
fn said_at_once(one: &Value, other: &Value, path: &str, is_text: bool) -> Option<Value> {
    if let (Value::Bool(one), Value::Bool(other)) = (one, other) {
        let is_flag = !is_text && one != other;
        let id = if *one { path.to_owned() } else { format!("!{path}") };
        return is_flag.then(|| Value::String(BARE.to_owned() + &stand_in(&id)));
    }
    let (one, other) = (one.as_str()?, other.as_str()?);
    if !is_text {
        for (word, opposite, id) in [("true", "false", path.to_owned()), ("false", "true", format!("!{path}"))] {
            if one.contains(word) && one.replacen(word, opposite, 1) == other {
                return Some(Value::String(one.replacen(word, &stand_in(&id), 1)));
            }
        }
        return None;
    }
    let own = stand_in(path);
    let (before, _) = one.split_once(&own)?;
    let Some(Piece::StandIn(id)) = pieces(other.strip_prefix(before)?).first().copied() else { return None };
    let is_default = !id.contains('|') && one.replace(&own, &stand_in(id)) == other;
    is_default.then(|| Value::String(one.replace(&own, &stand_in(&format!("{path}|{id}")))))
}
