//! Links of the documentation lead somewhere: to a file of the tree, and to a heading or an anchor of it. Addresses of other places are
//! nobody's to check here.

use crate::{root, tidy};
use anyhow::Context;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

/// What a page says, without code.
#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    /// What may stand behind `#`.
    anchors: BTreeSet<String>,
    /// Each with its line.
    links: Vec<(usize, String)>,
}

pub(crate) fn resolve(faults: &mut Vec<String>) -> anyhow::Result<()> {
    let root = root();
    let mut pages = BTreeMap::new();
    for file in tidy::files(&root, "*.md")? {
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        pages.insert(file, Page::read(&text));
    }
    for (file, page) in &pages {
        for (line, link) in &page.links {
            if let Some(why) = broken(&pages, file, link) {
                let file = file.strip_prefix(&root).unwrap_or(file).display();
                faults.push(format!("{file}:{line} links to {link}: {why}"));
            }
        }
    }
    Ok(())
}

fn broken(pages: &BTreeMap<PathBuf, Page>, from: &Path, link: &str) -> Option<&'static str> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let to = if path.is_empty() { from.to_owned() } else { plain(&from.parent()?.join(path)) };
    if !to.exists() {
        return Some("there is no such file");
    }
    let page = pages.get(&to);
    match (anchor, page) {
        (Some(anchor), Some(page)) if !page.anchors.contains(anchor) => Some("there is no such heading"),
        (Some(_), None) => Some("only pages have headings"),
        _ => None,
    }
}

/// Without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

impl Page {
    fn read(text: &str) -> Self {
        let (mut page, mut in_code) = (Self::default(), false);
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            } else if !in_code {
                page.line(number + 1, line);
            }
        }
        page
    }

    fn line(&mut self, number: usize, line: &str) {
        if let Some(heading) = line.strip_prefix('#').map(|rest| rest.trim_start_matches('#').trim()) {
            let wanted = slug(heading);
            let again = (1..).map(|n| format!("{wanted}-{n}"));
            let anchor = std::iter::once(wanted.clone()).chain(again).find(|anchor| !self.anchors.contains(anchor));
            self.anchors.extend(anchor);
        }
        let ids = line.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next());
        self.anchors.extend(ids.map(str::to_owned));
        let links = without_code(line);
        let links = links.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        self.links.extend(links.map(|link| (number, link.to_owned())));
    }
}

/// A line without what stands in code quotes.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// How GitHub calls a heading.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_headings_are_read_without_code() {
        let text = "# A `b`: C, d?\n\n[x](y.md#z) and `[no](link)`\n```\n# no heading\n[no](link)\n```\n## Same\n## Same\n<a id=\"own\"></a>\n[own](#own)";
        let page = Page::read(text);
        assert_eq!(page.anchors.iter().map(String::as_str).collect::<Vec<_>>(), ["a-b-c-d", "own", "same", "same-1"]);
        assert_eq!(page.links, [(3, "y.md#z".to_owned()), (11, "#own".to_owned())]);
    }

    #[test]
    fn what_leads_nowhere_is_told() {
        let root = root();
        let [from, map] = ["docs/traffic.md", "ARCHITECTURE.md"].map(|name| root.join(name));
        let page = |heading: &str| Page::read(&format!("# {heading}"));
        let pages = BTreeMap::from([(from.clone(), page("Here")), (map, page("There"))]);
        for (link, why) in [
            ("https://example.com/x#y", None),
            ("#here", None),
            ("../ARCHITECTURE.md", None),
            ("../ARCHITECTURE.md#there", None),
            ("adr", None),
            ("#there", Some("there is no such heading")),
            ("../ARCHITECTURE.md#here", Some("there is no such heading")),
            ("nowhere.md", Some("there is no such file")),
            ("../Cargo.toml#x", Some("only pages have headings")),
        ] {
            assert_eq!(broken(&pages, &from, link), why, "{link}");
        }
    }
}
