//! What each part of the objects depends on, found by comparing.
//!
//! Samples are renderings that differ in one or two variables from that in which most is seen. Two samples that differ in one variable,
//! and in some place, show that the place depends on it; then all states of the variables of that place are tried together.

use super::{
    probe::{Probe, Rendered},
    tree::{ABSENT, THERE, Tree, all_of, any_of},
    variable::{Assignment, Piece, pieces},
};
use crate::values::Kind;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// What stands in a place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Scalar(Tree),
    Map(Vec<(String, Child)>),
    List(Vec<Child>),
    /// A value that is handed on as it is: this one of the variables.
    Whole(usize),
    Split {
        of: usize,
        branches: Vec<(usize, Node)>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Child {
    presence: Tree,
    /// Helm's condition; `None` is always.
    pub(super) when: Option<String>,
    pub(super) what: Node,
}

/// How a place is come to.
#[derive(Clone)]
enum Step {
    Key(String),
    /// One of the entries that a list may have, all of which are named in their order.
    Entry(Rc<Vec<String>>, usize),
}

#[derive(Clone)]
struct Place {
    object: String,
    steps: Vec<Step>,
}

impl Place {
    fn below(&self, step: Step) -> Self {
        let mut below = self.clone();
        below.steps.push(step);
        below
    }
}

/// What samples have in a place: their numbers, in rising order, and what is there.
type Views<'s> = Vec<(usize, Option<&'s Value>)>;

pub(super) struct Learner<'p> {
    probe: &'p Probe<'p>,
    samples: Vec<Assignment>,
    /// Two samples, and the one variable that they differ in.
    edges: Vec<(usize, usize, usize)>,
}

impl<'p> Learner<'p> {
    pub(super) fn new(probe: &'p Probe<'p>) -> Self {
        let mut learner = Self { probe, samples: vec![], edges: vec![] };
        learner.take_samples();
        learner
    }

    /// Each variable by itself, truth values in pairs, and with each variable those that it shows.
    fn take_samples(&mut self) {
        let probe = self.probe;
        let (variables, base) = (&probe.variables.0, probe.variables.base());
        let mut known = BTreeMap::from([(base.clone(), 0)]);
        self.samples.push(base.clone());
        let mut add = |samples: &mut Vec<Assignment>, sample: Assignment| -> usize {
            *known.entry(sample.clone()).or_insert_with(|| {
                samples.push(sample);
                samples.len() - 1
            })
        };
        let others = |variable: usize| {
            let usual = base[variable];
            (0..variables[variable].states.len()).filter(move |state| *state != usual)
        };
        let with = |from: &Assignment, variable: usize, state: usize| {
            let mut sample = from.clone();
            sample[variable] = state;
            sample
        };
        let seen_first = stand_ins(&probe.rendered(&base));
        let mut pairs: BTreeSet<(usize, usize)> = BTreeSet::new();
        let is_flag = |variable: usize| matches!(variables[variable].kind, Kind::Flag);
        for one in 0..variables.len() {
            for state in others(one) {
                let sample = with(&base, one, state);
                let shown = stand_ins(&probe.rendered(&sample));
                let new = shown.difference(&seen_first).filter_map(|(_, id)| Some(probe.variables.find(id)?.0));
                pairs.extend(new.filter(|other| *other != one).map(|other| (one, other)));
                let at = add(&mut self.samples, sample);
                self.edges.push((0, at, one));
            }
            if is_flag(one) {
                pairs.extend((0..one).filter(|other| is_flag(*other)).map(|other| (one, other)));
            }
        }
        for (one, other) in pairs {
            for first in others(one) {
                for second in others(other) {
                    let single = add(&mut self.samples, with(&base, one, first));
                    let other_single = add(&mut self.samples, with(&base, other, second));
                    let both = add(&mut self.samples, with(&with(&base, one, first), other, second));
                    self.edges.push((single, both, other));
                    self.edges.push((other_single, both, one));
                }
            }
        }
    }

