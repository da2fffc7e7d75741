//! The containers and volumes that the mesh adds to a pod, with Linkerd's names and fields.

use super::environment::{self, IDENTITY_DIR, PODINFO_DIR, TOKEN, TOKEN_DIR};
use crate::values::{Amounts, DebugContainer, Image, NOBODY, ProbeTimes, Resources, Values};
use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource,
        ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler, ObjectFieldSelector, Probe, ProjectedVolumeSource,
        ResourceRequirements, SeccompProfile, SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount,
        VolumeProjection,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What a proxy's token is good for.
const AUDIENCE: &str = "identity.l5d.io";
const TOKEN_SECONDS: i64 = 86_400;
/// Where the proxy's image has its programs.
const PROGRAMS: &str = "/usr/lib/linkerd";
const END_ENTITY: &str = "linkerd-identity-end-entity";
const PODINFO: &str = "linkerd-podinfo";
/// The volumes that are taken away with the proxy, also where nothing mounts them.
pub(super) const VOLUMES: [&str; 3] = [END_ENTITY, TOKEN, "linkerd-proxy-init-xtables-lock"];

/// A proxy and its surroundings in one pod.
#[derive(Clone, Copy)]
pub(crate) struct Sidecar<'a> {
    /// With what annotations change.
    pub(crate) values: &'a Values,
    pub(crate) control_namespace: &'a str,
    /// The ServiceAccount of the part of the control plane that the pod is.
    pub(crate) component: Option<&'a str>,
    pub(crate) anchors: Anchors<'a>,
    /// Ports that the pod serves, as the proxy reads them.
    pub(crate) inbound_ports: &'a str,
    pub(crate) opaque_ports: &'a str,
    pub(crate) trace_attributes: &'a BTreeMap<String, String>,
    /// Whether the pod runs to an end.
    pub(crate) ends: bool,
    /// What the first container may: a pod that passes a cluster's rules without the proxy passes them with it.
    pub(crate) capabilities: Option<&'a Capabilities>,
    /// How the first container has its ServiceAccount's token.
    pub(crate) token_mount: Option<&'a VolumeMount>,
}

/// Where the trust anchors come from.
#[derive(Clone, Copy)]
pub(crate) enum Anchors<'a> {
    /// PEM.
    Text(&'a str),
    /// The ConfigMap in the pod's own namespace, the control plane's.
    ConfigMap,
}

