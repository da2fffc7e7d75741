//! Whether what people have written at pods and Services stands where it has an effect, and says the same.

use super::{
    Failed, Run,
    remedy::{self, edit, mended},
    table,
};
use std::ops::ControlFlow;
use weft_cluster::{
    annotation::PortList,
    install::quoted,
    k8s::{
        api::core::v1::{Container, ContainerPort, Pod, Service, ServicePort},
        apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
    },
    kubernetes::Cluster,
    label, object,
    values::Values,
};
use weft_model::names::annotation::{INJECT, OPAQUE_PORTS};

/// What is read of annotations alone.
const ANNOTATIONS: [&str; 2] = ["config.linkerd.io/", "config.alpha.linkerd.io/"];
/// What is read of labels alone.
const EXPORTED: &str = "mirror.linkerd.io/exported";

/// Of one namespace, or of all but the control plane's.
pub(super) async fn of_pods(
    run: &mut Run<'_>,
    cluster: &Cluster,
    control_namespace: &str,
    of: Option<&str>,
    values: &Values,
) -> ControlFlow<()> {
    let is_asked = |meta: &ObjectMeta| {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        of.map_or(namespace != control_namespace, |of| of == namespace)
    };
    let pods = async || {
        let labels = format!("{}={control_namespace}", label::CONTROL_NAMESPACE);
        let pods = cluster.pods(of, &labels).await?;
        Ok::<_, Failed>(pods.into_iter().filter(|pod| is_asked(&pod.metadata)).collect::<Vec<_>>())
    };
    let services = async || {
        let services = cluster.services().await?;
        Ok::<_, Failed>(services.into_iter().filter(|service| is_asked(&service.metadata)).collect::<Vec<_>>())
    };
    run.line(&table::POD_LABELS, async || {
        let pods = pods().await?;
        let wrong = pods.iter().flat_map(|pod| labels("pod", &pod.metadata).map(move |(.., told)| (told, edit(pod))));
        mended(wrong.collect())
    })
    .await?;
    run.line(&table::SERVICE_LABELS, async || {
        let services = services().await?;
        let wrong = services.iter().flat_map(|service| {
            let meta = &service.metadata;
            labels("Service", meta)
                .map(move |(key, value, told)| (told, turned(meta, ["label", "annotate"], key, value)))
        });
        mended(wrong.collect())
    })
    .await?;
    run.line(&table::SERVICE_ANNOTATIONS, async || {
        let services = services().await?;
        let wrong = services.iter().map(|service| &service.metadata).filter_map(|meta| {
            let value = meta.annotations.as_ref()?.get(EXPORTED)?;
            let told = format!("{} has the annotation {EXPORTED}", named("Service", meta));
            Some((told, turned(meta, ["annotate", "label"], EXPORTED, value)))
        });
        mended(wrong.collect())
    })
    .await?;
    run.line(&table::OPAQUE_PORTS, async || {
        let (services, pods) = (services().await?, pods().await?);
        let default: PortList = values.proxy.opaque_ports.parse().unwrap_or_default();
        let default = Usual { text: &values.proxy.opaque_ports, ports: default };
        mended(services.iter().flat_map(|service| differing(service, &pods, &default)).collect())
    })
    .await
}

fn named(kind: &str, meta: &ObjectMeta) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{kind} {}/{}", text(&meta.namespace), text(&meta.name))
}

/// Annotations of the mesh that somebody has written as labels: key, value, and what is told of it.
fn labels<'m>(kind: &'m str, meta: &'m ObjectMeta) -> impl Iterator<Item = (&'m str, &'m str, String)> {
    let is_wrong = |key: &str| key == INJECT || ANNOTATIONS.iter().any(|prefix| key.starts_with(prefix));
    let all = meta.labels.iter().flatten().filter(move |(key, _)| is_wrong(key));
    all.map(move |(key, value)| (key.as_str(), value.as_str(), format!("{} has the label {key}", named(kind, meta))))
}

/// The one becomes the other; `ways` are kubectl's words for both.
fn turned(meta: &ObjectMeta, [from, to]: [&str; 2], key: &str, value: &str) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&meta.namespace), text(&meta.name));
    let said = quoted(&format!("{key}={value}"));
    format!(
        "kubectl -n {namespace} {to} --overwrite service {name} {said} && kubectl -n {namespace} {from} service {name} {key}-"
    )
}

/// The ports that are opaque where nobody says it.
struct Usual<'v> {
    text: &'v str,
    ports: PortList,
}

