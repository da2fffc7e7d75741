//! Who asks for an endpoint gets one that is ready, or waits in the queue until one is, at most for the failfast timeout.

use super::{Balancer, Connections, Picked, failfast::Refused};
use crate::{
    error::{Code, ProxyError},
    metrics::balancer::Series,
    process::discovery::EndpointState,
};
use std::rc::Rc;
use tokio::{
    sync::futures::Notified,
    time::{Instant, timeout_at},
};

impl<C: Connections> Balancer<C> {
    /// The endpoint to try next; waits for one up to the failfast timeout.
    pub(crate) async fn next(self: &Rc<Self>, series: &Series) -> Result<Picked<C>, ProxyError> {
        match self.pick() {
            Some(picked) => {
                series.passed();
                Ok(picked)
            }
            // Boxed: most requests find an endpoint at once, and need not carry the room for waiting.
            None => Box::pin(self.wait(series)).await,
        }
    }

    async fn wait(self: &Rc<Self>, series: &Series) -> Result<Picked<C>, ProxyError> {
        let deadline = self.deadline()?;
        // Counted as waiting until these are dropped, also when the request gives up.
        let place = self.settings.shared.enter(self.settings.queue.waiting);
        let _place = place.ok_or_else(|| self.refusal(Refused::Full, None))?;
        let _waiting = Waiting::new(series);
        loop {
            let woken = self.wake.notified();
            tokio::pin!(woken);
            // Registered before looking, so that no wake-up falls between.
            Notified::enable(woken.as_mut());
            if let Some(picked) = self.pick() {
                return Ok(picked);
            }
            let changed = self.watch.endpoints.changed(self.state.borrow().version.unwrap_or_default());
            let wait = async {
                tokio::select! {
                    () = woken => {}
                    // Cancel-safe: it only says that there is something to look at.
                    _ = changed => {}
                }
            };
            if timeout_at(deadline, wait).await.is_err() {
                if let Some(picked) = self.pick() {
                    return Ok(picked);
                }
                // The gate shuts, unless an endpoint was ready for a moment: this request has waited for its time all the same.
                self.deadline()?;
                return Err(self.refusal(Refused::Shut, self.state.borrow().last.as_ref()));
            }
        }
    }

    /// Until when a request may wait.
    fn deadline(&self) -> Result<Instant, ProxyError> {
        let mut state = self.state.borrow_mut();
        let deadline = state.failfast.deadline(Instant::now());
        deadline.ok_or_else(|| {
            self.show(&mut state);
            self.refusal(Refused::Shut, state.last.as_ref())
        })
    }

    fn refusal(&self, refused: Refused, last: Option<&ProxyError>) -> ProxyError {
        let name = &self.watch.target;
        match (refused, last) {
            (Refused::Full, _) => ProxyError::new(Code::LoadShed, format!("too many requests wait for {name}")),
            (Refused::Shut, None) => ProxyError::new(
                Code::Failfast,
                match self.watch.endpoints.load().value.state {
                    EndpointState::Unknown => format!("the control plane has not named the endpoints of {name}"),
                    EndpointState::Known => format!("{name} has no endpoints"),
                    EndpointState::Absent => format!("{name} does not exist"),
                },
            ),
            (Refused::Shut, Some(last)) => {
                let code = if last.code == Code::BreakerShut { last.code } else { Code::Failfast };
                ProxyError::new(code, format!("no endpoint of {name} is ready: {}", last.message))
            }
        }
    }
}

/// A request that waits.
struct Waiting<'s> {
    series: &'s Series,
    since: Instant,
}

impl<'s> Waiting<'s> {
    fn new(series: &'s Series) -> Self {
        series.waits();
        Self { series, since: Instant::now() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.series.waited(self.since.elapsed());
    }
}