impl Sidecar<'_> {
    /// The address of a service of the control plane; in the pod that serves it, its own.
    pub(super) fn service(&self, name: &str, port: u16, local: bool) -> String {
        if local {
            format!("localhost.:{port}")
        } else {
            format!("{name}.{}.svc.{}.:{port}", self.control_namespace, self.values.cluster_domain)
        }
    }

    pub(crate) fn proxy(&self) -> Value {
        let proxy = &self.values.proxy;
        let admin = proxy.ports.admin;
        let port = |port: u16, name: &str| ContainerPort {
            container_port: port.into(),
            name: Some(name.to_owned()),
            ..ContainerPort::default()
        };
        let mut volume_mounts = vec![mount(IDENTITY_DIR, END_ENTITY), mount(TOKEN_DIR, TOKEN)];
        if proxy.tracing.enabled {
            volume_mounts.push(mount(PODINFO_DIR, PODINFO));
        }
        volume_mounts.extend(self.token_mount.cloned());
        let started = proxy.native_sidecar && proxy.await_ready;
        let container = Container {
            name: super::PROXY.to_owned(),
            image: Some(self.image(&proxy.image)),
            image_pull_policy: Some(self.pull_policy(&proxy.image)),
            env: Some(environment::variables(self)),
            ports: Some(vec![port(proxy.ports.inbound, "linkerd-proxy"), port(admin, "linkerd-admin")]),
            liveness_probe: Some(probe("/live", admin, &proxy.liveness_probe)),
            readiness_probe: Some(self.readiness()),
            startup_probe: started.then(|| Probe {
                http_get: Some(get("/ready", admin)),
                initial_delay_seconds: Some(proxy.startup_probe.initial_delay_seconds),
                period_seconds: Some(proxy.startup_probe.period_seconds),
                failure_threshold: Some(proxy.startup_probe.failure_threshold),
                ..Probe::default()
            }),
            lifecycle: self.lifecycle(),
            resources: requirements(&proxy.resources),
            restart_policy: proxy.native_sidecar.then(|| "Always".to_owned()),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                capabilities: self.capabilities.cloned(),
                read_only_root_filesystem: Some(true),
                run_as_non_root: Some(true),
                run_as_user: Some(proxy.uid),
                run_as_group: (proxy.gid >= 0).then_some(proxy.gid),
                seccomp_profile: runtime_default(),
                ..SecurityContext::default()
            }),
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            volume_mounts: Some(volume_mounts),
            ..Container::default()
        };
        let mut container = value(&container);
        if let Some(context) = container.get_mut("securityContext").and_then(Value::as_object_mut) {
            context.extend(proxy.security_context.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        container
    }

    /// A proxy of the control plane, which all others wait for, is asked often, and given up as late as those.
    fn readiness(&self) -> Probe {
        let proxy = &self.values.proxy;
        let often = self.component.is_some();
        Probe {
            period_seconds: often.then_some(1),
            failure_threshold: often.then_some(30),
            ..probe("/ready", proxy.ports.admin, &proxy.readiness_probe)
        }
    }

    /// Of a proxy that is no native sidecar: the containers behind it start when it is ready.
    fn lifecycle(&self) -> Option<Lifecycle> {
        let proxy = &self.values.proxy;
        let exec = |command: Vec<String>| LifecycleHandler {
            exec: Some(ExecAction { command: Some(command) }),
            ..LifecycleHandler::default()
        };
        let post_start = proxy.await_ready.then(|| {
            let port = format!("--port={}", proxy.ports.admin);
            exec(vec![format!("{PROGRAMS}/linkerd-await"), "--timeout=2m".to_owned(), port])
        });
        let seconds = proxy.wait_before_exit_seconds;
        let pre_stop = (seconds > 0).then(|| exec(vec!["/bin/sleep".to_owned(), seconds.to_string()]));
        let any = !proxy.native_sidecar && (post_start.is_some() || pre_stop.is_some());
        any.then(|| Lifecycle { post_start, pre_stop, ..Lifecycle::default() })
    }

    /// The container that makes the redirection. `skip_outbound` stands in for the ports of the values.
    pub(crate) fn init(&self, skip_outbound: Option<&str>) -> Value {
        let Values { proxy, proxy_init: init, .. } = self.values;
        let mut args: Vec<String> = vec![];
        // Without a word linkerd-init uses the legacy one.
        if &*init.iptables_mode == "nft" {
            let programs = ["--firewall-bin-path", "iptables-nft", "--firewall-save-bin-path", "iptables-nft-save"];
            args.extend(programs.map(str::to_owned));
        }
        if self.values.disable_ipv6 {
            args.push("--ipv6=false".to_owned());
        }
        let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
        option("--incoming-proxy-port", proxy.ports.inbound.to_string());
        option("--outgoing-proxy-port", proxy.ports.outbound.to_string());
        option("--proxy-uid", proxy.uid.to_string());
        if proxy.gid >= 0 {
            option("--proxy-gid", proxy.gid.to_string());
        }
        let skip_inbound: Vec<String> = [proxy.ports.control.to_string(), proxy.ports.admin.to_string()]
            .into_iter()
            .chain((!init.ignore_inbound_ports.is_empty()).then(|| init.ignore_inbound_ports.to_string()))
            .collect();
        option("--inbound-ports-to-ignore", skip_inbound.join(","));
        let skip_outbound = skip_outbound.unwrap_or(&init.ignore_outbound_ports);
        if !skip_outbound.is_empty() {
            option("--outbound-ports-to-ignore", skip_outbound.to_owned());
        }
        if init.close_wait_timeout_secs > 0 {
            option("--timeout-close-wait-secs", init.close_wait_timeout_secs.to_string());
        }
        for (name, given) in [
            ("--log-format", &init.log_format),
            ("--log-level", &init.log_level),
            ("--subnets-to-ignore", &init.skip_subnets),
        ] {
            if !given.is_empty() {
                option(name, given.to_string());
            }
        }
        let lock = mount(&init.xt_mount_path.mount_path, &init.xt_mount_path.name);
        value(&Container {
            name: super::INIT.to_owned(),
            image: Some(self.image(&proxy.image)),
            image_pull_policy: Some(self.pull_policy(&proxy.image)),
            command: Some(vec![format!("{PROGRAMS}/linkerd2-proxy-init")]),
            args: Some(args),
            resources: requirements(&proxy.resources),
            security_context: Some(self.init_rights()),
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            volume_mounts: Some(std::iter::once(lock).chain(self.token_mount.cloned()).collect()),
            ..Container::default()
        })
    }

    fn init_rights(&self) -> SecurityContext {
        const NEEDED: [&str; 2] = ["NET_ADMIN", "NET_RAW"];
        let init = &self.values.proxy_init;
        let of_app = |list: fn(&Capabilities) -> &Option<Vec<String>>| {
            let names = self.capabilities.and_then(|c| list(c).as_ref()).into_iter().flatten();
            names.filter(|name| !NEEDED.contains(&name.as_str())).cloned().collect::<Vec<_>>()
        };
        let dropped = of_app(|c| &c.drop);
        SecurityContext {
            allow_privilege_escalation: Some(init.run_as_root || init.privileged),
            capabilities: Some(Capabilities {
                add: Some(NEEDED.iter().map(|n| (*n).to_owned()).chain(of_app(|c| &c.add)).collect()),
                drop: (!dropped.is_empty()).then_some(dropped),
            }),
            privileged: Some(init.privileged),
            read_only_root_filesystem: Some(true),
            run_as_group: Some(if init.run_as_root { 0 } else { not_root(init.run_as_group) }),
            run_as_non_root: Some(!init.run_as_root),
            run_as_user: Some(if init.run_as_root { 0 } else { not_root(init.run_as_user) }),
            seccomp_profile: runtime_default(),
            ..SecurityContext::default()
        }
    }

    pub(crate) fn debug(&self) -> Value {
        let DebugContainer { image } = &self.values.debug_container;
        let touch = || Probe {
            exec: Some(ExecAction { command: Some(vec!["touch".to_owned(), "/tmp/healthy".to_owned()]) }),
            ..Probe::default()
        };
        value(&Container {
            name: super::DEBUG.to_owned(),
            image: Some(self.image(image)),
            image_pull_policy: Some(self.pull_policy(image)),
            liveness_probe: Some(touch()),
            readiness_probe: Some(touch()),
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            ..Container::default()
        })
    }

    /// The volumes of the containers, in Linkerd's order.
    pub(crate) fn volumes(&self) -> Vec<Value> {
        let empty = |name: &str, medium: Option<&str>| Volume {
            name: name.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource { medium: medium.map(str::to_owned), size_limit: None }),
            ..Volume::default()
        };
        let token = ServiceAccountTokenProjection {
            audience: Some(AUDIENCE.to_owned()),
            expiration_seconds: Some(TOKEN_SECONDS),
            path: TOKEN.to_owned(),
        };
        let source = VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() };
        let mut volumes = vec![
            empty(&self.values.proxy_init.xt_mount_path.name, None),
            empty(END_ENTITY, Some("Memory")),
            Volume {
                name: TOKEN.to_owned(),
                projected: Some(ProjectedVolumeSource { default_mode: None, sources: Some(vec![source]) }),
                ..Volume::default()
            },
        ];
        if self.values.proxy.tracing.enabled {
            let labels = DownwardAPIVolumeFile {
                field_ref: Some(ObjectFieldSelector { api_version: None, field_path: "metadata.labels".to_owned() }),
                path: "labels".to_owned(),
                ..DownwardAPIVolumeFile::default()
            };
            volumes.push(Volume {
                name: PODINFO.to_owned(),
                downward_api: Some(DownwardAPIVolumeSource { default_mode: None, items: Some(vec![labels]) }),
                ..Volume::default()
            });
        }
        volumes.iter().map(value).collect()
    }

    fn image(&self, image: &Image) -> String {
        format!("{}:{}", image.name, image.version.or(&self.values.linkerd_version))
    }

    fn pull_policy(&self, image: &Image) -> String {
        image.pull_policy.or(&self.values.image_pull_policy).to_owned()
    }
}

