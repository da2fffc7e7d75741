//! One pod: its namespace, its proxy, its program, and what is told of them.
//!
//! ```text
//! attach ─► token ─► proxy ─► ready? ─► program ─► probes … stop ─► unready ─► program ends ─► proxy ends ─► detach
//! ```

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
    launch::{Launch, Who},
    node::protocol::{Attach, Exit, Net},
    status::{self, Phase},
};
use parking_lot::Mutex;
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use weft_cluster::{
    Key, Kind, Object, Token,
    inject::{Injection, proxy_env},
    workload::{self, Desired, ProbeAction, Template},
};
use weft_model::names::port;

/// How long clients may take to learn that a pod is not ready any more, before its program is asked to end.
const FAREWELL: Duration = Duration::from_millis(400);
/// A proxy without a program has little left to drain.
const PROXY_GRACE: Duration = Duration::from_secs(2);
/// Between looks at a proxy that starts.
const PROXY_POLL: Duration = Duration::from_millis(25);
const TOKEN_BYTES: usize = 32;

/// A pod that runs or ends. Dropping it does not end it.
#[derive(Clone, Debug)]
pub(crate) struct Pod(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    hash: String,
    started: jiff::Timestamp,
    /// What only concerns its Pod object may change while it runs.
    template: Mutex<Arc<Template>>,
    state: Mutex<State>,
    /// Ends the pod with time for its clients.
    stop: CancellationToken,
    /// Cuts that time short.
    hurry: CancellationToken,
    changed: Notify,
    ended: CancellationToken,
}

#[derive(Clone, Debug, Default)]
struct State {
    ips: Vec<IpAddr>,
    pid: Option<u32>,
    proxy_pid: Option<u32>,
    proxy_ready: bool,
    program_ready: bool,
    terminating: bool,
    restarts: u32,
    proxy_restarts: u32,
    message: Option<String>,
}

impl Pod {
    /// Starts a pod.
    pub(crate) fn start(context: &Shared, template: Arc<Template>, desired: &Desired) -> Self {
        let pod = Self(Arc::new(Inner {
            name: desired.name.clone(),
            hash: desired.template_hash.clone(),
            started: jiff::Timestamp::now(),
            template: Mutex::new(template),
            state: Mutex::default(),
            stop: CancellationToken::new(),
            hurry: CancellationToken::new(),
            changed: Notify::new(),
            ended: CancellationToken::new(),
        }));
        tokio::spawn(pod.clone().live(context.clone()));
        pod
    }

    pub(crate) fn desired(&self) -> Desired {
        Desired { name: self.0.name.clone(), template_hash: self.0.hash.clone() }
    }

    pub(crate) fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Ends it with little time for anybody.
    pub(crate) fn stop_now(&self) {
        self.0.hurry.cancel();
        self.0.stop.cancel();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.0.stop.is_cancelled()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.ended.is_cancelled()
    }

    pub(crate) async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    /// Its network namespace's rules need the cluster IPs, since some of its connections pass no proxy.
    pub(crate) fn needs_services(&self) -> bool {
        let template = self.0.template.lock();
        !template.mesh.injected || !template.mesh.skip_outbound.is_empty()
    }

    /// Takes over what can change while it runs.
    pub(crate) fn update(&self, context: &Shared, template: &Arc<Template>) {
        let changed = {
            let mut own = self.0.template.lock();
            let changed = **own != **template;
            *own = template.clone();
            changed
        };
        if changed && !self.0.state.lock().ips.is_empty() {
            self.publish(context);
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        let meshed = self.template().mesh.injected;
        let state = self.0.state.lock();
        state.pid.is_some() && state.program_ready && (state.proxy_ready || !meshed) && !state.terminating
    }

    pub(crate) fn status(&self) -> status::Pod {
        let template = self.template();
        let ready = self.is_ready();
        let state = self.0.state.lock();
        let phase = match () {
            () if state.terminating => Phase::Terminating,
            () if state.pid.is_some() => Phase::Running,
            () if state.restarts > 0 => Phase::Backoff,
            () => Phase::Pending,
        };
        status::Pod {
            name: self.0.name.clone(),
            service_account: template.service_account.clone(),
            ips: state.ips.clone(),
            phase,
            ready,
            meshed: template.mesh.injected,
            restarts: state.restarts,
            proxy_restarts: state.proxy_restarts,
            message: if ready { None } else { state.message.clone() },
            started: self.0.started,
            pid: state.pid,
            proxy_pid: state.proxy_pid,
        }
    }

    fn template(&self) -> Arc<Template> {
        self.0.template.lock().clone()
    }

    fn change(&self, context: &Shared, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.lock());
        self.publish(context);
        self.0.changed.notify_waiters();
        context.changed.notify_one();
    }

    /// Tells the control plane, DNS and everybody else.
    fn publish(&self, context: &Shared) {
        let ready = self.is_ready();
        let (ips, running, terminating) = {
            let state = self.0.state.lock();
            (state.ips.clone(), state.pid.is_some(), state.terminating)
        };
        let status = workload::Status { ips, running, ready, terminating };
        context.store.apply(Object::Pod(Box::new(self.template().pod(&self.0.name, &status))));
    }

