//! Tables for redirects, shares and edits of headers, and the edits done one by one.

use super::*;
use crate::policy::route::{Extension, PathReplacement, Redirect, Rewrite};
use proptest::prelude::*;

struct Asked {
    authority: Option<&'static str>,
    path: &'static str,
    query: Option<&'static str>,
}

impl RequestView for Asked {
    fn method(&self) -> &str {
        "GET"
    }

    fn authority(&self) -> Option<&str> {
        self.authority
    }

    fn path(&self) -> &str {
        self.path
    }

    fn query(&self) -> Option<&str> {
        self.query
    }

    fn fields(&self, _: &mut dyn FnMut(&[u8], &[u8])) {}

    fn header(&self, _: &str, _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }
}

fn answered(filter: Filter, asked: &Asked, prefix: Option<&str>) -> Option<Answer<'static>> {
    let matched = Matched { request: asked, prefix, default_authority: &"10.0.0.1:80" };
    answer(std::slice::from_ref(&filter), &matched, |_| 0).map(|answer| match answer {
        Answer::Redirect { status, location } => Answer::Redirect { status, location },
        Answer::Invalid(why) => Answer::Invalid(Cow::Owned(why.into_owned())),
        other => panic!("{other:?}"),
    })
}

/// Where `redirect` leads from `http://AUTHORITY/PATH`, `-` if nowhere.
fn leads(redirect: Redirect, authority: &'static str, path: &'static str, prefix: Option<&str>) -> String {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    match answered(Filter::Redirect(redirect), &Asked { authority: Some(authority), path, query }, prefix) {
        None => "-".to_owned(),
        Some(Answer::Redirect { status: 301, location }) => location,
        Some(other) => format!("{other:?}"),
    }
}

#[test]
fn a_redirect_replaces_what_it_names() {
    let to = |scheme: Option<&str>, host: Option<&str>, port| Redirect {
        scheme: scheme.map(str::to_owned),
        host: host.map(str::to_owned),
        port,
        ..Redirect::default()
    };
    let cases = [
        (to(None, None, None), "web", "-"),
        (to(Some("http"), None, None), "web:8080", "-"),
        (to(Some("http"), Some("web"), None), "web", "-"),
        (to(None, Some("web"), Some(80)), "web", "-"),
        (to(Some("https"), None, None), "web", "https://web/a?b=c"),
        (to(Some("https"), None, None), "web:80", "https://web/a?b=c"),
        (to(Some("https"), None, None), "web:8080", "https://web/a?b=c"),
        (to(Some("https"), None, Some(8443)), "web:80", "https://web:8443/a?b=c"),
        (to(Some("https"), Some("other"), Some(443)), "web", "https://other/a?b=c"),
        (to(None, Some("other"), None), "web:8080", "http://other:8080/a?b=c"),
        (to(None, Some("other"), None), "web:80", "http://other/a?b=c"),
        (to(None, None, Some(80)), "web:8080", "http://web/a?b=c"),
        (to(None, None, Some(8080)), "web", "http://web:8080/a?b=c"),
        (to(None, None, Some(81)), "[fd00::1]", "http://[fd00::1]:81/a?b=c"),
        (to(None, None, Some(81)), "[fd00::1]:82", "http://[fd00::1]:81/a?b=c"),
    ];
    for (redirect, authority, expected) in cases {
        let named = format!("{redirect:?} from {authority}");
        assert_eq!(leads(redirect, authority, "/a?b=c", None), expected, "{named}");
    }
}

#[test]
fn paths_are_replaced_in_whole_or_by_prefix() {
    let full = |path: &str| Some(PathReplacement::Full(path.to_owned()));
    let prefix = |path: &str| Some(PathReplacement::Prefix(path.to_owned()));
    // Gateway API's table for ReplacePrefixMatch, then what it leaves out.
    let cases = [
        ("/foo/bar", "/foo", prefix("/xyz"), "/xyz/bar"),
        ("/foo/bar", "/foo", prefix("/xyz/"), "/xyz/bar"),
        ("/foo/bar", "/foo/", prefix("/xyz"), "/xyz/bar"),
        ("/foo/bar", "/foo/", prefix("/xyz/"), "/xyz/bar"),
        ("/foo", "/foo", prefix("/xyz"), "/xyz"),
        ("/foo/", "/foo", prefix("/xyz"), "/xyz/"),
        ("/foo/bar", "/foo", prefix(""), "/bar"),
        ("/foo/", "/foo", prefix(""), "/"),
        ("/foo", "/foo", prefix(""), "/"),
        ("/foo/", "/foo", prefix("/"), "/"),
        ("/foo", "/foo", prefix("/"), "/"),
        ("/foo?q=1", "/foo", prefix("xyz"), "/xyz?q=1"),
        ("/a", "/", prefix("/v2"), "/v2/a"),
        ("/a?q=1", "/", full("/b"), "/b"),
        ("/a?q=1", "/", full("/b?r=2"), "/b?r=2"),
        ("/a", "/", full("b"), "/b"),
        ("/a", "/", full("/\u{e4} \r\n<"), "/%C3%A4%20%0D%0A<"),
    ];
    for (path, by, to, expected) in cases {
        let redirect = Redirect { path: to, ..Redirect::default() };
        assert_eq!(leads(redirect, "web", path, Some(by)), format!("http://web{expected}"), "{path} by {by}");
    }
    let same = Redirect { path: prefix("/foo"), ..Redirect::default() };
    assert_eq!(leads(same.clone(), "web", "/foo/a", Some("/foo")), "-");
    assert!(leads(same, "web", "/foo/a", None).contains("matched otherwise"));
}

