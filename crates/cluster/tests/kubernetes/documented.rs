//! The examples of the guides and of the pages of kinds. Each page's objects lie in a folder, as a person's do who follows it, and are what
//! the page says of them: to the webhooks, to who reads manifests, in their statuses and to the proxies of clients.
//!
//! Above an object stands what becomes of it: `# status: PARENT REASON…`, a line for each parent; `# refused: FIELD: WHY; REMEDY`, or
//! `# refused on disk:` of what only one machine has not; `# told: FIELD: WHAT` of what has no effect.

use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use weft_cluster::{
    Index, Object, can,
    index::{Answer, Question, Settings, Target},
    manifest,
    policy::{
        self, KINDS,
        status::{Wanted, shown},
    },
    service_profile,
};
use weft_model::{ClientPolicy, policy::outbound::ClientProtocol};

/// Where the Services of the examples are.
const APPLICATION: &str = "reference/kinds/README.md";

/// One object of a page.
struct Example {
    object: Value,
    text: String,
    statuses: Vec<String>,
    refused: Vec<String>,
    refused_on_disk: Vec<String>,
    told: Vec<String>,
}

/// What a page's objects are together.
pub(crate) struct Page {
    examples: Vec<Example>,
    loaded: manifest::Loaded,
    folder: PathBuf,
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

fn examples(page: &str) -> Vec<Example> {
    let text = fs::read_to_string(docs().join(page)).unwrap();
    let blocks = text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    let documents = blocks.flat_map(|block| block.split("---\n").map(str::to_owned).collect::<Vec<_>>());
    documents.map(|text| Example::of(page, text)).collect()
}

impl Example {
    fn of(page: &str, text: String) -> Self {
        let object: Value = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{page}: {e}\n{text}"));
        let said = |what: &str| {
            let lines = text.lines().filter_map(|line| line.strip_prefix("# ")?.strip_prefix(what)?.strip_prefix(": "));
            sorted(lines.map(str::to_owned))
        };
        let [statuses, refused, refused_on_disk, told] = ["status", "refused", "refused on disk", "told"].map(said);
        Self { object, statuses, refused, refused_on_disk, told, text: text.clone() }
    }

    fn kind(&self) -> (&str, &str) {
        let version = self.object["apiVersion"].as_str().unwrap();
        (version.split_once('/').map_or("", |(group, _)| group), self.object["kind"].as_str().unwrap())
    }

    fn named(&self, of: &str) -> &str {
        self.object["metadata"][of].as_str().unwrap_or_default()
    }

    fn id(&self) -> (String, String, String, String) {
        let (group, kind) = self.kind();
        [group, kind, self.named("namespace"), self.named("name")].map(str::to_owned).into()
    }

