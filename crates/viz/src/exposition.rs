//! Reads the text exposition format of Prometheus.

use std::collections::BTreeMap;

/// One line: a series and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// Most samples that are read of one scrape; what is beyond is counted, not kept.
pub const MAX_SAMPLES: usize = 200_000;

/// What was read of a scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition {
    pub samples: Vec<Sample>,
    /// Lines that are no samples, or beyond [`MAX_SAMPLES`].
    pub skipped: usize,
}

/// Reads samples. A line that cannot be read is skipped and counted: the others still say something.
pub fn parse(text: &str) -> Exposition {
    let mut read = Exposition::default();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        match sample(line) {
            Some(sample) if read.samples.len() < MAX_SAMPLES => read.samples.push(sample),
            _ => read.skipped += 1,
        }
    }
    read
}

fn sample(line: &str) -> Option<Sample> {
    let name_end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))?;
    let (name, rest) = line.split_at_checked(name_end)?;
    if name.is_empty() {
        return None;
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = match rest.split_whitespace().next()? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().ok()?,
    };
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Reads behind `{` up to and with `}`.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (key, behind) = rest.split_once("=\"")?;
        let (value, behind) = quoted(behind)?;
        labels.insert(key.trim().to_owned(), value);
        rest = behind;
    }
}

/// Reads up to and with the closing quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_samples_and_skips_the_rest() {
        let read = parse(
            "# HELP a b\na 1\nb{x=\"y\",z=\"q\\\"\\n\\\\\"} 2.5 1700000000\nc_bucket{le=\"+Inf\"} +Inf\nbroken{x=\"\nd{} 3\n# EOF\n",
        );
        let names: Vec<_> = read.samples.iter().map(|s| (s.name.as_str(), s.value)).collect();
        assert_eq!(names, [("a", 1.0), ("b", 2.5), ("c_bucket", f64::INFINITY), ("d", 3.0)]);
        assert_eq!(read.samples[1].labels["z"], "q\"\n\\");
        assert_eq!(read.skipped, 1);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".{0,200}") {
            parse(&text);
        }

        #[test]
        fn label_values_survive(value in "[ -~\\n]{0,40}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let read = parse(&format!("m{{k=\"{escaped}\"}} 1"));
            assert_eq!(read.samples[0].labels["k"], value);
        }
    }
}
