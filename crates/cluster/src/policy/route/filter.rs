//! What a rule, or one of its backends, does with its requests.

use super::{
    BackendOf, BackendRef, FilterSpec, Findings, HeaderSpec, MAX_FILTERS, MirrorSpec, ModifierSpec, Origin,
    PathModifierSpec, RedirectSpec, RewriteSpec,
    matching::{is_path, is_token, no_name},
    shown,
};
use crate::Kind;
use weft_model::{
    DnsName,
    decide::filter::is_protected,
    policy::route::{Filter, HeaderEdits, PathReplacement, Ratio, Redirect, Rewrite},
};

/// What the Gateway API answers with where a redirect names no status.
const FOUND: u16 = 302;
/// How many headers one list of a filter may name.
const MAX_EDITS: usize = 16;

/// What filters say that no message of Linkerd's can. Who cannot carry it out refuses the requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Beyond {
    pub(crate) rewrite: Option<Rewrite>,
    pub(crate) mirrors: Vec<Copies>,
    /// Types of filters that nobody carries out, as they are written.
    pub(crate) unknown: Vec<String>,
}

/// Requests are sent there too.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Copies {
    pub(crate) to: BackendRef,
    pub(crate) share: Ratio,
}

#[derive(Default)]
pub(super) struct Filters {
    pub(super) known: Vec<Filter>,
    pub(super) beyond: Beyond,
}

impl Beyond {
    /// The first filter that is there, by its type: a server's proxy carries out none.
    pub(crate) fn first(&self) -> Option<&str> {
        let Self { rewrite, mirrors, unknown: _ } = self;
        let rewrite = rewrite.as_ref().map(|_| "URLRewrite");
        rewrite.or_else(|| mirrors.first().map(|_| "RequestMirror")).or_else(|| self.unmet())
    }

    /// The first filter that a client's proxy does not carry out, by its type.
    pub(crate) fn unmet(&self) -> Option<&str> {
        self.unknown.first().map(String::as_str)
    }

    pub(super) fn replaces_prefix(&self) -> bool {
        self.rewrite.as_ref().is_some_and(|r| matches!(r.path, Some(PathReplacement::Prefix(_))))
    }
}

pub(super) fn replaces_prefix(filter: &Filter) -> bool {
    matches!(filter, Filter::Redirect(Redirect { path: Some(PathReplacement::Prefix(_)), .. }))
}

/// The `filters` of what stands at `at`.
pub(super) fn all(specs: Option<&[FilterSpec]>, at: &str, origin: Origin<'_>, found: &mut Findings) -> Filters {
    let mut filters = Filters::default();
    for (at, spec) in found.each(specs, &format!("{at}.filters"), MAX_FILTERS) {
        spec.checked(&at, origin, &mut filters, found);
    }
    let redirects = filters.known.iter().any(|filter| matches!(filter, Filter::Redirect(_)));
    if redirects && filters.beyond.rewrite.is_some() {
        let message =
            "what is answered with a redirect is not sent on: RequestRedirect and URLRewrite exclude each other";
        found.mistake(format!("{at}.filters"), message, "remove one of them");
    }
    filters
}

