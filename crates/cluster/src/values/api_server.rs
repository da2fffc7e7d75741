//! What the API server would refuse of metadata, rollouts, environment variables and selectors that are made from values: by then half
//! of an installation would stand.

use super::{
    Values,
    check::{Check, shown},
    layer::{self, Problem},
    variable::{Wrong, variable},
};
use crate::{
    manifest,
    object::{KEY_REMEDY, is_annotation_key, is_label, is_subdomain},
};
use k8s_openapi::{api::core::v1::SecurityContext, apimachinery::pkg::util::intstr::IntOrString};
use serde_json::Value;

/// Names of all volumes of pods but that for xtables: of proxies, and of the control plane's own.
pub(crate) const VOLUMES: [&str; 10] = [
    "config",
    "identity-issuer",
    "kube-api-access",
    "linkerd-identity-end-entity",
    "linkerd-identity-token",
    "linkerd-podinfo",
    "policy-tls",
    "sp-tls",
    "tls",
    "trust-roots",
];

impl Check {
    pub(super) fn api_server(&mut self, values: &Values) {
        if VOLUMES.contains(&&*values.proxy_init.xt_mount_path.name) {
            self.wrong("proxyInit.xtMountPath.name", "another volume of the pods has this name", "use another");
        }
        self.labels_and_annotations(values);
        self.selectors(values);
        self.rollout(values);
        self.variables(values);
        self.security_context(values);
        self.monitored_namespaces(&values.pod_monitor.controller.namespace_selector);
        for (at, reader) in values.config_readers.iter().enumerate() {
            let path = |field: &str| format!("configReaders[{at}].{field}");
            if !is_subdomain(&reader.name) {
                let message = format!("{} is no name of a ServiceAccount", shown(&reader.name));
                self.wrong(path("name"), message, "use lower-case letters, digits, '-' and '.'");
            }
            if !(reader.namespace.is_empty() || is_label(&reader.namespace)) {
                let message = format!("{} is no name of a namespace", shown(&reader.namespace));
                self.wrong(path("namespace"), message, "use lower-case letters, digits and '-'");
            }
        }
    }

    fn labels_and_annotations(&mut self, values: &Values) {
        for (path, labels) in [
            ("commonLabels", &values.common_labels),
            ("nodeSelector", &values.node_selector),
            ("podLabels", &values.pod_labels),
            ("podMonitor.labels", &values.pod_monitor.labels),
        ] {
            self.labels(path, labels);
        }
        for (path, annotations) in [
            ("podAnnotations", &values.pod_annotations),
            ("destinationController.podAnnotations", &values.destination_controller.pod_annotations),
            ("identity.podAnnotations", &values.identity.pod_annotations),
            ("proxyInjector.podAnnotations", &values.proxy_injector.pod_annotations),
        ] {
            for key in annotations.keys().filter(|key| !is_annotation_key(key)) {
                self.wrong(path, format!("{} is no valid annotation key", shown(key)), KEY_REMEDY);
            }
        }
    }