impl Usual<'_> {
    /// What is said instead, so that of some ports these are opaque and the others are not.
    fn but(&self, ports: &[(u16, bool)]) -> String {
        let opaque = ports.iter().filter(|(_, is)| *is).map(|(port, _)| port.to_string());
        let is_another = |one: &&str| one.parse::<u16>().map_or(true, |one| ports.iter().all(|(port, _)| *port != one));
        let others = self.text.split(',').map(str::trim).filter(|one| !one.is_empty()).filter(is_another);
        others.map(str::to_owned).chain(opaque).collect::<Vec<_>>().join(",")
    }
}

/// Ports that are bytes for the one side and not for the other, and what makes them the same: the side that nobody has said it of
/// follows the other, or else the Service its pods. A headless Service's clients ask for its pods.
fn differing(service: &Service, pods: &[Pod], default: &Usual<'_>) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return vec![] };
    let Some(selector) = spec.selector.as_ref().filter(|selector| !selector.is_empty()) else { return vec![] };
    if spec.cluster_ip.as_deref() == Some("None") {
        return vec![];
    }
    let said = |meta: &ObjectMeta| {
        let own = meta.annotations.as_ref().and_then(|all| all.get(OPAQUE_PORTS));
        own.map_or_else(|| Ok(default.ports.clone()), |own| own.parse::<PortList>())
    };
    let is_behind = |pod: &&Pod| {
        let labels = pod.metadata.labels.as_ref();
        pod.metadata.namespace == service.metadata.namespace
            && selector.iter().all(|(key, value)| labels.and_then(|all| all.get(key)) == Some(value))
    };
    let says = |meta: &ObjectMeta| meta.annotations.as_ref().is_some_and(|all| all.contains_key(OPAQUE_PORTS));
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let annotate = |value: &str| {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let said = quoted(&format!("{OPAQUE_PORTS}={value}"));
        format!("kubectl -n {namespace} annotate --overwrite service {name} {said}")
    };
    let of_service = match said(&service.metadata) {
        Ok(list) => list,
        Err(error) => {
            let told = format!("{}: {OPAQUE_PORTS}: {error}", named("Service", &service.metadata));
            let name = service.metadata.name.as_deref().unwrap_or_default();
            return vec![(told, format!("kubectl -n {namespace} annotate service {name} {OPAQUE_PORTS}-"))];
        }
    };
    let mut wrong = vec![];
    for pod in pods.iter().filter(is_behind) {
        let of_pod = match said(&pod.metadata) {
            Ok(list) => list,
            Err(error) => {
                wrong.push((format!("{}: {OPAQUE_PORTS}: {error}", named("pod", &pod.metadata)), edit(pod)));
                continue;
            }
        };
        let (mut of_its_service, mut of_its_pod, mut told) = (vec![], vec![], vec![]);
        for port in spec.ports.iter().flatten() {
            let Some((target, name)) = target(port, pod) else { continue };
            let number = u16::try_from(port.port).unwrap_or_default();
            let sides = [of_service.contains(number, port.name.as_deref()), of_pod.contains(target, name.as_deref())];
            of_its_service.push((number, sides[1]));
            of_its_pod.push((target, sides[0]));
            let [service_is, pod_is] = sides.map(|is| if is { "opaque" } else { "not opaque" });
            if service_is != pod_is {
                told.push(format!(
                    "port {number} of {} is {service_is}, and port {target} of {}, which it leads to, is {pod_is}",
                    named("Service", &service.metadata),
                    named("pod", &pod.metadata)
                ));
            }
        }
        if !told.is_empty() {
            let command = match says(&service.metadata) && !says(&pod.metadata) {
                true => remedy::annotate(pod, OPAQUE_PORTS, &default.but(&of_its_pod)),
                false => annotate(&default.but(&of_its_service)),
            };
            wrong.push((told.join("; "), command));
        }
    }
    wrong
}

/// The pod's port that a Service's leads to, and its name.
fn target(port: &ServicePort, pod: &Pod) -> Option<(u16, Option<String>)> {
    let spec = pod.spec.iter();
    let containers = spec.flat_map(object::containers);
    let ports = |c: &'_ Container| c.ports.clone().unwrap_or_default();
    let all: Vec<ContainerPort> = containers.flat_map(ports).collect();
    let number = |n: i32| u16::try_from(n).ok();
    let named = |n: u16| all.iter().find(|p| number(p.container_port) == Some(n)).and_then(|p| p.name.clone());
    match &port.target_port {
        Some(IntOrString::String(name)) => {
            let found = all.iter().find(|p| p.name.as_ref() == Some(name))?;
            Some((number(found.container_port)?, Some(name.clone())))
        }
        Some(IntOrString::Int(n)) => number(*n).map(|n| (n, named(n))),
        None => number(port.port).map(|n| (n, named(n))),
    }
}
