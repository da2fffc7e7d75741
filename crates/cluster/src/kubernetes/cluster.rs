//! What commands ask of a cluster, one question at a time; they watch nothing.

use super::{Client, Error, forward};
use crate::{
    Kind,
    policy::{self, Definition as Defined},
};
use k8s_openapi::{
    api::{
        authentication::v1::SelfSubjectReview,
        authorization::v1::{ResourceAttributes, SelfSubjectAccessReview},
        core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{
    Api,
    api::{ListParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Debug, future::Future, time::Duration};
use tokio::io::DuplexStream;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// Objects of one page of a list.
const PAGE: u32 = 500;

/// A cluster that is asked.
#[derive(Clone)]
pub struct Cluster(Client);

/// A kind of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
}

impl Resource {
    pub const fn new(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Self {
        Self { group, version, kind, plural }
    }

    fn api(&self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.group, self.version, self.kind), self.plural)
    }

    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        self.api().api_version
    }
}

/// A definition of a kind, as far as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definition {
    /// Versions that are served.
    pub versions: Vec<String>,
    pub annotations: BTreeMap<String, String>,
}

impl Cluster {
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    pub(super) fn client(&self) -> Client {
        self.0.clone()
    }

    /// The namespace that is meant where none is named: the context's.
    pub fn own_namespace(&self) -> &str {
        self.0.default_namespace()
    }

    /// A connection to a port of a pod's own loopback.
    ///
    /// # Errors
    /// As [`forward`].
    pub async fn forward(&self, namespace: &str, pod: &str, port: u16) -> Result<DuplexStream, Error> {
        forward(self.0.clone(), namespace, pod, port).await
    }

