//! The failures: the reference follows the codes.

use weft_proxy::error::{Code, reference};

#[test]
fn the_reference_follows_the_codes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/errors.md");
    let made = reference::markdown();
    if std::env::var_os("WEFT_UPDATE").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let stands = std::fs::read_to_string(path).unwrap_or_default();
    assert!(made == stands, "docs/reference/errors.md is not what the codes say: run with WEFT_UPDATE=1");
}

#[test]
fn every_code_is_listed_once_and_has_a_reply() {
    let mut names: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Code::ALL.len());
    for code in Code::ALL {
        assert!((300..600).contains(&code.status()), "{code:?}");
        assert!((1..=16).contains(&code.grpc_status()), "{code:?}");
    }
}
