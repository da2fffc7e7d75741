//! Options; what manifests become is shown by weft-cluster's golden files.

use super::*;
use crate::args::{Args, Command};
use clap::Parser;
use weft_cluster::inject::Annotations;

fn parsed(words: &[&str]) -> Inject {
    match Args::parse_from(["weft", "inject", "-"].iter().chain(words)).command {
        Command::Inject(args) => *args,
        _ => panic!("another command"),
    }
}

#[test]
fn options_become_annotations() {
    let words = [
        "--opaque-ports=25,grpc",
        "--skip-outbound-ports",
        "1,2-3",
        "--proxy-cpu",
        "100m",
        "--native-sidecar",
        "--enable-external-profiles=false",
        "--ingress",
        "--registry",
        "registry.example/weft/",
        "--proxy-gid",
        "-1",
    ];
    let annotations = options::annotations(&parsed(&words).options).unwrap();
    let shown: Vec<String> = annotations.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let expected = [
        "config.linkerd.io/enable-external-profiles=false",
        "config.linkerd.io/opaque-ports=25,grpc",
        "config.linkerd.io/proxy-cpu-request=100m",
        "config.linkerd.io/proxy-enable-native-sidecar=true",
        "config.linkerd.io/proxy-gid=-1",
        "config.linkerd.io/proxy-image=registry.example/weft/proxy",
        "config.linkerd.io/skip-outbound-ports=1,2-3",
        "linkerd.io/inject=ingress",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn options_are_checked() {
    for (words, message) in [
        (["--proxy-uid", "0"], "--proxy-uid 0: "),
        (["--opaque-ports", "99999"], "--opaque-ports 99999: "),
        (["--proxy-cpu-limit", "many"], "--proxy-cpu-limit many: "),
        (["--default-inbound-policy", "all"], "--default-inbound-policy all: "),
    ] {
        let error = options::annotations(&parsed(&words).options).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn where_one_text_is_refused_none_is_printed() {
    let text = |name: &str, text: &str| Text { name: name.into(), text: text.to_owned() };
    let good = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    let bad = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {hostNetwork: true, containers: []}\n";
    let annotations = Annotations::new();
    let run = |texts: &[Text]| all(texts, Change::Annotate(&annotations), ManifestFormat::Yaml, |c| injected(c, false));
    let done = run(&[text("good.yaml", good)]);
    assert!(!done.failed && done.out.contains("linkerd.io/inject: enabled"), "{done:?}");
    let done = run(&[text("good.yaml", good), text("bad.yaml", bad)]);
    assert!(done.failed && done.out.is_empty(), "{done:?}");
    assert!(
        done.err.contains("Error transforming resources in bad.yaml:\nfailed to inject pod/p: hostNetwork"),
        "{done:?}"
    );
}
