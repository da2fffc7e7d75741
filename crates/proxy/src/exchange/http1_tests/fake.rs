//! The neighbours of an HTTP/1 exchange: director, endpoint, record, client and server.

use crate::{
    error::{Code, ProxyError},
    exchange::{
        Carrier, Course, Directed, Director, Edits, Endpoint, Observe, ServerConnection, http2_tests::fake::Route,
        serve_http1,
    },
    http1::Connection,
    http2::Sender,
    protocol::Version,
};
use bytes::Bytes;
use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    task::LocalSet,
    time::timeout,
};
use weft_model::{
    decide::{retry::RetryTerms, route::RequestView},
    policy::outbound::Timeouts,
};
use weft_transport::{drain, stream::Stream};

/// How long anything here waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a head may take.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// What a record was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Head(u16),
    FirstByte,
    End(Option<u16>, Option<Code>),
    Aborted,
}

/// Decides as the test says, and serves one address.
pub(super) struct Fake {
    server: SocketAddr,
    pub(super) edits: RefCell<Edits>,
    pub(super) refusal: RefCell<Option<ProxyError>>,
    /// What is asked of each request.
    pub(super) timeouts: Cell<Timeouts>,
    pub(super) retry: RefCell<Option<RetryTerms>>,
    pub(super) route: Rc<Route>,
    /// Decides nothing until notified.
    pub(super) stuck: Cell<bool>,
    pub(super) released: Notify,
    pub(super) directing: Notify,
    /// A head has begun that is not whole.
    pub(super) armed: Notify,
    /// What was asked: method, authority, path, query.
    pub(super) views: RefCell<Vec<String>>,
    pub(super) seen: Rc<RefCell<Vec<Seen>>>,
    pub(super) ended: Rc<Notify>,
    pub(super) refused: RefCell<Vec<Code>>,
    pub(super) informational: Cell<bool>,
    pub(super) connections: Rc<Cell<usize>>,
    pub(super) kept: Rc<RefCell<Vec<Connection>>>,
    signal: RefCell<Option<drain::Signal>>,
    watch: RefCell<Option<drain::Watch>>,
}

impl Fake {
    pub(super) fn new(server: SocketAddr) -> Rc<Self> {
        let (signal, watch) = drain::channel();
        Rc::new(Self {
            server,
            edits: RefCell::default(),
            refusal: RefCell::default(),
            timeouts: Cell::default(),
            retry: RefCell::default(),
            route: Rc::default(),
            stuck: Cell::default(),
            released: Notify::new(),
            directing: Notify::new(),
            armed: Notify::new(),
            views: RefCell::default(),
            seen: Rc::default(),
            ended: Rc::default(),
            refused: RefCell::default(),
            informational: Cell::new(true),
            connections: Rc::default(),
            kept: Rc::default(),
            signal: RefCell::new(Some(signal)),
            watch: RefCell::new(Some(watch)),
        })
    }

    /// A client's connection through the proxy.
    pub(super) async fn client(self: &Rc<Self>) -> Client {
        self.client_with(|_| ()).await
    }

    /// The same where little fits between the two that the client has not read.
    pub(super) async fn tight_client(self: &Rc<Self>) -> Client {
        self.client_with(|socket| {
            socket.set_send_buffer_size(4096).unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
        })
        .await
    }

    async fn client_with(self: &Rc<Self>, set_up: impl Fn(&TcpSocket)) -> Client {
        let [server, client] = [(); 2].map(|()| TcpSocket::new_v4().unwrap());
        for socket in [&server, &client] {
            set_up(socket);
        }
        server.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = server.listen(1).unwrap();
        let client = client.connect(listener.local_addr().unwrap()).await.unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        client.set_nodelay(true).unwrap();
        let this = self.clone();
        let watch = self.watch.borrow().clone().expect("the drain has not begun");
        tokio::task::spawn_local(async move {
            let connection = ServerConnection { stream: Stream::from(tcp), prefix: Bytes::new() };
            serve_http1(connection, &*this, watch).await;
        });
        Client { tcp: client, buffer: Vec::new() }
    }

