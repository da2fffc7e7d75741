//! The control plane: a child of the node in a network namespace of its own, kept running.

use super::{
    context::Shared,
    plan::Plan,
    probe,
    process::{self, Life, Place, Restart},
    rules,
};
use crate::{
    Error,
    client::Source,
    launch::{Launch, View, Who},
    node::protocol::{Attach, Net},
    status,
};
use parking_lot::Mutex;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use weft_control::Config;

/// The workload that its log belongs to.
const NAME: &str = "control-plane";
const GRACE: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(25);
/// A word of the command line, and of [`crate::role`].
pub(crate) const COMMAND: &str = "control-plane";

#[derive(Clone, Debug, Default)]
pub(crate) struct ControlPlane {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    pid: Option<u32>,
    ready: bool,
    restarts: u32,
    admin: Option<SocketAddr>,
}

impl ControlPlane {
    pub(crate) fn status(&self, context: &Shared) -> status::ControlPlane {
        let ca = weft_control::ca::status(context.state.path()).ok();
        let state = self.state.lock();
        status::ControlPlane {
            ready: state.ready,
            restarts: state.restarts,
            pid: state.pid,
            admin: state.admin,
            root_expires: ca.as_ref().and_then(|ca| ca.root_not_after.try_into().ok()),
            issuer_expires: ca.as_ref().and_then(|ca| ca.issuer_not_after.try_into().ok()),
        }
    }

    /// Keeps it running until `stop`.
    pub(crate) async fn run(self, context: Shared, stop: CancellationToken) -> Result<(), Error> {
        let ips = context.plan.control();
        let net = context.node.number();
        let attach =
            Attach { net, addresses: Plan::on_link(&ips), gateways: vec![], ruleset: rules::guard(context.plan) };
        context.node.attach(attach).await?;
        let Some(listen) = ips.first().copied() else { return Ok(()) };
        let config = Config {
            settings: context.settings.clone(),
            ..Config::new(listen, context.state.path().to_owned(), context.state.events_socket())
        };
        let admin = SocketAddr::new(listen, config.ports.admin);
        self.state.lock().admin = Some(admin);
        let text = serde_json::to_string(&config).map_err(|e| Error::Refused(e.to_string()))?;
        let launch = || Launch {
            argv: vec![context.weft.display().to_string(), COMMAND.into(), "--config".into(), text.clone()],
            env: std::env::var("WEFT_LOG").map(|v| ("WEFT_LOG".to_owned(), v)).into_iter().collect(),
            working_dir: "/".into(),
            host_name: NAME.into(),
            who: Who::Control,
            view: View::default(),
        };
        let workload = (context.settings.control_namespace.clone(), NAME.to_owned());
        let place = Place { net: Net::Attached(net), workload, pod: NAME.into(), source: Source::Program };
        let mut watcher: Option<tokio::task::JoinHandle<()>> = None;
        let on = |life: Life| {
            if let Some(watcher) = watcher.take() {
                watcher.abort();
            }
            let mut state = self.state.lock();
            match life {
                Life::Started { pid, .. } => {
                    state.pid = pid;
                    watcher = Some(tokio::spawn(self.clone().watch(context.clone(), place.net, admin)));
                }
                Life::Ended { why } => {
                    tracing::info!("control plane: {why}");
                    state.pid = None;
                    state.ready = false;
                    state.restarts += u32::from(!stop.is_cancelled());
                }
            }
        };
        process::keep(&context, &place, launch, Restart::PROXY, GRACE, stop.clone(), on).await;
        Ok(())
    }

    async fn watch(self, context: Shared, net: Net, admin: SocketAddr) {
        loop {
            let ready = async {
                let mut stream = context.node.dial(net, admin, Duration::from_secs(1)).await.ok()?;
                probe::get(&mut stream, "/ready", &admin.to_string(), &[]).await.ok()
            };
            if let Ok(Some(200)) = tokio::time::timeout(Duration::from_secs(2), ready).await {
                self.state.lock().ready = true;
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
