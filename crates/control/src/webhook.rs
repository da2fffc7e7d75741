//! Webhooks: HTTPS that the API server asks, with the certificate of a Secret that is renewed under way.
//!
//! ```text
//! API server ─► seat ─► TLS ─► POST, body within the room ─► AdmissionReview ─► the webhook's own decision ─► AdmissionReview
//! files ─► Serving (looked at every 2 s)
//! ```

mod room;

use crate::{
    Error,
    seats::{Seat, Seats},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
pub(crate) use room::Room;
use room::{Crowded, Share};
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use weft_cluster::k8s::ByteString;
use weft_telemetry::{Counter, Labels, Registry, Shard};
use weft_transport::tls::Serving;

/// API servers are few, and keep their connections. As many more may be on their way out.
const MAX_CONNECTIONS: usize = 256;
const HANDSHAKE: Duration = Duration::from_secs(5);
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// A peer that is gone is noticed after both.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(10);
const MAX_BODY_BYTES: usize = 10 << 20;
/// Of all reviews that are being read or decided: what finds no room is refused. With the failure
/// policy `Fail` whoever wanted it asks again; with `Ignore` the object comes in as it is, and `check` names such pods.
const MAX_BYTES: usize = 64 << 20;
/// Reviews of one connection at a time.
const MAX_STREAMS: u32 = 64;
/// A review has arrived by then.
const BODY: Duration = Duration::from_secs(10);
/// How often the certificate's files are read.
const LOOK: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);

/// What a webhook says to a review.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    /// Why not, and the status of HTTP that says so.
    pub(crate) refused: Option<(u16, String)>,
    /// A JSON patch; nothing if empty.
    pub(crate) patch: Vec<Value>,
    pub(crate) warnings: Vec<String>,
}

/// The files of a Secret.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    chain: PathBuf,
    key: PathBuf,
}

impl Certificate {
    /// `tls.crt` and `tls.key` of a folder.
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self { chain: folder.join("tls.crt"), key: folder.join("tls.key") }
    }

    fn read(&self) -> Result<(String, String), Error> {
        let text = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| Error::Io { what: path.display().to_string(), error })
        };
        Ok((text(&self.chain)?, text(&self.key)?))
    }
}

/// A webhook that serves `decide`.
pub(crate) struct Webhook<D> {
    name: &'static str,
    socket: TcpListener,
    certificate: Certificate,
    /// What the files said when it began.
    first: (String, String),
    serving: Arc<Serving>,
    decide: Arc<D>,
    pub(crate) room: Arc<Room>,
    seats: Arc<Seats>,
    failed: Counter,
    undecided: Counter,
    crowded: Counter,
    renewed: Counter,
    kept: Counter,
}

