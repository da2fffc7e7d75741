//! Each field of Kubernetes' types, and what is done with it: the one place where that is decided.
//!
//! Fields that Kubernetes does not know are found elsewhere ([`super::typed`]); a test compares these tables with the types.

use super::{document::Node, document::Value, path::Path};

/// The fields of one type.
pub(super) type Table = &'static [(&'static str, Field)];

#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    /// Acted on.
    Carried,
    /// An object whose own fields are in a table.
    Of(Table),
    /// A list of such objects.
    Each(Table),
    /// Accepted without effect; the note says what stands in for it.
    Ignored(&'static str),
    /// It would change what the program sees or who reaches it, and it is not carried out; with a remedy.
    Refused(&'static str),
}

use Field::{Carried, Each, Ignored, Of, Refused};

/// What the walk over a document found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Ignored { path: Path, note: &'static str },
    Refused { path: Path, remedy: &'static str },
}

const BY_CLUSTER: &str = "only a cluster sets it";
const SCHEDULING: &str = "there is one machine";
const LIMITS: &str = "programs share the machine";
const IMAGE: &str = "the container's command runs as a local program";
const ROLLOUT: &str = "new replicas replace old ones as soon as they are ready";

pub(super) const NAMESPACE: Table = &[
    ("apiVersion", Carried),
    ("kind", Carried),
    ("metadata", Of(META)),
    ("spec", Ignored(BY_CLUSTER)),
    ("status", Ignored(BY_CLUSTER)),
];

pub(super) const SERVICE_ACCOUNT: Table = &[
    ("apiVersion", Carried),
    ("kind", Carried),
    ("metadata", Of(META)),
    ("automountServiceAccountToken", Ignored("there is no Kubernetes API to call")),
    ("imagePullSecrets", Ignored(IMAGE)),
    ("secrets", Ignored("there is no Kubernetes API to call")),
];

pub(super) const DEPLOYMENT: Table = &[
    ("apiVersion", Carried),
    ("kind", Carried),
    ("metadata", Of(META)),
    ("spec", Of(DEPLOYMENT_SPEC)),
    ("status", Ignored(BY_CLUSTER)),
];

pub(super) const SERVICE: Table = &[
    ("apiVersion", Carried),
    ("kind", Carried),
    ("metadata", Of(META)),
    ("spec", Of(SERVICE_SPEC)),
    ("status", Ignored(BY_CLUSTER)),
];

const META: Table = &[
    ("name", Carried),
    ("namespace", Carried),
    ("labels", Carried),
    ("annotations", Carried),
    ("generateName", Refused("give metadata.name")),
    ("creationTimestamp", Ignored(BY_CLUSTER)),
    ("deletionGracePeriodSeconds", Ignored(BY_CLUSTER)),
    ("deletionTimestamp", Ignored(BY_CLUSTER)),
    ("finalizers", Ignored(BY_CLUSTER)),
    ("generation", Ignored(BY_CLUSTER)),
    ("managedFields", Ignored(BY_CLUSTER)),
    ("ownerReferences", Ignored(BY_CLUSTER)),
    ("resourceVersion", Ignored(BY_CLUSTER)),
    ("selfLink", Ignored(BY_CLUSTER)),
    ("uid", Ignored(BY_CLUSTER)),
];

const DEPLOYMENT_SPEC: Table = &[
    ("replicas", Carried),
    ("selector", Carried),
    ("template", Of(TEMPLATE)),
    ("minReadySeconds", Ignored(ROLLOUT)),
    ("paused", Refused("remove it: changes always apply")),
    ("progressDeadlineSeconds", Ignored(ROLLOUT)),
    ("revisionHistoryLimit", Ignored("no old revisions are kept")),
    ("strategy", Ignored(ROLLOUT)),
];

const TEMPLATE: Table = &[("metadata", Of(META)), ("spec", Of(POD_SPEC))];

const POD_SPEC: Table = &[
    ("containers", Each(CONTAINER)),
    ("serviceAccountName", Carried),
    ("serviceAccount", Carried),
    ("terminationGracePeriodSeconds", Carried),
    ("restartPolicy", Carried),
    ("dnsPolicy", Carried),
    ("activeDeadlineSeconds", Refused("remove it: a Deployment's pods have no deadline")),
    ("affinity", Ignored(SCHEDULING)),
    ("automountServiceAccountToken", Ignored("there is no Kubernetes API to call")),
    ("dnsConfig", Refused("remove it: programs use the mesh's DNS with the usual search paths")),
    ("enableServiceLinks", Ignored("use the Service's DNS name")),
    ("ephemeralContainers", Refused("remove it: one container runs per pod")),
    ("hostAliases", Refused("remove it, and use a Service's DNS name or --host-service")),
    ("hostIPC", Refused("remove it: each program has namespaces of its own")),
    ("hostNetwork", Refused("remove it; --publish opens a port on the host")),
    ("hostPID", Refused("remove it: each program has namespaces of its own")),
    ("hostUsers", Ignored("each program has a user namespace of its own")),
    ("hostname", Refused("remove it: the pod's name is its host name")),
    ("imagePullSecrets", Ignored(IMAGE)),
    ("initContainers", Refused("remove it, and do its work at the start of the command")),
    ("nodeName", Ignored(SCHEDULING)),
    ("nodeSelector", Ignored(SCHEDULING)),
    ("os", Ignored(SCHEDULING)),
    ("overhead", Ignored(LIMITS)),
    ("preemptionPolicy", Ignored(SCHEDULING)),
    ("priority", Ignored(SCHEDULING)),
    ("priorityClassName", Ignored(SCHEDULING)),
    ("readinessGates", Refused("remove it: readiness is the readinessProbe alone")),
    ("resourceClaims", Refused("remove it: there are no devices to claim")),
    ("resources", Ignored(LIMITS)),
    ("runtimeClassName", Ignored(IMAGE)),
    ("schedulerName", Ignored(SCHEDULING)),
    ("schedulingGates", Ignored(SCHEDULING)),
    ("securityContext", Ignored("every program runs unprivileged")),
    ("setHostnameAsFQDN", Refused("remove it: the pod's name is its host name")),
    ("shareProcessNamespace", Refused("remove it: one container runs per pod")),
    ("subdomain", Refused("remove it: pods have no DNS names of their own yet")),
    ("tolerations", Ignored(SCHEDULING)),
    ("topologySpreadConstraints", Ignored(SCHEDULING)),
    ("volumes", Refused("remove it: programs see the host's files, without the home of the mesh")),
];

const CONTAINER: Table = &[
    ("name", Carried),
    ("command", Carried),
    ("args", Carried),
    ("env", Each(ENV)),
    ("workingDir", Carried),
    ("ports", Each(CONTAINER_PORT)),
    ("readinessProbe", Of(PROBE)),
    ("envFrom", Refused("give each variable in env")),
    ("image", Ignored(IMAGE)),
    ("imagePullPolicy", Ignored(IMAGE)),
    ("lifecycle", Ignored("no hooks run; the program gets SIGTERM")),
    ("livenessProbe", Ignored("it is let in, and nobody asks by it: a program is started again when it ends")),
    ("resizePolicy", Ignored(LIMITS)),
    ("resources", Ignored(LIMITS)),
    ("restartPolicy", Refused("remove it: programs are always started again")),
    ("securityContext", Ignored("every program runs unprivileged")),
    ("startupProbe", Ignored("it is let in, and nobody asks by it: the readinessProbe says when traffic may come")),
    ("stdin", Refused("remove it: programs have no standard input")),
    ("stdinOnce", Refused("remove it: programs have no standard input")),
    ("terminationMessagePath", Ignored("see weft logs")),
    ("terminationMessagePolicy", Ignored("see weft logs")),
    ("tty", Refused("remove it: programs have no terminal")),
    ("volumeDevices", Refused("remove it: there are no block devices")),
    ("volumeMounts", Refused("remove it: programs see the host's files, without the home of the mesh")),
];

const ENV: Table = &[("name", Carried), ("value", Carried), ("valueFrom", Refused("give value"))];

const CONTAINER_PORT: Table = &[
    ("name", Carried),
    ("containerPort", Carried),
    ("protocol", Carried),
    ("hostIP", Refused("remove it; --publish opens a port on the host")),
    ("hostPort", Refused("remove it; --publish opens a port on the host")),
];

const PROBE: Table = &[
    ("exec", Of(&[("command", Carried)])),
    ("grpc", Of(&[("port", Carried), ("service", Carried)])),
    ("httpGet", Of(HTTP_GET)),
    ("tcpSocket", Of(&[("host", Carried), ("port", Carried)])),
    ("initialDelaySeconds", Carried),
    ("periodSeconds", Carried),
    ("timeoutSeconds", Carried),
    ("successThreshold", Carried),
    ("failureThreshold", Carried),
    ("terminationGracePeriodSeconds", Ignored("it is for probes that restart")),
];

const HTTP_GET: Table =
    &[("host", Carried), ("httpHeaders", Carried), ("path", Carried), ("port", Carried), ("scheme", Carried)];

const SERVICE_SPEC: Table = &[
    ("clusterIP", Carried),
    ("clusterIPs", Carried),
    ("ipFamilies", Carried),
    ("ipFamilyPolicy", Carried),
    ("ports", Each(SERVICE_PORT)),
    ("publishNotReadyAddresses", Carried),
    ("selector", Carried),
    ("type", Carried),
    ("allocateLoadBalancerNodePorts", Ignored(SCHEDULING)),
    ("externalIPs", Refused("remove it; --publish opens a port on the host")),
    ("externalName", Refused("remove it; for a server outside the mesh use its name, or --host-service")),
    ("externalTrafficPolicy", Ignored(SCHEDULING)),
    ("healthCheckNodePort", Ignored(SCHEDULING)),
    ("internalTrafficPolicy", Ignored(SCHEDULING)),
    ("loadBalancerClass", Ignored(SCHEDULING)),
    ("loadBalancerIP", Refused("remove it; --publish opens a port on the host")),
    ("loadBalancerSourceRanges", Refused("remove it; --publish opens a port on the host")),
    ("sessionAffinity", Carried),
    ("sessionAffinityConfig", Ignored("each request is balanced by itself")),
    ("trafficDistribution", Ignored(SCHEDULING)),
];

const SERVICE_PORT: Table = &[
    ("appProtocol", Carried),
    ("name", Carried),
    ("nodePort", Refused("remove it; --publish opens a port on the host")),
    ("port", Carried),
    ("protocol", Carried),
    ("targetPort", Carried),
];

const fn policy(spec: Table) -> [(&'static str, Field); 5] {
    [
        ("apiVersion", Carried),
        ("kind", Carried),
        ("metadata", Of(META)),
        ("spec", Of(spec)),
        ("status", Ignored(BY_CLUSTER)),
    ]
}

pub(super) const SERVER: Table = &policy(SERVER_SPEC);
pub(super) const SERVER_AUTHORIZATION: Table = &policy(SERVER_AUTHORIZATION_SPEC);
pub(super) const AUTHORIZATION_POLICY: Table = &policy(AUTHORIZATION_POLICY_SPEC);
pub(super) const MESH_TLS_AUTHENTICATION: Table = &policy(MESH_TLS_AUTHENTICATION_SPEC);
pub(super) const NETWORK_AUTHENTICATION: Table = &policy(NETWORK_AUTHENTICATION_SPEC);
pub(super) const EGRESS_NETWORK: Table = &policy(EGRESS_NETWORK_SPEC);
pub(super) const SERVICE_PROFILE: Table = &policy(SERVICE_PROFILE_SPEC);

const SERVER_SPEC: Table = &[
    ("podSelector", Carried),
    ("port", Carried),
    ("proxyProtocol", Carried),
    ("accessPolicy", Carried),
    // Refused by the rules of manifests: there is nothing that it could select.
    ("externalWorkloadSelector", Carried),
];

const SERVER_AUTHORIZATION_SPEC: Table = &[("server", Of(SERVER_REF)), ("client", Of(CLIENT))];
const SERVER_REF: Table = &[("name", Carried), ("selector", Carried)];
const CLIENT: Table = &[("networks", Each(NETWORK)), ("unauthenticated", Carried), ("meshTLS", Of(MESH_TLS))];
const MESH_TLS: Table = &[("unauthenticatedTLS", Carried), ("identities", Carried), ("serviceAccounts", Each(ACCOUNT))];
const ACCOUNT: Table = &[("name", Carried), ("namespace", Carried)];
const NETWORK: Table = &[("cidr", Carried), ("except", Carried)];

const AUTHORIZATION_POLICY_SPEC: Table =
    &[("targetRef", Of(REFERENCE)), ("requiredAuthenticationRefs", Each(REFERENCE))];
const MESH_TLS_AUTHENTICATION_SPEC: Table = &[("identities", Carried), ("identityRefs", Each(REFERENCE))];
const NETWORK_AUTHENTICATION_SPEC: Table = &[("networks", Each(NETWORK))];

pub(super) const RATE_LIMIT: Table = &policy(RATE_LIMIT_SPEC);

const RATE_LIMIT_SPEC: Table =
    &[("targetRef", Of(REFERENCE)), ("total", Of(RATE)), ("identity", Of(RATE)), ("overrides", Each(OVERRIDE))];
const RATE: Table = &[("requestsPerSecond", Carried)];
const OVERRIDE: Table = &[("requestsPerSecond", Carried), ("clientRefs", Each(REFERENCE))];

pub(super) const HTTP_ROUTE: Table = &policy(HTTP_ROUTE_SPEC);
pub(super) const GRPC_ROUTE: Table = &policy(GRPC_ROUTE_SPEC);
pub(super) const TLS_ROUTE: Table = &policy(TLS_ROUTE_SPEC);
pub(super) const TCP_ROUTE: Table = &policy(TCP_ROUTE_SPEC);

// What of a rule is not carried out is refused, or told, by the route's own rules, as on Kubernetes.
const HTTP_ROUTE_SPEC: Table = &[
    ("parentRefs", Each(PARENT)),
    ("useDefaultGateways", Ignored(GATEWAYS)),
    ("hostnames", Carried),
    ("rules", Each(HTTP_RULE)),
];
const GRPC_ROUTE_SPEC: Table = &[
    ("parentRefs", Each(PARENT)),
    ("useDefaultGateways", Ignored(GATEWAYS)),
    ("hostnames", Carried),
    ("rules", Each(GRPC_RULE)),
];
const TLS_ROUTE_SPEC: Table = &[
    ("parentRefs", Each(PARENT)),
    ("useDefaultGateways", Ignored(GATEWAYS)),
    ("hostnames", Carried),
    ("rules", Each(CONNECTION_RULE)),
];
const TCP_ROUTE_SPEC: Table =
    &[("parentRefs", Each(PARENT)), ("useDefaultGateways", Ignored(GATEWAYS)), ("rules", Each(CONNECTION_RULE))];
const GATEWAYS: &str = "there are no Gateways";
const PARENT: Table = &[
    ("group", Carried),
    ("kind", Carried),
    ("name", Carried),
    ("namespace", Carried),
    ("port", Carried),
    ("sectionName", Carried),
];
const HTTP_RULE: Table = &[
    ("name", Carried),
    ("matches", Carried),
    ("filters", Carried),
    ("backendRefs", Carried),
    ("timeouts", Carried),
    ("retry", Carried),
    ("sessionPersistence", Carried),
];
const GRPC_RULE: Table = &[
    ("name", Carried),
    ("matches", Carried),
    ("filters", Carried),
    ("backendRefs", Carried),
    ("sessionPersistence", Carried),
];
const CONNECTION_RULE: Table = &[("name", Carried), ("backendRefs", Carried)];
const EGRESS_NETWORK_SPEC: Table = &[("trafficPolicy", Carried), ("networks", Each(NETWORK))];

const SERVICE_PROFILE_SPEC: Table = &[
    ("routes", Each(PROFILE_ROUTE)),
    ("retryBudget", Of(RETRY_BUDGET)),
    ("dstOverrides", Each(&[("authority", Carried), ("weight", Carried)])),
    ("opaquePorts", Ignored("give the Service the annotation config.linkerd.io/opaque-ports")),
];
const PROFILE_ROUTE: Table = &[
    ("name", Carried),
    // Conditions stand in conditions: all that there is of them is acted on.
    ("condition", Carried),
    ("responseClasses", Carried),
    ("isRetryable", Carried),
    ("timeout", Carried),
];
const RETRY_BUDGET: Table = &[("retryRatio", Carried), ("minRetriesPerSecond", Carried), ("ttl", Carried)];
const REFERENCE: Table = &[("group", Carried), ("kind", Carried), ("name", Carried), ("namespace", Carried)];

/// Compares a document with a table.
pub(super) fn walk(node: &Node, table: Table, at: &Path, found: &mut Vec<Finding>) {
    let Value::Map(entries) = &node.value else { return };
    for (key, _, value) in entries {
        let Some((_, field)) = table.iter().find(|(name, _)| name == key) else { continue };
        let path = at.key(key);
        match field {
            Carried => {}
            Of(inner) => walk(value, inner, &path, found),
            Each(inner) => {
                if let Value::List(items) = &value.value {
                    items.iter().enumerate().for_each(|(i, item)| walk(item, inner, &path.index(i), found));
                }
            }
            Ignored(note) if !value.is_absent() => found.push(Finding::Ignored { path, note }),
            Refused(remedy) if !value.is_absent() => found.push(Finding::Refused { path, remedy }),
            Ignored(_) | Refused(_) => {}
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{policy, service_profile};
    use k8s_openapi::{
        api::{apps::v1 as apps, core::v1 as core},
        apimachinery::pkg::apis::meta::v1::ObjectMeta,
    };
    use serde::de::{Deserialize, Deserializer, Error, Visitor};

    /// Learns the fields of a type from what it asks of a deserializer.
    struct FieldsOf<'a>(&'a mut Vec<&'static str>);

    impl<'de> Deserializer<'de> for FieldsOf<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Error::custom("only structs"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            self.0.extend(fields);
            Err(Error::custom("done"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    pub(in super::super) fn fields_of<'de, T: Deserialize<'de>>() -> Vec<&'static str> {
        let mut fields = vec![];
        let _ = T::deserialize(FieldsOf(&mut fields));
        assert!(!fields.is_empty());
        fields
    }

    fn compare<'de, T: Deserialize<'de>>(table: Table) {
        let fields = fields_of::<T>();
        let undecided: Vec<_> = fields.iter().filter(|f| !table.iter().any(|(name, _)| name == *f)).collect();
        assert!(undecided.is_empty(), "{}: undecided {undecided:?}", std::any::type_name::<T>());
        let invented: Vec<_> = table.iter().filter(|(name, _)| !fields.contains(name)).map(|(n, _)| n).collect();
        assert!(invented.is_empty(), "{}: no such field {invented:?}", std::any::type_name::<T>());
    }

    #[test]
    fn every_field_is_decided() {
        compare::<core::Namespace>(NAMESPACE);
        compare::<core::ServiceAccount>(SERVICE_ACCOUNT);
        compare::<apps::Deployment>(DEPLOYMENT);
        compare::<core::Service>(SERVICE);
        compare::<ObjectMeta>(META);
        compare::<apps::DeploymentSpec>(DEPLOYMENT_SPEC);
        compare::<core::PodTemplateSpec>(TEMPLATE);
        compare::<core::PodSpec>(POD_SPEC);
        compare::<core::Container>(CONTAINER);
        compare::<core::EnvVar>(ENV);
        compare::<core::ContainerPort>(CONTAINER_PORT);
        compare::<core::Probe>(PROBE);
        compare::<core::HTTPGetAction>(HTTP_GET);
        compare::<core::ServiceSpec>(SERVICE_SPEC);
        compare::<core::ServicePort>(SERVICE_PORT);
        compare::<policy::Server>(SERVER);
        compare::<policy::ServerSpec>(SERVER_SPEC);
        compare::<policy::HttpLocalRateLimitPolicy>(RATE_LIMIT);
        compare::<policy::RateLimitSpec>(RATE_LIMIT_SPEC);
        compare::<policy::RateSpec>(RATE);
        compare::<policy::OverrideSpec>(OVERRIDE);
        compare::<policy::HttpRoute>(HTTP_ROUTE);
        compare::<policy::HttpRouteSpec>(HTTP_ROUTE_SPEC);
        compare::<policy::HttpRuleSpec>(HTTP_RULE);
        compare::<policy::GrpcRoute>(GRPC_ROUTE);
        compare::<policy::GrpcRouteSpec>(GRPC_ROUTE_SPEC);
        compare::<policy::GrpcRuleSpec>(GRPC_RULE);
        compare::<policy::TlsRoute>(TLS_ROUTE);
        compare::<policy::TlsRouteSpec>(TLS_ROUTE_SPEC);
        compare::<policy::TcpRoute>(TCP_ROUTE);
        compare::<policy::TcpRouteSpec>(TCP_ROUTE_SPEC);
        compare::<policy::ConnectionRuleSpec>(CONNECTION_RULE);
        compare::<policy::ParentSpec>(PARENT);
        compare::<policy::ServerAuthorization>(SERVER_AUTHORIZATION);
        compare::<policy::ServerAuthorizationSpec>(SERVER_AUTHORIZATION_SPEC);
        compare::<policy::ServerRefSpec>(SERVER_REF);
        compare::<policy::ClientSpec>(CLIENT);
        compare::<policy::MeshTlsSpec>(MESH_TLS);
        compare::<policy::AccountSpec>(ACCOUNT);
        compare::<policy::NetworkSpec>(NETWORK);
        compare::<policy::AuthorizationPolicy>(AUTHORIZATION_POLICY);
        compare::<policy::AuthorizationPolicySpec>(AUTHORIZATION_POLICY_SPEC);
        compare::<policy::MeshTlsAuthentication>(MESH_TLS_AUTHENTICATION);
        compare::<policy::MeshTlsAuthenticationSpec>(MESH_TLS_AUTHENTICATION_SPEC);
        compare::<policy::NetworkAuthentication>(NETWORK_AUTHENTICATION);
        compare::<policy::NetworkAuthenticationSpec>(NETWORK_AUTHENTICATION_SPEC);
        compare::<policy::ReferenceSpec>(REFERENCE);
        compare::<policy::EgressNetwork>(EGRESS_NETWORK);
        compare::<policy::EgressNetworkSpec>(EGRESS_NETWORK_SPEC);
        compare::<policy::ServiceProfile>(SERVICE_PROFILE);
        compare::<service_profile::ServiceProfileSpec>(SERVICE_PROFILE_SPEC);
        compare::<service_profile::RouteSpec>(PROFILE_ROUTE);
        compare::<service_profile::RetryBudgetSpec>(RETRY_BUDGET);
    }
}
