//! The end of a pod whose work is done: `weft.workload.Work/Watch` on the policy service's address.
//!
//! A Job's pod is over when its last container ends, and a proxy that is no native sidecar would never. The control plane sees the
//! other containers end; this ends the proxy as a signal does. It decides nothing: what is not said to be done goes on.

use super::{
    control::{Counted, Event, Failed, Following, follow_while},
    shutdown::Trigger,
};
use std::ops::ControlFlow;
use weft_wire::{
    Verdict,
    work::{Client, Progress, WorkSpec},
};

/// Pulls the trigger when the work is done.
pub(super) async fn end_with_it(channel: Counted, spec: WorkSpec, following: Following, trigger: Trigger) {
    let client = Client::new(channel);
    let open = || {
        let (mut client, spec) = (client.clone(), spec.clone());
        async move { client.watch(&spec).await }
    };
    follow_while(following, open, |event| {
        match event {
            Event::Message { value: Progress { done: true }, .. } => {
                trigger.pull("the other containers of the pod have ended");
                return ControlFlow::Break(());
            }
            Event::Message { value: Progress { done: false }, .. } => {}
            Event::Invalid(reason) => tracing::warn!(reason, "How far the pod's work is cannot be understood"),
            Event::Failed(Failed { verdict: Verdict::Unserved, again, .. }) => {
                if !again {
                    tracing::warn!(
                        "The control plane does not say when the pod's work is done: this proxy goes on without end"
                    );
                }
            }
            Event::Failed(Failed { error, .. }) => tracing::debug!(%error, "The stream about the pod's work is lost"),
        }
        ControlFlow::Continue(())
    })
    .await;
}