    /// `v1.34.4`.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn version(&self) -> Result<String, Error> {
        answer(self.0.apiserver_version()).await.map(|info| info.git_version)
    }

    /// # Errors
    /// As [`Cluster::version`]; so have all that follow.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<BTreeMap<String, String>>, Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.0.clone(), namespace);
        Ok(get(&api, name).await?.map(|map| map.data.unwrap_or_default()))
    }

    #[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>, Error> {
        let api: Api<Secret> = Api::namespaced(self.0.clone(), namespace);
        let data = |secret: Secret| secret.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)).collect();
        Ok(get(&api, name).await?.map(data))
    }

    /// Such as `Opaque`.
    #[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
    pub async fn secret_type(&self, namespace: &str, name: &str) -> Result<Option<String>, Error> {
        let api: Api<Secret> = Api::namespaced(self.0.clone(), namespace);
        Ok(get(&api, name).await?.and_then(|secret| secret.type_))
    }

    #[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
    pub async fn definition(&self, name: &str) -> Result<Option<Definition>, Error> {
        let api: Api<CustomResourceDefinition> = Api::all(self.0.clone());
        Ok(get(&api, name).await?.map(|definition| Definition {
            versions: definition.spec.versions.into_iter().filter(|v| v.served).map(|v| v.name).collect(),
            annotations: definition.metadata.annotations.unwrap_or_default(),
        }))
    }

    /// The ports on which pods reach the API server: those of its Service and those behind it.
    #[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
    pub async fn api_server_ports(&self) -> Result<Vec<u16>, Error> {
        let api: Api<Service> = Api::namespaced(self.0.clone(), "default");
        let spec = get(&api, "kubernetes").await?.and_then(|service| service.spec);
        let mut ports = vec![];
        for port in spec.into_iter().flat_map(|spec| spec.ports.unwrap_or_default()) {
            let target = match port.target_port {
                Some(IntOrString::Int(target)) => target,
                _ => port.port,
            };
            ports.extend([port.port, target].into_iter().filter_map(|port| u16::try_from(port).ok()));
        }
        ports.sort_unstable();
        ports.dedup();
        Ok(ports)
    }

    #[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        list(&Api::all(self.0.clone()), "").await
    }

    /// Those that have the labels.
    #[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
    pub async fn namespaces(&self, labels: &str) -> Result<Vec<Namespace>, Error> {
        list(&Api::all(self.0.clone()), labels).await
    }

    #[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
    pub async fn services(&self) -> Result<Vec<Service>, Error> {
        list(&Api::all(self.0.clone()), "").await
    }

    /// Of one namespace, or of all.
    #[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
    pub async fn pods(&self, namespace: Option<&str>, labels: &str) -> Result<Vec<Pod>, Error> {
        let client = self.0.clone();
        list(&namespace.map_or_else(|| Api::all(client.clone()), |n| Api::namespaced(client.clone(), n)), labels).await
    }

    /// One object of whatever kind; `None` if there is none, or no such kind.
    #[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
    pub async fn object(&self, of: Resource, namespace: Option<&str>, name: &str) -> Result<Option<Value>, Error> {
        let (client, kind) = (self.0.clone(), of.api());
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &kind),
            None => Api::all_with(client, &kind),
        };
        Ok(get(&api, name).await?.map(|object| serde_json::to_value(object).unwrap_or_default()))
    }

    /// Whether whoever asks may do this to all objects of a kind, in one namespace or wherever they are.
    #[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
    pub async fn may(&self, verb: &str, of: Resource, namespace: Option<&str>) -> Result<bool, Error> {
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            group: Some(of.group.to_owned()),
            version: Some(of.version.to_owned()),
            resource: Some(of.plural.to_owned()),
            namespace: namespace.map(str::to_owned),
            ..ResourceAttributes::default()
        };
        let mut review = SelfSubjectAccessReview::default();
        review.spec.resource_attributes = Some(attributes);
        let api: Api<SelfSubjectAccessReview> = Api::all(self.0.clone());
        let answer = answer(api.create(&PostParams::default(), &review)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// Who asks, as the API server knows the name; `None` if it does not say.
    #[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
    pub async fn user(&self) -> Result<Option<String>, Error> {
        let api: Api<SelfSubjectReview> = Api::all(self.0.clone());
        let answer = answer(api.create(&PostParams::default(), &SelfSubjectReview::default())).await?;
        Ok(answer.status.and_then(|status| status.user_info?.username))
    }

    /// Whether an object without a namespace would be created; nothing is. One that exists already would have been.
    #[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
    pub async fn would_create(&self, object: &Value) -> Result<(), Error> {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("kind")));
        let api: Api<DynamicObject> = Api::all_with(self.0.clone(), &kind);
        let object = serde_json::from_value(object.clone()).map_err(|e| Error::Request(e.to_string()))?;
        let params = PostParams { dry_run: true, ..PostParams::default() };
        match tokio::time::timeout(ANSWER, api.create(&params, &object)).await {
            // Who may not would have been told so.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(()),
            Ok(asked) => answer(std::future::ready(asked)).await.map(drop),
            Err(_) => Err(Error::Silent(ANSWER)),
        }
    }

    /// Everything of a kind that has the labels, in all namespaces; nothing if there is no such kind.
    #[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
    pub async fn objects(&self, of: Resource, labels: &str) -> Result<Vec<Value>, Error> {
        let api: Api<DynamicObject> = Api::all_with(self.0.clone(), &of.api());
        let found = list(&api, labels).await?;
        Ok(found.into_iter().map(|object| serde_json::to_value(object).unwrap_or_default()).collect())
    }

    /// The same in one namespace.
    #[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
    pub async fn objects_in(&self, of: Resource, namespace: &str, labels: &str) -> Result<Vec<Value>, Error> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.0.clone(), namespace, &of.api());
        let found = list(&api, labels).await?;
        Ok(found.into_iter().map(|object| serde_json::to_value(object).unwrap_or_default()).collect())
    }

    /// Everything of a kind that has this name, in whichever namespace.
    #[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
    pub async fn named(&self, of: Resource, name: &str) -> Result<Vec<Value>, Error> {
        let api: Api<DynamicObject> = Api::all_with(self.0.clone(), &of.api());
        let of_name = ListParams::default().fields(&format!("metadata.name={name}"));
        let found = pages(&api, of_name).await?.unwrap_or_default();
        Ok(found.into_iter().map(|object| serde_json::to_value(object).unwrap_or_default()).collect())
    }

    /// Whether there is such a kind.
    #[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
    pub async fn serves(&self, of: Resource) -> Result<bool, Error> {
        let api: Api<DynamicObject> = Api::all_with(self.0.clone(), &of.api());
        match answer(api.list(&ListParams::default().limit(1))).await {
            Ok(_) => Ok(true),
            Err(Error::Missing) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Everything of one of the mesh's own kinds, in the newest version that is served.
    #[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
    pub async fn policies(&self, kind: Kind) -> Result<Vec<Value>, Error> {
        let Some(Defined { group, kind, plural, versions }) = policy::definition(kind) else { return Ok(vec![]) };
        for version in versions {
            let of = Resource { group, version, kind, plural };
            let api: Api<DynamicObject> = Api::all_with(self.0.clone(), &of.api());
            // Of one that is served there may be none.
            if let Some(found) = pages(&api, ListParams::default()).await? {
                return Ok(found.into_iter().map(|object| serde_json::to_value(object).unwrap_or_default()).collect());
            }
        }
        Ok(vec![])
    }
}

async fn get<K>(api: &Api<K>, name: &str) -> Result<Option<K>, Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    match answer(api.get(name)).await {
        Ok(found) => Ok(Some(found)),
        Err(Error::Missing) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn list<K>(api: &Api<K>, labels: &str) -> Result<Vec<K>, Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    Ok(pages(api, ListParams::default().labels(labels)).await?.unwrap_or_default())
}

/// `None` where there is no such kind.
async fn pages<K>(api: &Api<K>, of: ListParams) -> Result<Option<Vec<K>>, Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut found = vec![];
    let mut params = of.limit(PAGE);
    loop {
        let page = match answer(api.list(&params)).await {
            Ok(page) => page,
            Err(Error::Missing) => return Ok(None),
            Err(error) => return Err(error),
        };
        found.extend(page.items);
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params = params.continue_token(&token),
            _ => return Ok(Some(found)),
        }
    }
}

async fn answer<T>(asked: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Error::Missing),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Error::Silent(ANSWER)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_says_nothing_is_told_with_what_to_do() {
        let told = answer(std::future::pending::<kube::Result<()>>()).await.unwrap_err().to_string();
        assert!(told.starts_with("the API server has not answered within 30s; `kubectl cluster-info`"), "{told}");
    }
}
