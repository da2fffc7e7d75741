//! Statuses as people are shown them where no API server keeps them: of a mesh from manifests.

use super::Statuses;
use crate::{
    Event, Kind, Object,
    index::Settings,
    install::crd,
    policy::{KINDS, definition},
};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, fmt};

/// An object of the mesh's own kinds, or a route, with what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    pub kind: &'static str,
    pub group: &'static str,
    pub namespace: String,
    pub name: String,
    /// `None`: its kind has no status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

/// A condition of an object, and of whom, if that is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Such as `Server/web`; empty of the object itself.
    pub parent: String,
    /// Such as `Accepted`.
    pub what: String,
    pub holds: bool,
    pub reason: String,
    pub message: String,
}

impl Shown {
    /// None where the kind has no status.
    pub fn conditions(&self) -> Vec<Condition> {
        let Some(status) = &self.status else { return vec![] };
        let of_parents = status["parents"].as_array().into_iter().flatten().map(|entry| (&entry["parentRef"], entry));
        let of_target = status["conditions"].is_array().then_some((&status["targetRef"], status));
        let each = |(parent, entry): (&Value, &Value)| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let parent = match parent {
                Value::Null => String::new(),
                parent => format!("{}/{}", text(&parent["kind"]), text(&parent["name"])),
            };
            let conditions = entry["conditions"].as_array().into_iter().flatten();
            let conditions = conditions.map(move |condition| Condition {
                parent: parent.clone(),
                what: text(&condition["type"]),
                holds: condition["status"] == "True",
                reason: text(&condition["reason"]),
                message: text(&condition["message"]),
            });
            conditions.collect::<Vec<_>>()
        };
        of_parents.chain(of_target).flat_map(each).collect()
    }
}

/// What is asked for: a kind in whichever spelling kubectl takes, and perhaps one object of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    kinds: Vec<Kind>,
    name: Option<String>,
}

/// No kind of the mesh is called so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct UnknownKind(String);

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut known: Vec<&str> = KINDS.into_iter().filter_map(|kind| Some(definition(kind)?.plural)).collect();
        known.dedup();
        write!(f, "the mesh has no kind {:?}; use one of {}", self.0, known.join(", "))
    }
}

impl Wanted {
    /// Everything that has a kind of the mesh.
    pub fn all() -> Self {
        Self { kinds: KINDS.to_vec(), name: None }
    }

    /// Whether one object is asked for by its name.
    pub fn is_one(&self) -> bool {
        self.name.is_some()
    }

    /// `KIND` or `KIND/NAME`: the kind in singular, plural or short, with its group or without.
    ///
    /// # Errors
    /// There is no such kind.
    pub fn parse(text: &str) -> Result<Self, UnknownKind> {
        let (asked, name) = text.split_once('/').map_or((text, None), |(kind, name)| (kind, Some(name.to_owned())));
        let asked = asked.to_ascii_lowercase();
        let is = |kind: &Kind| {
            definition(*kind).is_some_and(|of| {
                let singular = of.kind.to_ascii_lowercase();
                let names = [of.plural, &singular];
                let mut names = names.iter().chain(crd::short_names(of.group, of.kind));
                names.any(|name| asked == *name || asked == format!("{name}.{}", of.group))
            })
        };
        let kinds: Vec<Kind> = KINDS.into_iter().filter(is).collect();
        if kinds.is_empty() { Err(UnknownKind(text.to_owned())) } else { Ok(Self { kinds, name }) }
    }
}

/// What is wanted of these objects, by kind, namespace and name; with statuses as they should be, where nobody has written them yet.
pub fn shown(objects: Vec<Object>, settings: Settings, wanted: &Wanted, namespace: Option<&str>) -> Vec<Shown> {
    let mut keys: Vec<_> = objects.iter().map(Object::key).collect();
    let mut statuses = Statuses::new(settings);
    for object in objects {
        statuses.apply(&Event::Apply(object));
    }
    let wanted_now = statuses.wanted(Timestamp::now());
    let written =
        statuses.held.into_iter().map(|(key, held)| (key, held.status)).filter(|(_, status)| !status.is_null());
    let mut said: BTreeMap<_, _> = written.collect();
    said.extend(wanted_now.into_iter().map(|mut patch| (patch.key, patch.body["status"].take())));
    keys.retain(|key| {
        wanted.kinds.contains(&key.kind)
            && wanted.name.as_ref().is_none_or(|name| *name == key.name)
            && namespace.is_none_or(|namespace| namespace == key.namespace)
    });
    keys.sort();
    let each = keys.into_iter().filter_map(|key| {
        let of = definition(key.kind)?;
        let status = said.remove(&key);
        Some(Shown { kind: of.kind, group: of.group, namespace: key.namespace, name: key.name, status })
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy;
    use serde_json::json;

    #[test]
    fn what_became_of_objects_is_shown() {
        let object = |kind, name: &str, spec: Value| {
            policy::read(kind, json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec})).unwrap()
        };
        let route = |name: &str, server: &str| {
            let parent = json!([{"group": "policy.linkerd.io", "kind": "Server", "name": server}]);
            object(Kind::MeshHttpRoute, name, json!({"parentRefs": parent, "rules": []}))
        };
        let limit = json!({"targetRef": {"group": "policy.linkerd.io", "kind": "Server", "name": "web"}, "total": {"requestsPerSecond": 1}});
        let objects = vec![
            object(Kind::Server, "web", json!({"podSelector": {}, "port": 8080})),
            route("good", "web"),
            route("lost", "none"),
            object(Kind::HttpLocalRateLimitPolicy, "limit", limit),
        ];
        let told = |wanted: &str, namespace| -> Vec<String> {
            let wanted = if wanted.is_empty() { Wanted::all() } else { Wanted::parse(wanted).unwrap() };
            let line = |shown: Shown| {
                let conditions = shown
                    .conditions()
                    .into_iter()
                    .map(|c| format!(" {} {}={} {}", c.parent, c.what, c.holds, c.reason));
                format!("{} {}{}", shown.kind, shown.name, conditions.collect::<String>())
            };
            shown(objects.clone(), Settings::default(), &wanted, namespace).into_iter().map(line).collect()
        };
        let (server, limit) = ("Server web", "HTTPLocalRateLimitPolicy limit Server/web Accepted=true Accepted");
        let good = "HTTPRoute good Server/web Accepted=true Accepted";
        let lost = "HTTPRoute lost Server/none Accepted=false NoMatchingParent";
        let mut all = told("", None);
        all.sort();
        assert_eq!(all, [limit, good, lost, server]);
        assert_eq!(told("httproutes", None), [good, lost]);
        assert_eq!(told("HTTPRoute/lost", Some("shop")), [lost]);
        assert_eq!(told("httproutes.policy.linkerd.io", Some("other")), [""; 0]);
        assert_eq!(told("httproutes.gateway.networking.k8s.io", None), [""; 0]);
        assert_eq!(
            (told("srv", None), told("srv/web", Some("shop"))),
            (vec![server.to_owned()], vec![server.to_owned()])
        );
        assert_eq!(told("srv.policy.linkerd.io/none", None), [""; 0]);
        for (short, kind) in [
            ("saz", Kind::ServerAuthorization),
            ("netauthn", Kind::NetworkAuthentication),
            ("sp", Kind::ServiceProfile),
        ] {
            assert_eq!(Wanted::parse(short), Ok(Wanted { kinds: vec![kind], name: None }));
        }
        let refused = Wanted::parse("pods").unwrap_err().to_string();
        assert!(refused.starts_with("the mesh has no kind \"pods\"; use one of servers,"), "{refused}");
    }
}
