//! Which requests a rule is for.

use super::{Findings, GrpcMatchSpec, GrpcMethodSpec, HttpMatchSpec, NamedSpec, PathSpec, shown};
use weft_model::{
    DnsName,
    policy::route::{
        GrpcMatch, HeaderMatch, HostMatch, HttpMatch, NoPattern, PathMatch, Pattern, QueryMatch, ValueMatch,
    },
};

const MAX_NAMED: usize = 16;
const MAX_PATH_BYTES: usize = 1024;
const MAX_VALUE_BYTES: usize = 4096;
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

pub(super) fn host(text: &str) -> Option<HostMatch> {
    match text.strip_prefix("*.") {
        None => text.parse::<DnsName>().ok().map(|name| HostMatch::Exact(name.as_str().to_owned())),
        Some(end) => {
            let end = end.parse::<DnsName>().ok()?;
            Some(HostMatch::Suffix(end.as_str().rsplit('.').map(str::to_owned).collect()))
        }
    }
}

impl HttpMatchSpec {
    pub(super) fn checked(&self, at: &str, found: &mut Findings) -> Option<HttpMatch> {
        let Self { path, headers, query_params, method } = self;
        let path = path.clone().unwrap_or_default().checked(&format!("{at}.path"), found);
        let headers = self::headers(headers.as_deref(), at, found);
        let mut query: Vec<QueryMatch> = vec![];
        for (at, spec) in found.each(query_params.as_deref(), &format!("{at}.queryParams"), MAX_NAMED) {
            let name = spec.name.clone();
            if name.is_empty() {
                found.mistake(format!("{at}.name"), "the parameter has no name", "give it");
            }
            if query.iter().any(|q| q.name == name) {
                found.mistake(format!("{at}.name"), format!("{} is wanted twice", shown(&name)), "want it once");
            }
            query.extend(spec.value(&at, found).map(|value| QueryMatch { name, value }));
        }
        if let Some(method) = method.as_deref().filter(|method| !METHODS.contains(method)) {
            let remedy = format!("use one of {}", METHODS.join(", "));
            found.mistake(format!("{at}.method"), format!("{} is no method", shown(method)), remedy);
        }
        Some(HttpMatch { path: Some(path?), headers, query, method: method.clone() })
    }
}

impl GrpcMatchSpec {
    pub(super) fn checked(&self, at: &str, found: &mut Findings) -> Option<GrpcMatch> {
        let Self { method, headers } = self;
        let GrpcMethodSpec { kind, service, method } = method.clone().unwrap_or_default();
        if let Some(kind) = kind.filter(|kind| kind != "Exact") {
            let message = format!("no proxy carries out a match of the type {}", shown(&kind));
            found.mistake(format!("{at}.method.type"), message, "use Exact");
        }
        let (service, method) = (service.unwrap_or_default(), method.unwrap_or_default());
        for (field, text, dots) in [("service", &service, true), ("method", &method, false)] {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || (dots && byte == b'.');
            if text.len() > MAX_PATH_BYTES || !text.bytes().all(fits) {
                let message = format!("{} is no name of a {field} of gRPC", shown(text));
                found.mistake(
                    format!("{at}.method.{field}"),
                    message,
                    "use letters, digits and '_', in services '.' too",
                );
            }
        }
        let headers = self::headers(headers.as_deref(), at, found);
        Some(GrpcMatch { service, method, headers })
    }
}

/// Of names that differ in case alone the first counts, as the Gateway API wants it; the same name twice no API server takes.
fn headers(specs: Option<&[NamedSpec]>, at: &str, found: &mut Findings) -> Vec<HeaderMatch> {
    let mut headers: Vec<HeaderMatch> = vec![];
    for (i, (at, spec)) in found.each(specs, &format!("{at}.headers"), MAX_NAMED).enumerate() {
        let name = spec.name.to_ascii_lowercase();
        if !is_token(&name) {
            no_name(format!("{at}.name"), &spec.name, found);
        }
        let mut before = specs.unwrap_or_default().iter().take(i).map(|spec| spec.name.as_str());
        if before.clone().any(|other| other == spec.name) {
            found.mistake(format!("{at}.name"), format!("{} is wanted twice", shown(&name)), "want it once");
        } else if let Some(first) = before.find(|other| other.eq_ignore_ascii_case(&name)) {
            let message = format!("it is the header {}, which stands before it and counts alone", shown(first));
            found.note(format!("{at}.name"), message);
            continue;
        }
        headers.extend(spec.value(&at, found).map(|value| HeaderMatch { name, value }));
    }
    headers
}

