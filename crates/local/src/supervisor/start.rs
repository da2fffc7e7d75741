//! Starts every part in its order, keeps them going, ends them in the opposite order.

use super::{
    api,
    context::{Context, Shared, User},
    control_plane::ControlPlane,
    desired::Desired,
    dns,
    egress::{self, Egress},
    folders::Folders,
    hands::{self, Body},
    logs::LogBook,
    manifests::{self, Manifests, Place},
    plan::Plan,
    pod::Pod,
    publish::{self, Published},
    rules,
    state::StateDir,
    store::{self, Store},
};
use crate::{Error, Options, node::protocol::Bridge, program::find_program};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{Notify, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use weft_cluster::{
    Object,
    index::Settings,
    inject,
    manifest::{Loaded, Problem},
};
use weft_control::{Lifetimes, Ports};
use weft_model::decide::cidr::Cidr;
use weft_transport::socket;

/// Until everything is ended by force.
const END: Duration = Duration::from_millis(2500);
/// For what the kernel has to clear away then.
const LAST: Duration = Duration::from_millis(300);
/// Between looks at what should run, besides those that a change asks for.
const LOOK: Duration = Duration::from_secs(5);
/// Between looks at whether the state folder is still there.
const HOME: Duration = Duration::from_millis(400);
/// Where Debian keeps nft, which an ordinary user's PATH lacks.
const TOOLS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// What `up` returns with.
pub(crate) type Started = Result<PathBuf, Error>;

/// Runs a mesh until `stop`; `started` hears when its first objects are in force, or why they are not.
pub(crate) async fn run(
    options: Options,
    started: oneshot::Sender<Started>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mesh = match Supervisor::start(options, stop.clone()).await {
        Ok(mesh) => mesh,
        Err(error) => {
            // Who started it has gone.
            let _ = started.send(Err(error));
            return Ok(());
        }
    };
    let _ = started.send(Ok(mesh.context.state.path().to_owned()));
    mesh.run(stop).await
}

/// All parts.
struct Supervisor {
    context: Shared,
    desired: Arc<Desired>,
    body: Body,
    control_plane: tokio::task::JoinHandle<Result<(), Error>>,
    control_stop: CancellationToken,
    tasks: JoinSet<()>,
    /// Held for what they do when dropped.
    _watch: manifests::Watch,
    _dns: Box<dyn std::any::Any + Send>,
}

/// What the API answers from.
pub(crate) struct Answers {
    pub(crate) context: Shared,
    pub(crate) desired: Arc<Desired>,
    pub(crate) control_plane: ControlPlane,
    pub(crate) egress: Arc<Egress>,
    pub(crate) published: Vec<Arc<Published>>,
    pub(crate) stop: CancellationToken,
}

impl Supervisor {
    async fn start(options: Options, stop: CancellationToken) -> Result<Self, Error> {
        let state_dir = match &options.state_dir {
            Some(dir) => dir.clone(),
            None => super::state::usual()?,
        };
        let weft = match options.programs.weft {
            Some(weft) => weft,
            None => std::env::current_exe().map_err(Error::io("finding weft itself"))?,
        };
        let proxy = match options.programs.proxy {
            Some(proxy) => proxy,
            None => find_program("weft-proxy")?,
        };
        let path = search_path(&weft);
        if !std::env::split_paths(&path).any(|dir| dir.join("nft").is_file()) {
            return Err(Error::NoNft);
        }
        let state = StateDir::take(&state_dir)?;
        let place = Place { texts: options.texts, paths: options.manifests };
        let (stamp, loaded) = place.read().await;
        if let Some(why) = nothing(&place, &loaded, &options.objects) {
            state.clear();
            return Err(Error::NothingToRun(why));
        }
        if let Some(why) = refused_access(&loaded) {
            state.clear();
            return Err(Error::AccessRefused(why));
        }
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let user = User::of(nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw(), &map);
        let folders = announce(user, &state).await;
        let ca = weft_control::ca::ensure(state.path(), &Lifetimes::default(), SystemTime::now())?;
        drop(ca);

        let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        let plan = Plan::pick(&routes, std::path::Path::new("/proc/net/if_inet6").exists());
        let (node, body) = hands::start(&weft, &path, matches!(user, User::Root { .. })).await?;
        // Egress and published ports hold many. After the node, since programs get what the user has set.
        if let Err(error) = socket::raise_open_files() {
            tracing::warn!(%error, "the number of open files stays as it is: few connections may leave the mesh at once");
        }
        let sockets = node.bridge(bridge(plan)).await?;
        let Sockets { dns_tcp, egress_tcp, dns_udp } = Sockets::new(sockets, plan)?;

        let settings = Settings {
            cluster_networks: plan.networks(),
            scrape_networks: plan
                .gateways()
                .into_iter()
                .filter_map(|ip| Cidr::new(ip, if ip.is_ipv4() { 32 } else { 128 }))
                .collect(),
            ..Settings::default()
        };
        let own = weft.parent().map(PathBuf::from).unwrap_or_default();
        let context = Arc::new(Context {
            node,
            store: Store::new(),
            logs: LogBook::new(state.logs()),
            state,
            folders,
            plan,
            control: control(&settings, plan),
            settings,
            weft,
            proxy,
            proxy_log: options.proxy_log,
            user,
            path: program_path(&path, &own, user),
            working_dir: std::env::current_dir().map_err(Error::io("reading the working folder"))?,
            numbers: Default::default(),
            changed: Notify::new(),
        });

        let mut tasks = JoinSet::new();
        let events = context.state.events_socket();
        let events = store::listen(&events).map_err(Error::io(format!("listening on {}", events.display())))?;
        tasks.spawn(store::serve(context.store.clone(), events));
        tasks.spawn(store::write_statuses(context.store.clone(), context.settings.clone()));
        let egress = Arc::new(Egress::new(
            plan,
            options.egress,
            options.host_services.clone(),
            context.store.clone(),
            context.logs.clone(),
        ));
        for listener in egress_tcp {
            tasks.spawn(egress::serve(egress.clone(), listener));
        }
        let zone: dns::Current = Default::default();
        let served = dns::serve(zone.clone(), options.egress, dns_udp, dns_tcp);

        let files = Arc::new(Notify::new());
        let watch = manifests::watch(place.clone(), stamp, files.clone());
        let read = Manifests::new(loaded);
        let desired = Arc::new(Desired::new(context.clone(), read, options.objects, options.host_services, zone));
        // Before the first program: whoever asks to hide something now is answered later, and not told that nothing runs.
        let api = api::listen(&context.state.api_socket())?;
        desired.reconcile();
        tasks.spawn(follow(files, place, desired.clone()));

        let mut published = Vec::new();
        for publish in options.publish {
            let what = || format!("publishing {}", publish.listen);
            let listener = TcpListener::bind(publish.listen).await.map_err(|e| Error::io(what())(e))?;
            let listen = listener.local_addr().map_err(|e| Error::io(what())(e))?;
            let port = Arc::new(Published::new(publish, listen, context.store.clone(), context.node.clone()));
            published.push(port.clone());
            tasks.spawn(publish::serve(port, listener));
        }

        let control_stop = CancellationToken::new();
        let control_plane = ControlPlane::default();
        let running = tokio::spawn(control_plane.clone().run(context.clone(), control_stop.clone()));
        let answers =
            Answers { context: context.clone(), desired: desired.clone(), control_plane, egress, published, stop };
        tasks.spawn(api::serve(Arc::new(answers), api));
        Ok(Self {
            context,
            desired,
            body,
            control_plane: running,
            control_stop,
            tasks,
            _watch: watch,
            _dns: Box::new(served),
        })
    }

    async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        let mut look = tokio::time::interval(LOOK);
        let mut home = tokio::time::interval(HOME);
        let ended = loop {
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                () = self.body.ended() => break Err(Error::Node("ended, and everything in it".into())),
                // Every change is a reason to look again, none is an instruction.
                () = self.context.changed.notified() => self.desired.reconcile(),
                _ = look.tick() => self.desired.reconcile(),
                _ = home.tick() => if !self.context.state.is_reachable() {
                    // Twice, since nothing that runs is ended lightly.
                    tokio::time::sleep(HOME / 4).await;
                    if !self.context.state.is_reachable() {
                        break Err(Error::StateFolderGone { state_dir: self.context.state.path().to_owned() });
                    }
                },
                ended = &mut self.control_plane => match ended {
                    Ok(Err(error)) => break Err(error),
                    // It is kept running for as long as there is a node.
                    _ => break Err(Error::Node("ended, and everything in it".into())),
                },
            }
        };
        if matches!(ended, Ok(()) | Err(Error::StateFolderGone { .. })) {
            // What does not end in time is ended by force below.
            let _ = tokio::time::timeout(END, self.end()).await;
        }
        self.tasks.abort_all();
        self.context.node.end().await;
        if tokio::time::timeout(LAST, self.body.ended()).await.is_err() {
            self.body.kill().await;
        }
        self.context.state.clear();
        ended
    }

    /// Programs first, then their proxies, then the control plane.
    async fn end(&mut self) {
        let pods = self.desired.pods();
        pods.iter().for_each(Pod::stop_now);
        for pod in pods {
            pod.ended().await;
        }
        self.control_stop.cancel();
        let _ = (&mut self.control_plane).await;
    }
}

