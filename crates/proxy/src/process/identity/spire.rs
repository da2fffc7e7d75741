//! Certificates from a SPIFFE workload API: key and certificate come together, and come anew by the stream.
//!
//! The roots that it sends are left aside, as Linkerd's proxy does: the configured anchors say who is believed.

use super::Reporter;
use crate::{
    config::{StreamLimits, WorkloadApi},
    process::control::{Event, Failed, Following, follow_while},
};
use anyhow::Context;
use hyper_util::rt::TokioIo;
use std::ops::ControlFlow;
use tokio::net::UnixStream;
use tonic::{Code, transport::Endpoint};
use weft_model::Identity;
use weft_transport::tls::Key;
use weft_wire::{
    Error,
    spiffe::{Client, Svid},
};

/// Follows the workload API for as long as the process lives, or until it says that it will never answer.
pub(in crate::process) async fn follow_workload_api(api: WorkloadApi, id: Identity, mut reporter: Reporter) {
    let socket = api.socket.clone();
    let connect = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The name means nothing: the connector knows where to go.
    let client = Client::new(Endpoint::from_static("http://workload.invalid").connect_with_connector_lazy(connect));
    let open = || {
        let mut client = client.clone();
        async move { client.fetch().await }
    };
    let _reminder = reporter.remind(api.socket.display().to_string());
    let following = Following { backoff: api.backoff, limits: StreamLimits::default(), absent: None, refused: None };
    follow_while(following, open, |event| {
        match event {
            Event::Message { value, .. } => {
                let outcome = present(&reporter, &id, &value);
                reporter.report(outcome);
            }
            Event::Invalid(reason) => reporter.report(Err(anyhow::anyhow!("the workload API's answer: {reason}"))),
            Event::Failed(Failed { error: Error::Rpc(status), .. }) if status.code() == Code::InvalidArgument => {
                tracing::error!(reason = status.message(), "The workload API refuses this proxy for good");
                reporter.report(Err(Error::Rpc(status).into()));
                return ControlFlow::Break(());
            }
            Event::Failed(failed) => reporter.report(Err(failed.error.into())),
        }
        ControlFlow::Continue(())
    })
    .await;
    // Who waits for the first certificate waits on: without one the proxy is not ready.
    std::future::pending::<()>().await;
    drop(reporter);
}

/// Puts the one identity into force that is configured.
fn present(reporter: &Reporter, id: &Identity, svids: &[Svid]) -> anyhow::Result<()> {
    let svid = svids.iter().find(|svid| svid.id == *id).with_context(|| {
        let others: Vec<_> = svids.iter().map(|svid| svid.id.as_str()).collect();
        format!("the workload API has no identity {id}, but [{}]", others.join(", "))
    })?;
    let key = Key::from_pkcs8(&svid.key)?;
    let (leaf, intermediates) = svid.chain.split_first().context("the identity has no certificate")?;
    let intermediates: Vec<_> = intermediates.iter().map(|der| der.to_vec()).collect();
    reporter.present(&key, leaf, &intermediates)
}