    /// What the webhook that is asked of its kind says: why it is refused, and what it warns of. `None` if none is asked.
    fn reviewed(&self) -> Option<(Vec<String>, Vec<String>)> {
        let (group, kind) = self.kind();
        let (mistakes, warnings) = match group {
            "linkerd.io" => (service_profile::mistakes(&self.object), vec![]),
            "policy.linkerd.io" | "gateway.networking.k8s.io" | "workload.linkerd.io" => {
                let version = self.object["apiVersion"].as_str().unwrap().split('/').next_back();
                let request = serde_json::json!({
                    "kind": {"group": group, "version": version, "kind": kind},
                    "namespace": self.named("namespace"),
                    "object": self.object,
                });
                let review = policy::review(&request);
                (review.mistakes, review.warnings)
            }
            _ => return None,
        };
        Some((sorted(mistakes.iter().map(ToString::to_string)), warnings))
    }
}

fn sorted(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = all.collect();
    all.sort();
    all
}

impl Page {
    /// The objects of a page lie on disk, with what the page lets others have.
    pub(crate) fn read(page: &str) -> Self {
        let mut examples = examples(page);
        let folder = std::env::temp_dir().join(format!("weft-{}-{}", page.replace('/', "-"), std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        if page != APPLICATION {
            let own: Vec<_> = examples.iter().filter(|e| e.refused.is_empty()).map(Example::id).collect();
            examples.extend(self::examples(APPLICATION).into_iter().filter(|e| !own.contains(&e.id())));
        }
        for (i, example) in examples.iter().enumerate() {
            fs::write(folder.join(format!("{i:02}.yaml")), &example.text).unwrap();
        }
        let loaded = manifest::load(&[], std::slice::from_ref(&folder));
        Self { examples, loaded, folder }
    }

    /// As the supervisor of a mesh holds them, which gives each Service an address.
    fn held(&self) -> Vec<Object> {
        let mut last = 0_u8;
        let address = |object: Object| match object {
            Object::Service(mut service) => {
                last += 1;
                service.spec.get_or_insert_default().cluster_ip = Some(format!("10.96.0.{last}"));
                Object::Service(service)
            }
            other => other,
        };
        self.loaded.objects.iter().map(|located| located.object.clone()).map(address).collect()
    }

    pub(crate) fn index(&self) -> Index {
        can::of_manifests(self.held(), Settings::default())
    }

    fn file(&self, i: usize) -> PathBuf {
        self.folder.join(format!("{i:02}.yaml"))
    }

    /// What those say of an example who read manifests.
    fn on_disk(&self, i: usize) -> (Vec<String>, Vec<String>) {
        let (file, manifest::Loaded { objects, problems, ignored }) = (self.file(i), &self.loaded);
        let problems = problems.iter().filter(|p| p.file == file);
        let problems = sorted(problems.map(|p| format!("{}: {}; {}", p.field, p.message, p.remedy)));
        let is_there = objects.iter().any(|located| located.file == file);
        assert_eq!(is_there, problems.is_empty(), "{problems:?}");
        let ignored = ignored.iter().filter(|i| i.file == file);
        (problems, sorted(ignored.map(|i| format!("{}: {}", i.field, i.note))))
    }
}

/// Each object's parents with the reasons of its conditions.
fn statuses(page: &Page) -> BTreeMap<(String, String, String, String), Vec<String>> {
    let objects = shown(page.held(), Settings::default(), &Wanted::all(), None);
    let of = objects.into_iter().map(|shown| {
        let mut lines: Vec<(String, String)> = vec![];
        for condition in shown.conditions() {
            assert_eq!(condition.holds, condition.reason == condition.what, "{condition:?}");
            match lines.iter_mut().find(|(parent, _)| *parent == condition.parent) {
                Some((_, reasons)) => *reasons += &format!(" {}", condition.reason),
                None => lines.push((condition.parent, condition.reason)),
            }
        }
        let id = (shown.group.to_owned(), shown.kind.to_owned(), shown.namespace, shown.name);
        (id, sorted(lines.into_iter().map(|(parent, reasons)| format!("{parent} {reasons}").trim_start().to_owned())))
    });
    of.collect()
}

/// The routes that the clients of a namespace follow, by their names.
fn followed(policy: &ClientPolicy) -> Vec<&str> {
    match &policy.protocol {
        ClientProtocol::Detect { http1: http, .. } | ClientProtocol::Http1(http) | ClientProtocol::Http2(http) => {
            http.routes.iter().map(|route| route.meta.name()).collect()
        }
        ClientProtocol::Grpc { routes, .. } => routes.iter().map(|route| route.meta.name()).collect(),
        ClientProtocol::Tls(routes) => routes.iter().map(|route| route.route.meta.name()).collect(),
        ClientProtocol::Opaque(route) => route.iter().map(|route| route.meta.name()).collect(),
    }
}

pub(crate) fn outbound(index: &Index, from: &str, target: &str) -> ClientPolicy {
    let target = target.parse().map_or_else(|_| Target::Name(target.parse().unwrap()), Target::Addr);
    match index.answer(&Question::Outbound { from: from.to_owned(), target }).answer.unwrap() {
        Answer::Outbound(policy) => policy,
        other => panic!("{other:?}"),
    }
}

/// Where a client of a route's parent goes, if it is one that clients have.
fn target(route: &Value, parent: &Value) -> Option<String> {
    let name = parent["name"].as_str()?;
    let namespace = parent["namespace"].as_str().or(route["metadata"]["namespace"].as_str())?;
    let port = &parent["port"];
    match parent["kind"].as_str()? {
        "Service" if port.is_null() => Some(format!("{name}.{namespace}.svc.cluster.local:80")),
        "Service" => Some(format!("{name}.{namespace}.svc.cluster.local:{port}")),
        "EgressNetwork" => Some(format!("198.51.100.1:{port}")),
        _ => None,
    }
}

/// Every guide and every page of a kind.
fn pages() -> Vec<String> {
    let kinds = fs::read_dir(docs().join("reference/kinds")).unwrap();
    let kinds = kinds.map(|entry| format!("reference/kinds/{}", entry.unwrap().file_name().to_str().unwrap()));
    sorted(kinds.chain(["traffic.md", "authorization.md"].map(str::to_owned)))
}

#[test]
fn every_example_is_what_its_page_says() {
    let pages = pages();
    assert!(pages.len() > KINDS.len(), "{pages:?}");
    for name in pages {
        let page = Page::read(&name);
        let (statuses, index) = (statuses(&page), page.index());
        let mut wrong = vec![];
        for (i, example) in page.examples.iter().enumerate() {
            let Example { object, text, statuses: wanted, refused, refused_on_disk, told } = example;
            let (problems, ignored) = page.on_disk(i);
            let mut differs = |what: &str, found: &[String], said: &[String]| {
                if found != said {
                    wrong.push(format!(
                        "{text}\n{what} is\n  {}\nand not\n  {}",
                        found.join("\n  "),
                        said.join("\n  ")
                    ));
                }
            };
            // What no machine has is not looked at any further.
            let of_kind = refused_on_disk.iter().any(|problem| problem.starts_with("kind: "));
            let both = refused.iter().filter(|_| !of_kind).chain(refused_on_disk);
            differs("what is refused on disk", &problems, &sorted(both.cloned()));
            // Programs have images for clusters.
            if example.kind() != ("apps", "Deployment") {
                differs("what is told on disk", &ignored, told);
            }
            if let Some((mistakes, warnings)) = example.reviewed() {
                differs("what the webhook refuses", &mistakes, refused);
                let is_of_probes = |warning: &String| warning.contains("lets in HTTP probes no longer by itself");
                differs("what the webhook warns of", &sorted(warnings.into_iter().filter(|w| !is_of_probes(w))), told);
            }
            let none = vec![];
            let status = statuses.get(&example.id()).filter(|_| refused.is_empty()).unwrap_or(&none);
            differs("the status", status, wanted);
            // A status is no promise: whoever is told that it is accepted is followed.
            let parents = object["spec"]["parentRefs"].as_array().into_iter().flatten().filter(|_| refused.is_empty());
            for (parent, target) in parents.filter_map(|parent| Some((parent, target(object, parent)?))) {
                let policy = outbound(&index, example.named("namespace"), &target);
                let is = followed(&policy).contains(&example.named("name"));
                let of = format!("{}/{} ", parent["kind"].as_str().unwrap(), parent["name"].as_str().unwrap());
                let said = wanted.iter().any(|line| line.starts_with(&format!("{of}Accepted")));
                assert_eq!(is, said, "{name}: {text}: clients of {target} follow {:?}", followed(&policy));
            }
        }
        assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n\n"));
    }
}
