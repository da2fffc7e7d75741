//! Two proxies and what is between them: `web`'s application calls a service whose endpoints are behind `app`'s proxy.

use crate::{
    harness::{Proxy, Setup, identity, soon},
    mixed::{self, Side},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use weft_model::{Endpoint, Identity, ProtocolHint, endpoint::ServerTls, policy::inbound::DefaultPolicy};
use weft_testkit::{
    control::FakeControl,
    http2,
    policy::{balance, detect, inbound, opaque, service},
};
use weft_transport::{
    Stream,
    tls::{Key, Store},
};

pub(crate) struct Mesh {
    pub(crate) control: FakeControl,
    /// The proxy of the client `web`.
    pub(crate) web: Proxy,
    /// The proxy of the server `app`.
    pub(crate) app: Proxy,
}

/// A service of the mesh: its name and the address that clients dial.
pub(crate) struct Service {
    pub(crate) target: String,
    pub(crate) addr: SocketAddr,
}

impl Mesh {
    pub(crate) async fn start() -> Self {
        Self::with(&[], &[]).await
    }

    /// With variables of `web`'s proxy and of `app`'s.
    pub(crate) async fn with(web: &[(&str, &str)], app: &[(&str, &str)]) -> Self {
        let set =
            |setup: Setup, env: &[(&str, &str)]| env.iter().fold(setup, |setup, (name, value)| setup.env(name, value));
        Self::of(|setup| set(setup, web), |setup| set(setup, app)).await
    }

    /// With what is made of the usual set-ups.
    pub(crate) async fn of(web: impl FnOnce(Setup) -> Setup, app: impl FnOnce(Setup) -> Setup) -> Self {
        let control = FakeControl::start().unwrap();
        let (web, app) = (web(Setup::new(&control, "web")), app(Setup::new(&control, "app")));
        let (web, app) = tokio::join!(mixed::start(web, Side::Client), mixed::start(app, Side::Server));
        Self { control, web, app }
    }

    /// A service that detects protocols, on endpoints behind `app`'s proxy.
    pub(crate) fn service(&self, endpoints: &[Endpoint]) -> Service {
        let service = Service::new();
        let meta = weft_testkit::policy::service("ns", "app", 80);
        let policy = detect(meta.clone(), balance(meta, service.target.parse().unwrap()));
        self.control.set_outbound(service.addr, policy);
        self.control.set_endpoints(&service.target, endpoints.to_vec());
        for endpoint in endpoints {
            self.control.set_inbound(endpoint.addr.port(), inbound(DefaultPolicy::AllUnauthenticated));
        }
        service
    }

    /// The same, opaque on both sides.
    pub(crate) fn opaque(&self, endpoints: &[Endpoint]) -> Service {
        let known = self.service(endpoints);
        let meta = service("ns", "app", 80);
        self.control.set_outbound(known.addr, opaque(meta.clone(), balance(meta, known.target.parse().unwrap())));
        for endpoint in endpoints {
            let mut policy = inbound(DefaultPolicy::AllUnauthenticated);
            policy.protocol = weft_model::policy::inbound::ServerProtocol::Opaque;
            self.control.set_inbound(endpoint.addr.port(), policy);
        }
        known
    }

    /// An endpoint behind `app`'s proxy, as the control plane describes one.
    pub(crate) fn endpoint(&self, addr: SocketAddr, hint: ProtocolHint) -> Endpoint {
        let identity = identity("app");
        Endpoint {
            tls: Some(ServerTls { server_name: identity.as_str().parse().unwrap(), identity }),
            hint,
            transport_port: Some(self.app.addrs().inbound.port()),
            labels: [("pod".to_owned(), "app-1".to_owned())].into(),
            ..Endpoint::plain(mixed::reachable(addr))
        }
    }

    /// What `app`'s proxy proves itself as.
    pub(crate) fn server(&self) -> ServerTls {
        let identity = identity("app");
        ServerTls { server_name: identity.as_str().parse().unwrap(), identity }
    }

    /// The TLS state of a workload that has no proxy here.
    pub(crate) fn store(&self, name: &str) -> Store {
        certified(&self.control, identity(name))
    }

    /// A connection of `web`'s application to the service.
    pub(crate) async fn connect(&self, service: &Service) -> TcpStream {
        self.web.connect_outbound(service.addr).await
    }

    /// An HTTP/2 connection of `web`'s application to the service.
    pub(crate) async fn http2(&self, service: &Service) -> http2::Client {
        http2::Client::over(self.connect(service).await).await.unwrap()
    }
}

/// The TLS state of whoever has proven to be `id`.
pub(crate) fn certified(control: &FakeControl, id: Identity) -> Store {
    let issued = control.ca().issue(&id, Duration::from_secs(3600)).unwrap();
    let store = Store::new(control.ca().anchors_pem(), id.as_str().parse().unwrap(), id).unwrap();
    let intermediates: Vec<_> = issued.certificate.intermediates.iter().map(|i| i.to_vec()).collect();
    let key = Key::from_pkcs8(&issued.key_pkcs8).unwrap();
    store.set_certificate(&key, &issued.certificate.leaf, &intermediates).unwrap();
    store
}

/// A peer of the mesh that the test plays itself: mutual TLS to `app`'s inbound port, a transport header announced.
pub(crate) async fn peer(mesh: &Mesh) -> Stream {
    peer_at(mesh, "peer", mesh.app.addrs().inbound).await
}

/// The same as somebody else, or over another address.
pub(crate) async fn peer_at(mesh: &Mesh, name: &str, addr: SocketAddr) -> Stream {
    let tcp = TcpStream::connect(addr).await.unwrap();
    let (stream, transport) = soon(mesh.store(name).connect(tcp, &mesh.server(), true)).await.unwrap();
    assert!(transport);
    stream
}

impl Service {
    /// A service that nobody knows yet.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { target: format!("app-{n}.ns.svc.cluster.local:80"), addr: SocketAddr::from(([10, 96, 0, n], 80)) }
    }
}

/// A server that greets first and then sends back in upper case what it gets. Ends with the task.
pub(crate) async fn shouting(ip: IpAddr) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = tcp.write_all(b"hello\n").await;
                let mut buffer = [0; 1024];
                while let Ok(n @ 1..) = tcp.read(&mut buffer).await {
                    let _ = tcp.write_all(&buffer[..n].to_ascii_uppercase()).await;
                }
                let _ = tcp.write_all(b"bye\n").await;
            });
        }
    });
    (addr, task)
}

/// An HTTP/2 origin that answers every request with 200 and its name.
pub(crate) async fn naming(name: &'static str) -> http2::Origin {
    http2::Origin::start(move |request| async move {
        // Whoever does not read the body resets the stream.
        http2::complete((), request.into_body()).await?;
        Ok(http::Response::new(http2::full(name)))
    })
    .await
    .unwrap()
}

/// A request without a body.
pub(crate) fn get() -> http::Request<http2::Body> {
    http::Request::get("http://app.ns/").body(http2::full("")).unwrap()
}