/// Reads the manifests again whenever they have changed.
async fn follow(files: Arc<Notify>, place: Place, desired: Arc<Desired>) {
    loop {
        files.notified().await;
        let (_, loaded) = place.read().await;
        desired.take(loaded);
    }
}

/// Why a mesh would have nothing to do, now and whatever happens to its files: what is wrong with each. A folder without
/// manifests may get some.
fn nothing(place: &Place, loaded: &Loaded, given: &[Object]) -> Option<String> {
    let asked = !place.texts.is_empty() || !place.paths.is_empty();
    if !asked || !given.is_empty() || !loaded.objects.is_empty() {
        return None;
    }
    if loaded.problems.is_empty() {
        let names: Vec<String> = place.texts.iter().map(|t| t.name.display().to_string()).collect();
        return place.paths.is_empty().then(|| format!("there is no manifest in {}", names.join(", ")));
    }
    Some(all(&loaded.problems))
}

/// What of the manifests says who may call whom, or what may leave, and is refused. While a mesh runs, what it said before goes on; a
/// mesh that starts has nothing that was before.
fn refused_access(loaded: &Loaded) -> Option<String> {
    let refused: Vec<&Problem> = loaded.problems.iter().filter(|p| p.access).collect();
    (!refused.is_empty()).then(|| all(refused))
}