    /// All objects and parts, in their order.
    pub(super) fn learn(&self) -> Vec<(String, Child)> {
        let rendered: Vec<Rc<Rendered>> = self.samples.iter().map(|sample| self.probe.rendered(sample)).collect();
        let known = |key: &&String| rendered.iter().any(|objects| objects.contains_key(*key));
        let children = self.probe.order.iter().filter(known).map(|key| {
            let views = rendered.iter().map(|objects| objects.get(key).map(|object| &**object)).enumerate().collect();
            (key.clone(), self.child(views, &Place { object: key.clone(), steps: vec![] }))
        });
        children.collect()
    }

    fn child(&self, views: Views<'_>, place: &Place) -> Child {
        let of = self.matters(&views, |one, other| one.is_some() == other.is_some());
        let presence = self.grow(&views, &of, &|assignment| match self.at(assignment, place) {
            Err(Nothing::Around) => None,
            Err(Nothing::Here) => Some(ABSENT),
            Ok(_) => Some(THERE),
        });
        let there: Views<'_> = views.into_iter().filter(|(_, value)| value.is_some()).collect();
        let what = self.node(there.clone(), place);
        let mut when = presence.condition(&self.probe.variables);
        if let Some(any) = self.with_any_of(&what, &there, place) {
            when = Some(when.map_or(any.clone(), |when| all_of(&when, &any)));
        }
        Child { presence, when, what }
    }

    /// A map or list all of whose entries may be missing: the condition for one of them, if without any of them it is missing itself.
    fn with_any_of(&self, what: &Node, views: &Views<'_>, place: &Place) -> Option<String> {
        let children: Vec<&Child> = match what {
            Node::Map(children) => children.iter().map(|(_, child)| child).collect(),
            Node::List(children) => children.iter().collect(),
            Node::Scalar(_) | Node::Whole(_) | Node::Split { .. } => return None,
        };
        let conditions: Vec<String> = children.iter().filter_map(|child| child.when.clone()).collect();
        if conditions.is_empty() || conditions.len() < children.len() {
            return None;
        }
        let mut assignment = self.samples[views.first()?.0].clone();
        let is_empty = children.iter().all(|child| child.presence.take_away(&mut assignment));
        (is_empty && self.at(&assignment, place).is_err()).then(|| any_of(&conditions))
    }

    fn node(&self, views: Views<'_>, place: &Place) -> Node {
        let views = distinct(views);
        let wholes: BTreeSet<usize> =
            views.iter().filter_map(|(sample, value)| self.whole(*sample, (*value)?)).collect();
        let shape = |sample: usize, value: &Value| -> Shape {
            let empty = wholes.iter().find(|whole| self.samples[sample][**whole] != 0 && is_empty(value));
            match (self.whole(sample, value).or(empty.copied()), value) {
                (Some(whole), _) => Shape::Whole(whole),
                (None, Value::Object(_)) => Shape::Map,
                (None, Value::Array(_)) => Shape::List,
                (None, _) => Shape::Scalar,
            }
        };
        let shapes: BTreeSet<Shape> =
            views.iter().filter_map(|(sample, value)| Some(shape(*sample, (*value)?))).collect();
        if shapes.len() > 1 {
            return self.split(views, place, &shape);
        }
        match shapes.first() {
            Some(Shape::Whole(whole)) => Node::Whole(*whole),
            Some(Shape::Map) => self.map(&views, place),
            Some(Shape::List) => self.list(&views, place),
            Some(Shape::Scalar) | None => {
                let of = self.matters(&views, |one, other| one == other);
                Node::Scalar(self.grow(&views, &of, &|assignment| self.at(assignment, place).ok()))
            }
        }
    }

