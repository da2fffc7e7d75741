//! One file: from its text through its documents to objects, problems and ignored fields.

use super::{
    Ignored, Loaded, Located, Mistyped, Problem, access, check,
    document::{self, Node, Value},
    fields::{self, Finding, Table},
    kinds::{self, KindDecision},
    path::Path,
    typed,
    version::{self, Foreign},
};
use crate::{Key, Kind, policy};
use std::path::Path as FilePath;

/// What a manifest is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is run here.
    Run,
    /// A cluster runs it, and somebody asks what would be said to whom there.
    Ask,
}

/// Where a text stands, and what it is read for.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) file: &'a FilePath,
    pub(super) purpose: Purpose,
    /// Of what names none.
    pub(super) namespace: &'a str,
}

/// One object being read: everything about it is reported through here.
pub(super) struct Reading<'a> {
    place: Place<'a>,
    node: &'a Node,
    /// Where the object stands in its document: an item of a `List` does not stand at the top.
    at: Path,
    key: Option<Key>,
    loaded: &'a mut Loaded,
    refused: bool,
}

impl Reading<'_> {
    /// Whether the machine's own bounds hold.
    pub(super) fn is_run(&self) -> bool {
        self.place.purpose == Purpose::Run
    }

    pub(super) fn problem(&mut self, path: &Path, message: impl Into<String>, remedy: impl Into<String>) {
        self.refused = true;
        self.loaded.problems.push(Problem {
            file: self.place.file.to_owned(),
            line: self.node.line_of(path),
            object: self.key.clone(),
            field: join(&self.at, path),
            message: message.into(),
            remedy: remedy.into(),
            access: access::of(self.node),
        });
    }

    pub(super) fn ignored(&mut self, path: &Path, note: &str) {
        let Some(object) = self.key.clone() else { return };
        self.loaded.ignored.push(Ignored {
            file: self.place.file.to_owned(),
            line: self.node.line_of(path),
            object,
            field: join(&self.at, path),
            note: note.to_owned(),
        });
    }
}

fn join(at: &Path, path: &Path) -> String {
    match (at.to_string(), path.to_string()) {
        (at, path) if at.is_empty() || path.is_empty() => at + &path,
        (at, path) => format!("{at}.{path}"),
    }
}

pub(super) fn text(place: Place<'_>, text: &str, loaded: &mut Loaded) {
    let whole = |line, message: String, remedy: &str, text: &str| Problem {
        file: place.file.to_owned(),
        line,
        object: None,
        field: String::new(),
        message,
        remedy: remedy.to_owned(),
        access: access::of_text(text),
    };
    let (problems, ignored) = (loaded.problems.len(), loaded.ignored.len());
    let chunks = document::split(text);
    if chunks.len() > document::MAX_DOCUMENTS {
        let message = format!("the file has more than {} documents", document::MAX_DOCUMENTS);
        return loaded.problems.push(whole(1, message, "split the file", text));
    }
    for chunk in chunks {
        match document::parse(&chunk) {
            Err(e) => loaded.problems.push(whole(e.line, e.message, e.remedy, chunk.text)),
            Ok(node) if matches!(node.value, Value::Null) => {}
            Ok(node) => object(place, &node, Path::default(), loaded),
        }
    }
    // People read a file from its top.
    loaded.problems.get_mut(problems..).unwrap_or_default().sort_by_key(|p| p.line);
    loaded.ignored.get_mut(ignored..).unwrap_or_default().sort_by_key(|i| i.line);
}

fn object(place: Place<'_>, node: &Node, at: Path, loaded: &mut Loaded) {
    let top = Path::default();
    let (api_version, kind) = (node.text("apiVersion").unwrap_or_default(), node.text("kind").unwrap_or_default());
    let mut reading = Reading { place, node, at, key: None, loaded, refused: false };
    if kind.is_empty() {
        return reading.problem(&top, "the document has no kind", "give apiVersion and kind");
    }
    if api_version.is_empty() {
        return reading.problem(&top.key("kind"), format!("the {kind} has no apiVersion"), "give apiVersion");
    }
    match kinds::decide(api_version, kind) {
        KindDecision::List => list(place, node, &reading.at.clone(), loaded),
        KindDecision::Supported(kind) => supported(kind, api_version, reading),
        KindDecision::Asked(kind) if !reading.is_run() => supported(kind, api_version, reading),
        KindDecision::NotYet(_) if !reading.is_run() => {}
        decision @ (KindDecision::Asked(_) | KindDecision::NotYet(_) | KindDecision::Unread(_)) => {
            let remedy = match decision {
                KindDecision::NotYet(remedy) | KindDecision::Unread(remedy) => remedy,
                _ => kinds::WORKLOAD,
            };
            reading.problem(&top.key("kind"), format!("{kind} ({api_version}) is not supported yet"), remedy);
        }
        KindDecision::OtherVersion(version) => reading.problem(
            &top.key("apiVersion"),
            format!("there is no {kind} in {api_version}"),
            format!("use apiVersion: {version}"),
        ),
        KindDecision::Unknown => reading.problem(
            &top.key("kind"),
            format!("unknown kind {kind} ({api_version})"),
            "use Namespace, ServiceAccount, Deployment (apps/v1), Service or a policy of policy.linkerd.io, or correct the spelling",
        ),
    }
}

