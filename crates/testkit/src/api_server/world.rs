//! What the fake holds: objects, the history of their changes, and what it was asked.

use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// What tests call the HTTPRoute of the Gateway API, whose name another group has too.
pub const GATEWAY_HTTP_ROUTE: &str = "GatewayHTTPRoute";

/// Kind, group and version, plural, and whether it is in namespaces. A kind may be served in several versions, the first of which its
/// objects say that they have.
const SERVED: &[(&str, &str, &str, bool)] = &[
    ("Namespace", "v1", "namespaces", false),
    ("Node", "v1", "nodes", false),
    ("Pod", "v1", "pods", true),
    ("Service", "v1", "services", true),
    ("ServiceAccount", "v1", "serviceaccounts", true),
    ("ConfigMap", "v1", "configmaps", true),
    ("Secret", "v1", "secrets", true),
    ("Event", "v1", "events", true),
    ("EndpointSlice", "discovery.k8s.io/v1", "endpointslices", true),
    ("Lease", "coordination.k8s.io/v1", "leases", true),
    ("Deployment", "apps/v1", "deployments", true),
    ("ReplicaSet", "apps/v1", "replicasets", true),
    ("Job", "batch/v1", "jobs", true),
    ("ClusterRole", "rbac.authorization.k8s.io/v1", "clusterroles", false),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io/v1", "clusterrolebindings", false),
    ("Role", "rbac.authorization.k8s.io/v1", "roles", true),
    ("CronJob", "batch/v1", "cronjobs", true),
    ("ValidatingWebhookConfiguration", "admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", false),
    ("ValidatingAdmissionPolicy", "admissionregistration.k8s.io/v1", "validatingadmissionpolicies", false),
    ("ValidatingAdmissionPolicyBinding", "admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings", false),
    ("MutatingWebhookConfiguration", "admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", false),
    ("Server", "policy.linkerd.io/v1beta3", "servers", true),
    ("Server", "policy.linkerd.io/v1beta2", "servers", true),
    ("Server", "policy.linkerd.io/v1beta1", "servers", true),
    ("Server", "policy.linkerd.io/v1alpha1", "servers", true),
    ("ServerAuthorization", "policy.linkerd.io/v1beta1", "serverauthorizations", true),
    ("ServerAuthorization", "policy.linkerd.io/v1alpha1", "serverauthorizations", true),
    ("AuthorizationPolicy", "policy.linkerd.io/v1alpha1", "authorizationpolicies", true),
    ("MeshTLSAuthentication", "policy.linkerd.io/v1alpha1", "meshtlsauthentications", true),
    ("NetworkAuthentication", "policy.linkerd.io/v1alpha1", "networkauthentications", true),
    ("HTTPLocalRateLimitPolicy", "policy.linkerd.io/v1alpha1", "httplocalratelimitpolicies", true),
    ("HTTPRoute", "policy.linkerd.io/v1beta3", "httproutes", true),
    ("ExternalWorkload", "workload.linkerd.io/v1beta1", "externalworkloads", true),
    ("ExternalWorkload", "workload.linkerd.io/v1alpha1", "externalworkloads", true),
    (GATEWAY_HTTP_ROUTE, "gateway.networking.k8s.io/v1", "httproutes", true),
    ("GRPCRoute", "gateway.networking.k8s.io/v1", "grpcroutes", true),
    ("TLSRoute", "gateway.networking.k8s.io/v1", "tlsroutes", true),
    ("TCPRoute", "gateway.networking.k8s.io/v1", "tcproutes", true),
    ("EgressNetwork", "policy.linkerd.io/v1alpha1", "egressnetworks", true),
    ("ServiceProfile", "linkerd.io/v1alpha2", "serviceprofiles", true),
    ("CustomResourceDefinition", "apiextensions.k8s.io/v1", "customresourcedefinitions", false),
];

/// What tells an object from every other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

/// What a client asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
}

