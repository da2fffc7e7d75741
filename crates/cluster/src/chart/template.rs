//! From what was learned to the text of a template.

use super::{
    learn::{Child, Node},
    probe::{INCLUDED, MOST_WORKERS},
    tree::{Tree, closed},
    variable::{BARE, BASE64, Piece, Variables, pieces},
};
use crate::{values::Kind, yaml};
use serde_json::Value;

/// Before the fields of one item of the list of records.
const RECORDS: &str = "configReaders";

pub(super) struct Printer<'v> {
    variables: &'v Variables,
    lines: Vec<String>,
    /// The version is the chart's where values do not say it.
    version: &'static str,
}

impl<'v> Printer<'v> {
    pub(super) fn new(variables: &'v Variables, version: &'static str) -> Self {
        Self { variables, lines: vec![], version }
    }

    pub(super) fn text(self) -> String {
        self.lines.into_iter().map(|line| line + "\n").collect()
    }

    pub(super) fn raw(&mut self, line: &str) {
        self.line(0, line);
    }

    /// One object of a file.
    pub(super) fn object(&mut self, child: &Child) {
        self.when(0, child, |printer| {
            printer.raw("---");
            printer.node(0, &child.what);
        });
    }

    /// A template of its own.
    pub(super) fn define(&mut self, name: &str, child: &Child) {
        self.raw(&format!("{{{{- define \"{name}\" -}}}}"));
        self.node(0, &child.what);
        self.raw("{{- end }}");
    }

    fn line(&mut self, indent: usize, text: impl AsRef<str>) {
        self.lines.push(format!("{}{}", " ".repeat(indent), text.as_ref()));
    }

    fn when(&mut self, indent: usize, child: &Child, what: impl FnOnce(&mut Self)) {
        if let Some(when) = &child.when {
            self.line(indent, format!("{{{{- if {when} }}}}"));
        }
        what(self);
        if child.when.is_some() {
            self.line(indent, "{{- end }}");
        }
    }

    fn node(&mut self, indent: usize, node: &Node) {
        match node {
            Node::Map(children) => self.map(indent, children, false),
            Node::List(children) => self.list(indent, children),
            Node::Scalar(_) | Node::Whole(_) | Node::Split { .. } => {
                self.lines.push("{{ fail \"no such template\" }}".to_owned())
            }
        }
    }

    /// Fields; what the user names himself stands before them, but for what would have two of them.
    fn map(&mut self, indent: usize, children: &[(String, Child)], is_item: bool) {
        let is_own = |(key, _): &&(String, Child)| self.named(key).is_none();
        let (own, mut others): (Vec<_>, Vec<_>) = children.iter().partition(is_own);
        others.sort_by_key(|(key, _)| self.named(key).map(|(path, _)| Variables::rank(path)));
        let named = |kind: fn(&Kind) -> bool| {
            let of = others.iter().filter_map(|(key, _)| self.named(key));
            of.filter(|(_, is)| kind(is)).map(|(path, _)| format!(".Values.{path}")).collect::<Vec<_>>()
        };
        let (texts, contexts) =
            (named(|kind| matches!(kind, Kind::Texts)), named(|kind| matches!(kind, Kind::SecurityContext)));
        let first = own.iter().position(|(key, child)| is_item && key == "name" && child.when.is_none());
        let first = first.or_else(|| own.iter().position(|(_, child)| is_item && child.when.is_none()));
        let first = first.map(|at| own[at]);
        if let Some((key, child)) = first {
            self.entry(indent, key, &child.what);
        }
        if !texts.is_empty() {
            let but: Vec<String> = own.iter().map(|(key, _)| format!("{key:?}")).collect();
            let of = format!("dict \"of\" (list {}) \"but\" (list {})", texts.join(" "), but.join(" "));
            self.line(indent, format!("{{{{- with include \"weft.texts\" ({of}) }}}}"));
            self.line(indent, format!("{{{{- . | nindent {indent} }}}}"));
            self.line(indent, "{{- end }}");
        }
        for entry in own.into_iter().filter(|entry| !first.is_some_and(|first| std::ptr::eq(*entry, first))) {
            let (key, child) = entry;
            for values in &contexts {
                self.line(indent, format!("{{{{- if not (hasKey {values} {key:?}) }}}}"));
            }
            self.when(indent, child, |printer| printer.entry(indent, key, &child.what));
            for _ in &contexts {
                self.line(indent, "{{- end }}");
            }
        }
        for values in &contexts {
            self.line(indent, format!("{{{{- with {values} }}}}"));
            self.line(indent, format!("{{{{- toYaml . | nindent {indent} }}}}"));
            self.line(indent, "{{- end }}");
        }
    }

