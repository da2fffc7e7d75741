//! Helm's charts, learned from the installation itself: there is one definition of what is installed, and it is not here.
//!
//! ```text
//! kinds of values ─► variables (each with its states) ─► probe (values ─► install ─► objects, with stand-ins) ─► learn ─► template
//!                                                           rendered with each state of each variable
//! ```
//!
//! A text or number is given as a stand_in, which is found again in the objects; a truth value, or whether a text is empty, is a decision
//! whose outcomes are compared. What no decision changes is written as it is. What Go has to compute by itself (certificates, worker
//! threads, the copy of the values) is a stand-in too, for a function of `helpers.tpl`. Nothing here knows any object: whether Helm comes to
//! the same as `weft install` is proven with Helm itself, value by value (`crates/cluster/tests/charts`).

mod learn;
mod probe;
mod template;
mod tree;
mod variable;

use crate::{
    install::{By, Installation, Material, Pair, Webhook, control_plane, crd::ROUTES, crds},
    values::{OF_LINKERDS_IMAGES, REFUSED, Refused, VOLUMES, Values, highly_available, rows, schema},
    yaml,
};
use learn::Learner;
use probe::Probe;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use template::Printer;
use variable::Variables;

const DEFINITIONS: &str = "linkerd-crds";
const CONTROL_PLANE: &str = "linkerd-control-plane";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const HELPERS: &str = include_str!("helpers.tpl");
/// Values of the chart of definitions: the first is what holds where another is not given.
const OF_DEFINITIONS: [&str; 4] = ["installGatewayAPI", "enableHttpRoutes", "enableTcpRoutes", "enableTlsRoutes"];
/// Comes first in the chart of definitions. Of a release that is taken over Helm would delete what is not of this chart, and with a
/// definition all objects of its kind.
const BEGIN_OF_DEFINITIONS: &str = r#"{{- define "weft.begin" -}}
{{- if not (hasKey . "begun") -}}
{{- $own := include "weft.definitions" . | fromYamlArray -}}
{{- $others := list -}}
{{- $by := list -}}
{{- range include "weft.routes" . | fromYamlArray -}}
{{- $asked := get $.Values .value -}}
{{- if not (kindIs "bool" $asked) -}}
{{- $asked = $.Values.installGatewayAPI -}}
{{- end -}}
{{- if $asked -}}
{{- $own = append $own .name -}}
{{- $there := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" .name -}}
{{- if $there -}}
{{- $said := $there.metadata.annotations | default dict -}}
{{- if not (and (hasKey $said "linkerd.io/created-by") (eq (get $said "gateway.networking.k8s.io/channel") "standard")) -}}
{{- $others = append $others .name -}}
{{- $by = append $by (printf "%s=false" .value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $others -}}
{{- fail (printf "the Gateway API's definitions %s stand in the cluster already and are not weft's, which are of another version or channel; leave them to who has brought them, by --set %s" (join ", " $others) (join "," (uniq $by))) -}}
{{- end -}}
{{- $lost := list -}}
{{- range (lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "").items -}}
{{- $said := .metadata.annotations | default dict -}}
{{- $is_release := and (eq (get $said "meta.helm.sh/release-name") $.Release.Name) (eq (get $said "meta.helm.sh/release-namespace") $.Release.Namespace) -}}
{{- if and $is_release (ne (get $said "helm.sh/resource-policy") "keep") (not (has .metadata.name $own)) -}}
{{- $lost = append $lost .metadata.name -}}
{{- end -}}
{{- end -}}
{{- if $lost -}}
{{- fail (printf "definitions of this release that its next revision does not have would be deleted, and with each of them all objects of its kind; keep them by\n\n    kubectl annotate crd %s helm.sh/resource-policy=keep\n" (join " " $lost)) -}}
{{- end -}}
{{- $_ := set . "begun" true -}}
{{- end -}}
{{- end }}
"#;
const GENERATED: &str =
    "Generated from crates/cluster/src (WEFT_UPDATE=1 cargo test the_charts_follow_the_installation): do not edit.";

/// All files of both charts, by their paths below `charts/`.
pub fn charts() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    definitions(&mut files);
    control_planes(&mut files);
    files
}

fn definitions(files: &mut BTreeMap<String, String>) {
    let mut put = |name: &str, text: String| drop(files.insert(format!("{DEFINITIONS}/{name}"), text));
    put(
        "Chart.yaml",
        about(DEFINITIONS, "The kinds of objects that the mesh understands; the control plane wants them first"),
    );
    put(
        "values.yaml",
        format!(
            "# {GENERATED}\n# Whether the Gateway API's definitions of routes are brought as well. By themselves, where they are given:\n\
             # enableHttpRoutes (GRPCRoutes too), enableTcpRoutes, enableTlsRoutes. See docs/reference/values.md.\n\
             installGatewayAPI: false\n"
        ),
    );
    let mut properties = schema()["properties"].take();
    if let Some(properties) = properties.as_object_mut() {
        properties.retain(|name, _| name == "global" || OF_DEFINITIONS.contains(&name.as_str()));
    }
    let draft = "http://json-schema.org/draft-07/schema#";
    put(
        "values.schema.json",
        pretty(&json!({ "$schema": draft, "type": "object", "additionalProperties": false, "properties": properties })),
    );
    // The control plane has objects of these kinds.
    put("README.md", readme(DEFINITIONS, " --wait", ""));
    let render = |values: &Values| crds(values, variable::NAMESPACE, By::Helm);
    let names: Vec<Value> =
        render(&Values::default()).into_iter().map(|mut definition| definition["metadata"]["name"].take()).collect();
    let routes: Vec<Value> = ROUTES.iter().map(|route| json!({ "name": route.name, "value": route.value })).collect();
    let lists = [define("weft.definitions", &names), define("weft.routes", &routes)].join("\n");
    put("templates/_helpers.tpl", format!("{}\n{BEGIN_OF_DEFINITIONS}\n{lists}", comment()));
    let probe = Probe::new(Variables::of_definitions(&OF_DEFINITIONS), &render);
    for (file, text) in written(&probe, ".Chart.AppVersion") {
        put(&file, text);
    }
}

fn control_planes(files: &mut BTreeMap<String, String>) {
    let mut put = |name: &str, text: String| drop(files.insert(format!("{CONTROL_PLANE}/{name}"), text));
    put("Chart.yaml", about(CONTROL_PLANE, "The control plane of the mesh"));
    let defaults = serde_json::to_value(Values::default()).unwrap_or_default();
    let about_values = "What is listed here, and nothing else, may be given: docs/reference/values.md.";
    put("values.yaml", format!("# {GENERATED}\n# {about_values}\n{}", yaml::text(&defaults)));
    put("values-ha.yaml", format!("# {GENERATED}\n# As `weft install --ha`.\n{}", yaml::text(&highly_available())));
    put("values.schema.json", pretty(&schema()));
    let mut table = String::from("\n## Values\n\n| value | default |\n|---|---|\n");
    rows(&defaults, "", &mut table);
    let given = " \\\n  --set-file identityTrustAnchorsPEM=root.crt \\\n  --set-file identity.issuer.tls.crtPEM=issuer.crt \\\n  \
                 --set-file identity.issuer.tls.keyPEM=issuer.key";
    put("README.md", readme(CONTROL_PLANE, given, &table));
    let refused: Vec<&Refused> = REFUSED.iter().collect();
    // The version is the images', too.
    let images: Vec<Value> = OF_LINKERDS_IMAGES.iter().chain(&["linkerdVersion"]).map(|path| json!(path)).collect();
    let volumes = VOLUMES.map(Value::from);
    let lists =
        [refusals(&refused), asked(), define("weft.images", &images), define("weft.volumes", &volumes)].join("\n");
    put("templates/_helpers.tpl", format!("{}\n{HELPERS}\n{lists}", comment()));
    let material = material();
    let render = |values: &Values| {
        control_plane(Installation {
            values,
            namespace: variable::NAMESPACE,
            by: By::Helm,
            material: &material,
            overrides: "",
        })
    };
    let probe = Probe::new(Variables::of_values(), &render);
    for (file, text) in written(&probe, ".Values.linkerdVersion") {
        put(&file, text);
    }
}

/// Marks for what is made where Helm renders.
fn material() -> Material {
    let made = |value: &str, what: &str| variable::stand_in(&format!("webhooks.{value}.{what}"));
    let pair = |webhook: Webhook| {
        let value = value_of(webhook);
        Pair { certificate: made(value, "certificate"), key: made(value, "key") }
    };
    let before = |webhook: Webhook| made(value_of(webhook), "before");
    Material {
        anchors_pem: String::new(),
        anchors_sha256: variable::stand_in("anchors"),
        issuer: Pair::default(),
        issuer_since: None,
        proxy_injector: pair(Webhook::ProxyInjector),
        proxy_injector_before: before(Webhook::ProxyInjector),
        profile_validator: pair(Webhook::ProfileValidator),
        profile_validator_before: before(Webhook::ProfileValidator),
        policy_validator: pair(Webhook::PolicyValidator),
        policy_validator_before: before(Webhook::PolicyValidator),
    }
}

/// Which of the values is the webhook's.
fn value_of(webhook: Webhook) -> &'static str {
    match webhook {
        Webhook::ProxyInjector => "proxyInjector",
        Webhook::ProfileValidator => "profileValidator",
        Webhook::PolicyValidator => "policyValidator",
    }
}

/// The templates: a file for each part of the control plane, and one for each of their proxies.
fn written(probe: &Probe<'_>, version: &'static str) -> BTreeMap<String, String> {
    let mut printers: BTreeMap<String, Printer<'_>> = BTreeMap::new();
    for (key, child) in Learner::new(probe).learn() {
        let part = key.strip_prefix(probe::PART).map(str::trim_start);
        let file = match part {
            Some(component) => format!("templates/_{component}-proxy.tpl"),
            None => format!("templates/{}.yaml", probe.file(&key)),
        };
        let printer = printers.entry(file).or_insert_with(|| {
            let mut printer = Printer::new(&probe.variables, version);
            printer.raw(&comment());
            if part.is_none() {
                printer.raw("{{- include \"weft.begin\" . }}");
            }
            printer
        });
        match part {
            Some(component) => printer.define(&format!("weft.proxy.{component}"), &child),
            None => printer.object(&child),
        }
    }
    printers.into_iter().map(|(file, printer)| (file, printer.text())).collect()
}

fn comment() -> String {
    format!("{{{{/* {GENERATED} */}}}}")
}

fn refusals(refused: &[&Refused]) -> String {
    let list: Vec<Value> = refused
        .iter()
        .map(|Refused { path, accepted, remedy }| {
            let accepted: Value = serde_json::from_str(accepted).unwrap_or_default();
            json!({ "path": path, "accepted": accepted, "remedy": remedy })
        })
        .collect();
    define("weft.refusals", &list)
}

fn asked() -> String {
    let of = |webhook: &Webhook| {
        json!({
            "value": value_of(*webhook), "service": webhook.service(), "secret": webhook.secret(),
            "kind": webhook.configured().kind, "configuration": webhook.configuration(),
        })
    };
    define("weft.served", &Webhook::ALL.iter().map(of).collect::<Vec<_>>())
}

fn define(name: &str, list: &[Value]) -> String {
    format!("{{{{- define \"{name}\" -}}}}\n{}{{{{- end }}}}\n", yaml::text(&json!(list)))
}

fn about(name: &str, description: &str) -> String {
    let about = json!({
        "apiVersion": "v2",
        "name": name,
        "type": "application",
        "description": description,
        "kubeVersion": ">=1.31.0-0",
        "version": VERSION,
        "appVersion": VERSION,
    });
    format!("# {GENERATED}\n{}", yaml::text(&about))
}

fn readme(name: &str, given: &str, more: &str) -> String {
    format!(
        "# {name}\n\n{GENERATED}\n\n```sh\nhelm upgrade --install {name} charts/{name} --namespace linkerd --create-namespace{given}\n```\n\n\
         What it installs is what `weft install` prints. The rest is in `docs/getting-started.md`, `docs/upgrade.md` and `docs/reference/values.md`.\n{more}"
    )
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