    /// Begins the drain; whether all connections ended.
    pub(super) fn drain(&self) -> impl Future<Output = drain::Drained> + use<> {
        self.watch.borrow_mut().take();
        let signal = self.signal.borrow_mut().take().expect("the drain begins once");
        signal.drain(PATIENCE)
    }

    /// What the record of the only request was told, once it is complete.
    pub(super) async fn record(&self) -> Vec<Seen> {
        loop {
            let ended = self.ended.notified();
            if self.seen.borrow().iter().any(|seen| matches!(seen, Seen::End(..) | Seen::Aborted)) {
                return self.seen.borrow().clone();
            }
            timeout(PATIENCE, ended).await.expect("the record ends");
        }
    }
}

impl Director for Fake {
    type Endpoint = Chosen;
    type Record = Told;

    async fn direct(
        &self,
        view: &dyn RequestView,
        _: Version,
        course: &Course,
    ) -> Result<Directed<Chosen, Told>, ProxyError> {
        self.route.agree(course, self.timeouts.get(), self.retry.borrow().clone());
        let part = |part: Option<&str>| part.unwrap_or("-").to_owned();
        self.views.borrow_mut().push(format!(
            "{} {} {} {}",
            view.method(),
            part(view.authority()),
            view.path(),
            part(view.query())
        ));
        let record = Told { seen: self.seen.clone(), ended: false, notify: self.ended.clone() };
        if self.stuck.get() {
            self.directing.notify_one();
            self.released.notified().await;
        }
        if let Some(error) = self.refusal.borrow().clone() {
            std::mem::forget(record);
            return Err(error);
        }
        Ok(Directed {
            endpoint: Chosen { server: self.server, connections: self.connections.clone(), kept: self.kept.clone() },
            carrier: Carrier::Http1,
            edits: self.edits.borrow().clone(),
            record,
        })
    }

    fn informational_headers(&self) -> bool {
        self.informational.get()
    }

    fn head_timeout(&self) -> Duration {
        self.armed.notify_one();
        HEAD_TIMEOUT
    }

    fn refused(&self, error: &ProxyError) {
        self.refused.borrow_mut().push(error.code);
    }
}

pub(super) struct Chosen {
    server: SocketAddr,
    connections: Rc<Cell<usize>>,
    kept: Rc<RefCell<Vec<Connection>>>,
}

impl Endpoint for Chosen {
    async fn http1(&self) -> Result<Connection, ProxyError> {
        // Without asking whether it is reusable: what a race would do.
        if let Some(kept) = self.kept.borrow_mut().pop() {
            return Ok(kept);
        }
        let tcp = TcpStream::connect(self.server).await;
        let tcp = tcp.map_err(|error| ProxyError::new(Code::ConnectFailed, error.to_string()))?;
        tcp.set_nodelay(true).unwrap();
        self.connections.set(self.connections.get() + 1);
        Ok(Connection::new(Stream::from(tcp)))
    }

    fn keep_http1(&self, connection: Connection) {
        self.kept.borrow_mut().push(connection);
    }

    async fn http2(&self) -> Result<Sender, ProxyError> {
        Err(ProxyError::new(Code::ConnectFailed, "there is no HTTP/2 here"))
    }

    fn responded(&self, _: Duration) {}
}

pub(super) struct Told {
    seen: Rc<RefCell<Vec<Seen>>>,
    ended: bool,
    notify: Rc<Notify>,
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
        self.notify.notify_waiters();
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if !self.ended {
            self.seen.borrow_mut().push(Seen::Aborted);
            self.notify.notify_waiters();
        }
    }
}

/// A connection on which bytes are said and expected; either side's.
pub(super) struct Client<T = TcpStream> {
    tcp: T,
    buffer: Vec<u8>,
}

