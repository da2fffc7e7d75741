//! `weft upgrade`: the control plane of a cluster as this version makes it, for `kubectl apply -f -`. What somebody gave it once, it keeps.

use super::{
    install::{self as shared, layers},
    meant::{Folder, cluster_to_change},
    print_objects,
};
use crate::{args::Upgrade, given, print};
use anyhow::{anyhow, bail};
use serde_json::Value;
use std::{path::Path, process::ExitCode, time::SystemTime};
use weft_cluster::{
    install::{self, Author, By, Installation, Material, NotReady, Replaced, Source, Stored},
    kubernetes::Cluster,
    values::{Problem, Values, carried},
    yaml,
};
use weft_control::ca;

pub(crate) async fn run(folder: &Folder, args: Upgrade) -> anyhow::Result<ExitCode> {
    let given = layers::given(&args.given, &crate::args::InstallOnly::default(), &args.options, &args.proxy)?;
    let namespace = args.to.linkerd_namespace.as_str();
    let (cluster, manifests) = match &args.from_manifests {
        Some(file) => (None, saved(file)?),
        None => (Some(cluster_to_change(folder, &args.to).await?), vec![]),
    };
    let source = cluster.as_ref().map_or(Source::Manifests(&manifests), Source::Cluster);
    let (next, left_out) = Next::read(source, namespace, given).await?;
    tell(&left_out);
    let values = &next.values;
    if args.crds {
        let values = next.of_definitions(cluster.as_ref()).await?;
        let objects = install::crds(&values, namespace, By::Cli);
        if let Some(cluster) = &cluster {
            install::gateway_api(cluster, &values).await?;
            install::unclaimed(cluster, namespace, &objects).await?;
        }
        print_objects(&objects, args.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    if values.trust_domain() != next.stored.trust_domain {
        bail!(
            "identityTrustDomain: identities end in {} already, and proxies that run would know nobody any more; it cannot become {}",
            next.stored.trust_domain,
            values.trust_domain()
        );
    }
    let now = SystemTime::now();
    let material = ca::kept(values, namespace, &next.stored, now)?;
    let running = match &cluster {
        Some(cluster) => {
            defined(cluster, values, namespace).await?;
            install::root_where_it_has_to_be(cluster, values).await?;
            install::monitored(cluster, values).await?;
            if !args.force {
                install::heeded(cluster).await?;
            }
            shared::warn_of_ipv6(cluster, values).await?;
            Some(install::trusting(cluster, namespace).await?)
        }
        None => None,
    };
    if !args.force {
        ca::believed(&material, &next.stored, running.as_deref(), namespace, now)?;
    }
    let before = next.stored.anchors_pem.trim();
    if !before.is_empty() && material.anchors_pem.trim() != before {
        print::error(
            "weft: the trust anchors change: restart the pods of the mesh before an issuer below a new one signs, see docs/certificates.md",
        );
    }
    let objects = next.rendered(namespace, &material);
    if let Some(cluster) = &cluster {
        install::unclaimed(cluster, namespace, &objects).await?;
    }
    print_objects(&objects, args.output)?;
    if next.stored.by == Author::Linkerd {
        print::error(
            "weft: this takes over an installation of Linkerd's: apply it, and then `weft prune | kubectl delete -f -` takes away what weft \
             has no use for",
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// An installation as it is to be.
pub(super) struct Next {
    pub(super) stored: Stored,
    pub(super) values: Values,
    /// What was given, now or before.
    overrides: Value,
}

impl Next {
    /// What is stored, and `given` above it; and what of Linkerd's values is left out.
    pub(super) async fn read(
        source: Source<'_>,
        namespace: &str,
        given: Vec<Value>,
    ) -> anyhow::Result<(Self, Vec<Problem>)> {
        let stored = install::stored(source, namespace, Replaced::by(&given)).await?;
        let (before, left_out) = match stored.by {
            Author::Weft => (stored.given.clone(), vec![]),
            Author::Linkerd => carried(stored.given.clone()),
        };
        let ports = match source {
            Source::Cluster(cluster) => Some(install::api_server_ports(cluster).await?),
            Source::Manifests(_) => stored.api_server_ports.clone(),
        };
        let ports = ports.iter().map(|ports| shared::api_server_ports(ports));
        let all: Vec<Value> = [before].into_iter().chain(given).collect();
        let layers: Vec<Value> = ports.chain(all.iter().cloned()).collect();
        let values = shared::read(&layers).map_err(|problems| {
            anyhow!(
                "{problems}\nwhat no flag says was given before, and stands in the Secret linkerd-config-overrides of the namespace \
                 {namespace}: `--set NAME=null` takes it away, any other value replaces it"
            )
        })?;
        Ok((Self { stored, values, overrides: Values::given(all) }, left_out))
    }

    /// The values for the definitions of kinds. Of the Gateway API's those that an installation has brought go on, unless something is
    /// said of them: they may have been asked for where only definitions were printed, which is written down nowhere else.
    pub(super) async fn of_definitions(&self, cluster: Option<&Cluster>) -> anyhow::Result<Values> {
        let mut values = self.values.clone();
        if let Some(cluster) = cluster
            && self.overrides["installGatewayAPI"].is_null()
        {
            install::keep_gateway_api(cluster, &mut values).await?;
        }
        Ok(values)
    }

    /// Everything but the definitions of kinds.
    pub(super) fn rendered(&self, namespace: &str, material: &Material) -> Vec<Value> {
        install::control_plane(Installation {
            values: &self.values,
            namespace,
            by: By::Cli,
            material,
            overrides: &yaml::text(&self.overrides),
        })
    }
}

fn saved(file: &Path) -> anyhow::Result<Vec<Value>> {
    let read = given::read(&[file.to_owned()])?;
    let mut texts = read.texts;
    for path in &read.paths {
        texts.extend(weft_cluster::manifest::texts(path).map_err(|problem| anyhow!("{problem}"))?);
    }
    let mut objects = vec![];
    for text in texts {
        objects.extend(install::objects(&text.text)?);
    }
    Ok(objects)
}

async fn defined(cluster: &Cluster, values: &Values, namespace: &str) -> anyhow::Result<()> {
    match install::defined(cluster, values, namespace).await {
        Err(NotReady::Undefined { name, version }) => bail!(
            "the definition {name} of version {version} is missing; run `weft upgrade --crds | kubectl apply -f -` first"
        ),
        other => Ok(other?),
    }
}

fn tell(left_out: &[Problem]) {
    if !left_out.is_empty() {
        let named: String = left_out.iter().map(|problem| format!("\n  * {problem}")).collect();
        print::error(&format!("weft: values of Linkerd's that are not carried over:{named}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// An installation whose overrides are these.
    fn installed(overrides: &str, by: Author) -> Vec<Value> {
        let metadata = |name: &str| json!({"name": name, "namespace": "linkerd"});
        let mut config = json!({"values": "proxyInit: { kubeAPIServerPorts: '443,16443' }\n"});
        if by == Author::Weft {
            config["weft-version"] = json!("v1");
        }
        vec![
            json!({"kind": "ConfigMap", "metadata": metadata("linkerd-config"), "data": config}),
            json!({"kind": "ConfigMap", "metadata": metadata("linkerd-identity-trust-roots"), "data": {"ca-bundle.crt": "anchors"}}),
            json!({"kind": "Secret", "metadata": metadata("linkerd-config-overrides"),
                "stringData": {"linkerd-config-overrides": overrides}}),
        ]
    }

    fn next(overrides: &str, by: Author, given: Value) -> anyhow::Result<(Next, Vec<Problem>)> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let objects = installed(overrides, by);
        runtime.block_on(Next::read(Source::Manifests(&objects), "linkerd", vec![given]))
    }

    #[test]
    fn what_is_given_now_lies_over_what_was_given() {
        let overrides = "controllerReplicas: 2\nlinkerdVersion: v1\npodLabels: { team: mesh }\n";
        let (next, left_out) = next(overrides, Author::Weft, json!({"controllerReplicas": 3})).unwrap();
        assert_eq!(left_out, []);
        assert_eq!(next.values.controller_replicas, 3);
        assert_eq!(&*next.values.linkerd_version, env!("CARGO_PKG_VERSION"), "this command's");
        assert_eq!(&*next.values.proxy_init.kube_api_server_ports, "443,16443", "the cluster's");
        let rendered = next.rendered("linkerd", &Material::default());
        let stored = rendered.iter().find(|object| object["metadata"]["name"] == "linkerd-config-overrides").unwrap();
        let expected = "controllerReplicas: 3\npodLabels:\n  team: mesh\n";
        assert_eq!(stored["stringData"]["linkerd-config-overrides"], expected, "what was given, and nothing else");
    }

    /// Who saves values for it would have two that keep account of the same objects.
    #[test]
    fn what_is_helms_is_left_to_helm_from_manifests_as_well() {
        let mut objects = installed("controllerReplicas: 2\n", Author::Linkerd);
        objects[0]["metadata"]["annotations"] = json!({"meta.helm.sh/release-name": "lcp"});
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let told =
            runtime.block_on(Next::read(Source::Manifests(&objects), "linkerd", vec![])).err().unwrap().to_string();
        for part in
            ["is upgraded by helm", "helm upgrade lcp charts/linkerd-control-plane -n linkerd", "is not known here"]
        {
            assert!(told.contains(part), "{part}: {told}");
        }
    }

    #[test]
    fn a_value_that_is_not_carried_out_is_left_out_of_linkerds_and_refused_of_ours() {
        let overrides = "cniEnabled: true\ncontrollerReplicas: 2\n";
        let (linkerds, left_out) = next(overrides, Author::Linkerd, json!({})).unwrap();
        assert_eq!(linkerds.values.controller_replicas, 2);
        assert_eq!(left_out.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), ["cniEnabled"]);
        let told = next(overrides, Author::Weft, json!({})).err().unwrap().to_string();
        assert!(told.contains("cniEnabled: "), "{told}");
        assert!(next(overrides, Author::Weft, json!({"cniEnabled": null})).is_ok(), "taken back");
    }

    #[test]
    fn what_was_given_before_is_taken_away() {
        let before = "foo: 1\npodLabels: { team: the mesh }\n";
        let told = next(before, Author::Weft, json!({})).err().unwrap().to_string();
        for part in ["foo: there is no such value", "linkerd-config-overrides of the namespace linkerd", "NAME=null"] {
            assert!(told.contains(part), "{told}");
        }
        let (next, _) = next(before, Author::Weft, json!({"foo": null, "podLabels": {"team": "mesh"}})).unwrap();
        assert_eq!(next.values.pod_labels["team"], "mesh".into());
    }
}
