//! The neighbours of an exchange: director, endpoint, record, client and server.

use crate::{
    error::{Code, ProxyError},
    exchange::{
        Carrier, Course, Directed, Director, Edits, Endpoint, Observe, Retried, Retries, Retrying, serve_http2,
    },
    http1,
    http2::{ClientSettings, Sender, ServerSettings, connect},
    protocol::Version,
};
use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::SendRequest, server::SendResponse};
use http::{HeaderMap, Request, Response};
use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::LocalSet,
};
use weft_model::{
    decide::{retry::RetryTerms, route::RequestView},
    endpoint::Http2Params,
    policy::outbound::Timeouts,
};
use weft_transport::stream::Stream;

pub(super) const OWN: crate::config::Http2Client =
    crate::config::Http2Client { stream_window: 65_535, connection_window: 1 << 20 };

/// What a record was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Head(u16),
    FirstByte,
    End(Option<u16>, Option<Code>),
    Aborted,
}

/// Decides as the test says.
pub(super) struct Fake {
    pub(super) server: SocketAddr,
    pub(super) carrier: Carrier,
    pub(super) edits: RefCell<Edits>,
    pub(super) refusal: RefCell<Option<ProxyError>>,
    /// What is asked of each request.
    pub(super) timeouts: Cell<Timeouts>,
    pub(super) retry: RefCell<Option<RetryTerms>>,
    pub(super) route: Rc<Route>,
    /// A direction that never decides on its next request; false again once it has been asked.
    pub(super) stuck: Cell<bool>,
    /// Connections to the endpoint do not come about until this is false.
    pub(super) unreachable: Rc<Cell<bool>>,
    pub(super) seen: Rc<RefCell<Vec<Seen>>>,
    pub(super) refused: RefCell<Vec<Code>>,
    pub(super) rtts: Rc<Cell<usize>>,
    pub(super) connections: Rc<Cell<usize>>,
    pub(super) drain: Rc<Notify>,
    shared: Rc<RefCell<Option<Sender>>>,
    kept: Rc<RefCell<Vec<http1::Connection>>>,
}

impl Fake {
    pub(super) fn new(server: SocketAddr, carrier: Carrier) -> Rc<Self> {
        Rc::new(Self {
            server,
            carrier,
            edits: RefCell::default(),
            refusal: RefCell::default(),
            timeouts: Cell::default(),
            retry: RefCell::default(),
            route: Rc::default(),
            stuck: Cell::default(),
            unreachable: Rc::default(),
            seen: Rc::default(),
            refused: RefCell::default(),
            rtts: Rc::default(),
            connections: Rc::default(),
            drain: Rc::default(),
            shared: Rc::default(),
            kept: Rc::default(),
        })
    }

    pub(super) fn to_http2(server: SocketAddr) -> Rc<Self> {
        Self::new(server, Carrier::Http2)
    }

    /// Serves HTTP/2 connections; where.
    pub(super) async fn serve_http2(self: &Rc<Self>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let this = self.clone();
        tokio::task::spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                let drain = this.drain.clone();
                let director = this.clone();
                tokio::task::spawn_local(async move {
                    let stream = Stream::from(tcp);
                    serve_http2(stream, &ServerSettings::default(), director, async move { drain.notified().await })
                        .await;
                });
            }
        });
        addr
    }

    /// A client's connection through the proxy.
    pub(super) async fn client(self: &Rc<Self>) -> SendRequest<Bytes> {
        client(self.serve_http2().await).await
    }

    /// What the record of the only request was told, once it is complete.
    pub(super) async fn record(&self) -> Vec<Seen> {
        until(|| self.seen.borrow().iter().any(|seen| matches!(seen, Seen::End(..) | Seen::Aborted))).await;
        self.seen.borrow().clone()
    }
}

/// Waits for something that other tasks of this thread bring about.
pub(super) async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A route that is ready as long as the test says so.
pub(in crate::exchange) struct Route {
    pub(in crate::exchange) ready: Cell<bool>,
    pub(in crate::exchange) counted: RefCell<Vec<Retried>>,
}

impl Default for Route {
    fn default() -> Self {
        Self { ready: Cell::new(true), counted: RefCell::default() }
    }
}

impl Route {
    pub(in crate::exchange) fn agree(self: &Rc<Self>, course: &Course, timeouts: Timeouts, retry: Option<RetryTerms>) {
        if retry.is_some() || timeouts != Timeouts::default() {
            let retries = retry.map(|terms| Retries { terms: Rc::new(terms), route: self.clone() });
            course.agree(std::time::Instant::now(), timeouts, retries);
        }
    }
}

impl Retrying for Route {
    fn is_ready(&self) -> bool {
        self.ready.get()
    }

    fn count(&self, event: Retried) {
        self.counted.borrow_mut().push(event);
    }
}

impl Director for Fake {
    type Endpoint = Chosen;
    type Record = Told;

