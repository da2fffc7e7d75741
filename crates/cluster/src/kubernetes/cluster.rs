//! What commands ask of a cluster, one question at a time; they watch nothing.

use super::{Client, Error, client};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{
    Api,
    api::ListParams,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Debug, future::Future, time::Duration};

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

    /// Everything of a kind that has the labels, in all namespaces; nothing if there is no such kind.
    #[expect(clippy::missing_errors_doc, reason = "as `Cluster::config_map`")]
    pub async fn objects(&self, of: Resource, labels: &str) -> Result<Vec<Value>, Error> {
        let api: Api<DynamicObject> = Api::all_with(self.0.clone(), &of.api());
        let found = list(&api, labels).await?;
        Ok(found.into_iter().map(|object| serde_json::to_value(object).unwrap_or_default()).collect())
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
    let mut found = vec![];
    let mut params = ListParams::default().labels(labels).limit(PAGE);
    loop {
        let page = match answer(api.list(&params)).await {
            Ok(page) => page,
            // There is no such kind.
            Err(Error::Missing) => return Ok(vec![]),
            Err(error) => return Err(error),
        };
        found.extend(page.items);
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params = params.continue_token(&token),
            _ => return Ok(found),
        }
    }
}

async fn answer<T>(asked: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Error::Missing),
        Ok(Err(error)) => Err(Error::Request(client::reason(&error))),
        Err(_) => Err(Error::Request(format!("no answer within {ANSWER:?}"))),
    }
}