impl PathSpec {
    fn checked(&self, at: &str, found: &mut Findings) -> Option<PathMatch> {
        let Self { kind, value } = self;
        let value = value.clone().unwrap_or_else(|| "/".to_owned());
        let at_value = format!("{at}.value");
        match kind.as_deref().unwrap_or("PathPrefix") {
            "Exact" if is_path(&value, &at_value, found) => Some(PathMatch::Exact(value)),
            "PathPrefix" if is_path(&value, &at_value, found) => Some(PathMatch::Prefix(value)),
            "Exact" | "PathPrefix" => None,
            "RegularExpression" => pattern(&value, at_value, found).map(PathMatch::Regex),
            other => {
                let remedy = "use Exact, PathPrefix or RegularExpression";
                found.mistake(format!("{at}.type"), format!("{} is no type of paths", shown(other)), remedy);
                None
            }
        }
    }
}

/// Whether it is a path that a request can have in one writing alone. A route of any other would be followed by nobody, or only by
/// who writes it so; whoever it was to keep out would be let in beside it.
pub(super) fn is_path(path: &str, at: &str, found: &mut Findings) -> bool {
    let wrong = if !path.starts_with('/') {
        Some(("does not begin with /", "use an absolute path"))
    } else if path.len() > MAX_PATH_BYTES {
        Some(("is too long", "use at most 1024 bytes"))
    } else if path.contains("//") {
        Some(("has an empty segment", "write one / only"))
    } else if path.split('/').any(vanishes) {
        Some(("has a segment of dots, or of parameters alone", "write the path that it stands for"))
    } else {
        spelled(path)
    };
    if let Some((message, remedy)) = wrong {
        found.mistake(at, format!("{} {message}", shown(path)), remedy);
    }
    wrong.is_none()
}

/// Whether some servers resolve a segment away.
fn vanishes(segment: &str) -> bool {
    let name = segment.split(';').next().unwrap_or_default();
    matches!(name, "." | "..") || name.is_empty() && segment.contains(';')
}

/// What is wrong with the letters of a path.
fn spelled(path: &str) -> Option<(&'static str, &'static str)> {
    const PLAIN: &[u8] = b"/-._~!$&'()*+,;=:@";
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte.is_ascii_alphanumeric() || PLAIN.contains(&byte) {
            continue;
        }
        let digit = |i: usize| tail.get(i).and_then(|b| char::from(*b).to_digit(16));
        let (true, Some(high), Some(low)) = (byte == b'%', digit(0), digit(1)) else {
            return Some((
                "has a letter that no path of a request has",
                "write it as %, and its bytes in hexadecimal digits",
            ));
        };
        let escaped = u8::try_from(high << 4 | low).unwrap_or_default();
        if matches!(escaped, b'/' | b'\\') || escaped.is_ascii_control() {
            return Some(("hides what may end a segment", "write the path without it"));
        }
        if escaped == b'%' && digit(2).and(digit(3)).is_some() {
            return Some(("is escaped twice", "escape it once"));
        }
        if escaped.is_ascii_alphanumeric() || b"-._~".contains(&escaped) {
            return Some(("has an escape that is none", "write the letter itself"));
        }
        rest = tail.get(2..).unwrap_or_default();
    }
    None
}

impl NamedSpec {
    fn value(&self, at: &str, found: &mut Findings) -> Option<ValueMatch> {
        if self.value.len() > MAX_VALUE_BYTES {
            found.mistake(format!("{at}.value"), "it is too long", "use at most 4096 bytes");
            return None;
        }
        match self.kind.as_deref().unwrap_or("Exact") {
            "Exact" => Some(ValueMatch::Exact(self.value.clone().into_bytes())),
            "RegularExpression" => pattern(&self.value, format!("{at}.value"), found).map(ValueMatch::Regex),
            other => {
                let remedy = "use Exact or RegularExpression";
                found.mistake(format!("{at}.type"), format!("{} is no type of values", shown(other)), remedy);
                None
            }
        }
    }
}

fn pattern(source: &str, field: String, found: &mut Findings) -> Option<Pattern> {
    match found.patterns.pattern(source) {
        Ok(pattern) => Some(pattern),
        Err(NoPattern::NoRoom) => {
            let message = "the regular expressions of the route are too large together";
            found.mistake(field, message, "use fewer, or simpler ones");
            None
        }
        Err(error) => {
            found.mistake(field, error.to_string(), "correct it");
            None
        }
    }
}

/// What HTTP calls a token.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

pub(super) fn no_name(field: String, name: &str, found: &mut Findings) {
    found.mistake(field, format!("{} is no name of a header", shown(name)), "use letters, digits and '-'");
}