/// `None` if nothing is asked for.
pub(crate) fn requirements(resources: &Resources) -> Option<ResourceRequirements> {
    let Resources { cpu, ephemeral_storage, memory } = resources;
    let amounts = [("cpu", cpu), ("ephemeral-storage", ephemeral_storage), ("memory", memory)];
    let list = |which: fn(&Amounts) -> &str| {
        let given = amounts.iter().filter(|(_, a)| !which(a).is_empty());
        let map: BTreeMap<String, Quantity> =
            given.map(|(name, a)| ((*name).to_owned(), Quantity(which(a).to_owned()))).collect();
        (!map.is_empty()).then_some(map)
    };
    let (limits, requests) = (list(|a| &*a.limit), list(|a| &*a.request));
    let any = limits.is_some() || requests.is_some();
    any.then_some(ResourceRequirements { limits, requests, claims: None })
}

/// Linkerd's word for nobody is 0.
fn not_root(id: i64) -> i64 {
    if id == 0 { NOBODY } else { id }
}

pub(crate) fn runtime_default() -> Option<SeccompProfile> {
    Some(SeccompProfile { localhost_profile: None, type_: "RuntimeDefault".to_owned() })
}

pub(crate) fn mount(path: &str, name: &str) -> VolumeMount {
    VolumeMount { mount_path: path.to_owned(), name: name.to_owned(), ..VolumeMount::default() }
}

fn probe(path: &str, port: u16, times: &ProbeTimes) -> Probe {
    Probe {
        http_get: Some(get(path, port)),
        initial_delay_seconds: Some(times.initial_delay_seconds),
        timeout_seconds: Some(times.timeout_seconds),
        ..Probe::default()
    }
}

fn get(path: &str, port: u16) -> HTTPGetAction {
    HTTPGetAction { path: Some(path.to_owned()), port: IntOrString::Int(port.into()), ..HTTPGetAction::default() }
}

/// The object that Kubernetes reads.
pub(crate) fn value<T: serde::Serialize>(part: &T) -> Value {
    serde_json::to_value(part).unwrap_or_else(|_| json!(Map::new()))
}
