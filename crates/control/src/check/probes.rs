//! Whether policies let in the kubelet where it asks pods how they are.

use super::{Failed, Run, remedy::few, table};
use crate::kubernetes::watched;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::ControlFlow,
};
use weft_cluster::{
    Index, Object,
    can::{self, Asked, Client, Port, Request, Target, Verdict},
    install::{quoted, told},
    k8s::api::core::v1::{Container, HTTPGetAction, Pod},
    kubernetes::Cluster,
    object::{self, probed_path, probed_port},
};

/// Of one namespace, or of all.
pub(super) async fn are_let_in(
    run: &mut Run<'_>,
    cluster: &Cluster,
    control_namespace: &str,
    of: Option<&str>,
) -> ControlFlow<()> {
    run.line(&table::PROBES, async || denied(cluster, control_namespace, of).await).await
}

/// By what proxies would say, from the objects that they are told of.
async fn denied(cluster: &Cluster, control_namespace: &str, of: Option<&str>) -> Result<(), Failed> {
    let values = told(cluster, control_namespace).await?.unwrap_or_default();
    let objects = cluster.everything(&watched()).await?;
    let is_asked = |pod: &&Pod| of.is_none() || pod.metadata.namespace.as_deref() == of;
    let pods = objects.iter().filter_map(|object| match object {
        Object::Pod(pod) => Some(&**pod),
        _ => None,
    });
    let pods: Vec<Pod> = pods.filter(is_asked).cloned().collect();
    let index = can::of_objects(objects, can::settings_of(&values, control_namespace));
    let mut wrong = vec![];
    for pod in &pods {
        wrong.extend(of_pod(&index, pod));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let why = few(&wrong.iter().map(|denied| denied.why.as_str()).collect::<Vec<_>>());
    let mut by_server: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for denied in &wrong {
        if let Some(server) = &denied.server {
            by_server.entry((&denied.namespace, server)).or_default().insert(&denied.path);
        }
    }
    let commands: Vec<String> =
        by_server.into_iter().map(|((namespace, server), paths)| let_in(namespace, server, &paths)).collect();
    match commands.is_empty() {
        true => Err(why.into()),
        false => Err(Failed::mended_by(why, commands.join(" && "))),
    }
}

/// A probe that does not come in.
struct Denied {
    why: String,
    namespace: String,
    /// The Server of the port, if it has one.
    server: Option<String>,
    path: String,
}

/// Gives probes a route of their own that everybody may take: with its first route a Server lets in none by itself.
fn let_in(namespace: &str, server: &str, paths: &BTreeSet<&str>) -> String {
    let group = "policy.linkerd.io";
    let name = format!("{server}-probes");
    let metadata = json!({ "name": name, "namespace": namespace });
    let object = |version: &str, kind: &str, spec: Value| json!({ "apiVersion": format!("{group}/{version}"), "kind": kind, "metadata": metadata, "spec": spec });
    let matches: Vec<Value> =
        paths.iter().map(|path| json!({ "method": "GET", "path": { "type": "Exact", "value": path } })).collect();
    let reference = |kind: &str, name: &str| json!({ "group": group, "kind": kind, "name": name });
    let route = json!({ "parentRefs": [reference("Server", server)], "rules": [{ "matches": matches }] });
    let everybody = json!({ "networks": [{ "cidr": "0.0.0.0/0" }, { "cidr": "::/0" }] });
    let policy = json!({
        "targetRef": reference("HTTPRoute", &name),
        "requiredAuthenticationRefs": [reference("NetworkAuthentication", &name)],
    });
    let items = [
        object("v1beta3", "HTTPRoute", route),
        object("v1alpha1", "NetworkAuthentication", everybody),
        object("v1alpha1", "AuthorizationPolicy", policy),
    ];
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string();
    format!("echo {} | kubectl apply -f -", quoted(&list))
}

fn of_pod(index: &Index, pod: &Pod) -> Vec<Denied> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&pod.metadata.namespace), text(&pod.metadata.name));
    // Where the kubelet is. Of whom nobody knows where it is, nothing is told.
    let node = pod.status.as_ref().and_then(|status| status.host_ip.as_deref()?.parse::<IpAddr>().ok());
    let Some(node) = node else { return vec![] };
    let client = Client::Address(node);
    let says = |(port, path): (u16, String)| {
        let target = Target::at(&format!("pod/{name}"), Port::Number(port), &namespace).ok()?;
        let request = Request::new("GET", &path).ok()?;
        let asked = Asked { client: &client, target: &target, request: &request, address: None };
        let told = can::ask(index, &asked).ok()?;
        let is_denied = told.verdict == Verdict::Denied;
        let server = told.answers.iter().find_map(|answer| answer.server.as_ref());
        let server = server.filter(|server| server.kind == "Server").map(|server| server.name.clone());
        is_denied.then(|| Denied {
            why: format!("GET {path} at port {port} of pod {namespace}/{name} is {}", told.summary()),
            namespace: namespace.clone(),
            server,
            path: path.split('?').next().unwrap_or_default().to_owned(),
        })
    };
    probes(pod).into_iter().filter_map(says).collect()
}

/// Ports and paths, in the clear: of TLS no policy of HTTP says anything.
fn probes(pod: &Pod) -> BTreeSet<(u16, String)> {
    let spec = pod.spec.iter();
    let containers = spec.flat_map(object::containers);
    let of_each = |c: &Container| {
        let probes = [&c.readiness_probe, &c.liveness_probe, &c.startup_probe].into_iter().flatten();
        let asked = probes.filter_map(|probe| probe.http_get.as_ref()).filter(|get| is_clear(get));
        asked.filter_map(|get| Some((probed_port(&get.port, c)?, probed_path(get)))).collect::<Vec<_>>()
    };
    containers.flat_map(of_each).collect()
}

fn is_clear(get: &HTTPGetAction) -> bool {
    get.scheme.as_deref().is_none_or(|scheme| scheme == "HTTP")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_named_by_the_container_that_is_probed() {
        let container = |name: &str, number: u16, path: &str, port: &str| {
            json!({"name": name, "ports": [{"name": "http", "containerPort": number}],
                "readinessProbe": {"httpGet": {"path": path, "port": port}}})
        };
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "containers": [container("web", 8080, "/web", "http"), container("beside", 8081, "/beside", "http")],
            "initContainers": [container("before", 8082, "before", "8083"), container("other", 8084, "/other", "none")],
        }}))
        .unwrap();
        let asked = [(8080, "/web"), (8081, "/beside"), (8083, "/before")];
        assert_eq!(probes(&pod), BTreeSet::from(asked.map(|(port, path)| (port, path.to_owned()))));
    }
}
