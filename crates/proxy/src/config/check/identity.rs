//! The variables that say who this workload is and who certifies it.

use super::reader::{Reader, dns_name};
use crate::config::{IdentityConfig, IdentityService, IdentitySource, WorkloadApi, value};
use std::path::PathBuf;
use weft_model::{DnsName, Identity};
use weft_transport::tls::{self, KeyExchange};

impl Reader {
    pub(super) fn identity(&self) -> Option<IdentityConfig> {
        if self.optional("LINKERD2_PROXY_IDENTITY_DISABLED", |_| Ok(())).is_some() {
            self.problem("LINKERD2_PROXY_IDENTITY_DISABLED", "a proxy cannot run without an identity: remove this");
        }
        let trust_anchors = self.required("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", |text| {
            tls::check_anchors(text)
                .map_err(|error| format!("{error}: give the certificates themselves as PEM, not a path"))?;
            Ok(text.to_owned())
        });
        let api = self.workload_api();
        let names = self.local_names(api.is_some());
        let source = match api {
            Some(api) => Some(IdentitySource::Workload(api)),
            None => self.identity_service().map(IdentitySource::Service),
        };
        let expiry_grace = self.or_default("WEFT_PROXY_IDENTITY_EXPIRY_GRACE", value::duration);
        let key_exchange = match self.or_default("WEFT_PROXY_TLS_POST_QUANTUM", value::bool) {
            true => KeyExchange::PostQuantum,
            false => KeyExchange::Classical,
        };
        let (id, server_name) = names?;
        let (trust_anchors, source) = (trust_anchors?, source?);
        Some(IdentityConfig { trust_anchors, id, server_name, source, expiry_grace, key_exchange })
    }

    fn workload_api(&self) -> Option<WorkloadApi> {
        let path = |text: &str| {
            let path = text.strip_prefix("unix:").map_or(text, |rest| rest.strip_prefix("//").unwrap_or(rest));
            if path.starts_with('/') {
                Ok(PathBuf::from(path))
            } else {
                Err(format!("{text:?} is not the absolute path of a Unix socket"))
            }
        };
        let older = self.optional("LINKERD2_PROXY_IDENTITY_SPIRE_SOCKET", path);
        let socket = self.optional("LINKERD2_PROXY_IDENTITY_SPIRE_WORKLOAD_API_ADDRESS", path).or(older);
        let backoff = self.backoff([
            "LINKERD2_PROXY_IDENTITY_SPIRE_EXP_BACKOFF_MIN",
            "LINKERD2_PROXY_IDENTITY_SPIRE_EXP_BACKOFF_MAX",
            "LINKERD2_PROXY_IDENTITY_SPIRE_EXP_BACKOFF_JITTER",
        ]);
        Some(WorkloadApi { socket: socket?, backoff })
    }

    fn identity_service(&self) -> Option<IdentityService> {
        let dir = self.required("LINKERD2_PROXY_IDENTITY_DIR", |text| Ok(PathBuf::from(text)));
        let token_file = self.required("LINKERD2_PROXY_IDENTITY_TOKEN_FILE", |text| match std::fs::read(text) {
            Ok(token) if token.iter().all(u8::is_ascii_whitespace) => Err(format!("{text:?} is empty")),
            Ok(_) => Ok(PathBuf::from(text)),
            Err(e) => Err(format!("{text:?} cannot be read: {e}")),
        });
        let service = self.service("LINKERD2_PROXY_IDENTITY_SVC_ADDR", "LINKERD2_PROXY_IDENTITY_SVC_NAME");
        let min_refresh = self.or_default("LINKERD2_PROXY_IDENTITY_MIN_REFRESH", value::duration);
        let max_refresh = self.or_default("LINKERD2_PROXY_IDENTITY_MAX_REFRESH", value::duration);
        if min_refresh > max_refresh {
            self.problem("LINKERD2_PROXY_IDENTITY_MIN_REFRESH", "is longer than LINKERD2_PROXY_IDENTITY_MAX_REFRESH");
        }
        Some(IdentityService { dir: dir?, token_file: token_file?, service: service?, min_refresh, max_refresh })
    }

    /// Either one name for both, or both and equal. With a workload API the identity is a SPIFFE id, and the name stands beside it.
    fn local_names(&self, workload_api: bool) -> Option<(Identity, DnsName)> {
        let local = self.optional("LINKERD2_PROXY_IDENTITY_LOCAL_NAME", dns_name);
        let id = self
            .optional("LINKERD2_PROXY_IDENTITY_SERVER_ID", |text| text.parse::<Identity>().map_err(|e| e.to_string()));
        let name = self.optional("LINKERD2_PROXY_IDENTITY_SERVER_NAME", dns_name);
        let set = |name: &str| self.env.contains_key(name);
        match (id, name, local) {
            (Some(id @ Identity::Uri(_)), Some(name), _) if workload_api => Some((id, name)),
            (Some(_), Some(_), _) | (None, None, Some(_)) if workload_api => {
                self.problem(
                    "LINKERD2_PROXY_IDENTITY_SERVER_ID",
                    "must be a spiffe:// id, as a workload API certifies it",
                );
                None
            }
            (Some(Identity::Dns(id)), Some(name), _) if id == name => Some((Identity::Dns(id), name)),
            (Some(_), Some(name), _) => {
                let message = format!("must be the same DNS name as LINKERD2_PROXY_IDENTITY_SERVER_NAME, {name}");
                self.problem("LINKERD2_PROXY_IDENTITY_SERVER_ID", message);
                None
            }
            (None, None, Some(name)) => Some((Identity::Dns(name.clone()), name)),
            (None, None, None) => {
                if !set("LINKERD2_PROXY_IDENTITY_LOCAL_NAME")
                    && !set("LINKERD2_PROXY_IDENTITY_SERVER_ID")
                    && !set("LINKERD2_PROXY_IDENTITY_SERVER_NAME")
                {
                    self.problem("LINKERD2_PROXY_IDENTITY_LOCAL_NAME", "must be set");
                }
                None
            }
            (id, _, _) => {
                let (missing, given) = if id.is_some() { ("NAME", "ID") } else { ("ID", "NAME") };
                let missing = format!("LINKERD2_PROXY_IDENTITY_SERVER_{missing}");
                if !set(&missing) {
                    self.problem(&missing, format!("must be set, as LINKERD2_PROXY_IDENTITY_SERVER_{given} is"));
                }
                None
            }
        }
    }
}