impl Client {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, buffer: Vec::new() }
    }

    pub(super) fn split(self) -> (Client<OwnedReadHalf>, Client<OwnedWriteHalf>) {
        let (read, write) = self.tcp.into_split();
        (Client { tcp: read, buffer: self.buffer }, Client { tcp: write, buffer: Vec::new() })
    }

    pub(super) async fn finish(&mut self) {
        self.tcp.shutdown().await.unwrap();
    }

    pub(super) fn reset(self) {
        Stream::from(self.tcp).reset_on_close();
    }

    /// This server hears what `client` says, byte for byte.
    pub(super) async fn asked(&mut self, client: &mut Self, request: impl AsRef<[u8]>) {
        client.say(&request).await;
        self.hear(&request).await;
    }

    /// The same the other way.
    pub(super) async fn answers(&mut self, client: &mut Self, response: impl AsRef<[u8]>) {
        self.say(&response).await;
        client.hear(&response).await;
    }
}

impl<T: AsyncWrite + Unpin> Client<T> {
    pub(super) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(PATIENCE, self.tcp.write_all(bytes.as_ref())).await.expect("written in time").unwrap();
    }
}

impl<T: AsyncRead + Unpin> Client<T> {
    /// The next bytes are these.
    pub(super) async fn hear(&mut self, wanted: impl AsRef<[u8]>) {
        let wanted = wanted.as_ref();
        while self.buffer.len() < wanted.len() {
            if self.fill().await == 0 {
                break;
            }
        }
        let n = wanted.len().min(self.buffer.len());
        let heard: Vec<u8> = self.buffer.drain(..n).collect();
        if heard != wanted {
            let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned();
            assert_eq!(text(&heard), text(wanted));
            panic!("{} and {} bytes differ", heard.len(), wanted.len());
        }
    }

    /// Everything up to the next empty line.
    pub(super) async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                return String::from_utf8(self.buffer.drain(..end + 4).collect()).unwrap();
            }
            assert_ne!(self.fill().await, 0, "ended with {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// The connection ends without another byte.
    pub(super) async fn end(&mut self) {
        assert_eq!(String::from_utf8_lossy(&self.rest().await), "");
    }

    pub(super) async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await > 0 {}
        std::mem::take(&mut self.buffer)
    }

    /// The connection is cut off by a reset.
    pub(super) async fn cut(&mut self) {
        let mut rest = Vec::new();
        let outcome = timeout(PATIENCE, self.tcp.read_to_end(&mut rest)).await.expect("ends in time");
        assert_eq!(outcome.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }

    pub(super) async fn fill(&mut self) -> usize {
        let mut piece = vec![0; 64 * 1024];
        let n = timeout(PATIENCE, self.tcp.read(&mut piece)).await.expect("something comes in time").unwrap();
        self.buffer.extend_from_slice(&piece[..n]);
        n
    }
}

/// A server that does what a test says, connection by connection.
pub(super) struct Origin(TcpListener);

impl Origin {
    pub(super) async fn start() -> (Self, Rc<Fake>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        (Self(listener), Fake::new(addr))
    }

    /// The same with a first client.
    pub(super) async fn begin() -> (Self, Rc<Fake>, Client) {
        let (origin, proxy) = Self::start().await;
        let client = proxy.client().await;
        (origin, proxy, client)
    }

    /// A connection on which comes what `client` says, byte for byte.
    pub(super) async fn asked(&self, client: &mut Client, request: impl AsRef<[u8]>) -> Client {
        client.say(&request).await;
        let mut server = self.accept().await;
        server.hear(&request).await;
        server
    }

    pub(super) async fn accept(&self) -> Client {
        let (tcp, _) = timeout(PATIENCE, self.0.accept()).await.expect("a connection comes in time").unwrap();
        tcp.set_nodelay(true).unwrap();
        Client::new(tcp)
    }
}

/// Runs a test on one thread, with local tasks.
pub(super) fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(LocalSet::new().run_until(test));
}