fn goes_on(path: Option<PathReplacement>, asked: &Asked, prefix: Option<&str>) -> Result<Option<String>, &'static str> {
    rewritten(&Rewrite { host: None, path }, asked, prefix)
}

#[test]
fn a_rewrite_replaces_what_it_names_and_keeps_the_query() {
    let full = |path: &str| Some(PathReplacement::Full(path.to_owned()));
    let prefix = |path: &str| Some(PathReplacement::Prefix(path.to_owned()));
    let asked = |path: &'static str| {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        Asked { authority: None, path, query }
    };
    for (path, by, to, expected) in [
        ("/foo/bar", "/foo", prefix("/xyz"), "/xyz/bar"),
        ("/foo/bar", "/foo/", prefix("/xyz/"), "/xyz/bar"),
        ("/foo", "/foo", prefix("/xyz"), "/xyz"),
        ("/foo/", "/foo", prefix("/xyz"), "/xyz/"),
        ("/foo/", "/foo", prefix(""), "/"),
        ("/foo", "/foo", prefix(""), "/"),
        ("/foo/", "/foo", prefix("/"), "/"),
        ("/foo?", "/foo", prefix(""), "/?"),
        ("/foo/b%2Fc//d?a=b?c&d", "/foo", prefix("/x%20y"), "/x%20y/b%2Fc//d?a=b?c&d"),
        ("/", "/", prefix("/v2"), "/v2/"),
        ("/a?q=1", "/", full("/b"), "/b?q=1"),
        ("/a/b/?q=1", "/a", full("/"), "/?q=1"),
    ] {
        assert_eq!(goes_on(to, &asked(path), Some(by)), Ok(Some(expected.to_owned())), "{path} by {by}");
    }
    assert!(goes_on(prefix("/b"), &asked("/a"), None).unwrap_err().contains("matched otherwise"));
    assert!(goes_on(full("/b"), &asked("*"), Some("/")).unwrap_err().contains("the request has none"));
    let host = Rewrite { host: Some("a.b".to_owned()), path: None };
    assert_eq!(rewritten(&host, &asked("*"), None), Ok(None));
}

#[test]
fn of_several_rewrites_the_last_word_counts_for_each_part() {
    let of = |host: Option<&str>, path: Option<&str>| {
        Filter::Rewrite(Rewrite {
            host: host.map(str::to_owned),
            path: path.map(|p| PathReplacement::Full(p.to_owned())),
        })
    };
    assert_eq!(rewriting(&[Filter::Forbidden]), None);
    let all = rewriting(&[of(Some("rule"), Some("/rule")), of(None, Some("/backend"))]).unwrap();
    assert_eq!(
        all,
        Rewrite { host: Some("rule".to_owned()), path: Some(PathReplacement::Full("/backend".to_owned())) }
    );
}

#[test]
fn what_was_not_told_is_refused() {
    let asked = Asked { authority: None, path: "/", query: None };
    let untold = Filter::Extension(Extension { key: "k".to_owned(), wants: "URLRewrite".to_owned() });
    let Some(Answer::Invalid(why)) = answered(untold, &asked, None) else { panic!() };
    assert!(why.contains("URLRewrite"), "{why}");
    assert_eq!(answered(Filter::Rewrite(Rewrite::default()), &asked, None), None);
}

#[test]
fn a_request_without_authority_or_path_is_redirected_too() {
    let redirect =
        || Filter::Redirect(Redirect { scheme: Some("https".into()), status: Some(308), ..Redirect::default() });
    let old = Asked { authority: None, path: "*", query: None };
    let location = "https://10.0.0.1/".to_owned();
    assert_eq!(answered(redirect(), &old, None), Some(Answer::Redirect { status: 308, location }));
}

#[test]
fn a_status_alone_is_answered_each_time() {
    let of = |redirect: Redirect| {
        let web = Asked { authority: Some("web"), path: "/a", query: Some("b=c") };
        answered(Filter::Redirect(redirect), &web, Some("/a"))
    };
    let status = Some(307);
    let location = "http://web/a?b=c".to_owned();
    let answer = Some(Answer::Redirect { status: 307, location });
    assert_eq!(of(Redirect { status, ..Redirect::default() }), answer);
    // What names a part has done its work once that is so, or it would go on for ever.
    assert_eq!(of(Redirect { status, host: Some("web".into()), ..Redirect::default() }), None);
}