impl FilterSpec {
    fn checked(&self, at: &str, origin: Origin<'_>, into: &mut Filters, found: &mut Findings) {
        let Self {
            kind,
            request_header_modifier,
            response_header_modifier,
            request_redirect,
            url_rewrite,
            request_mirror,
            cors,
            external_auth,
            extension_ref,
        } = self;
        let fields = [
            ("RequestHeaderModifier", "requestHeaderModifier", request_header_modifier.is_some()),
            ("ResponseHeaderModifier", "responseHeaderModifier", response_header_modifier.is_some()),
            ("RequestRedirect", "requestRedirect", request_redirect.is_some()),
            ("URLRewrite", "urlRewrite", url_rewrite.is_some()),
            ("RequestMirror", "requestMirror", request_mirror.is_some()),
            ("CORS", "cors", cors.is_some()),
            ("ExternalAuth", "externalAuth", external_auth.is_some()),
            ("ExtensionRef", "extensionRef", extension_ref.is_some()),
        ];
        for (of, field, given) in fields {
            if (of == kind) != given {
                let message = format!("a filter of the type {} has the field of its type, and no other", shown(kind));
                let remedy = if given { "remove it" } else { "give it" };
                found.mistake(format!("{at}.{field}"), message, remedy);
            }
        }
        let of_requests = matches!(kind.as_str(), "RequestRedirect" | "URLRewrite");
        if origin.kind == Kind::GrpcRoute && of_requests {
            let remedy = "use RequestHeaderModifier or ResponseHeaderModifier";
            found.mistake(format!("{at}.type"), format!("a GRPCRoute has no filter of the type {kind}"), remedy);
        }
        if let Some(modifier) = request_header_modifier {
            let edits = modifier.checked(&format!("{at}.requestHeaderModifier"), found);
            into.known.push(Filter::RequestHeaders(edits));
        }
        if let Some(modifier) = response_header_modifier {
            let edits = modifier.checked(&format!("{at}.responseHeaderModifier"), found);
            into.known.push(Filter::ResponseHeaders(edits));
            if origin.only_servers {
                found.note(at, "the proxy of a Server edits no responses");
            }
        }
        if let Some(redirect) = request_redirect {
            into.known.push(Filter::Redirect(redirect.checked(&format!("{at}.requestRedirect"), found)));
        }
        if let Some(rewrite) = url_rewrite {
            let rewrite = rewrite.checked(&format!("{at}.urlRewrite"), found);
            if into.beyond.rewrite.replace(rewrite).is_some() {
                found.mistake(format!("{at}.type"), "it is the second URLRewrite", "use one");
            }
        }
        if let Some(mirror) = request_mirror {
            into.beyond.mirrors.push(mirror.checked(&format!("{at}.requestMirror"), origin, found));
        }
        if !fields[..5].iter().any(|(of, ..)| of == kind) {
            into.beyond.unknown.push(kind.chars().take(64).collect());
        }
        let of_grpc = origin.kind == Kind::GrpcRoute && !origin.only_servers && response_header_modifier.is_some();
        let of_nobody = of_grpc || into.beyond.unknown.last() == Some(kind);
        if of_nobody || matches!(kind.as_str(), "URLRewrite" | "RequestMirror") && origin.has_servers {
            let who = if of_nobody { "nobody" } else { "no proxy of a Server" };
            let message = format!("{who} carries out a filter of the type {}: its requests are refused", shown(kind));
            found.note(format!("{at}.type"), message);
        }
    }
}

impl ModifierSpec {
    fn checked(&self, at: &str, found: &mut Findings) -> HeaderEdits {
        let Self { set, add, remove } = self;
        let mut edits = HeaderEdits::default();
        for (field, list, to) in [("add", add, &mut edits.add), ("set", set, &mut edits.set)] {
            for (at, HeaderSpec { name, value }) in found.each(list.as_deref(), &format!("{at}.{field}"), MAX_EDITS) {
                if value.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
                    found.mistake(format!("{at}.value"), "it holds a byte that no header may hold", "remove it");
                }
                to.push((edited(name, format!("{at}.name"), found), value.clone().into_bytes()));
            }
        }
        for (at, name) in found.each(remove.as_deref(), &format!("{at}.remove"), MAX_EDITS) {
            edits.remove.push(edited(name, at, found));
        }
        edits
    }
}

/// The name of a header that a policy may change.
fn edited(name: &str, at: String, found: &mut Findings) -> String {
    let lower = name.to_ascii_lowercase();
    if !is_token(&lower) {
        no_name(at, name, found);
    } else if is_protected(&lower) {
        let message = format!("{lower} is of the connection or of the mesh, and no policy's to change");
        found.mistake(at, message, "remove it");
    }
    lower
}

