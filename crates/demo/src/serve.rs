//! The server that web, emoji and voting have in common: HTTP until the process is told to leave, then an end in order.
//!
//! ```text
//! SIGTERM ─► serves on and asks clients to go, until nobody has asked for a while ─► accepts no more, all ends in order ─► done
//! ```
//! Whoever is sent away learns of it later than the server: for that while it goes on, and says with each answer of HTTP/1
//! (`connection: close`), and on each connection of HTTP/2 (GOAWAY), that the next request had better go elsewhere. A connection that
//! closes without a word can lose the request that is on its way.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, Version,
    header::{CONNECTION, USER_AGENT},
};
use hyper::{
    body::{Body, Incoming},
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use std::{
    convert::Infallible,
    error::Error,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Longest that it goes on after it was told to leave, …
const MAX_QUIET_WAIT: Duration = Duration::from_secs(20);
/// … and that what is open then may take.
const MAX_END: Duration = Duration::from_secs(10);
/// Before a connection of HTTP/2 is told to go: whoever comes back meanwhile, as it knows no other server yet, does not come in a circle.
const GOAWAY_PAUSE: Duration = Duration::from_millis(100);
/// How those begin who ask whether it is well, on and on, to its end.
const PROBE: &str = "kube-probe/";

/// When and how a server leaves.
#[derive(Clone)]
pub(crate) struct Leave {
    /// How long nobody must have asked.
    quiet: Duration,
    told: watch::Receiver<bool>,
    closing: Arc<watch::Sender<bool>>,
}

/// Tells servers to leave. Dropping it tells them, too.
pub(crate) struct Tell(watch::Sender<bool>);

impl Tell {
    pub(crate) fn leave(&self) {
        self.0.send_replace(true);
    }
}

impl Leave {
    pub(crate) fn new(quiet: Duration) -> (Tell, Self) {
        let (sender, told) = watch::channel(false);
        (Tell(sender), Self { quiet, told, closing: Arc::new(watch::Sender::new(false)) })
    }

    /// Waits until the process is told to leave.
    pub(crate) async fn told(&self) {
        reached(&mut self.told.clone()).await;
    }

    fn is_told(&self) -> bool {
        *self.told.borrow() || self.told.has_changed().is_err()
    }

    /// Waits until it is time for streams and connections to end.
    pub(crate) async fn closing(&self) {
        reached(&mut self.closing.subscribe()).await;
    }

    /// Waits until the server was told, and nobody has asked for a while.
    async fn quiet(&self, asked: &AtomicU64) {
        self.told().await;
        let end = Instant::now() + MAX_QUIET_WAIT;
        loop {
            let before = asked.load(Relaxed);
            sleep(self.quiet).await;
            if asked.load(Relaxed) == before || Instant::now() >= end {
                return;
            }
        }
    }
}

/// Nobody left who could say so counts as said.
async fn reached(said: &mut watch::Receiver<bool>) {
    let _ = said.wait_for(|said| *said).await;
}

/// Serves HTTP/1 and HTTP/2 until `leave`.
pub(crate) async fn serve<S, B>(listener: TcpListener, service: S, leave: Leave) -> anyhow::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    tracing::info!(addr = %listener.local_addr()?, "serving");
    let asked = Arc::new(AtomicU64::new(0));
    let mut open = JoinSet::new();
    let mut quiet = pin!(leave.quiet(&asked));
    loop {
        // What is dropped here is only waiting.
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            Some(_) = open.join_next() => continue,
            () = &mut quiet => break,
        };
        stream.set_nodelay(true)?;
        open.spawn(connection(stream, service.clone(), asked.clone(), leave.clone()));
    }
    drop(listener);
    leave.closing.send_replace(true);
    if timeout(MAX_END, async { while open.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!(open = open.len(), "left before everything had ended");
    }
    Ok(())
}

async fn connection<S, B>(stream: TcpStream, service: S, asked: Arc<AtomicU64>, leave: Leave)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (by_http2, telling) = (Arc::new(Notify::new()), leave.clone());
    let spoken = by_http2.clone();
    let answering = service_fn(move |request: Request<Incoming>| {
        if !is_probe(request.headers()) {
            asked.fetch_add(1, Relaxed);
        }
        let is_http2 = request.version() == Version::HTTP_2;
        if is_http2 {
            spoken.notify_one();
        }
        let (answer, telling) = (service.call(request), telling.clone());
        async move {
            let mut answer = answer.await?;
            if !is_http2 && telling.is_told() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let goes = async {
        tokio::select! {
            () = leave.closing() => {}
            // One that has not asked yet would lose its first request.
            () = async { tokio::join!(leave.told(), by_http2.notified()); sleep(GOAWAY_PAUSE).await } => {}
        }
    };
    let server = auto::Builder::new(TokioExecutor::new());
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), answering));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = goes => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

fn is_probe(headers: &HeaderMap) -> bool {
    headers.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(PROBE.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use http::Method;
    use http_body_util::{BodyExt, Empty, Full};
    use hyper::client::conn::{http1, http2};

    /// A server that takes 20 ms for an answer, and 400 ms for /slow.
    async fn started(quiet: Duration) -> (Tell, String, tokio::task::JoinHandle<anyhow::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let service = service_fn(|request: Request<Incoming>| async move {
            sleep(Duration::from_millis(if request.uri().path() == "/slow" { 400 } else { 20 })).await;
            Ok(Response::new(Full::new(Bytes::from_static(b"answer"))))
        });
        let (tell, leave) = Leave::new(quiet);
        (tell, host, tokio::spawn(serve(listener, service, leave)))
    }

    async fn ended(serving: tokio::task::JoinHandle<anyhow::Result<()>>) {
        timeout(MAX_END, serving).await.expect("it ends though connections are kept").unwrap().unwrap();
    }

    fn closes(answer: &Response<Bytes>) -> bool {
        answer.headers().get(CONNECTION).is_some_and(|said| said == "close")
    }

    #[tokio::test]
    async fn who_asks_while_it_leaves_is_answered_and_asked_to_go() {
        let (tell, host, serving) = started(Duration::from_millis(500)).await;
        let (mut kept, mut late) = (Client::new(&host), Client::new(&host));
        assert!(!closes(&kept.send(Method::GET, "/", Bytes::new()).await.unwrap()));
        tell.leave();
        // Over a connection that it has, and over ones that are made now.
        for _ in 0..3 {
            for client in [&mut kept, &mut late] {
                let answer = client.send(Method::GET, "/", Bytes::new()).await.unwrap();
                assert_eq!(answer.status(), 200);
                assert!(closes(&answer));
            }
        }
        ended(serving).await;
        assert!(kept.get("/").await.is_err(), "nobody is there any more");
    }

    #[tokio::test]
    async fn connections_of_http2_are_told_to_go_before_anything_ends() {
        let (tell, host, serving) = started(Duration::from_millis(2000)).await;
        let connect = async || {
            let stream = TcpStream::connect(&host).await.unwrap();
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            (sender, tokio::spawn(connection))
        };
        let ask = async |sender: &mut http2::SendRequest<Empty<Bytes>>, path: &str| {
            let request = Request::builder().uri(format!("http://{host}{path}")).body(Empty::new()).unwrap();
            sender.send_request(request).await.unwrap().collect().await.unwrap().to_bytes()
        };
        let (mut sender, connection) = connect().await;
        assert_eq!(ask(&mut sender, "/").await, "answer");
        let mut slow = sender.clone();
        let under_way = async {
            assert_eq!(ask(&mut slow, "/slow").await, "answer");
        };
        // What is under way is answered over a connection that takes nothing else any more.
        tokio::join!(under_way, async {
            sleep(Duration::from_millis(50)).await;
            tell.leave();
            timeout(MAX_END, async {
                while sender.ready().await.is_ok() {
                    sleep(Duration::from_millis(10)).await
                }
            })
            .await
            .expect("it is told to go");
        });
        timeout(MAX_END, connection).await.expect("it ends").unwrap().unwrap();
        // Who comes now is served all the same.
        let (mut again, _connection) = connect().await;
        assert_eq!(ask(&mut again, "/").await, "answer");
        assert!(!serving.is_finished());
        ended(serving).await;
    }

    #[tokio::test]
    async fn who_asks_whether_it_is_well_does_not_keep_it() {
        let (tell, host, serving) = started(Duration::from_millis(300)).await;
        tell.leave();
        // For as long as somebody is there: longer than is waited for, if that counted.
        let probing = async {
            while let Ok(stream) = TcpStream::connect(&host).await {
                let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
                tokio::spawn(connection);
                let probe = Request::builder().header("host", "probe").header(USER_AGENT, "kube-probe/1.34");
                let _ = sender.send_request(probe.body(Empty::<Bytes>::new()).unwrap()).await;
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::join!(ended(serving), probing);
    }
}