    async fn live(self, context: Shared) {
        let number = context.numbers.lock().take();
        if let Some(number) = number {
            let net = context.node.number();
            if let Err(error) = self.run(&context, number, net).await {
                self.change(&context, |s| s.message = Some(error.to_string()));
                context.logs.note(&self.workload(), &self.0.name, format!("the pod could not be started: {error}"));
                // Kept as it is, so that it can be seen, until it is changed or removed.
                self.0.stop.cancelled().await;
            }
            // The link may not be there.
            let _ = context.node.detach(net).await;
            context.numbers.lock().free(number);
        } else {
            self.change(&context, |s| s.message = Some("the mesh has no free address".into()));
            self.0.stop.cancelled().await;
        }
        let namespace = self.template().namespace.clone();
        context.store.delete(&Key::new(Kind::Pod, namespace, &self.0.name));
        context.state.remove_pod(&self.0.name);
        self.0.ended.cancel();
        context.changed.notify_one();
    }

    fn workload(&self) -> (String, String) {
        let template = self.template();
        (template.namespace.clone(), template.deployment.clone())
    }

    async fn run(&self, context: &Shared, number: u16, net: u64) -> Result<(), Error> {
        let template = self.template();
        let ips = context.plan.both(number);
        let mut ruleset = rules::guard(context.plan);
        if template.mesh.injected {
            ruleset += &rules::redirection(&template.mesh.skip_inbound, &template.mesh.skip_outbound);
        }
        if self.needs_services() {
            ruleset += &super::forwards::ruleset(&context.store.objects());
        }
        let gateways = context.plan.gateways();
        context.node.attach(Attach { net, addresses: Plan::on_link(&ips), gateways, ruleset }).await?;
        let net = Net::Attached(net);
        self.change(context, |s| s.ips = ips.clone());

        let proxy_stop = CancellationToken::new();
        let proxy = if template.mesh.injected {
            let token = self.token(context, &template)?;
            let task = self.clone().proxy(context.clone(), net, ips.clone(), token, proxy_stop.clone());
            Some(tokio::spawn(task))
        } else {
            None
        };
        let services = tokio::spawn(self.clone().services(context.clone(), net));
        let program_stop = CancellationToken::new();
        if self.proxied(template.mesh.injected).await {
            let program =
                tokio::spawn(self.clone().program(context.clone(), net, number, ips.clone(), program_stop.clone()));
            let probes = tokio::spawn(self.clone().probes(context.clone(), net, number, ips.clone()));
            self.0.stop.cancelled().await;
            probes.abort();
            self.change(context, |s| s.terminating = true);
            tokio::select! {
                () = tokio::time::sleep(FAREWELL) => {}
                () = self.0.hurry.cancelled() => {}
            }
            program_stop.cancel();
            // A task that panicked has ended too.
            let _ = program.await;
        }
        self.change(context, |s| s.terminating = true);
        services.abort();
        proxy_stop.cancel();
        if let Some(proxy) = proxy {
            let _ = proxy.await;
        }
        Ok(())
    }

