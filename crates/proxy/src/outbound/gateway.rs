//! What the inbound side's gateway asks of this one: a target by its name, and ways to it.

use super::{Outbound, Requests, detect::Protocol, discover::Target, forward};
use crate::{
    error::{Code, ProxyError},
    records::{Passage, Scene},
};
use std::rc::Rc;
use weft_model::NameAddr;
use weft_transport::{Stream, drain};

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

    /// Forwards bytes until both sides have ended, or the drain's deadline has passed.
    ///
    /// # Errors
    /// No route takes them, or no endpoint could be connected.
    pub(crate) async fn bytes(
        &self,
        stream: Stream,
        drain: &drain::Watch,
        passage: &mut Passage,
    ) -> Result<(), ProxyError> {
        match Box::pin(forward::open(&self.outbound, &self.target, None)).await {
            Ok(session) => {
                session.forward(stream, &self.target, drain, passage).await;
                Ok(())
            }
            Err(error) => {
                stream.reset_on_close();
                Err(error)
            }
        }
    }
}
