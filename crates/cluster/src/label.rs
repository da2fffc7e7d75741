//! Labels of the mesh on objects of the cluster.

/// The namespace of the control plane that a meshed pod, or an object of the control plane, belongs to.
pub const CONTROL_NAMESPACE: &str = "linkerd.io/control-plane-ns";
/// Which part of the control plane an object belongs to.
pub const COMPONENT: &str = "linkerd.io/control-plane-component";
/// The namespace of a meshed pod.
pub const WORKLOAD_NAMESPACE: &str = "linkerd.io/workload-ns";
/// Before the kind of the workload that a meshed pod belongs to; the value is its name.
pub const PROXY_PREFIX: &str = "linkerd.io/proxy-";
/// On the control plane's namespace.
pub const IS_CONTROL_PLANE: &str = "linkerd.io/is-control-plane";
/// On objects of the CNI plugin.
pub const CNI_RESOURCE: &str = "linkerd.io/cni-resource";
/// `disabled` on a namespace keeps the mesh's webhooks away.
pub const ADMISSION_WEBHOOKS: &str = "config.linkerd.io/admission-webhooks";