#[test]
fn failures_have_their_share() {
    let failing = |numerator, denominator, draw: u32| {
        let ratio = Ratio { numerator, denominator };
        let filters = [Filter::HttpFailure { status: 503, message: "no".into(), ratio }];
        let asked = Asked { authority: None, path: "/", query: None };
        let matched = Matched { request: &asked, prefix: None, default_authority: &"a" };
        let mut drawn = 0;
        let answer = answer(&filters, &matched, |below| {
            drawn += 1;
            assert_eq!(below, denominator);
            draw
        });
        (answer == Some(Answer::HttpFailure { status: 503, message: "no" }), drawn)
    };
    assert_eq!(failing(1, 1, 0), (true, 0));
    assert_eq!(failing(5, 2, 0), (true, 0));
    assert_eq!(failing(0, 10, 0), (false, 0));
    assert_eq!(failing(3, 10, 2), (true, 1));
    assert_eq!(failing(3, 10, 3), (false, 1));
}

#[test]
fn the_first_that_answers_is_followed() {
    let asked = Asked { authority: None, path: "/", query: None };
    let matched = Matched { request: &asked, prefix: None, default_authority: &"a" };
    let always = Ratio { numerator: 1, denominator: 1 };
    let filters = [
        Filter::RequestHeaders(HeaderEdits::default()),
        Filter::Redirect(Redirect::default()),
        Filter::GrpcFailure { code: 14, message: "m".into(), ratio: always },
        Filter::Forbidden,
    ];
    assert_eq!(answer(&filters, &matched, |_| 0), Some(Answer::GrpcFailure { code: 14, message: "m" }));
    assert_eq!(answer(&filters[3..], &matched, |_| 0), Some(Answer::Forbidden));
    assert_eq!(answer(&filters[..2], &matched, |_| 0), None);
}

fn edits(add: &[(&str, &str)], set: &[(&str, &str)], remove: &[&str]) -> Filter {
    let owned = |all: &[(&str, &str)]| all.iter().map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec())).collect();
    let remove = remove.iter().map(|name| (*name).to_owned()).collect();
    Filter::RequestHeaders(HeaderEdits { add: owned(add), set: owned(set), remove })
}

#[test]
fn edits_add_up_to_one_change_per_name() {
    let filters = [
        edits(&[("a", "1"), ("b", " 1\t")], &[("b", "2")], &[]),
        edits(&[("a", "2"), ("b", "3"), ("c", "1")], &[], &["c", "d"]),
        edits(&[("d", "1")], &[], &[]),
    ];
    let change = |name: &str, replaces, values: &[&str]| HeaderChange {
        name: name.into(),
        replaces,
        values: values.iter().map(|v| v.as_bytes().to_vec()).collect(),
    };
    let expected = [
        change("a", false, &["1", "2"]),
        change("b", true, &["2", "3"]),
        change("c", true, &[]),
        change("d", true, &["1"]),
    ];
    assert_eq!(request_changes(&filters), expected);
    assert_eq!(response_changes(&filters), []);
}

#[test]
fn what_frames_a_message_or_names_the_client_is_protected() {
    for name in [
        "connection",
        "content-length",
        "transfer-encoding",
        "host",
        "te",
        "l5d-client-id",
        "l5d_client_id",
        "l5d-orig-proto",
    ] {
        assert!(is_protected(name), "{name}");
    }
    assert!(!is_protected("x-forwarded-for") && !is_protected("cookie") && !is_protected("content-type"));
}

proptest! {
    /// Composed changes do what the edits do one by one.
    #[test]
    fn composed_as_one_by_one(
        filters in proptest::collection::vec(
            (proptest::collection::vec((0..4_u8, 0..9_u8), 0..4), proptest::collection::vec((0..4_u8, 0..9_u8), 0..3),
             proptest::collection::vec(0..4_u8, 0..2)),
            0..4,
        ),
        head in proptest::collection::vec((0..4_u8, 0..9_u8), 0..8),
    ) {
        let name = |n: u8| format!("h{n}");
        let pair = |(n, v): (u8, u8)| (name(n), vec![b'0' + v]);
        let filters: Vec<_> = filters.into_iter().map(|(add, set, remove)| HeaderEdits {
            add: add.into_iter().map(pair).collect(),
            set: set.into_iter().map(pair).collect(),
            remove: remove.into_iter().map(name).collect(),
        }).collect();
        let mut slowly: Vec<_> = head.into_iter().map(pair).collect();
        let mut composed = slowly.clone();
        for edits in &filters {
            slowly.extend(edits.add.iter().cloned());
            for (name, value) in &edits.set {
                slowly.retain(|(n, _)| n != name);
                slowly.push((name.clone(), value.clone()));
            }
            slowly.retain(|(n, _)| !edits.remove.contains(n));
        }
        for change in request_changes(&filters.into_iter().map(Filter::RequestHeaders).collect::<Vec<_>>()) {
            composed.retain(|(n, _)| !change.replaces || *n != change.name);
            composed.extend(change.values.into_iter().map(|value| (change.name.clone(), value)));
        }
        for n in 0..4 {
            let of = |all: &[(String, Vec<u8>)]| {
                all.iter().filter(|(own, _)| *own == name(n)).map(|(_, v)| v.clone()).collect::<Vec<_>>()
            };
            prop_assert_eq!(of(&slowly), of(&composed));
        }
    }
}
