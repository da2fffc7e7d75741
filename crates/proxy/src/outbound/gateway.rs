//! What the inbound side's gateway asks of this one: a target by its name, and ways to it.

use super::{Outbound, Requests, discover::Target, forward};
use crate::{
    error::{Code, ProxyError},
    protocol::Protocol,
    records::{Passage, Scene},
};
use std::{pin::pin, rc::Rc};
use weft_model::NameAddr;
use weft_transport::Stream;

/// A target that a gateway forwards to.
pub(crate) struct Onward {
    outbound: Rc<Outbound>,
    target: Rc<Target>,
}

impl Outbound {
    /// What is behind `name`; waits for the control plane's first answers.
    ///
    /// # Errors
    /// There is no such target, or the control plane does not say.
    pub(crate) async fn onward(self: &Rc<Self>, name: NameAddr) -> Result<Onward, ProxyError> {
        self.begin_sweeping();
        let target = self.targets.get(name.clone().into()).await?;
        if target.found.profile.load().value.is_none() {
            return Err(ProxyError::new(Code::GatewayDomainInvalid, format!("{name} has no profile")));
        }
        Ok(Onward { outbound: Rc::clone(self), target })
    }
}

impl Onward {
    /// Decides where each request of a connection goes.
    pub(crate) fn requests(&self, http2: bool, scene: Rc<Scene>) -> Requests {
        let protocol = if http2 { Protocol::Http2 } else { Protocol::Http1 };
        Requests::forwarded(Rc::clone(&self.outbound), Rc::clone(&self.target), protocol, scene)
    }

    /// Forwards bytes until both sides have ended, or until `cut` is ready.
    ///
    /// # Errors
    /// No route takes them, or no endpoint could be connected.
    pub(crate) async fn bytes(
        &self,
        stream: Stream,
        cut: impl Future<Output = ()>,
        passage: &mut Passage,
    ) -> Result<(), ProxyError> {
        let mut cut = pin!(cut);
        let opened = tokio::select! {
            opened = Box::pin(forward::open(&self.outbound, &self.target, None)) => opened,
            // What was being opened carries nothing yet.
            () = &mut cut => {
                stream.reset_on_close();
                return Ok(());
            }
        };
        let session = opened.inspect_err(|_| stream.reset_on_close())?;
        session.forward(stream, &self.target, cut, passage).await;
        Ok(())
    }
}