    /// By the first variable that makes another thing of it.
    fn split(&self, views: Views<'_>, place: &Place, shape: &dyn Fn(usize, &Value) -> Shape) -> Node {
        let by_number: BTreeMap<usize, Shape> =
            views.iter().filter_map(|(sample, value)| Some((*sample, shape(*sample, (*value)?)))).collect();
        let differ = |(one, other, _): &&(usize, usize, usize)| matches!((by_number.get(one), by_number.get(other)), (Some(one), Some(other)) if one != other);
        let Some((.., of)) = self.edges.iter().find(differ).copied() else {
            unreachable!("{}: nothing says why it is one thing or another", place.object)
        };
        let branches = (0..self.probe.variables.0[of].states.len()).filter_map(|state| {
            let of_state = |(sample, _): &(usize, Option<&Value>)| self.samples[*sample][of] == state;
            let views: Views<'_> = views.iter().filter(|view| of_state(view)).copied().collect();
            (!views.is_empty()).then(|| (state, self.node(views, place)))
        });
        Node::Split { of, branches: branches.collect() }
    }

    fn map(&self, views: &Views<'_>, place: &Place) -> Node {
        let keys: BTreeSet<&String> =
            views.iter().filter_map(|(_, value)| value.as_ref()?.as_object()).flat_map(|map| map.keys()).collect();
        let children = keys.into_iter().map(|key| {
            let below = views.iter().map(|(sample, value)| (*sample, value.and_then(|map| map.get(key)))).collect();
            (key.clone(), self.child(below, &place.below(Step::Key(key.clone()))))
        });
        Node::Map(children.collect())
    }

    fn list(&self, views: &Views<'_>, place: &Place) -> Node {
        let lists: Vec<(usize, &Vec<Value>)> =
            views.iter().filter_map(|(sample, value)| Some((*sample, value.as_ref()?.as_array()?))).collect();
        let mut all: Vec<String> = vec![];
        for (_, list) in &lists {
            let names = names(list);
            if names != all {
                all = merged(&all, &names);
            }
        }
        let all = Rc::new(all);
        let entries: Vec<(usize, Vec<Option<&Value>>)> =
            lists.iter().map(|(sample, list)| (*sample, aligned(&all, list))).collect();
        let children = (0..all.len()).map(|at| {
            let views = entries.iter().map(|(sample, entries)| (*sample, entries.get(at).copied().flatten())).collect();
            self.child(views, &place.below(Step::Entry(all.clone(), at)))
        });
        Node::List(children.collect())
    }

    fn whole(&self, sample: usize, value: &Value) -> Option<usize> {
        self.probe.variables.whole(value, &self.samples[sample])
    }

