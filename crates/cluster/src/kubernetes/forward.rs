//! A connection to a port inside a pod, which the API server and the pod's node carry: `kubectl port-forward`.

use super::{Client, Error};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use std::time::Duration;
use tokio::io::DuplexStream;

/// How long it may take until bytes can pass.
const CONNECT: Duration = Duration::from_secs(10);

/// Connects to a port of a pod's own loopback.
///
/// # Errors
/// There is no such pod, or whoever asks may not. That nobody listens shows with the first read.
pub(super) async fn forward(client: Client, namespace: &str, pod: &str, port: u16) -> Result<DuplexStream, Error> {
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let ports = [port];
    let forwarded = tokio::time::timeout(CONNECT, pods.portforward(pod, &ports)).await;
    let mut forwarded = match forwarded {
        Ok(Ok(forwarded)) => forwarded,
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => return Err(Error::Request(format!("no connection within {CONNECT:?}"))),
    };
    let stream = forwarded.take_stream(port).ok_or_else(|| Error::Request("no connection".to_owned()))?;
    // Carries the bytes until either side ends.
    tokio::spawn(forwarded.join());
    Ok(stream)
}
