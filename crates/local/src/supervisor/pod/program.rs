//! A pod's program: how it is started, and whether it is ready.

use super::Pod;
use crate::{
    client::Source,
    launch::Launch,
    node::protocol::{Exit, Net, Signal},
    supervisor::{
        HURRY,
        context::Shared,
        probe,
        process::{self, Life, Restart},
    },
};
use std::{fs::File, net::IpAddr, time::Duration};
use tokio_util::sync::CancellationToken;
use weft_cluster::workload::{ProbeAction, Template};

/// Between probes of a pod that is not ready.
const UNREADY_PERIOD: Duration = Duration::from_millis(250);

impl Pod {
    pub(super) async fn program(
        self,
        context: Shared,
        net: Net,
        number: u16,
        ips: Vec<IpAddr>,
        stop: CancellationToken,
    ) {
        let template = self.template();
        let place = self.place(net, Source::Program);
        let launch = || self.program_launch(&context, &template, number, &ips, template.program.argv.clone());
        let probed = template.program.readiness.is_some();
        let on = |life: Life| match life {
            Life::Started { number, pid } => self.change(&context, |s| {
                s.pid = pid;
                s.process = Some(number);
                s.program_ready = !probed;
                s.message = probed.then(|| "its readiness probe has not succeeded yet".to_owned());
            }),
            Life::Ended { why } => self.change(&context, |s| {
                s.pid = None;
                s.process = None;
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
            () = async { hurry.cancelled().await; tokio::time::sleep(HURRY).await } => {}
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

    pub(super) async fn probes(self, context: Shared, net: Net, number: u16, ips: Vec<IpAddr>) {
        let template = self.template();
        let (Some(probe), Some(ip)) = (template.program.readiness.clone(), ips.first().copied()) else { return };
        let command = match &probe.action {
            ProbeAction::Exec { command } => command.clone(),
            _ => vec![],
        };
        let exec = async || {
            let unready = |text: &dyn std::fmt::Display| format!("readiness probe: {text}");
            let launch = self.program_launch(&context, &template, number, &ips, command.clone());
            // What it writes is nobody's log.
            let nowhere = File::options().write(true).open("/dev/null").map_err(|e| unready(&e))?;
            let beside = self.0.state.lock().process;
            let beside = beside.ok_or_else(|| unready(&"the program does not run"))?;
            let started = context.node.spawn(net, launch, Some(beside), nowhere.into()).await;
            let mut process = started.map_err(|e| unready(&e))?;
            let exit = tokio::time::timeout(probe.timeout, process.ended()).await;
            match exit {
                Ok(Some(Exit::Code(0))) => Ok(()),
                Ok(Some(exit)) => Err(unready(&format!("its command {exit}"))),
                Ok(None) => Err(unready(&"the node is gone")),
                Err(_) => {
                    // It may have ended just now; the next one must not find it.
                    let _ = context.node.signal(process.number(), Signal::Kill).await;
                    process.ended().await;
                    Err(unready(&format!("its command did not end within {:?}", probe.timeout)))
                }
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
}
