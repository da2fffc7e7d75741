//! What is written as YAML is read again as it was.

use proptest::prelude::*;
use serde_json::{Value, json};
use weft_cluster::yaml;

#[test]
fn it_reads_as_people_write_it() {
    let value = json!({
        "args": ["--proxy-uid", "2102", "-addr=:8086", "-1", "--", "-", "---"],
        "empty": {"list": [], "map": {}, "text": "", "none": null},
        "env": [{"name": "A", "value": "yes"}, {"name": "B", "value": "{\"a\":1}\n"}, [1, [2]]],
        "lines": "first\n\n  third: x\n",
        "open": "no end\nof line",
        "numbers": [1, 2.5, -3, "1", "0x1", "1:30", "1e3", ".5", "3s"],
        "words": ["true", "No", "~", "null", "Nullable", "a: b", "a:b", "a #b", "linkerd/cli 1.0", "ends ", "[x]", "$(a).b"],
        "odd keys": {"a b": 1, "yes": 2, "": 3, "linkerd.io/inject": 4},
    });
    insta::assert_snapshot!(yaml::text(&value));
}

/// Older readers make truth values of `yes` and times of `1:30`, and nobody may take a text for anything else.
#[test]
fn it_is_read_as_it_was() {
    let texts = [
        "",
        " ",
        "a",
        "a b",
        "a ",
        " a",
        "a\n",
        "a\nb",
        "a\n\nb\n",
        "\n",
        "\n\n",
        "a\n\n",
        " a\nb",
        "a \nb",
        "a\n b\n",
        "a\r\nb",
        "\t",
        "a\tb",
        "a\n\tb",
        "#a",
        "a #b",
        "a: b",
        "a:",
        ":a",
        "- a",
        "-",
        "--",
        "---",
        "--- a",
        "...",
        "-a",
        "--a=b",
        "? a",
        "!a",
        "&a",
        "*a",
        "@a",
        "`a",
        "%a",
        "|",
        ">",
        "'a'",
        "\"a\"",
        "[a]",
        "{a}",
        "a, b",
        "a]",
        "~",
        "null",
        "Null",
        "true",
        "FALSE",
        "yes",
        "No",
        "on",
        "Off",
        "y",
        "N",
        "nan",
        ".nan",
        "inf",
        "-inf",
        "-.inf",
        "+1",
        "1",
        "-1",
        "1.5",
        ".5",
        "1e3",
        "0x1f",
        "0o7",
        "010",
        "1_000",
        "1:30",
        "2020-01-01",
        "<<",
        "=",
        "a=b",
        "é",
        "日本",
        "\u{2028}",
        "\u{85}",
        "\u{7f}",
        "\u{feff}a",
        "\u{1F600}",
        "a\\b",
        "$(a)",
        "10.0.0.0/8,fd00::/8",
        "[::]:4143",
        "{\"a\":\"b\"}\n",
    ];
    for text in texts {
        for document in [
            json!({ "key": text }),
            json!({ "key": [text, [text], { "inner": text }] }),
            json!({ text: { text: [text] } }),
        ] {
            let written = yaml::text(&document);
            let read: Value = serde_saphyr::from_str(&written).unwrap_or_else(|error| panic!("{written}: {error}"));
            assert_eq!(read, document, "{written}");
        }
    }
}

fn values() -> impl Strategy<Value = Value> {
    let words = prop_oneof!["[ -~\n]{0,12}", "\\PC{0,6}", Just("1_000".to_owned()), Just("2020-01-01".to_owned())];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        words.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[ -~]{0,8}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// What is written is read again.
    #[test]
    fn whatever_is_written_is_read_as_it_was(value in values()) {
        let document = json!({ "kind": value });
        let text = yaml::text(&document);
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        prop_assert_eq!(&read, &document, "{}", text);
    }
}