    /// The variable whose names are the user's.
    fn named<'k>(&self, key: &'k str) -> Option<(&'k str, &Kind)> {
        match pieces(key).first() {
            Some(Piece::StandIn(id)) => self.variables.find(id).map(|(_, variable)| (*id, &variable.kind)),
            _ => None,
        }
    }

    fn entry(&mut self, indent: usize, key: &str, node: &Node) {
        let name = yaml::text(&Value::from(key));
        let name = name.trim_end();
        match node {
            Node::Scalar(tree) => self.tree(indent, tree, &|printer, leaf| format!("{name}: {}", printer.scalar(leaf))),
            Node::Map(children) if children.is_empty() => self.line(indent, format!("{name}: {{}}")),
            Node::List(children) if children.is_empty() => self.line(indent, format!("{name}: []")),
            Node::Map(children) => {
                self.line(indent, format!("{name}:"));
                self.map(indent + 2, children, false);
            }
            Node::List(children) => {
                self.line(indent, format!("{name}:"));
                self.list(indent, children);
            }
            Node::Whole(whole) => self.whole(indent, name, *whole),
            Node::Split { of, branches } => {
                self.branches(indent, *of, branches, &mut |printer, node| printer.entry(indent, key, node));
            }
        }
    }

    fn whole(&mut self, indent: usize, name: &str, whole: usize) {
        let variable = &self.variables.0[whole];
        let (go, below) = (variable.go(), indent + 2);
        match variable.kind {
            Kind::Resources => {
                self.line(indent, format!("{{{{- with include \"weft.resources\" {go} }}}}"));
                self.line(indent, format!("{name}:"));
                self.line(below, format!("{{{{- . | nindent {below} }}}}"));
                self.line(indent, "{{- end }}");
            }
            Kind::Yaml => {
                self.line(indent, format!("{name}:"));
                self.line(below, format!("{{{{- tpl {go} . | nindent {below} }}}}"));
            }
            Kind::Texts => {
                self.line(indent, format!("{name}:"));
                let of = format!("(dict \"of\" (list {go}))");
                self.line(
                    below,
                    format!("{{{{- include \"weft.texts\" {of} | default \"{{}}\" | nindent {below} }}}}"),
                );
            }
            _ => {
                self.line(indent, format!("{name}:"));
                self.line(below, format!("{{{{- toYaml {go} | nindent {below} }}}}"));
            }
        }
    }

    /// What has the same condition stands behind it together.
    fn list(&mut self, indent: usize, children: &[Child]) {
        for together in children.chunk_by(|one, other| one.when == other.when) {
            let Some(first) = together.first() else { continue };
            self.when(indent, first, |printer| {
                for child in together {
                    printer.item(indent, &child.what);
                }
            });
        }
    }

    fn item(&mut self, indent: usize, node: &Node) {
        match node {
            Node::Scalar(tree) => self.tree(indent, tree, &|printer, leaf| match printer.listed(leaf) {
                Some(list) => format!("{{{{- toYaml (toStrings {list}) | nindent {indent} }}}}"),
                None => format!("- {}", printer.scalar(leaf)),
            }),
            Node::Whole(whole) => {
                let go = self.variables.0[*whole].go();
                self.line(indent, format!("{{{{- toYaml {go} | nindent {indent} }}}}"));
            }
            Node::Map(children) => {
                let of = |key: &str| {
                    children.iter().find(|(name, _)| name == key).and_then(|(_, child)| constant(&child.what))
                };
                if let Some(component) = of(INCLUDED) {
                    return self
                        .line(indent, format!("{{{{- include \"weft.proxy.{component}\" . | nindent {indent} }}}}"));
                }
                if let Some(component) = of(MOST_WORKERS) {
                    self.line(indent, format!("{{{{- with {} }}}}", workers("most", component)));
                    self.line(indent, "- name: LINKERD2_PROXY_CORES_MAX");
                    self.line(indent, "  value: {{ . | quote }}");
                    return self.line(indent, "{{- end }}");
                }
                let is_record = children.iter().any(|(_, child)| match &child.what {
                    Node::Scalar(Tree::Leaf(Value::String(text))) => text.contains(RECORDS),
                    _ => false,
                });
                if is_record {
                    self.line(indent, format!("{{{{- range .Values.{RECORDS} }}}}"));
                }
                let at = self.lines.len();
                self.map(indent + 2, children, true);
                if let Some(first) = self.lines.get_mut(at) {
                    first.replace_range(indent..indent + 2, "- ");
                }
                if is_record {
                    self.line(indent, "{{- end }}");
                }
            }
            Node::List(_) => self.lines.push("{{ fail \"no such template\" }}".to_owned()),
            Node::Split { of, branches } => {
                self.branches(indent, *of, branches, &mut |printer, node| printer.item(indent, node));
            }
        }
    }

    fn tree(&mut self, indent: usize, tree: &Tree, text: &dyn Fn(&Self, &Value) -> String) {
        match tree {
            Tree::Any => {}
            Tree::Leaf(leaf) => {
                let text = text(self, leaf);
                self.line(indent, text);
            }
            Tree::Split { of, branches } => {
                self.branches(indent, *of, branches, &mut |printer, tree| printer.tree(indent, tree, text));
            }
        }
    }

    fn branches<T>(&mut self, indent: usize, of: usize, branches: &[(usize, T)], each: &mut dyn FnMut(&mut Self, &T)) {
        for (number, (state, branch)) in branches.iter().enumerate() {
            let when = &self.variables.0[of].states[*state].when;
            let begin = match number {
                0 => format!("{{{{- if {when} }}}}"),
                last if last + 1 == branches.len() => "{{- else }}".to_owned(),
                _ => format!("{{{{- else if {when} }}}}"),
            };
            self.line(indent, begin);
            each(self, branch);
        }
        self.line(indent, "{{- end }}");
    }

    /// A list of texts that stands among others.
    fn listed(&self, leaf: &Value) -> Option<String> {
        let [Piece::StandIn(id)] = pieces(leaf.as_str()?)[..] else { return None };
        let (_, variable) = self.variables.find(id)?;
        matches!(variable.kind, Kind::TextList).then(|| variable.go())
    }

    fn scalar(&self, leaf: &Value) -> String {
        let Value::String(text) = leaf else { return leaf.to_string() };
        if let Some(bare) = text.strip_prefix(BARE) {
            let [Piece::StandIn(id)] = pieces(bare)[..] else { return bare.to_owned() };
            return format!("{{{{ {} }}}}", open(&self.go(id)));
        }
        let (text, is_base64) = match text.strip_prefix(BASE64) {
            Some(text) => (text, true),
            None => (text.as_str(), false),
        };
        let pieces = pieces(text);
        let how = if is_base64 { "b64enc" } else { "quote" };
        match pieces.as_slice() {
            [Piece::StandIn(id)] if self.variables.find(id).is_some_and(|(_, v)| matches!(v.kind, Kind::Share)) => {
                format!("{{{{ toJson {} }}}}", self.go(id))
            }
            [Piece::StandIn(id)] => format!("{{{{ {} | {how} }}}}", open(&self.go(id))),
            pieces if pieces.iter().any(|piece| matches!(piece, Piece::StandIn(_))) => {
                let mut form = String::new();
                let mut arguments = String::new();
                let mut pieces = pieces.iter().copied();
                while let Some(piece) = pieces.next() {
                    match piece {
                        Piece::Text(text) => form += &text.replace('%', "%%"),
                        Piece::StandIn(id) => {
                            form += "%v";
                            arguments += &format!(" {}", self.within(id, &mut pieces));
                        }
                    }
                }
                match form.as_str() {
                    "%v" => format!("{{{{{arguments} | {how} }}}}"),
                    form => format!("{{{{ printf {}{arguments} | {how} }}}}", go_text(form)),
                }
            }
            _ if text.contains("{{") => format!("{{{{ {} | quote }}}}", go_text(text)),
            _ => yaml::text(leaf).trim_end().to_owned(),
        }
    }

    /// A list within a text is joined, a map is lines.
    fn within<'p>(&self, id: &str, rest: &mut impl Iterator<Item = Piece<'p>>) -> String {
        match self.variables.find(id).map(|(_, variable)| &variable.kind) {
            Some(Kind::TextList) => format!("(join \",\" {})", self.go(id)),
            Some(Kind::Texts) => {
                // `=`, the stand-in again, and the end of the line.
                rest.by_ref().take(3).for_each(drop);
                format!("(include \"weft.lines\" {})", self.go(id))
            }
            _ => closed(&self.go(id)),
        }
    }

    fn go(&self, id: &str) -> String {
        if let Some(id) = id.strip_prefix('!') {
            return format!("(not {})", self.go(id));
        }
        if let Some((id, default)) = id.split_once('|') {
            // Within a list of records the dot is one of them.
            let root = if id.starts_with(RECORDS) { "$" } else { "" };
            return format!("({} | default {root}{})", self.go(id), self.go(default));
        }
        if let Some(words) = id.strip_prefix("workers ") {
            let (which, component) = words.split_once(' ').unwrap_or((words, ""));
            return format!("({})", workers(which, component));
        }
        match id {
            "Release.Namespace" => ".Release.Namespace".to_owned(),
            "linkerdVersion" => self.version.to_owned(),
            "config" => "(include \"weft.config\" .)".to_owned(),
            "anchors" => "(printf \"%s\\n\" (trim .Values.identityTrustAnchorsPEM) | sha256sum)".to_owned(),
            "identityTrustAnchorsPEM" => "(trim .Values.identityTrustAnchorsPEM)".to_owned(),
            _ if id.starts_with("webhooks.") => format!(".{id}"),
            _ => match id.strip_prefix("configReaders.") {
                Some(field) => format!(".{field}"),
                None => format!(".Values.{id}"),
            },
        }
    }
}

/// How many worker threads the proxy of a part of the control plane has.
fn workers(which: &str, component: &str) -> String {
    let resources = match component {
        "destination" => "destinationProxyResources",
        "identity" => "identityProxyResources",
        _ => "proxyInjectorProxyResources",
    };
    format!(
        "include \"weft.workers\" (dict \"which\" \"{which}\" \"proxy\" .Values.proxy \"resources\" .Values.{resources})"
    )
}

fn constant(node: &Node) -> Option<&str> {
    match node {
        Node::Scalar(Tree::Leaf(leaf)) => leaf.as_str(),
        _ => None,
    }
}

/// Without the outer parentheses.
fn open(expression: &str) -> &str {
    let inner = expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    inner.filter(|inner| !inner.contains([')', '('])).unwrap_or(expression)
}

/// A text as Go reads it.
fn go_text(text: &str) -> String {
    Value::from(text).to_string()
}