/// How requests fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// With this status.
    Status(u16),
    /// The connection is closed without an answer.
    Close,
    /// Watches alone, with this status.
    Watches(u16),
    /// Those of one plural alone.
    WatchesOf(&'static str, u16),
    /// The second page of a list, with 410.
    SecondPage,
    /// Those about one plural alone, with this status.
    Of(&'static str, u16),
    /// Those with this path alone, with this status.
    At(&'static str, u16),
}

#[derive(Default)]
pub(super) struct World {
    state: Mutex<State>,
    /// Wakes watches and whoever waits; counts changes of anything.
    wake: watch::Sender<u64>,
}

#[derive(Default)]
pub(super) struct State {
    version: u64,
    objects: BTreeMap<Id, Value>,
    history: Vec<Change>,
    /// Changes up to this version are forgotten.
    compacted: u64,
    /// Watches of an older number end.
    pub(super) generation: u64,
    pub(super) bookmarks: u64,
    pub(super) held: bool,
    /// Reviews of tokens that nobody has.
    held_reviews: bool,
    /// Requests with this in their path.
    held_requests: Option<String>,
    pub(super) failure: Option<Failure>,
    /// What it says of itself, if a test wants another.
    pub(super) release: Option<String>,
    /// The versions in which a kind is served, if not in all.
    defined: HashMap<String, Vec<String>>,
    tokens: HashMap<String, (String, Vec<String>)>,
    requests: Vec<Request>,
    /// Plurals of what nobody may do anything with.
    forbidden: Vec<String>,
    /// Where lists go on, by the number of their token: after which object, and of which version they are.
    continued: Vec<(Id, u64)>,
}

#[derive(Clone)]
struct Change {
    version: u64,
    id: Id,
    what: &'static str,
    object: Value,
}

/// What a watch has to say.
pub(super) enum News {
    Events(u64, Vec<Value>),
    Forgotten,
}

impl Id {
    pub(super) fn new(kind: &str, namespace: &str, name: &str) -> Self {
        let namespaced = SERVED.iter().any(|s| s.0 == kind && s.3);
        let namespace = if namespaced { namespace } else { "" };
        Self { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(super) fn of(object: &Value) -> Option<Self> {
        let of_gateway_api = object["apiVersion"].as_str().is_some_and(|of| of.starts_with("gateway."));
        let kind = match object["kind"].as_str()? {
            "HTTPRoute" if of_gateway_api => GATEWAY_HTTP_ROUTE,
            kind => kind,
        };
        SERVED.iter().find(|s| s.0 == kind)?;
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
        Some(Self::new(kind, namespace, object["metadata"]["name"].as_str()?))
    }
}

/// As objects name it.
pub(super) fn kind_shown(kind: &str) -> &str {
    if kind == GATEWAY_HTTP_ROUTE { "HTTPRoute" } else { kind }
}

/// The kind of a group, version and plural.
pub(super) fn kind_of(version: &str, plural: &str) -> Option<(&'static str, bool)> {
    SERVED.iter().find(|s| s.1 == version && s.2 == plural).map(|s| (s.0, s.3))
}

/// The plurals of a version of a group that is served, each with its kind.
pub(super) fn plurals(version: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    SERVED.iter().filter(move |served| served.1 == version).map(|served| (served.2, served.0))
}

pub(super) fn version_of(kind: &str) -> &'static str {
    SERVED.iter().find(|s| s.0 == kind).map_or("", |s| s.1)
}

impl World {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.wake.subscribe()
    }

    fn changed(&self) {
        self.wake.send_modify(|n| *n += 1);
    }

    pub(super) fn put(&self, id: Id, object: Value) -> Value {
        let object = self.state().put(id, object);
        self.changed();
        object
    }

    /// Replaces an object if it still has the version that `object` names.
    pub(super) fn replace(&self, id: Id, object: Value) -> Result<Value, (u16, &'static str)> {
        let mut state = self.state();
        state.is_present(&id, &object)?;
        let object = state.put(id, object);
        drop(state);
        self.changed();
        Ok(object)
    }

    /// Merges a patch into an object if it still has the version that the patch names.
    pub(super) fn patch(
        &self,
        id: Id,
        patch: Value,
        merge: impl FnOnce(&mut Value, Value),
    ) -> Result<Value, (u16, &'static str)> {
        let mut state = self.state();
        let mut object = state.is_present(&id, &patch)?.clone();
        merge(&mut object, patch);
        let object = state.put(id, object);
        drop(state);
        self.changed();
        Ok(object)
    }

    /// One whose name ends in a dash gets a number behind it, as by `generateName`.
    pub(super) fn create(&self, mut id: Id, object: Value) -> Result<Value, (u16, &'static str)> {
        let mut state = self.state();
        if id.name.ends_with('-') {
            id.name += &state.version.to_string();
        }
        if state.objects.contains_key(&id) {
            return Err((409, "AlreadyExists"));
        }
        let object = state.put(id, object);
        drop(state);
        self.changed();
        Ok(object)
    }

    pub(super) fn delete(&self, id: &Id) -> Option<Value> {
        let mut state = self.state();
        let mut object = state.objects.remove(id)?;
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        state.remember(id.clone(), "DELETED", object.clone());
        drop(state);
        self.changed();
        Some(object)
    }

    /// Deletes an object if it still has the version that `expected` names.
    pub(super) fn delete_as(&self, id: &Id, expected: &Value) -> Result<Value, (u16, &'static str)> {
        self.state().is_present(id, &json!({"metadata": {"resourceVersion": expected["resourceVersion"]}}))?;
        self.delete(id).ok_or((404, "NotFound"))
    }

    pub(super) fn get(&self, id: &Id) -> Option<Value> {
        self.state().objects.get(id).cloned()
    }

    pub(super) fn all(&self, kind: &str) -> Vec<Value> {
        self.state().objects.iter().filter(|(id, _)| id.kind == kind).map(|(_, o)| o.clone()).collect()
    }

    pub(super) fn compact(&self) {
        let mut state = self.state();
        // As time does: the present version itself is one that nobody has seen.
        state.version += 1;
        state.compacted = state.version;
        state.history.clear();
        drop(state);
        self.changed();
    }

    pub(super) fn cut(&self) {
        self.state().generation += 1;
        self.changed();
    }

    pub(super) fn hold(&self, held: bool) {
        self.state().held = held;
        self.changed();
    }

    pub(super) fn bookmark(&self) {
        self.state().bookmarks += 1;
        self.changed();
    }

    pub(super) fn fail(&self, failure: Option<Failure>) {
        self.state().failure = failure;
        self.changed();
    }

    pub(super) fn define(&self, kind: &str, versions: &[&str]) {
        let mut state = self.state();
        state.defined.insert(kind.to_owned(), versions.iter().map(|v| (*v).to_owned()).collect());
        state.generation += 1;
        drop(state);
        self.changed();
    }

    pub(super) fn serves(&self, kind: &str, group_version: &str) -> bool {
        let version = group_version.rsplit('/').next().unwrap_or_default();
        self.state().defined.get(kind).is_none_or(|versions| versions.iter().any(|v| v == version))
    }

    pub(super) fn release(&self, release: &str) {
        self.state().release = Some(release.to_owned());
    }

    pub(super) fn token(&self, token: &str, user: &str, audiences: &[&str]) {
        let audiences = audiences.iter().map(|a| (*a).to_owned()).collect();
        self.state().tokens.insert(token.to_owned(), (user.to_owned(), audiences));
    }

    pub(super) fn forbid(&self, plural: &str) {
        self.state().forbidden.push(plural.to_owned());
    }

    pub(super) fn is_forbidden(&self, plural: &str) -> bool {
        self.state().forbidden.iter().any(|forbidden| forbidden == plural)
    }

    /// The answer to a SelfSubjectAccessReview.
    pub(super) fn access(&self, mut review: Value) -> Value {
        let of = review["spec"]["resourceAttributes"]["resource"].as_str().unwrap_or_default();
        review["status"] = json!({"allowed": !self.is_forbidden(of)});
        review
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    pub(super) fn record(&self, request: Request) {
        self.state().requests.push(request);
        self.changed();
    }

    pub(super) fn hold_reviews(&self, held: bool) {
        self.state().held_reviews = held;
        self.changed();
    }

    pub(super) fn hold_requests(&self, part: Option<&str>) {
        self.state().held_requests = part.map(str::to_owned);
        self.changed();
    }

    pub(super) fn is_path_held(&self, path: &str) -> bool {
        self.state().held_requests.as_ref().is_some_and(|part| path.contains(part))
    }

    /// Whether the answer to a TokenReview has to wait.
    pub(super) fn is_held(&self, review: &Value) -> bool {
        let state = self.state();
        state.held_reviews && !review["spec"]["token"].as_str().is_some_and(|token| state.tokens.contains_key(token))
    }

    /// The answer to a TokenReview.
    pub(super) fn review(&self, mut review: Value) -> Value {
        let state = self.state();
        let asked: Vec<String> = serde_json::from_value(review["spec"]["audiences"].clone()).unwrap_or_default();
        let known = review["spec"]["token"].as_str().and_then(|t| state.tokens.get(t));
        review["status"] = match known {
            Some((user, audiences)) if asked.iter().any(|a| audiences.contains(a)) => json!({
                "authenticated": true, "user": {"username": user},
                "audiences": asked.iter().filter(|a| audiences.contains(a)).collect::<Vec<_>>(),
            }),
            _ => json!({"authenticated": false, "error": "invalid bearer token"}),
        };
        review
    }
}

impl State {
    /// The object, if it has the version that another one names.
    fn is_present(&self, id: &Id, as_in: &Value) -> Result<&Value, (u16, &'static str)> {
        let present = self.objects.get(id).ok_or((404, "NotFound"))?;
        let expected = &as_in["metadata"]["resourceVersion"];
        let same = expected.is_null() || *expected == present["metadata"]["resourceVersion"];
        if same { Ok(present) } else { Err((409, "Conflict")) }
    }

    fn put(&mut self, id: Id, mut object: Value) -> Value {
        self.version += 1;
        let what = if self.objects.contains_key(&id) { "MODIFIED" } else { "ADDED" };
        object["kind"] = kind_shown(&id.kind).into();
        object["apiVersion"] = version_of(&id.kind).into();
        object["metadata"]["name"] = id.name.clone().into();
        if !id.namespace.is_empty() {
            object["metadata"]["namespace"] = id.namespace.clone().into();
        }
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(id.clone(), object.clone());
        self.remember(id, what, object.clone());
        object
    }

    fn remember(&mut self, id: Id, what: &'static str, object: Value) {
        self.history.push(Change { version: self.version, id, what, object });
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// A page of a kind, sorted, its version, and the token of the next one. What changes while a list is read is told after its
    /// version.
    pub(super) fn page(
        &mut self,
        kind: &str,
        namespace: Option<&str>,
        token: Option<usize>,
        limit: usize,
    ) -> Option<(Vec<Value>, u64, Option<usize>)> {
        let (after, version) = match token {
            Some(token) => self.continued.get(token).map(|(id, version)| (Some(id.clone()), *version))?,
            None => (None, self.version),
        };
        let first = after.map_or_else(|| Bound::Included(Id::new(kind, "", "")), Bound::Excluded);
        let of_kind = self.objects.range((first, Bound::Unbounded)).take_while(|(id, _)| id.kind == kind);
        let mut found = of_kind.filter(|(id, _)| namespace.is_none_or(|n| n == id.namespace));
        let page: Vec<(Id, Value)> = found.by_ref().take(limit).map(|(id, o)| (id.clone(), o.clone())).collect();
        let last = page.last().filter(|_| found.next().is_some()).map(|(id, _)| id.clone());
        let next = last.map(|id| {
            self.continued.push((id, version));
            self.continued.len() - 1
        });
        Some((page.into_iter().map(|(_, o)| o).collect(), version, next))
    }

    /// What happened to a kind after `version`.
    pub(super) fn news(&self, kind: &str, namespace: Option<&str>, version: u64) -> News {
        if version < self.compacted {
            return News::Forgotten;
        }
        let is = |c: &&Change| c.id.kind == kind && namespace.is_none_or(|n| n == c.id.namespace);
        let behind = self.history.partition_point(|c| c.version <= version);
        let events =
            self.history.iter().skip(behind).filter(is).map(|c| json!({"type": c.what, "object": c.object})).collect();
        News::Events(self.version, events)
    }
}
