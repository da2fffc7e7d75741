//! A pod's proxy: its secret, its environment, its readiness.

use super::Pod;
use crate::{
    Error,
    client::Source,
    launch::{Launch, PID_FILE, Who},
    node::protocol::Net,
    supervisor::{
        context::Shared,
        probe,
        process::{self, Life, Restart},
        rules,
    },
};
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use weft_cluster::{
    Object, Token,
    inject::{Injection, proxy_env},
    workload::Template,
};
use weft_model::names::port;

/// A proxy without a program has little left to drain.
const GRACE: Duration = Duration::from_secs(2);
/// Between looks at a proxy that starts.
const POLL: Duration = Duration::from_millis(25);
const TOKEN_BYTES: usize = 32;

impl Pod {
    /// Waits until the proxy is ready; false if the pod is to stop before.
    pub(super) async fn proxied(&self, meshed: bool) -> bool {
        if !meshed {
            return !self.0.stop.is_cancelled();
        }
        loop {
            let changed = self.0.changed.notified();
            if self.0.state.lock().proxy_ready {
                return !self.0.stop.is_cancelled();
            }
            tokio::select! {
                () = changed => {}
                () = self.0.stop.cancelled() => return false,
            }
        }
    }

    /// Makes the secret by which the proxy proves whose it is.
    pub(super) fn token(&self, context: &Shared, template: &Template) -> Result<PathBuf, Error> {
        let mut bytes = [0; TOKEN_BYTES];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Refused("the system has no random bytes".into()))?;
        let token = hex(&bytes);
        let dir = context
            .state
            .pod(&self.0.name, &token, context.proxy_user())
            .map_err(Error::io("writing the pod's token"))?;
        context.store.apply(Object::Token(Token {
            sha256: weft_control::token_sha256(token.as_bytes()),
            namespace: template.namespace.clone(),
            service_account: template.service_account.clone(),
            pod: self.0.name.clone(),
        }));
        Ok(dir)
    }

    pub(super) async fn proxy(
        self,
        context: Shared,
        net: Net,
        ips: Vec<IpAddr>,
        dir: PathBuf,
        stop: CancellationToken,
    ) {
        let place = self.place(net, Source::Proxy);
        let admin = ips.first().map(|ip| SocketAddr::new(*ip, port::ADMIN));
        let launch = || self.proxy_launch(&context, &ips, &dir);
        let mut watcher: Option<tokio::task::JoinHandle<()>> = None;
        let on = |life: Life| {
            if let Some(watcher) = watcher.take() {
                watcher.abort();
            }
            match life {
                Life::Started { pid, .. } => {
                    self.change(&context, |s| s.proxy_pid = pid);
                    watcher = admin.map(|admin| tokio::spawn(self.clone().watch_proxy(context.clone(), net, admin)));
                }
                Life::Ended { why } => self.change(&context, |s| {
                    s.proxy_pid = None;
                    s.proxy_ready = false;
                    s.proxy_restarts += u32::from(!s.terminating);
                    s.message = Some(why);
                }),
            }
        };
        process::keep(&context, &place, launch, Restart::PROXY, GRACE, stop, on).await;
        let digest = context.store.objects().into_iter().find_map(|o| match o {
            Object::Token(t) if t.pod == self.0.name && t.namespace == place.workload.0 => Some(Object::Token(t).key()),
            _ => None,
        });
        if let Some(key) = digest {
            context.store.delete(&key);
        }
    }

    fn proxy_launch(&self, context: &Shared, ips: &[IpAddr], dir: &Path) -> Launch {
        let template = self.template();
        // The newest, since a restart may come after a renewal of the root.
        let anchors = weft_control::ca::status(context.state.path()).map(|s| s.anchors_pem).unwrap_or_default();
        let mut env = proxy_env(&Injection {
            namespace: &template.namespace,
            pod: &self.0.name,
            service_account: &template.service_account,
            node: "",
            pod_ips: ips,
            inbound_ports: &template.inbound_ports(),
            mesh: &template.mesh,
            control: &context.control,
            trust_anchors: &anchors,
            identity_dir: dir,
            token_file: &dir.join("token"),
        });
        env.push(("WEFT_PROXY_MARK".into(), rules::MARK.to_string()));
        // By it PID 1 knows the process that has taken over in an upgrade (SIGUSR2 to PID 1).
        env.push((PID_FILE.into(), dir.join("pid").display().to_string()));
        env.extend(context.proxy_log.iter().map(|log| ("LINKERD2_PROXY_LOG".into(), log.clone())));
        Launch {
            argv: vec![context.proxy.display().to_string()],
            env,
            working_dir: "/".into(),
            host_name: self.0.name.clone(),
            who: Who::Proxy { id: context.proxy_user() },
            view: context.view(&template.namespace, &self.0.name, ips, vec![dir.to_owned()]),
        }
    }

    /// Looks at a proxy that starts until it is ready.
    async fn watch_proxy(self, context: Shared, net: Net, admin: SocketAddr) {
        loop {
            let ready = async {
                let mut stream = context.node.dial(net, admin, Duration::from_secs(1)).await.ok()?;
                probe::get(&mut stream, "/ready", &admin.to_string(), &[]).await.ok()
            };
            let ready = tokio::time::timeout(Duration::from_secs(2), ready).await;
            if let Ok(Some(200)) = ready {
                return self.change(&context, |s| s.proxy_ready = true);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