    /// The variables that samples show to matter.
    fn matters(&self, views: &Views<'_>, is_same: impl Fn(Option<&Value>, Option<&Value>) -> bool) -> Vec<usize> {
        let mut by_number = vec![None; self.samples.len()];
        for (sample, value) in views {
            by_number[*sample] = Some(*value);
        }
        let differ = |(one, other, _): &&(usize, usize, usize)| match (by_number[*one], by_number[*other]) {
            (Some(one), Some(other)) => !is_same(one, other),
            _ => false,
        };
        self.edges.iter().filter(differ).map(|(.., variable)| *variable).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Truth values first; what may be empty before what stands in for it then.
    fn grow(&self, views: &Views<'_>, of: &[usize], outcome: &dyn Fn(&Assignment) -> Option<Value>) -> Tree {
        let from = views.first().map_or(0, |(sample, _)| *sample);
        let mut of = of.to_vec();
        of.sort_by_key(|at| {
            let variable = &self.probe.variables.0[*at];
            (!matches!(variable.kind, Kind::Flag), !variable.may_be_empty(), *at)
        });
        Tree::grow(&self.probe.variables, &self.samples[from], &of, outcome)
    }

    fn at(&self, assignment: &Assignment, place: &Place) -> Result<Value, Nothing> {
        let rendered = self.probe.rendered(assignment);
        let mut at: Option<&Value> = rendered.get(&place.object).map(|object| &**object);
        for step in &place.steps {
            let around = at.ok_or(Nothing::Around)?;
            at = match step {
                Step::Key(key) => around.get(key),
                Step::Entry(all, number) => {
                    let list = around.as_array().ok_or(Nothing::Around)?;
                    aligned(all, list).get(*number).copied().flatten()
                }
            };
        }
        at.cloned().ok_or(Nothing::Here)
    }
}

enum Nothing {
    Here,
    Around,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    Map,
    List,
    Scalar,
    Whole(usize),
}

fn is_empty(value: &Value) -> bool {
    matches!(value, Value::Object(map) if map.is_empty()) || matches!(value, Value::Array(list) if list.is_empty())
}

/// One sample is enough where all are the same: then nothing below depends on anything.
fn distinct(views: Views<'_>) -> Views<'_> {
    let Some((_, Some(first))) = views.first().copied() else { return views };
    let same = views.iter().all(|(_, value)| value.is_some_and(|value| std::ptr::eq(value, first) || value == first));
    if same { views.into_iter().take(1).collect() } else { views }
}

/// The stand-ins of each object.
fn stand_ins(rendered: &Rendered) -> BTreeSet<(String, String)> {
    fn see(value: &Value, found: &mut dyn FnMut(&str)) {
        match value {
            Value::String(text) => {
                for piece in pieces(text) {
                    if let Piece::StandIn(id) = piece {
                        found(id);
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| see(item, found)),
            Value::Object(map) => map.values().for_each(|value| see(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut seen = BTreeSet::new();
    for (key, object) in rendered {
        see(object, &mut |id| {
            seen.insert((key.clone(), id.to_owned()));
        });
    }
    seen
}

/// By what the entries of a list are known again: their name, or their option; what stands behind an option is its value.
fn names(list: &[Value]) -> Vec<String> {
    let mut names: Vec<String> = vec![];
    let mut option: Option<&str> = None;
    for item in list {
        let name = match item {
            Value::String(text) => match (option.take(), text.split_once('=')) {
                (Some(option), _) if !text.starts_with("--") => format!("value of {option}"),
                (_, Some((name, _))) if text.starts_with("--") => name.to_owned(),
                _ => {
                    option = text.starts_with("--").then_some(text);
                    text.clone()
                }
            },
            Value::Object(map) => match item["name"].as_str() {
                Some(name) => format!("name {name}"),
                None => map.keys().map(|key| format!("{key} ")).collect(),
            },
            _ => item.to_string(),
        };
        names.push(name);
    }
    names
}

/// Of two lists, how much what is behind each pair of places has in common.
fn common(one: &[String], other: &[String]) -> Vec<Vec<usize>> {
    let mut lengths = vec![vec![0; other.len() + 1]; one.len() + 1];
    for (i, name) in one.iter().enumerate().rev() {
        for (j, other_name) in other.iter().enumerate().rev() {
            lengths[i][j] =
                if name == other_name { lengths[i + 1][j + 1] + 1 } else { lengths[i + 1][j].max(lengths[i][j + 1]) };
        }
    }
    lengths
}

/// A list that has both in it.
fn merged(one: &[String], other: &[String]) -> Vec<String> {
    let lengths = common(one, other);
    let (mut i, mut j, mut merged) = (0, 0, vec![]);
    while i < one.len() || j < other.len() {
        if i < one.len() && j < other.len() && one[i] == other[j] {
            merged.push(one[i].clone());
            (i, j) = (i + 1, j + 1);
        } else if j == other.len() || i < one.len() && lengths[i + 1][j] >= lengths[i][j + 1] {
            merged.push(one[i].clone());
            i += 1;
        } else {
            merged.push(other[j].clone());
            j += 1;
        }
    }
    merged
}

/// For each entry that there may be, the one that is there.
fn aligned<'l>(all: &[String], list: &'l [Value]) -> Vec<Option<&'l Value>> {
    let mut items = names(list).into_iter().zip(list).peekable();
    all.iter().map(|name| items.next_if(|(own, _)| own == name).map(|(_, item)| item)).collect()
}
