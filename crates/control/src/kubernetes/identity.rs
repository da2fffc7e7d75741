//! `weft control-plane identity`: certificates for tokens that the API server vouches for, signed by the issuer of a Secret.

use super::{Common, Running};
use crate::{
    Error, Lifetimes,
    authority::{self, Authority, News, Origin},
    ca::Mounted,
    process::Process,
    serve::{Front, Listener},
    services::{self, Holders, Identities, Reviewed},
};
use std::{
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;
use weft_cluster::{
    index::Settings,
    kubernetes::{self, About, Recorder, Tokens},
};
use weft_model::names::service_account;
use weft_telemetry::{Registry, metrics::Sample, readiness::Task};

/// How long to wait for an issuer that is not there yet, or is wrong.
const RETRY: Duration = Duration::from_secs(2);
/// Events under way.
const MAX_EVENTS: usize = 8;

#[derive(Clone, Debug)]
pub struct Identity {
    pub addr: SocketAddr,
    /// The folder with the issuer's certificate and key.
    pub issuer: PathBuf,
    /// The file with the trust anchors.
    pub trust_roots: PathBuf,
    pub issuance_lifetime: Duration,
    pub clock_skew_allowance: Duration,
}

pub(super) async fn start(common: Common, options: Identity) -> Result<Running, Error> {
    let client = kubernetes::connect(common.kubeconfig.as_deref()).await?;
    let mut process = Process::new();
    let (socket, addr) = Process::bind("identity", options.addr)?;
    let admin = process.admin(common.admin)?;
    let recorder = Recorder::new(client.clone(), service_account::IDENTITY, common.instance.clone());
    let own = weft_model::Identity::of_service_account(
        service_account::IDENTITY,
        &common.control_namespace,
        &common.control_namespace,
        &common.trust_domain,
    )
    .map_err(|e| Error::Identity { what: "identity of the control plane", reason: e.to_string() })?;
    let (news, writing) = Board::new(recorder.clone(), common.control_namespace.clone());
    process.spawn(writing);
    let service = Service {
        files: Mounted { issuer: options.issuer, trust_roots: options.trust_roots, identity: own },
        lifetimes: Lifetimes {
            leaf: options.issuance_lifetime,
            skew: options.clock_skew_allowance,
            ..Lifetimes::default()
        },
        settings: Settings {
            control_namespace: common.control_namespace,
            trust_domain: common.trust_domain,
            cluster_domain: common.cluster_domain,
            ..Settings::default()
        },
        holders: Holders::Reviewed(Box::new(Reviewed::new(Tokens::new(client), recorder, &process.registry))),
        news,
        registry: process.registry.clone(),
        stop: process.stop.clone(),
    };
    let unready = process.readiness.task("issuer");
    process.spawn(service.run(socket, unready));
    Ok(Running { addresses: vec![("identity", addr), ("admin", admin)], process })
}

struct Service {
    files: Mounted,
    lifetimes: Lifetimes,
    settings: Settings,
    holders: Holders,
    news: Board,
    registry: Registry,
    stop: CancellationToken,
}

impl Service {
    /// Serves as soon as there is an issuer. Before, connections wait in the kernel's queue.
    async fn run(self, socket: TcpListener, unready: Task) {
        let stop = self.stop.clone();
        let Some(authority) = stop.run_until_cancelled(self.opened()).await else { return };
        let authority = Arc::new(authority);
        let watched = Arc::downgrade(&authority);
        // Linkerd's name for it.
        self.registry.collector(move |samples| {
            let Some(authority) = watched.upgrade() else { return };
            let left = authority.ca().status().issuer_not_after.duration_since(SystemTime::now()).unwrap_or_default();
            let help = "The remaining seconds of the issuer's certificate.";
            samples.push(Sample::level("issuer_cert_ttl_seconds", help, left.as_secs_f64()));
        });
        let Self { holders, settings, news, registry, stop, .. } = self;
        let identities = Identities::new(holders, authority.clone(), settings, &registry);
        let routes = services::identity(identities, &authority, &stop);
        let listener = Listener::new("identity", socket, Front::Proxy, routes, &registry);
        let renewing = authority::renew(authority, &registry, move |what| news.post(&what), stop.clone());
        drop(unready);
        tokio::join!(listener.serve(stop), renewing);
    }

    async fn opened(&self) -> Authority {
        let mut told = None;
        loop {
            match Authority::open(Origin::Mounted(self.files.clone()), self.lifetimes) {
                Ok(authority) => return authority,
                Err(error) => {
                    let error = error.to_string();
                    if told.as_ref() != Some(&error) {
                        tracing::error!(error, "there is no issuer yet");
                        self.news.post(&News::Invalid { why: error.clone() });
                        told = Some(error);
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

/// Tells news as Events of the Deployment, in their order.
struct Board(mpsc::Sender<(bool, &'static str, String)>);

impl Board {
    /// With the task that writes what is posted.
    fn new(recorder: Recorder, namespace: String) -> (Self, impl Future<Output = ()>) {
        let (sender, mut news) = mpsc::channel::<(bool, &'static str, String)>(MAX_EVENTS);
        let (api_version, kind) = ("apps/v1".to_owned(), "Deployment".to_owned());
        let about = About { api_version, kind, namespace, name: service_account::IDENTITY.to_owned() };
        let writing = async move {
            while let Some((warning, reason, text)) = news.recv().await {
                recorder.record(&about, warning, reason, &text).await;
            }
        };
        (Self(sender), writing)
    }

    /// What finds no place is in the log and in the metrics all the same.
    fn post(&self, news: &News) {
        let event = match news {
            News::Renewed => (false, "IssuerUpdated", "Updated identity issuer".to_owned()),
            News::Kept { why } => (true, "IssuerUpdateSkipped", format!("Skipping issuer update: {why}")),
            News::Invalid { why } => (true, "IssuerValidationFailed", format!("No certificate can be signed: {why}")),
            News::Due { issuer_left, root_left } => {
                let days = |left: &Duration| left.as_secs() / (24 * 60 * 60);
                let (issuer, root) = (days(issuer_left), days(root_left));
                let text = format!(
                    "The issuer is valid for {issuer} days more, the trust anchors for {root}: `weft check` names what to do"
                );
                (true, "IssuerEndsSoon", text)
            }
        };
        let _ = self.0.try_send(event);
    }
}