impl RedirectSpec {
    fn checked(&self, at: &str, found: &mut Findings) -> Redirect {
        let Self { scheme, hostname, path, port, status_code } = self;
        if let Some(scheme) = scheme.as_deref().filter(|s| !matches!(*s, "http" | "https")) {
            found.mistake(format!("{at}.scheme"), format!("{} is no scheme", shown(scheme)), "use http or https");
        }
        if *port == Some(0) {
            found.mistake(format!("{at}.port"), "0 is no port", "use 1 to 65535");
        }
        let status = status_code.unwrap_or(FOUND);
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            let message = format!("{status} is no status of a redirect");
            found.mistake(format!("{at}.statusCode"), message, "use 301, 302, 303, 307 or 308");
        }
        Redirect {
            scheme: scheme.clone(),
            host: host(hostname.as_deref(), at, found),
            path: path.as_ref().and_then(|path| path.checked(&format!("{at}.path"), found)),
            port: *port,
            status: Some(status),
        }
    }
}

impl RewriteSpec {
    fn checked(&self, at: &str, found: &mut Findings) -> Rewrite {
        let Self { hostname, path } = self;
        let host = host(hostname.as_deref(), at, found);
        Rewrite { host, path: path.as_ref().and_then(|path| path.checked(&format!("{at}.path"), found)) }
    }
}

fn host(name: Option<&str>, at: &str, found: &mut Findings) -> Option<String> {
    let name = name?;
    if name.parse::<DnsName>().is_err() {
        found.mistake(format!("{at}.hostname"), format!("{} is no host", shown(name)), "use a name");
    }
    Some(name.to_owned())
}

impl PathModifierSpec {
    fn checked(&self, at: &str, found: &mut Findings) -> Option<PathReplacement> {
        let Self { kind, replace_full_path, replace_prefix_match } = self;
        match (kind.as_str(), replace_full_path, replace_prefix_match) {
            ("ReplaceFullPath", Some(path), None) => {
                is_path(path, &format!("{at}.replaceFullPath"), found);
                Some(PathReplacement::Full(path.clone()))
            }
            ("ReplacePrefixMatch", None, Some(path)) => {
                // Nothing instead of a prefix is the root.
                if !path.is_empty() {
                    is_path(path, &format!("{at}.replacePrefixMatch"), found);
                }
                Some(PathReplacement::Prefix(path.clone()))
            }
            _ => {
                let remedy = "use ReplaceFullPath with replaceFullPath, or ReplacePrefixMatch with replacePrefixMatch";
                found.mistake(at, "it does not say by what the path is replaced", remedy);
                None
            }
        }
    }
}

impl MirrorSpec {
    fn checked(&self, at: &str, origin: Origin<'_>, found: &mut Findings) -> Copies {
        let Self { backend_ref, percent, fraction } = self;
        let to = backend_ref.checked(&format!("{at}.backendRef"), origin, found);
        if to.beyond.first().is_some() || !to.filters.is_empty() {
            found.mistake(format!("{at}.backendRef.filters"), "a copy of a request is sent as it is", "remove them");
        }
        if to.of == BackendOf::EgressNetwork {
            found.mistake(format!("{at}.backendRef.kind"), "copies are sent to Services alone", "name a Service");
        }
        let share = match (percent, fraction) {
            (None, None) => Ratio::ALWAYS,
            (Some(percent), None) => Ratio { numerator: *percent, denominator: 100 },
            (None, Some(fraction)) => {
                Ratio { numerator: fraction.numerator, denominator: fraction.denominator.unwrap_or(100) }
            }
            (Some(_), Some(_)) => {
                found.mistake(format!("{at}.percent"), "it has both percent and fraction", "give one of them");
                Ratio { numerator: 0, denominator: 1 }
            }
        };
        if share.denominator == 0 || share.numerator > share.denominator {
            let field = if percent.is_some() { "percent" } else { "fraction" };
            found.mistake(format!("{at}.{field}"), "it is no share", "use 0 to 100 %");
        }
        Copies { to, share }
    }
}
