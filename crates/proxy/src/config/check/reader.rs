//! Reads single variables, with the table's defaults, and collects what is wrong.

use super::Problem;
use crate::config::{
    table::{self, Default as VarDefault},
    value::{self, Parsed},
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use weft_model::DnsName;

/// The environment, and what was found wrong with it so far.
pub(super) struct Reader {
    /// What is set and not empty.
    pub(super) env: BTreeMap<String, String>,
    pub(super) problems: RefCell<Vec<Problem>>,
    /// Names that were asked for, for the test that the table and the check agree.
    pub(super) asked: RefCell<BTreeSet<&'static str>>,
}

impl Reader {
    pub(super) fn new(env: impl IntoIterator<Item = (String, String)>) -> Self {
        let env = env.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        Self { env, problems: RefCell::default(), asked: RefCell::default() }
    }

    /// A value that the table has no default for.
    pub(super) fn optional<T>(&self, name: &'static str, parse: impl FnOnce(&str) -> Parsed<T>) -> Option<T> {
        self.asked.borrow_mut().insert(name);
        let text = self.env.get(name)?;
        parse(text).map_err(|message| self.problem(name, message)).ok()
    }

    /// The value, or the table's default. `T::default()` stands in after a problem, and is then thrown away with the rest.
    pub(super) fn or_default<T: Default>(&self, name: &'static str, parse: impl FnOnce(&str) -> Parsed<T>) -> T {
        self.required(name, parse).unwrap_or_default()
    }

    /// The value or the table's default; a problem if there is neither.
    pub(super) fn required<T>(&self, name: &'static str, parse: impl FnOnce(&str) -> Parsed<T>) -> Option<T> {
        self.asked.borrow_mut().insert(name);
        let default = match table::find(name).map(|var| var.default) {
            Some(VarDefault::Value(text)) => Some(text),
            _ => None,
        };
        let Some(text) = self.env.get(name).map(String::as_str).or(default) else {
            self.problem(name, "must be set");
            return None;
        };
        parse(text).map_err(|message| self.problem(name, message)).ok()
    }

    pub(super) fn problem(&self, name: &str, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { name: name.to_owned(), message: message.into() });
    }
}

pub(super) fn text(text: &str) -> Parsed<String> {
    Ok(text.to_owned())
}

pub(super) fn dns_name(text: &str) -> Parsed<DnsName> {
    text.parse::<DnsName>().map_err(|e| e.to_string())
}

pub(super) fn one_of<'a>(text: &str, allowed: &[&'a str]) -> Parsed<&'a str> {
    let found = allowed.iter().find(|a| **a == text);
    found.copied().ok_or_else(|| format!("{text:?} is not one of: {}", allowed.join(", ")))
}

pub(super) fn positive(text: &str) -> Parsed<Duration> {
    let duration = value::duration(text)?;
    if duration.is_zero() { Err("must be longer than 0".into()) } else { Ok(duration) }
}

pub(super) fn positive_number<T: std::str::FromStr + PartialEq + Default>(text: &str) -> Parsed<T> {
    let number = value::number::<T>(text)?;
    if number == T::default() { Err("must be greater than 0".into()) } else { Ok(number) }
}

pub(super) fn window(text: &str) -> Parsed<u32> {
    let size: u32 = value::number(text)?;
    if (1..1 << 31).contains(&size) { Ok(size) } else { Err(format!("{text:?} is not a window: 1 to 2147483647")) }
}
