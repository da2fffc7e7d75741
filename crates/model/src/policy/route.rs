//! Routes: which requests, and what is done with them.

use crate::{Meta, NameAddr};
use regex_automata::{
    meta::{self, Regex},
    nfa::thompson::WhichCaptures,
};
use std::{fmt, time::Duration};

/// An HTTP route: `D` is what its rules ask for, which differs by direction.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRoute<D> {
    pub meta: Meta,
    /// Empty is every host.
    pub hosts: Vec<HostMatch>,
    pub rules: Vec<Rule<HttpMatch, D>>,
}

/// A gRPC route.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcRoute<D> {
    pub meta: Meta,
    /// Empty is every host.
    pub hosts: Vec<HostMatch>,
    pub rules: Vec<Rule<GrpcMatch, D>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rule<M, D> {
    /// One must match; empty is every request.
    pub matches: Vec<M>,
    pub filters: Vec<Filter>,
    pub does: D,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMatch {
    /// Lower-case.
    Exact(String),
    /// The labels behind `*.`, lower-case, last label first.
    Suffix(Vec<String>),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpMatch {
    pub path: Option<PathMatch>,
    pub headers: Vec<HeaderMatch>,
    pub query: Vec<QueryMatch>,
    pub method: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct GrpcMatch {
    /// Empty is every service.
    pub service: String,
    /// Empty is every method.
    pub method: String,
    pub headers: Vec<HeaderMatch>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PathMatch {
    Exact(String),
    /// Whole path segments.
    Prefix(String),
    Regex(Pattern),
}

#[derive(Clone, Debug, PartialEq)]
pub struct HeaderMatch {
    /// Lower-case.
    pub name: String,
    pub value: ValueMatch,
}

#[derive(Clone, Debug, PartialEq)]
pub struct QueryMatch {
    pub name: String,
    pub value: ValueMatch,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ValueMatch {
    Exact(Vec<u8>),
    Regex(Pattern),
}

/// A regular expression that must match the whole text.
#[derive(Clone)]
pub struct Pattern {
    source: String,
    regex: Regex,
    /// The size limit that its program fits into.
    bytes: usize,
}

/// What all patterns of one object may take of memory.
#[derive(Clone, Copy, Debug)]
pub struct PatternRoom(usize);

/// Why there is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPattern {
    #[error("it is no regular expression: {0}")]
    Wrong(String),
    #[error("it is too large a regular expression")]
    TooLarge,
    /// Those before it have taken all of it.
    #[error("the regular expressions before it are too large together")]
    NoRoom,
}

/// What is done with a matched request or connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    RequestHeaders(HeaderEdits),
    ResponseHeaders(HeaderEdits),
    Redirect(Redirect),
    /// The request goes on with another host, path, or both.
    Rewrite(Rewrite),
    /// A copy of the request is sent to another backend too, whose answer nobody waits for.
    Mirror(Mirror),
    /// What Linkerd's messages have no words for. It is told beside the policy, under a name that stands for the content; who is not
    /// told it refuses the requests.
    Extension(Extension),
    /// Answers instead of the server.
    HttpFailure {
        status: u16,
        message: String,
        ratio: Ratio,
    },
    GrpcFailure {
        code: u16,
        message: String,
        ratio: Ratio,
    },
    /// The connection is refused: not allowed.
    Forbidden,
    /// The connection is refused: the configuration is wrong.
    Invalid(String),
}

/// Added, then set, then removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    pub add: Vec<(String, Vec<u8>)>,
    pub set: Vec<(String, Vec<u8>)>,
    pub remove: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    pub scheme: Option<String>,
    pub host: Option<String>,
    pub path: Option<PathReplacement>,
    pub port: Option<u16>,
    pub status: Option<u16>,
}

/// Parts of a request's URI that are replaced before it is sent on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The whole authority.
    pub host: Option<String>,
    /// The query stays.
    pub path: Option<PathReplacement>,
}

/// Where a share of the requests is sent as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The backend: the `backend_*` labels.
    pub meta: Meta,
    pub target: NameAddr,
    pub share: Ratio,
}

