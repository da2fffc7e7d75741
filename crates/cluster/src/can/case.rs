//! Cases: questions with the answers that somebody expects, written down for `weft policy test`.

use super::{
    Answer, Asked, Client, Port, Request, Shown, Target, Told, Untold, Verdict, ask, name::short, request::MAX_HEADERS,
};
use crate::{
    Index,
    index::DefaultPolicyName,
    manifest::{self, Problem},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// Cases of one file.
const MAX_CASES: usize = 10_000;
/// Manifests that one file names.
const MAX_MANIFESTS: usize = 100;

/// A file of cases.
#[derive(Clone, Debug)]
pub struct Cases {
    pub file: PathBuf,
    /// Whose policies are asked; relative to the file. None: of who is asked for.
    pub manifests: Vec<PathBuf>,
    /// Of manifests: the policy of ports for which nothing else says it.
    pub default_policy: Option<DefaultPolicyName>,
    /// Where names without a namespace are, those of manifests among them.
    pub namespace: String,
    pub cases: Vec<Case>,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    /// From 1.
    pub line: u32,
    client: Client,
    target: Target,
    request: Request,
    address: Option<IpAddr>,
    expected: Expected,
    by: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    Allow,
    Deny,
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    pub name: String,
    pub line: u32,
    /// `None` if it is as expected.
    pub failure: Option<Failure>,
}

impl Checked {
    /// What stands for the cases of a file that cannot be asked.
    pub fn broken(line: u32, why: String) -> Self {
        Self { name: "the file's cases".to_owned(), line, failure: Some(Failure { unknown: true, why }) }
    }
}

/// Why a case does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Nothing was said against it: it could not be told.
    pub unknown: bool,
    pub why: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WrittenCases {
    #[serde(default)]
    manifests: Vec<PathBuf>,
    namespace: Option<String>,
    default_inbound_policy: Option<DefaultPolicyName>,
    cases: Vec<Written>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    client: String,
    target: String,
    port: Option<Value>,
    request: Option<String>,
    host: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    address: Option<IpAddr>,
    namespace: Option<String>,
    expect: Expected,
    by: Option<String>,
}

impl Cases {
    /// # Errors
    /// Everything that is wrong with the file, with its lines; names without a namespace are in `namespace`, unless the file says another.
    pub fn read(file: &Path, text: &str, namespace: &str) -> Result<Self, Vec<Problem>> {
        let problem = |line: u32, field: String, message: String, remedy: String| Problem {
            file: file.to_owned(),
            line,
            object: None,
            field,
            message,
            remedy,
            access: false,
        };
        let read = manifest::typed_document::<WrittenCases>(text)
            .map_err(|e| vec![problem(e.line, String::new(), e.message, e.remedy.to_owned())])?;
        let WrittenCases { manifests, namespace: own, default_inbound_policy, cases: written } = read.value;
        let mut problems = vec![];
        for (what, count, most) in [("cases", written.len(), MAX_CASES), ("manifests", manifests.len(), MAX_MANIFESTS)]
        {
            if count > most {
                let message = format!("there are more than {most} {what}");
                problems.push(problem(read.lines.of(what), what.to_owned(), message, "split the file".to_owned()));
            }
        }
        if written.is_empty() {
            let (message, remedy) = ("there are no cases".to_owned(), "write one, or leave out the file".to_owned());
            problems.push(problem(read.lines.of("cases"), "cases".to_owned(), message, remedy));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let namespace = own.as_deref().unwrap_or(namespace);
        let mut cases = vec![];
        for (i, written) in written.into_iter().enumerate() {
            let at = format!("cases[{i}]");
            match Case::new(written, namespace, read.lines.of(&at)) {
                Ok(case) => cases.push(case),
                Err((field, Untold { message, remedy })) => {
                    let at = format!("{at}.{field}");
                    problems.push(problem(read.lines.of(&at), at, message, remedy));
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let folder = file.parent().unwrap_or(Path::new(""));
        let manifests = manifests.into_iter().map(|path| folder.join(path)).collect();
        let (file, namespace) = (file.to_owned(), namespace.to_owned());
        Ok(Self { file, manifests, default_policy: default_inbound_policy, namespace, cases })
    }
}

impl Case {
    fn new(written: Written, namespace: &str, line: u32) -> Result<Self, (&'static str, Untold)> {
        let Written { name, client, target, port, request, host, headers, address, namespace: own, expect, by } =
            written;
        let namespace = own.as_deref().unwrap_or(namespace);
        let shown = format!("{client} → {target} {}", request.as_deref().unwrap_or_default());
        let client = Client::parse(&client, namespace).map_err(|e| ("client", e))?;
        let target = match port {
            None => Target::parse(&target, namespace).map_err(|e| ("target", e))?,
            Some(port) => {
                let port = port.as_str().map_or_else(|| port.to_string(), str::to_owned);
                let port = port.parse::<Port>().map_err(|e| ("port", e))?;
                Target::at(&target, port, namespace).map_err(|e| ("target", e))?
            }
        };
        let mut asked = match request.as_deref().map(str::trim) {
            None => Request::default(),
            Some(text) => {
                let (method, path) = text.split_once(' ').unwrap_or((text, ""));
                Request::new(method, path.trim()).map_err(|e| ("request", e))?
            }
        }
        .with_host(host.as_deref())
        .map_err(|e| ("host", e))?;
        if headers.len() > MAX_HEADERS {
            return Err((
                "headers",
                Untold::new(format!("there are more than {MAX_HEADERS} headers"), "leave some out"),
            ));
        }
        for (name, value) in &headers {
            asked = asked.with_header(name, value).map_err(|e| ("headers", e))?;
        }
        let name = name.map_or_else(|| shown.trim().to_owned(), |name| short(&name));
        Ok(Self { name, line, client, target, request: asked, address, expected: expect, by })
    }

    pub fn asked(&self) -> Asked<'_> {
        Asked { client: &self.client, target: &self.target, request: &self.request, address: self.address }
    }
}

/// Asks, and compares with what is expected.
pub fn check(index: &Index, case: &Case) -> Checked {
    let failure = match ask(index, &case.asked()) {
        Err(untold) => Some(Failure { unknown: true, why: untold.to_string() }),
        Ok(told) => case.compare(&told),
    };
    Checked { name: case.name.clone(), line: case.line, failure }
}

impl Case {
    fn compare(&self, told: &Told) -> Option<Failure> {
        let (wanted, word) = match self.expected {
            Expected::Allow => (Verdict::Allowed, "allowed"),
            Expected::Deny => (Verdict::Denied, "denied"),
        };
        if told.verdict == Verdict::Unknown {
            return Some(Failure { unknown: true, why: told.summary() });
        }
        // Of every pod, to every client.
        if told.answers.iter().any(|answer| answer.verdict != wanted) {
            return Some(Failure { unknown: false, why: format!("{word} is expected; {}", told.summary()) });
        }
        let by = self.by.as_deref()?;
        let mut decides = told.answers.iter().map(decides);
        let other = decides.find(|decides| !decides.is_some_and(|decides| decides.is(by.trim())))?;
        let other = other.map(|other| format!(", and not by {}", other.whole())).unwrap_or_default();
        Some(Failure { unknown: false, why: format!("{word} by {by} is expected{other}; {}", told.summary()) })
    }
}

/// What lets in, of a refusal the Server or default policy, or the client's route where the request comes to none.
fn decides(answer: &Answer) -> Option<&Shown> {
    answer.by.as_ref().or(answer.server.as_ref()).or(answer.via.as_ref())
}
