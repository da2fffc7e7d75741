//! The tap server on 4190 (data plane 7.1): mesh TLS, one permitted identity, loopback passes. Runs on the admin thread.

use crate::{
    config::Tap,
    inbound::tls::{self, Arrived},
    process::{
        identity::Lifetimes,
        places::Places,
        served::{self, PATIENCE},
    },
    records::{MAX_OBSERVERS, Taps},
};
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
    time::Duration,
};
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tonic::{Request, Status};
use tower::ServiceExt;
use weft_model::{
    Identity,
    tap::{Event, Observation},
};
use weft_transport::{
    socket::{self, AcceptOptions},
    tls::Store,
};
use weft_wire::{GrpcServer, Outgoing, tap};

/// The most connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// Of one client; more are closed.
const MAX_OF_ONE: usize = 16;
/// A client that is gone is noticed after twice this time.
const PING: Duration = Duration::from_secs(10);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Who calls, in the extensions of each request.
#[derive(Clone, Debug)]
struct Caller {
    identity: Option<Identity>,
    /// It is the one identity that may, or on this machine.
    may_tap: bool,
}

struct Service {
    taps: Taps,
}

impl tap::Taps for Service {
    async fn observe(&self, observation: Request<Observation>) -> Result<Outgoing<Event>, Status> {
        let observation = observation.into_inner();
        tracing::debug!(?observation, "Requests are observed");
        match self.taps.observe(observation) {
            Some(events) => Ok(Box::pin(events.map(Ok))),
            None => Err(Status::resource_exhausted(format!("there are {MAX_OBSERVERS} observers already"))),
        }
    }

    fn permit(&self, extensions: &http::Extensions) -> Result<(), Status> {
        let caller = extensions.get::<Caller>();
        if caller.is_some_and(|caller| caller.may_tap) {
            return Ok(());
        }
        let who = caller.and_then(|caller| caller.identity.as_ref());
        let who = who.map_or_else(|| "a client without identity".to_owned(), ToString::to_string);
        Err(Status::unauthenticated(format!("{who} may not tap")))
    }
}

/// Serves until the runtime ends.
pub(super) async fn serve(
    listener: TcpListener,
    config: Tap,
    tls: Store,
    lifetimes: Lifetimes,
    taps: Taps,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let service = tap::server(Service { taps });
    let places = Places::new(MAX_CONNECTIONS, MAX_OF_ONE);
    while let Some((tcp, client, place)) = served::next("tap", &listener, &places).await {
        let (tls, lifetimes, service) = (tls.clone(), lifetimes.clone(), service.clone());
        let permitted = config.permitted.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection(tcp, client, (&tls, &lifetimes), &permitted, service).await {
                tracing::debug!(%client, error, "A tap connection failed");
            }
        });
    }
    Ok(())
}

async fn connection(
    tcp: TcpStream,
    client: SocketAddr,
    (store, lifetimes): (&Store, &Lifetimes),
    permitted: &Identity,
    service: impl GrpcServer,
) -> Result<(), Failure> {
    socket::accepted(&tcp, &AcceptOptions::default())?;
    let arrived = Box::pin(tls::terminate(store, lifetimes, tcp, false, PATIENCE)).await?;
    let Some(Arrived { stream, tls, .. }) = arrived else { return Ok(()) };
    let life = stream.life();
    let may_tap = tls.identity() == Some(permitted) || client.ip().to_canonical().is_loopback();
    let caller = Caller { identity: tls.identity().cloned(), may_tap };
    let service = service.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(caller.clone());
        request.map(tonic::body::Body::new)
    });
    let mut server = http2::Builder::new(TokioExecutor::new());
    server.timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PING).max_concurrent_streams(64);
    let mut serving = pin!(server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)));
    tokio::select! {
        served = serving.as_mut() => return Ok(served?),
        // Who observes is told to come again, and is not cut off amid an event.
        () = served::ending(life) => serving.as_mut().graceful_shutdown(),
        // Whom each request tells that it may not has no use for a place.
        () = tokio::time::sleep(PATIENCE.whole), if !may_tap => serving.as_mut().graceful_shutdown(),
    }
    serving.await?;
    Ok(())
}