/// What stands in a policy for something that is told beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    pub key: String,
    /// The types of its filters, for people.
    pub wants: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathReplacement {
    Full(String),
    Prefix(String),
}

/// A share of the requests; the denominator is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    pub numerator: u32,
    pub denominator: u32,
}

impl Ratio {
    pub const ALWAYS: Self = Self { numerator: 1, denominator: 1 };
}

/// The most bytes of a compiled [`Pattern`]: the regex crate's own limit, and so that of Linkerd's proxies. A `\w`, which stands for
/// a letter of any script, takes more than 40 KiB of it.
const MAX_PATTERN: usize = 10 << 20;
/// As what the smallest patterns count.
const MIN_PATTERN: usize = 16 << 10;
/// What a pattern may remember of texts, for each thread: as much as its own size a few times, and the regex crate's own limit at most.
const MAX_MEMORY: usize = 2 << 20;

/// How long detection waits when a message does not say.
pub const DETECT_TIMEOUT: Duration = Duration::from_secs(10);

impl Pattern {
    /// # Errors
    /// `source` is no regular expression, or a too large one.
    pub fn new(source: &str) -> Result<Self, NoPattern> {
        let (regex, bytes) = Self::build(&format!("^(?:{source})$"), MIN_PATTERN)?;
        // By itself too: a parenthesis of its own must not close ours.
        Self::build(source, bytes)?;
        Ok(Self { source: source.to_owned(), regex, bytes })
    }

    /// With the least size, of doubles of this one, that it fits into.
    fn build(source: &str, mut bytes: usize) -> Result<(Regex, usize), NoPattern> {
        loop {
            let config = meta::Config::new()
                .nfa_size_limit(Some(bytes))
                .hybrid_cache_capacity(MAX_MEMORY.min(8 * bytes))
                // Nobody asks for groups, which would take many times the size of the rest.
                .which_captures(WhichCaptures::Implicit)
                .onepass(false);
            match Regex::builder().configure(config).build(source) {
                Ok(regex) => return Ok((regex, bytes)),
                Err(error) if error.size_limit().is_none() => return Err(NoPattern::wrong(&error)),
                Err(_) if bytes < MAX_PATTERN => bytes = MAX_PATTERN.min(2 * bytes),
                Err(_) => return Err(NoPattern::TooLarge),
            }
        }
    }

    pub fn as_str(&self) -> &str {
        &self.source
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl Default for PatternRoom {
    fn default() -> Self {
        Self(32 << 20)
    }
}

impl PatternRoom {
    /// What is refused takes room too: it has cost the time.
    ///
    /// # Errors
    /// `source` is no regular expression, a too large one, or one too many.
    pub fn pattern(&mut self, source: &str) -> Result<Pattern, NoPattern> {
        if self.0 == 0 {
            return Err(NoPattern::NoRoom);
        }
        let pattern = Pattern::new(source);
        let bytes = match &pattern {
            Ok(pattern) => pattern.bytes,
            Err(NoPattern::TooLarge) => MAX_PATTERN,
            Err(_) => MIN_PATTERN,
        };
        self.0 = self.0.saturating_sub(bytes);
        pattern
    }
}

impl NoPattern {
    /// The error is drawn over several lines, the last of which says what is wrong.
    fn wrong(error: &meta::BuildError) -> Self {
        let told = error.syntax_error().map_or_else(|| error.to_string(), ToString::to_string);
        Self::Wrong(told.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned())
    }
}

/// The source says all of it.
impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.source).finish()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups and borders of words take no more than what the limit is of: the program, and the one that runs backwards.
    #[test]
    fn a_pattern_fits_into_what_it_counts_for() {
        for source in ["a", "(a)", r"(\w)", r"(\w)-(\d)x", r"\bx\w\b", r"/(v1|v2)/(\w{3})/([a-z]+)"] {
            let Pattern { regex, bytes, .. } = Pattern::new(source).unwrap();
            assert!(regex.memory_usage() <= 2 * bytes, "{source}: {} of {bytes}", regex.memory_usage());
        }
    }
}
