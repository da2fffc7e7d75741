//! The result of cases in the form that CI systems read.

use super::{Checked, Failure};
use std::{fmt::Write, path::Path};

/// One suite per file of cases.
pub fn junit<'c>(suites: impl IntoIterator<Item = (&'c Path, &'c [Checked])>) -> String {
    let (mut body, mut all) = (String::new(), [0; 3]);
    for (file, cases) in suites {
        let file = escaped(&file.display().to_string());
        let count =
            |unknown: bool| cases.iter().filter(|c| c.failure.as_ref().is_some_and(|f| f.unknown == unknown)).count();
        let (failures, errors) = (count(false), count(true));
        for (sum, of) in all.iter_mut().zip([cases.len(), failures, errors]) {
            *sum += of;
        }
        let tests = cases.len();
        let _ = writeln!(
            body,
            "  <testsuite name=\"{file}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\">"
        );
        for Checked { name, line, failure } in cases {
            let name = escaped(name);
            let _ = write!(body, "    <testcase classname=\"{file}\" name=\"{name}\" file=\"{file}\" line=\"{line}\"");
            let _ = match failure {
                None => writeln!(body, "/>"),
                Some(Failure { unknown, why }) => {
                    let (what, why) = (if *unknown { "error" } else { "failure" }, escaped(why));
                    writeln!(body, ">\n      <{what} message=\"{why}\">{file}:{line}: {why}</{what}>\n    </testcase>")
                }
            };
        }
        body.push_str("  </testsuite>\n");
    }
    let [tests, failures, errors] = all;
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"weft policy test\" tests=\"{tests}\" failures=\"{failures}\" \
         errors=\"{errors}\">\n{body}</testsuites>\n"
    )
}

/// Without what XML cannot hold.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(' '),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