impl<D, F> Webhook<D>
where
    D: Fn(Value) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Verdict, String>> + Send + 'static,
{
    /// # Errors
    /// The certificate cannot be used.
    pub(crate) fn new(
        name: &'static str,
        socket: TcpListener,
        certificate: Certificate,
        decide: D,
        registry: &Registry,
    ) -> Result<Self, Error> {
        let (chain, key) = certificate.read()?;
        let serving = Serving::new(&chain, &key).map_err(|e| wrong(&certificate, &e))?;
        let labels = Labels::new().with("webhook", name);
        let counter = |name, help| registry.counter(name, help).with(Shard::ADMIN, &labels);
        Ok(Self {
            name,
            socket,
            certificate,
            first: (chain, key),
            serving: Arc::new(serving),
            decide: Arc::new(decide),
            room: Arc::new(Room::new(MAX_BYTES)),
            seats: Arc::new(Seats::new(
                MAX_CONNECTIONS,
                2 * MAX_CONNECTIONS,
                counter("weft_webhook_ended_total", "Connections at rest that were ended because others came."),
            )),
            failed: counter("weft_webhook_handshakes_failed_total", "TLS handshakes that failed."),
            undecided: counter("weft_webhook_undecided_total", "Reviews that could not be decided, and were refused."),
            crowded: counter("weft_webhook_crowded_total", "Reviews for which there was no room."),
            renewed: counter("weft_webhook_certificates_total", "Certificates that replaced another."),
            kept: counter("weft_webhook_certificates_kept_total", "Times that a new certificate could not be used."),
        })
    }

    pub(crate) async fn serve(self, stop: CancellationToken) {
        let this = Arc::new(self);
        let renewing = tokio::spawn({
            let (this, stop) = (this.clone(), stop.clone());
            async move { stop.run_until_cancelled(this.renew()).await }
        });
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            match stop.run_until_cancelled(this.socket.accept()).await {
                None => break,
                Some(Err(error)) => {
                    tracing::warn!(webhook = this.name, %error, "accept failed");
                    tokio::time::sleep(PAUSE).await;
                }
                Some(Ok((tcp, peer))) => {
                    let Some(seat) = stop.run_until_cancelled(this.seats.take()).await else { break };
                    connections.spawn(this.clone().connection(tcp, peer, Arc::new(seat), stop.clone()));
                }
            }
        }
        // What is being decided is decided: an admission that is lost fails somebody's deployment.
        while connections.join_next().await.is_some() {}
        renewing.abort();
    }

    async fn connection(self: Arc<Self>, tcp: TcpStream, peer: SocketAddr, seat: Arc<Seat>, stop: CancellationToken) {
        let handshake = tokio::select! {
            handshake = tokio::time::timeout(HANDSHAKE, self.serving.accept(tcp)) => handshake,
            () = seat.is_told_to_go() => return,
        };
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.failed.inc();
                tracing::warn!(webhook = self.name, %peer, %error, "handshake failed");
                return;
            }
            Err(_) => return self.failed.inc(),
        };
        let (this, asker) = (self.clone(), seat.clone());
        let service = service_fn(move |request| {
            let (this, asker) = (this.clone(), asker.clone());
            async move { Ok::<_, Infallible>(this.answer(request, &asker).await) }
        });
        let mut server = auto::Builder::new(TokioExecutor::new());
        server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        server
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG);
        let serving = server.serve_connection(TokioIo::new(stream), service);
        let mut serving = std::pin::pin!(serving);
        let ended = tokio::select! {
            ended = &mut serving => Some(ended),
            () = seat.is_cut_off() => return,
            () = seat.is_told_to_go() => None,
            () = seat.is_idle() => None,
            () = stop.cancelled() => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                serving.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = serving => ended,
                    () = seat.is_cut_off() => return,
                    () = seat.lingers() => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(webhook = self.name, %peer, %error, "connection failed");
        }
    }

    async fn answer(&self, request: Request<Incoming>, seat: &Arc<Seat>) -> Response<Full<Bytes>> {
        let _open = seat.asks();
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only POST\n");
        }
        let read = tokio::time::timeout(BODY, self.read(request.into_body())).await;
        let (body, _share) = match read {
            Ok(Ok(read)) => read,
            Ok(Err((status, why))) => return text(status, why),
            Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time\n"),
        };
        let _decided = seat.decides();
        let Ok(mut review) = serde_json::from_slice::<Value>(&body) else {
            return text(StatusCode::BAD_REQUEST, "the body is no JSON\n");
        };
        let request = review.get_mut("request").map(Value::take).unwrap_or_default();
        let is_known = review["apiVersion"] == "admission.k8s.io/v1" && review["kind"] == "AdmissionReview";
        let (Some(uid), true) = (request["uid"].as_str().map(str::to_owned), is_known) else {
            return text(StatusCode::BAD_REQUEST, "the body is no AdmissionReview of admission.k8s.io/v1\n");
        };
        // Whoever cannot be decided is refused, as Linkerd's are: a pod that came without its proxy would not be noticed.
        let verdict = (self.decide)(request).await.unwrap_or_else(|error| {
            self.undecided.inc();
            tracing::warn!(webhook = self.name, error, "review not decided");
            Verdict { refused: Some((500, error)), ..Verdict::default() }
        });
        let mut response = Response::new(Full::new(Bytes::from(reviewed(&uid, verdict).to_string())));
        let json = hyper::header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
        response
    }

    /// The whole body, and the room that it takes up.
    async fn read(&self, mut body: Incoming) -> Result<(Vec<u8>, Share), (StatusCode, &'static str)> {
        let full = |_: Crowded| {
            self.crowded.inc();
            (StatusCode::SERVICE_UNAVAILABLE, "too many reviews at once; ask again\n")
        };
        let (mut bytes, mut share) = (vec![], self.room.share());
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = share.is_taken() => return Err(full(Crowded)),
            };
            let Some(frame) = frame else { break };
            let Ok(frame) = frame else { return Err((StatusCode::BAD_REQUEST, "the body broke off\n")) };
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > MAX_BODY_BYTES {
                return Err((StatusCode::PAYLOAD_TOO_LARGE, "the review has more than 10 MiB\n"));
            }
            share.grow(data.len()).map_err(full)?;
            bytes.extend_from_slice(&data);
        }
        share.arrived().map_err(full)?;
        Ok((bytes, share))
    }

    /// Follows the files.
    async fn renew(&self) {
        let (mut present, mut told) = (Some(self.first.clone()), None);
        loop {
            tokio::time::sleep(LOOK).await;
            let read = self.certificate.read();
            if read.as_ref().ok() == present.as_ref() && read.is_ok() {
                continue;
            }
            let set = read.and_then(|(chain, key)| {
                self.serving.set(&chain, &key).map_err(|e| wrong(&self.certificate, &e))?;
                Ok((chain, key))
            });
            match set {
                Ok(pair) => {
                    self.renewed.inc();
                    tracing::info!(webhook = self.name, "certificate renewed");
                    (present, told) = (Some(pair), None);
                }
                // While files are being replaced one may be new and the other old: the next look sees both.
                Err(error) => {
                    let error = error.to_string();
                    if told.as_ref() != Some(&error) {
                        self.kept.inc();
                        tracing::warn!(webhook = self.name, error, "the present certificate stays");
                        told = Some(error);
                    }
                }
            }
        }
    }
}

