//! Reads a page of metrics as strictly as Go's `expfmt` does, by which Linkerd's tools read it, and Prometheus where it keeps one
//! value of each series.

use std::collections::{BTreeMap, BTreeSet};

/// What is wrong with a page in Prometheus' text format, line by line; nothing of one that every reader understands.
pub fn mistakes(page: &str) -> Vec<String> {
    let mut reader = Reader::default();
    for (n, line) in page.split_terminator('\n').enumerate() {
        if let Err(why) = reader.line(line) {
            reader.mistakes.push(format!("line {}: {why}: {line}", n + 1));
        }
    }
    if !page.ends_with("# EOF\n") {
        reader.mistakes.push("the page does not end with # EOF".to_owned());
    }
    reader.mistakes
}

#[derive(Default)]
struct Reader<'a> {
    mistakes: Vec<String>,
    /// What families are, by their names.
    kinds: BTreeMap<&'a str, &'a str>,
    helped: BTreeSet<&'a str>,
    /// The family whose samples may come.
    present: &'a str,
    series: BTreeSet<String>,
    ended: bool,
}

impl<'a> Reader<'a> {
    fn line(&mut self, line: &'a str) -> Result<(), &'static str> {
        if self.ended {
            return Err("there is something behind the end");
        }
        if line == "# EOF" {
            self.ended = true;
            return Ok(());
        }
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').ok_or("HELP without a text")?;
            if !is_name(name) || text.contains('\\') {
                return Err("no HELP of a name");
            }
            self.present = "";
            return if self.helped.insert(name) { Ok(()) } else { Err("a second HELP") };
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').ok_or("TYPE without a type")?;
            if !["counter", "gauge", "histogram"].contains(&kind) || !self.helped.contains(name) {
                return Err("no TYPE of what has HELP");
            }
            self.present = name;
            return if self.kinds.insert(name, kind).is_none() { Ok(()) } else { Err("a second TYPE") };
        }
        self.sample(line)
    }

    fn sample(&mut self, line: &str) -> Result<(), &'static str> {
        let at = line.find(['{', ' ']).ok_or("no sample")?;
        let (name, rest) = line.split_at(at);
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (BTreeMap::new(), rest),
        };
        let value = value.strip_prefix(' ').ok_or("no blank before the value")?;
        if !matches!(value, "+Inf" | "-Inf" | "NaN") && value.parse::<f64>().is_err() {
            return Err("no number");
        }
        let own = if self.kinds.get(self.present) == Some(&"histogram") {
            ["_bucket", "_count", "_sum"].iter().any(|suffix| name.strip_suffix(suffix) == Some(self.present))
        } else {
            name == self.present
        };
        if !own || !is_name(name) {
            return Err("a sample that is not of the family above it");
        }
        // Labels in another order are the same series.
        if self.series.insert(format!("{name}{labels:?}")) { Ok(()) } else { Err("a series for the second time") }
    }
}

fn is_name(name: &str) -> bool {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':');
    first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// Reads behind `{` up to and with `}`.
fn labels(mut rest: &str) -> Result<(BTreeMap<&str, &str>, &str), &'static str> {
    let mut labels = BTreeMap::new();
    loop {
        let (name, behind) = rest.split_once("=\"").ok_or("no label")?;
        let mut escaped = false;
        let end = behind.find(|c: char| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let (value, behind) = behind.split_at(end.ok_or("a label without an end")?);
        let mut escapes = value.split('\\').skip(1);
        while let Some(part) = escapes.next() {
            match part.chars().next() {
                Some('n' | '"') => {}
                // A backslash that is one.
                None if escapes.next().is_some() => {}
                _ => return Err("an escape that is none"),
            }
        }
        if !is_name(name) || name.contains(':') || labels.insert(name, value).is_some() {
            return Err("no name of a label, or for the second time");
        }
        match behind.strip_prefix('"').unwrap_or(behind) {
            closed if closed.starts_with('}') => return Ok((labels, closed.split_at(1).1)),
            more => rest = more.strip_prefix(',').ok_or("no comma between labels")?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readers_refuse_is_a_mistake() {
        let head = "# HELP a Some text\n# TYPE a counter\n";
        let page = |text: &str| {
            format!("{head}{text}# HELP h H\n# TYPE h histogram\nh_bucket{{le=\"+Inf\"}} 1\nh_sum 0.5\n# EOF\n")
        };
        for good in ["", "a 1\n", "a{x=\"\\\\ \\\" \\n ,} b\",y=\"\"} 1.5\na{x=\"\"} NaN\n"] {
            assert_eq!(mistakes(&page(good)), [""; 0], "{good}");
        }
        for bad in [
            "b 1\n",
            "a 1\na 2\n",
            "a{x=\"\",y=\"\"} 1\na{y=\"\",x=\"\"} 1\n",
            "a{x=\"1\",x=\"2\"} 1\n",
            "a{x=\"\\d\"} 1\n",
            "a{x=\"\\\\\\d\"} 1\n",
            "a{x=\"} 1\n",
            "a{x} 1\n",
            "a{} 1\n",
            "a x\n",
            "a\n",
            "\n",
            "a_sum 1\n",
            "# EOF\n",
            head,
            "# TYPE b gauge\n",
            "# HELP b B\nb 1\n",
            "# HELP b B\n# TYPE b gauge\na 1\n",
            "# HELP b B\n# TYPE b thing\n",
        ] {
            assert_ne!(mistakes(&page(bad)), [""; 0], "{bad}");
        }
        assert_ne!(mistakes("a"), [""; 0]);
    }
}