fn all<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> String {
    problems.into_iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The sockets that the node made on the bridge.
struct Sockets {
    dns_tcp: Vec<TcpListener>,
    egress_tcp: Vec<TcpListener>,
    dns_udp: Vec<UdpSocket>,
}

/// The port of DNS.
const DNS: u16 = 53;

fn bridge(plan: Plan) -> Bridge {
    let gateways = plan.gateways();
    let at = |port: u16| gateways.iter().map(move |ip| SocketAddr::new(*ip, port));
    Bridge {
        addresses: Plan::on_link(&gateways),
        listen: at(DNS).chain(at(rules::EGRESS_PORT)).collect(),
        udp: at(DNS).collect(),
        ruleset: rules::bridge(plan),
    }
}

impl Sockets {
    fn new(sockets: Vec<OwnedFd>, plan: Plan) -> Result<Self, Error> {
        let families = plan.gateways().len();
        let mut listeners = sockets.into_iter();
        let tcp = |fd: OwnedFd| TcpListener::from_std(fd.into()).map_err(Error::io("using a socket of the node"));
        let udp = |fd: OwnedFd| UdpSocket::from_std(fd.into()).map_err(Error::io("using a socket of the node"));
        Ok(Self {
            dns_tcp: listeners.by_ref().take(families).map(tcp).collect::<Result<_, _>>()?,
            egress_tcp: listeners.by_ref().take(families).map(tcp).collect::<Result<_, _>>()?,
            dns_udp: listeners.map(udp).collect::<Result<_, _>>()?,
        })
    }
}

/// Has the user's other meshes hide this one's state folder, where programs are the user.
async fn announce(user: User, state: &StateDir) -> Option<Folders> {
    if let User::Root { .. } = user {
        return None;
    }
    let folders = match Folders::of(nix::unistd::geteuid().as_raw()) {
        Ok(folders) => folders,
        Err(error) => {
            tracing::warn!(%error, "programs may see the state folders of this user's other meshes");
            return None;
        }
    };
    if let Err(error) = folders.announce(state.path()).await {
        tracing::warn!(%error, "programs of this user's other meshes may see this one's state folder");
    }
    Some(folders)
}

/// What proxies are told of the control plane.
fn control(settings: &Settings, plan: Plan) -> inject::ControlPlane {
    let ip = plan.control().first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let ports = Ports::default();
    let at = |port| SocketAddr::new(ip, port).to_string();
    inject::ControlPlane {
        identity_addr: at(ports.identity),
        destination_addr: at(ports.destination),
        policy_addr: at(ports.policy),
        namespace: settings.control_namespace.clone(),
        trust_domain: settings.trust_domain.clone(),
        cluster_domain: settings.cluster_domain.clone(),
        cluster_networks: settings.cluster_networks.clone(),
        default_policy: settings.default_policy.0,
        ipv6: plan.ipv6,
    }
}

/// Of the node and of programs: `weft`'s own folder, tools that were unpacked for it, the caller's, Debian's.
fn search_path(weft: &std::path::Path) -> String {
    let own = weft.parent().map(PathBuf::from);
    let tools = std::env::var_os("WEFT_TOOLS_PATH").unwrap_or_default();
    let callers = std::env::var_os("PATH").unwrap_or_default();
    let dirs = own
        .into_iter()
        .chain(std::env::split_paths(&tools))
        .chain(std::env::split_paths(&callers))
        .chain(TOOLS.map(PathBuf::from))
        .filter(|dir| dir.is_absolute());
    std::env::join_paths(dirs).unwrap_or(callers).to_string_lossy().into_owned()
}

/// Of programs: where their user may not even look, another program of the same name may be the one that runs.
fn program_path(path: &str, own: &std::path::Path, user: User) -> String {
    use std::os::unix::fs::PermissionsExt;
    let open = |dir: &std::path::Path| dir.metadata().is_ok_and(|m| m.permissions().mode() & 0o001 != 0);
    let may_look = |dir: &PathBuf| {
        matches!(user, User::Ordinary(_)) || dir == own || dir.canonicalize().is_ok_and(|d| d.ancestors().all(open))
    };
    let dirs = std::env::split_paths(path).filter(may_look);
    std::env::join_paths(dirs).map_or_else(|_| path.to_owned(), |p| p.to_string_lossy().into_owned())
}