fn wrong(certificate: &Certificate, error: &dyn std::fmt::Display) -> Error {
    Error::Certificate { path: certificate.chain.clone(), reason: error.to_string() }
}

/// The review that answers.
fn reviewed(uid: &str, Verdict { refused, patch, warnings }: Verdict) -> Value {
    let mut response = json!({"uid": uid, "allowed": refused.is_none()});
    if let Some((code, message)) = refused {
        response["status"] = json!({"code": code, "message": message});
    } else if !patch.is_empty() {
        response["patchType"] = "JSONPatch".into();
        // It is said in base64, which is how Kubernetes writes bytes.
        response["patch"] = json!(ByteString(Value::Array(patch).to_string().into_bytes()));
    }
    if !warnings.is_empty() {
        response["warnings"] = warnings.into();
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_reviews() {
        let refused = Verdict { refused: Some((400, "no".into())), patch: vec![json!(1)], warnings: vec!["w".into()] };
        let response = reviewed("u", refused)["response"].clone();
        assert_eq!(
            response,
            json!({"uid": "u", "allowed": false, "status": {"code": 400, "message": "no"}, "warnings": ["w"]})
        );
        assert_eq!(reviewed("u", Verdict::default())["response"], json!({"uid": "u", "allowed": true}));
        let patched = reviewed("u", Verdict { patch: vec![json!({"op": "add"})], ..Verdict::default() });
        assert_eq!(patched["response"]["patch"], "W3sib3AiOiJhZGQifV0=");
        assert_eq!(patched["response"]["patchType"], "JSONPatch");
    }
}
