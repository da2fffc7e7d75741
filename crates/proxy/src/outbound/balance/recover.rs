//! Members that are left out, and how they come back: by a connection, or when the circuit breaker lets a request through.

use super::{Balancer, Connections, Member, accrual::Accrual};
use crate::error::{Code, ProxyError};
use std::{
    rc::{Rc, Weak},
    sync::Arc,
};

impl<C: Connections> Balancer<C> {
    /// Leaves out a member that could not be connected, and tries again after a growing wait.
    pub(crate) fn failed(self: &Rc<Self>, member: &Rc<Member<C>>, error: &ProxyError) {
        let new = {
            let mut state = self.state.borrow_mut();
            state.last = Some(error.clone());
            let new = state.members.failed(member);
            self.note(&mut state);
            new
        };
        if new {
            let (target, endpoint) = (&self.watch.target, member.endpoint.addr);
            tracing::warn!(%target, %endpoint, %error, "an endpoint cannot be connected and is left out");
            tokio::task::spawn_local(revive(Rc::downgrade(self), Rc::clone(member)));
        }
    }

    /// Leaves out a member that the circuit breaker shuts out, until that lets a request through.
    pub(super) fn shut(self: &Rc<Self>, member: &Rc<Member<C>>, accrual: &Arc<Accrual>) {
        let mut state = self.state.borrow_mut();
        if state.members.shut(member) {
            let text = format!("{} fails and is left out by the circuit breaker", member.endpoint.addr);
            state.last = Some(ProxyError::new(Code::BreakerShut, text));
            self.note(&mut state);
            tokio::task::spawn_local(readmit(Rc::downgrade(self), Rc::clone(member), Arc::clone(accrual)));
        }
    }
}

/// Brings a failed member back; ends when it is back, has left the set, or the balancer is gone.
async fn revive<C: Connections>(balancer: Weak<Balancer<C>>, member: Rc<Member<C>>) {
    loop {
        let Some(limits) = balancer.upgrade().map(|b| b.settings.backoff) else { return };
        tokio::time::sleep(member.wait(&limits, fastrand::f64())).await;
        if member.is_removed() {
            return;
        }
        let outcome = match member.connections.revive().await {
            // Nothing was found out: the next request does, which is told so.
            Err(error) if error.code.spares_the_endpoint() => Ok(false),
            outcome => outcome,
        };
        let Some(balancer) = balancer.upgrade() else { return };
        // It may have left the set meanwhile, and then is no reason any more.
        if member.is_removed() {
            return;
        }
        let mut state = balancer.state.borrow_mut();
        match outcome {
            Ok(connected) => {
                if state.members.recovered(&member) {
                    balancer.note(&mut state);
                }
                drop(state);
                if connected {
                    tracing::info!(target = %balancer.watch.target, endpoint = %member.endpoint.addr, "an endpoint is back");
                }
                balancer.wake.notify_waiters();
                return;
            }
            Err(error) => state.last = Some(error),
        }
    }
}

/// Takes a member in again when the circuit breaker would let a request through to it.
async fn readmit<C: Connections>(balancer: Weak<Balancer<C>>, member: Rc<Member<C>>, accrual: Arc<Accrual>) {
    accrual.due().await;
    let Some(balancer) = balancer.upgrade() else { return };
    {
        let mut state = balancer.state.borrow_mut();
        if !member.is_shut() || !state.members.recovered(&member) {
            return;
        }
        balancer.note(&mut state);
    }
    balancer.wake.notify_waiters();
}