fn list(place: Place<'_>, node: &Node, at: &Path, loaded: &mut Loaded) {
    let Some(Value::List(items)) = node.get("items").map(|n| &n.value) else {
        let mut reading = Reading { place, node, at: at.clone(), key: None, loaded, refused: false };
        return reading.problem(&Path::default().key("kind"), "the List has no items", "give items, or remove it");
    };
    for (i, item) in items.iter().enumerate() {
        // A list in a list is no Kubernetes: it ends here and cannot recurse.
        if item.text("kind") == Some("List") {
            let mut reading =
                Reading { place, node: item, at: at.key("items").index(i), key: None, loaded, refused: false };
            reading.problem(&Path::default().key("kind"), "a List in a List", "put its items into the outer one");
        } else {
            object(place, item, at.key("items").index(i), loaded);
        }
    }
}

fn supported(kind: Kind, api_version: &str, mut reading: Reading<'_>) {
    let (place, node, top) = (reading.place, reading.node, Path::default());
    // A cluster's index sees nothing of it either.
    if !reading.is_run() && policy::route::is_of_others(kind, || node.to_json()) {
        return;
    }
    let meta = node.get("metadata");
    let name = meta.and_then(|m| m.text("name")).unwrap_or_default();
    let namespace = meta.and_then(|m| m.text("namespace")).filter(|n| !n.is_empty()).unwrap_or(place.namespace);
    if !name.is_empty() {
        reading.key = Some(Key::new(kind, if kind.is_namespaced() { namespace } else { "" }, name));
    }
    let mut found = vec![];
    // Whatever a cluster makes of the fields that Kubernetes brings, it is not for us to carry it out.
    if reading.is_run() || policy::definition(kind).is_some() {
        fields::walk(node, table(kind), &top, &mut found);
    }
    for finding in found {
        match finding {
            Finding::Ignored { path, note } => reading.ignored(&path, note),
            Finding::Refused { path, remedy } => {
                reading.problem(&path, "this field is not carried out by weft, and the program would notice", remedy);
            }
        }
    }
    match typed::read(kind, node) {
        Err(Mistyped { path, message, remedy }) => reading.problem(&path, message, remedy),
        Ok((mut object, unknown)) => {
            let metadata = object.metadata_mut().filter(|_| !reading.is_run() && kind.is_namespaced());
            if let Some(none) = metadata.filter(|m| m.namespace.as_deref().unwrap_or_default().is_empty()) {
                none.namespace = Some(place.namespace.to_owned());
            }
            let foreign = version::foreign(kind, api_version, node);
            for Foreign { path, remedy } in foreign.into_iter().filter(|f| !unknown.contains(&f.path)) {
                let message = format!("{api_version} has no such field, and a cluster would not carry it out");
                reading.problem(&path, message, remedy);
            }
            for path in unknown {
                reading.problem(
                    &path,
                    "Kubernetes knows no such field",
                    "correct the spelling or the indentation, or remove it",
                );
            }
            check::object(&object, &mut reading);
            if !reading.refused {
                let (file, line) = (reading.place.file.to_owned(), node.line);
                reading.loaded.objects.push(Located { object, file, line });
            }
        }
    }
}

pub(super) fn table(kind: Kind) -> Table {
    match kind {
        Kind::Namespace => fields::NAMESPACE,
        Kind::ServiceAccount => fields::SERVICE_ACCOUNT,
        Kind::Deployment => fields::DEPLOYMENT,
        Kind::Service => fields::SERVICE,
        Kind::Server => fields::SERVER,
        Kind::ServerAuthorization => fields::SERVER_AUTHORIZATION,
        Kind::AuthorizationPolicy => fields::AUTHORIZATION_POLICY,
        Kind::MeshTlsAuthentication => fields::MESH_TLS_AUTHENTICATION,
        Kind::NetworkAuthentication => fields::NETWORK_AUTHENTICATION,
        Kind::HttpLocalRateLimitPolicy => fields::RATE_LIMIT,
        Kind::MeshHttpRoute | Kind::HttpRoute => fields::HTTP_ROUTE,
        Kind::GrpcRoute => fields::GRPC_ROUTE,
        Kind::TlsRoute => fields::TLS_ROUTE,
        Kind::TcpRoute => fields::TCP_ROUTE,
        Kind::EgressNetwork => fields::EGRESS_NETWORK,
        Kind::ServiceProfile => fields::SERVICE_PROFILE,
        // None of them is run from manifests.
        Kind::Unrun(_) | Kind::Pod | Kind::EndpointSlice | Kind::Node | Kind::ExternalWorkload | Kind::Token => &[],
    }
}
