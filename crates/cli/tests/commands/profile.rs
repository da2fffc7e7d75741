//! `weft profile`.

use crate::lab::{Home, fed};
use serde_json::{Value, json};
use std::fs;
use tokio::runtime::Runtime;
use weft_testkit::api_server::FakeApi;

const SWAGGER: &str = "swagger: '2.0'\npaths: {/books: {get: {responses: {'200': {}}}}}\n";

#[test]
fn a_profile_has_the_name_that_the_service_has_in_the_cluster() {
    let runtime = Runtime::new().unwrap();
    let (home, api) = (Home::new(), runtime.block_on(FakeApi::start()).unwrap());
    let config = json!({"kind": "ConfigMap", "metadata": {"name": "linkerd-config", "namespace": "linkerd"},
        "data": {"values": "clusterDomain: example.org\n"}});
    api.put(config);
    home.configure(&api);
    fs::write(home.0.join("books.yaml"), SWAGGER).unwrap();
    fs::write(home.0.join("emoji.proto"), "package e;\nservice S { rpc Find (A) returns (B); }\n").unwrap();
    let made = |words: &[&str]| {
        let told = home.runs(&[&["profile", "-o", "json"], words].concat());
        assert!(told.ok, "{words:?}: {told:?}");
        serde_json::from_str::<Value>(&told.out).unwrap()
    };
    let books = made(&["books", "-n", "shop", "--open-api", "books.yaml"]);
    assert_eq!(books["metadata"], json!({"name": "books.shop.svc.example.org", "namespace": "shop"}));
    assert_eq!(books["spec"]["routes"][0]["name"], "GET /books");
    let emoji = made(&["emoji", "--ignore-cluster", "--proto", "emoji.proto"]);
    assert_eq!(emoji["metadata"]["name"], "emoji.default.svc.cluster.local");
    assert_eq!(emoji["spec"]["routes"][0]["condition"]["pathRegex"], "/e\\.S/Find");
    let piped = fed(home.weft(&["profile", "books", "--ignore-cluster", "--open-api", "-"]), SWAGGER.as_bytes());
    assert!(piped.ok && piped.out.contains("name: GET /books"), "{piped:?}");
    let template = home.runs(&["profile", "books", "--template", "-n", "shop"]);
    assert!(template.ok && template.out.contains("name: books.shop.svc.example.org"), "{template:?}");
}

#[test]
fn what_is_no_profile_is_refused_by_name() {
    let home = Home::new();
    fs::write(home.0.join("three.yaml"), "openapi: 3.1.0\n").unwrap();
    for (words, says) in [
        (vec!["books"], "<--template|--open-api <FILE|->|--proto <FILE|->>"),
        (vec!["books", "--template", "--proto", "a"], "cannot be used with"),
        (
            vec!["books", "--tap", "deploy/books"],
            "weft: --tap: weft makes no profile of requests that pass: it makes one of --open-api FILE",
        ),
        (vec!["Books", "--template"], "\"Books\" is no name of a Service"),
        (vec!["books", "--template", "-n", "a.b"], "\"a.b\" is no name of a namespace"),
        (vec!["books", "--template", "-o", "json"], "leave out --output"),
        (vec!["books", "--open-api", "nowhere.yaml"], "No such file"),
        (vec!["books", "--open-api", "three.yaml"], "three.yaml: openapi: this is version 3"),
        (vec!["books", "--proto", "three.yaml"], "three.yaml: line 1: what begins here does not end"),
    ] {
        let told = home.runs(&[&["profile", "--ignore-cluster"], words.as_slice()].concat());
        assert!(!told.ok && told.out.is_empty() && told.err.contains(says), "{words:?}: {told:?}");
    }
}
