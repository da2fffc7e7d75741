//! One pod: its namespace, its proxy, its program, and what is told of them.
//!
//! ```text
//! attach ─► (proxy) token, proxy, ready? ─► (program) program, probes … stop ─► unready ─► program ends ─► proxy ends ─► detach
//! ```

mod program;
mod proxy;

use super::{context::Shared, plan::Plan, process::Place, rules};
use crate::{
    Error,
    client::Source,
    node::protocol::{Attach, Net},
    status::{self, Phase},
};
use parking_lot::Mutex;
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use weft_cluster::{
    Key, Kind, Object,
    workload::{self, Desired, Template},
};

/// How long clients may take to learn that a pod is not ready any more, before its program is asked to end.
const FAREWELL: Duration = Duration::from_millis(400);

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
    /// By which the node knows the program.
    process: Option<u64>,
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
