//! `weft control-plane`: a process of the control plane in a pod.

use crate::args::{ControlPlane, ControlPlaneMode, LogFormat};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode};
use weft_control::kubernetes::{self, Common, Destination, Identity, Mode, ProxyInjector, Validator};
use weft_telemetry::Format;

pub(crate) async fn run(process: ControlPlane) -> anyhow::Result<ExitCode> {
    let format = match process.log_format {
        LogFormat::Plain => Format::Plain,
        LogFormat::Json => Format::Json,
    };
    weft_telemetry::logs::init(&process.log_level, format)?;
    let (admin, mode) = mode(process.mode);
    let common = Common {
        admin,
        control_namespace: process.control_namespace,
        trust_domain: process.trust_domain,
        cluster_domain: process.cluster_domain,
        kubeconfig: process.kubeconfig,
        instance: process.instance,
    };
    kubernetes::run(common, mode, super::asked_to_end()).await?;
    Ok(ExitCode::SUCCESS)
}

fn mode(mode: ControlPlaneMode) -> (SocketAddr, Mode) {
    match mode {
        ControlPlaneMode::Destination {
            destination_addr,
            policy_addr,
            admin_addr,
            default_inbound_policy,
            default_opaque_ports,
            cluster_networks,
            probe_networks,
            enable_h2_upgrade,
            enable_ipv6,
            ext_endpoint_zone_weights,
            allow_l5d_request_headers,
            profile_validator_addr,
            profile_validator_tls,
            policy_validator_addr,
            policy_validator_tls,
        } => {
            let destination = Destination {
                destination: destination_addr,
                policy: policy_addr,
                default_policy: default_inbound_policy,
                opaque_ports: default_opaque_ports.numbers(),
                cluster_networks,
                probe_networks,
                h2_upgrade: enable_h2_upgrade,
                ipv6: enable_ipv6,
                zone_weights: ext_endpoint_zone_weights,
                request_headers: allow_l5d_request_headers,
                profile_validator: validator(profile_validator_addr, profile_validator_tls),
                policy_validator: validator(policy_validator_addr, policy_validator_tls),
            };
            (admin_addr, Mode::Destination(destination))
        }
        ControlPlaneMode::Identity {
            addr,
            admin_addr,
            issuer,
            trust_roots,
            issuance_lifetime,
            clock_skew_allowance,
        } => {
            let identity = Identity { addr, issuer, trust_roots, issuance_lifetime, clock_skew_allowance };
            (admin_addr, Mode::Identity(identity))
        }
        ControlPlaneMode::ProxyInjector { addr, admin_addr, tls, values, trust_roots } => {
            (admin_addr, Mode::ProxyInjector(ProxyInjector { addr, tls, values, trust_roots }))
        }
    }
}

fn validator(addr: Option<SocketAddr>, tls: Option<PathBuf>) -> Option<Validator> {
    Some(Validator { addr: addr?, tls: tls? })
}