    /// Waits until the proxy is ready; false if the pod is to stop before.
    async fn proxied(&self, meshed: bool) -> bool {
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
    fn token(&self, context: &Shared, template: &Template) -> Result<PathBuf, Error> {
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

    async fn proxy(self, context: Shared, net: Net, ips: Vec<IpAddr>, dir: PathBuf, stop: CancellationToken) {
        let place = self.place(net, Source::Proxy);
        let admin = ips.first().map(|ip| SocketAddr::new(*ip, port::ADMIN));
        let launch = || self.proxy_launch(&context, &ips, &dir);
        let mut watcher: Option<tokio::task::JoinHandle<()>> = None;
        let on = |life: Life| {
            if let Some(watcher) = watcher.take() {
                watcher.abort();
            }
            match life {
                Life::Started { pid } => {
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
        process::keep(&context, &place, launch, Restart::PROXY, PROXY_GRACE, stop, on).await;
        let digest = context.store.objects().into_iter().find_map(|o| match o {
            Object::Token(t) if t.pod == self.0.name && t.namespace == place.workload.0 => Some(Object::Token(t).key()),
            _ => None,
        });
        if let Some(key) = digest {
            context.store.delete(&key);
        }
    }

    fn proxy_launch(&self, context: &Shared, ips: &[IpAddr], dir: &PathBuf) -> Launch {
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
        env.extend(context.proxy_log.iter().map(|log| ("LINKERD2_PROXY_LOG".into(), log.clone())));
        Launch {
            argv: vec![context.proxy.display().to_string()],
            env,
            working_dir: "/".into(),
            host_name: self.0.name.clone(),
            who: Who::Proxy { id: context.proxy_user() },
            view: context.view(&template.namespace, &self.0.name, ips, vec![dir.clone()]),
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
            tokio::time::sleep(PROXY_POLL).await;
        }
    }

    async fn program(self, context: Shared, net: Net, number: u16, ips: Vec<IpAddr>, stop: CancellationToken) {
        let template = self.template();
        let place = self.place(net, Source::Program);
        let launch = || self.program_launch(&context, &template, number, &ips, template.program.argv.clone());
        let probed = template.program.readiness.is_some();
        let on = |life: Life| match life {
            Life::Started { pid } => self.change(&context, |s| {
                s.pid = pid;
                s.program_ready = !probed;
                s.message = probed.then(|| "its readiness probe has not succeeded yet".to_owned());
            }),
            Life::Ended { why } => self.change(&context, |s| {
                s.pid = None;
                s.program_ready = false;
                s.restarts += u32::from(!s.terminating);
                s.message = Some(why);
            }),
        };
        let grace = template.program.grace;
        let hurry = self.0.hurry.clone();
        let keep = process::keep(&context, &place, launch, Restart::PROGRAM, grace, stop, on);
        tokio::select! {
            () = keep => {}
            // What is left dies with its namespaces.
            () = async { hurry.cancelled().await; tokio::time::sleep(super::HURRY).await } => {}
        }
    }

    fn program_launch(
        &self,
        context: &Shared,
        template: &Template,
        number: u16,
        ips: &[IpAddr],
        argv: Vec<String>,
    ) -> Launch {
        let mut env = context.base_env(&self.0.name);
        env.retain(|(name, _)| !template.program.env.iter().any(|(own, _)| own == name));
        env.extend(template.program.env.iter().cloned());
        let working_dir = template.program.working_dir.as_ref().map(|dir| context.working_dir.join(dir));
        Launch {
            argv,
            env,
            working_dir: working_dir.unwrap_or_else(|| context.working_dir.clone()),
            host_name: self.0.name.clone(),
            who: context.program(number),
            view: context.view(&template.namespace, &self.0.name, ips, vec![]),
        }
    }

    async fn probes(self, context: Shared, net: Net, number: u16, ips: Vec<IpAddr>) {
        let template = self.template();
        let (Some(probe), Some(ip)) = (template.program.readiness.clone(), ips.first().copied()) else { return };
        let place = self.place(net, Source::Mesh);
        let command = match &probe.action {
            ProbeAction::Exec { command } => command.clone(),
            _ => vec![],
        };
        let exec = async || {
            let launch = self.program_launch(&context, &template, number, &ips, command.clone());
            let mut process = process::start(&context, &place, launch).await.map_err(|e| e.to_string())?;
            match process.ended().await {
                Some(Exit::Code(0)) => Ok(()),
                Some(exit) => Err(format!("readiness probe: its command {exit}")),
                None => Err("readiness probe: the node is gone".to_owned()),
            }
        };
        let (mut successes, mut failures) = (0, 0);
        let mut life = None;
        loop {
            let changed = self.0.changed.notified();
            let pid = self.0.state.lock().pid;
            if pid.is_none() {
                changed.await;
                continue;
            }
            if life != pid {
                // A program that was started again begins anew.
                (successes, failures, life) = (0, 0, pid);
                tokio::time::sleep(probe.initial_delay).await;
            }
            match probe::ask(&context.node, net, ip, &probe, exec()).await {
                Ok(()) => (successes, failures) = (successes + 1, 0),
                Err(why) => {
                    (successes, failures) = (0, failures + 1);
                    self.0.state.lock().message = Some(why);
                }
            }
            let now = {
                let state = self.0.state.lock();
                if state.pid != life {
                    continue;
                }
                state.program_ready
            };
            if !now && successes >= probe.success_threshold {
                self.change(&context, |s| s.program_ready = true);
            } else if now && failures >= probe.failure_threshold {
                self.change(&context, |s| s.program_ready = false);
            }
            // Kubernetes looks more often as well while a pod is not ready.
            let ready = self.0.state.lock().program_ready;
            tokio::time::sleep(if ready { probe.period } else { probe.period.min(UNREADY_PERIOD) }).await;
        }
    }

    /// Keeps the cluster IPs of a pod whose connections pass no proxy up to date.
    async fn services(self, context: Shared, net: Net) {
        if !self.needs_services() {
            return;
        }
        let mut last = String::new();
        let (_, mut changes) = context.store.follow();
        loop {
            let ruleset = super::forwards::ruleset(&context.store.objects());
            if ruleset != last {
                match context.node.rules(net, ruleset.clone()).await {
                    Ok(()) => last = ruleset,
                    Err(error) => tracing::warn!(pod = self.0.name, %error, "cluster IPs were not updated"),
                }
            }
            if let Err(tokio::sync::broadcast::error::RecvError::Closed) = changes.recv().await {
                return;
            }
            // What came meanwhile is in the next look.
            while changes.try_recv().is_ok() {}
        }
    }

    fn place(&self, net: Net, source: Source) -> Place {
        Place { net, workload: self.workload(), pod: self.0.name.clone(), source }
    }
}

/// Between probes of a pod that is not ready.
const UNREADY_PERIOD: Duration = Duration::from_millis(250);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
