//! The Gateway API's definitions of routes are those of the release whose conformance suite is run, but for what is only to be read.

use serde_json::Value;
use std::{env, fs, path::PathBuf};
use weft_cluster::install::objects;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/install/crd/gateway_api.yaml");
/// What pins the release.
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/go.mod");
const NAMES: [&str; 4] = ["grpcroutes", "httproutes", "tcproutes", "tlsroutes"];

fn release() -> String {
    let pinned = fs::read_to_string(MODULE).unwrap();
    let version = pinned.lines().find_map(|line| line.trim().strip_prefix("sigs.k8s.io/gateway-api ")).unwrap();
    version.split_whitespace().next().unwrap().to_owned()
}

/// The channel's folder where Go keeps modules, if the release is there.
fn sources(release: &str) -> Option<PathBuf> {
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default());
    let go = || env::var_os("GOPATH").map_or_else(|| home().join("go"), PathBuf::from);
    let modules = env::var_os("GOMODCACHE").map_or_else(|| go().join("pkg/mod"), PathBuf::from);
    let folder = modules.join(format!("sigs.k8s.io/gateway-api@{release}/config/crd/standard"));
    folder.is_dir().then_some(folder)
}

/// Takes away what is said to people: descriptions of schemas and columns, and warnings.
fn without_prose(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| {
                !(matches!(key.as_str(), "description" | "deprecationWarning") && value.is_string())
            });
            map.values_mut().for_each(without_prose);
        }
        Value::Array(items) => items.iter_mut().for_each(without_prose),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Written anew with WEFT_UPDATE=1.
#[test]
fn the_definitions_of_routes_are_those_of_the_pinned_release() {
    let (release, written) = (release(), fs::read_to_string(FILE).unwrap_or_default());
    let Some(sources) = sources(&release) else {
        eprintln!("gateway-api {release} is not among Go's modules: its definitions are not compared");
        assert!(written.contains(&format!("Gateway API {release},")), "the file is of another release");
        return;
    };
    let mut text = format!(
        "# Definitions of the Gateway API {release}, channel standard, without what is only to be read (descriptions and warnings).\n\
         # From sigs.k8s.io/gateway-api, config/crd/standard; Copyright The Kubernetes Authors, Apache License 2.0.\n\
         # Written by `WEFT_UPDATE=1 cargo test --workspace --test kubernetes the_definitions_of_routes`: do not edit.\n"
    );
    for name in NAMES {
        let file = sources.join(format!("gateway.networking.k8s.io_{name}.yaml"));
        let all = objects(&fs::read_to_string(file).unwrap()).unwrap();
        let mut definition = all.into_iter().find(|object| object["kind"] == "CustomResourceDefinition").unwrap();
        without_prose(&mut definition);
        text += &format!("---\n{definition}\n");
    }
    if env::var_os("WEFT_UPDATE").is_some() {
        fs::write(FILE, &text).unwrap();
    }
    assert!(fs::read_to_string(FILE).unwrap_or_default() == text, "it is of another release: run with WEFT_UPDATE=1");
}