    /// What the proxy's container may do is laid over what it may anyway, and is of Kubernetes' own type.
    fn security_context(&mut self, values: &Values) {
        let path = |field: &str| format!("proxy.securityContext.{field}");
        let tree = Value::Object(values.proxy.security_context.clone().into_iter().collect());
        let context = match layer::read_as::<SecurityContext>(tree) {
            Ok(context) => context,
            Err(problems) => {
                for Problem { path: field, message, remedy } in problems {
                    self.wrong(path(&field), message, remedy);
                }
                return;
            }
        };
        let ids = [("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)];
        for (field, id) in ids.into_iter().filter_map(|(field, id)| Some((field, id?))) {
            if !(0..=i64::from(i32::MAX)).contains(&id) {
                self.wrong(
                    path(field),
                    format!("{id} is out of bounds"),
                    format!("use a number from 0 to {}", i32::MAX),
                );
            }
        }
        if context.privileged == Some(true) && context.allow_privilege_escalation != Some(true) {
            let message =
                "the proxy's container has allowPrivilegeEscalation: false, which goes with no privileged one";
            self.wrong(path("privileged"), message, "set allowPrivilegeEscalation as well, or leave it out");
        }
    }

    /// The Prometheus operator's, as a text.
    fn monitored_namespaces(&mut self, text: &str) {
        let read = manifest::one_document(&text.replace("{{ .Release.Namespace }}", "linkerd"));
        let is_selector = |value: &Value| {
            let is_list_of_names = |names: &Value| names.as_array().is_some_and(|all| all.iter().all(Value::is_string));
            value.as_object().is_some_and(|fields| {
                fields.iter().all(|(field, value)| match field.as_str() {
                    "any" => value.is_boolean(),
                    "matchNames" => is_list_of_names(value),
                    _ => false,
                })
            })
        };
        if !(text.is_empty() || read.is_ok_and(|value| is_selector(&value))) {
            let message = format!("{} selects no namespaces", shown(text));
            let remedy = "use YAML with any, which is true or false, or matchNames, a list of names";
            self.wrong("podMonitor.controller.namespaceSelector", message, remedy);
        }
    }

    fn rollout(&mut self, values: &Values) {
        let strategy = &values.deployment_strategy;
        self.one_of(
            "deploymentStrategy.type",
            strategy.type_.as_deref().unwrap_or_default(),
            &["RollingUpdate", "Recreate", ""],
        );
        let rolling = strategy.rolling_update.as_ref();
        let (surge, unavailable) =
            (rolling.and_then(|r| r.max_surge.as_ref()), rolling.and_then(|r| r.max_unavailable.as_ref()));
        let budget = Some(&values.controller.pod_disruption_budget.max_unavailable);
        let mut pods = |path: &str, amount: Option<&IntOrString>, at_most: u32| {
            let share = amount.map(share);
            let wrong = share.is_some_and(|share| match share {
                Some(Share::Percent(percent)) => percent > at_most,
                Some(Share::Pods(_)) => false,
                None => true,
            });
            if wrong {
                let message = "it is neither a number of pods nor a share of them";
                self.wrong(path, message, "use a whole number, or one with %, such as 25%");
            }
            share.flatten()
        };
        let surge = pods("deploymentStrategy.rollingUpdate.maxSurge", surge, u32::MAX);
        let unavailable = pods("deploymentStrategy.rollingUpdate.maxUnavailable", unavailable, 100);
        pods("controller.podDisruptionBudget.maxUnavailable", budget, 100);
        if surge.is_some_and(Share::is_none) && unavailable.is_some_and(Share::is_none) {
            let message = "with maxSurge of 0 as well no pod could ever be replaced";
            self.wrong("deploymentStrategy.rollingUpdate.maxUnavailable", message, "raise one of them");
        }
    }

    fn variables(&mut self, values: &Values) {
        let (destination, identity, injector) =
            (&values.destination_controller, &values.identity, &values.proxy_injector);
        for (path, variables) in [
            ("destinationController.additionalEnv", &destination.additional_env),
            ("destinationController.experimentalEnv", &destination.experimental_env),
            ("identity.additionalEnv", &identity.additional_env),
            ("identity.experimentalEnv", &identity.experimental_env),
            ("proxy.additionalEnv", &values.proxy.additional_env),
            ("proxy.experimentalEnv", &values.proxy.experimental_env),
            ("proxyInjector.additionalEnv", &injector.additional_env),
            ("proxyInjector.experimentalEnv", &injector.experimental_env),
        ] {
            for (at, one) in variables.iter().enumerate() {
                if let Err(Wrong { field, message, remedy }) = variable(one) {
                    self.wrong(format!("{path}[{at}].{field}"), message, remedy);
                }
            }
        }
    }
}

/// So many pods, of a Deployment.
#[derive(Clone, Copy)]
enum Share {
    Pods(u32),
    Percent(u32),
}

impl Share {
    fn is_none(self) -> bool {
        matches!(self, Self::Pods(0) | Self::Percent(0))
    }
}

/// `None` if it is neither.
fn share(amount: &IntOrString) -> Option<Share> {
    match amount {
        IntOrString::Int(pods) => u32::try_from(*pods).ok().map(Share::Pods),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%')?;
            let digits = !percent.is_empty() && percent.bytes().all(|b| b.is_ascii_digit());
            percent.parse().ok().filter(|_| digits).map(Share::Percent)
        }
    }
}