    async fn direct(
        &self,
        _: &dyn RequestView,
        _: Version,
        course: &Course,
    ) -> Result<Directed<Chosen, Told>, ProxyError> {
        self.route.agree(course, self.timeouts.get(), self.retry.borrow().clone());
        if self.stuck.replace(false) {
            let _told = Told { seen: self.seen.clone(), ended: false };
            std::future::pending::<()>().await;
        }
        if let Some(error) = self.refusal.borrow().clone() {
            return Err(error);
        }
        Ok(Directed {
            endpoint: Chosen {
                server: self.server,
                shared: self.shared.clone(),
                kept: self.kept.clone(),
                rtts: self.rtts.clone(),
                connections: self.connections.clone(),
                unreachable: self.unreachable.clone(),
            },
            carrier: self.carrier,
            edits: self.edits.borrow().clone(),
            record: Told { seen: self.seen.clone(), ended: false },
        })
    }

    fn informational_headers(&self) -> bool {
        true
    }

    fn head_timeout(&self) -> Duration {
        Duration::ZERO
    }

    fn refused(&self, error: &ProxyError) {
        self.refused.borrow_mut().push(error.code);
    }
}

pub(super) struct Chosen {
    server: SocketAddr,
    shared: Rc<RefCell<Option<Sender>>>,
    kept: Rc<RefCell<Vec<http1::Connection>>>,
    rtts: Rc<Cell<usize>>,
    connections: Rc<Cell<usize>>,
    unreachable: Rc<Cell<bool>>,
}

impl Chosen {
    async fn dial(&self) -> Result<Stream, ProxyError> {
        self.connections.set(self.connections.get() + 1);
        until(|| !self.unreachable.get()).await;
        let tcp = TcpStream::connect(self.server)
            .await
            .map_err(|error| ProxyError::new(Code::ConnectFailed, error.to_string()))?;
        tcp.set_nodelay(true).unwrap();
        Ok(tcp.into())
    }
}

impl Endpoint for Chosen {
    async fn http1(&self) -> Result<http1::Connection, ProxyError> {
        if let Some(mut kept) = self.kept.borrow_mut().pop()
            && kept.is_reusable()
        {
            return Ok(kept);
        }
        Ok(http1::Connection::new(self.dial().await?))
    }

    fn keep_http1(&self, connection: http1::Connection) {
        self.kept.borrow_mut().push(connection);
    }

    async fn http2(&self) -> Result<Sender, ProxyError> {
        let shared = self.shared.borrow().clone();
        if let Some(mut shared) = shared
            && shared.ready().await.is_ok()
        {
            return Ok(shared);
        }
        let sender = connect(self.dial().await?, &ClientSettings::new(&OWN, &Http2Params::default())).await?;
        self.shared.replace(Some(sender.clone()));
        Ok(sender)
    }

    fn responded(&self, _: Duration) {
        self.rtts.set(self.rtts.get() + 1);
    }
}

pub(super) struct Told {
    seen: Rc<RefCell<Vec<Seen>>>,
    ended: bool,
}

impl Observe for Told {
    fn response_head(&mut self, status: u16) {
        self.seen.borrow_mut().push(Seen::Head(status));
    }

    fn first_byte(&mut self) {
        self.seen.borrow_mut().push(Seen::FirstByte);
    }

    fn end(&mut self, grpc_status: Option<u16>, error: Option<&ProxyError>) {
        self.ended = true;
        self.seen.borrow_mut().push(Seen::End(grpc_status, error.map(|error| error.code)));
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if !self.ended {
            self.seen.borrow_mut().push(Seen::Aborted);
        }
    }
}

/// Runs a test on one thread, as a worker does. No test takes that long.
pub(super) fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async { tokio::time::timeout(Duration::from_secs(300), test).await.expect("the test hangs") };
    LocalSet::new().block_on(&runtime, test);
}

pub(super) async fn client(addr: SocketAddr) -> SendRequest<Bytes> {
    let tcp = TcpStream::connect(addr).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let (client, connection) =
        h2::client::Builder::new().max_local_error_reset_streams(None).handshake(tcp).await.unwrap();
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    client.ready().await.unwrap()
}

/// An HTTP/2 server that gives each stream to `handle`; where, and how many connections it took.
pub(super) async fn server<F, Fut>(handle: F) -> SocketAddr
where
    F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> Fut + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let handle = handle.clone();
            tokio::task::spawn_local(async move {
                let mut connection = h2::server::handshake(tcp).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::task::spawn_local(handle(request, respond));
                }
            });
        }
    });
    addr
}

pub(super) fn ok() -> Response<()> {
    Response::new(())
}

pub(super) fn get(path: &str) -> Request<()> {
    Request::get(format!("http://web.test{path}")).body(()).unwrap()
}

pub(super) fn grpc() -> Request<()> {
    Request::post("http://voting.test/Voting/Vote").header("content-type", "application/grpc").body(()).unwrap()
}

/// Reads a body to its end.
pub(super) async fn read(body: &mut RecvStream) -> Result<(Bytes, Option<HeaderMap>), h2::Error> {
    let mut all = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?;
    Ok((all.freeze(), trailers))
}

/// Sends a body as fast as it is taken.
pub(super) async fn write(body: &mut SendStream<Bytes>, mut data: Bytes, end: bool) -> Result<(), h2::Error> {
    while !data.is_empty() {
        body.reserve_capacity(data.len());
        let n = std::future::poll_fn(|cx| body.poll_capacity(cx)).await.unwrap_or(Ok(0))?;
        if n == 0 {
            continue;
        }
        body.send_data(data.split_to(n.min(data.len())), false)?;
    }
    if end { body.send_data(Bytes::new(), true) } else { Ok(()) }
}
