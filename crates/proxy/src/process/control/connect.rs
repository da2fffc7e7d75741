//! A connection to a service of the control plane, as a tonic channel that connects when it is used.

use super::{Client, Counted, Families, Links, Resolver, lanes::Lanes, link::Link};
use crate::{
    config::{Connect, ControlAddr},
    process::identity::{Certified, Lifetimes},
};
use hyper_util::rt::TokioIo;
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tonic::transport::Endpoint;
use weft_model::{DnsName, Identity, endpoint::ServerTls};
use weft_transport::{
    Stream,
    socket::{self, ConnectOptions},
    tls::Store,
};

/// A peer that answers no ping for this long is gone: its streams end, and are opened again elsewhere.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// A TLS handshake that takes longer has failed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many addresses one attempt tries before it fails.
const ADDRESSES_PER_ATTEMPT: usize = 4;

/// Makes channels to services.
#[derive(Clone)]
pub(in crate::process) struct Services {
    pub(in crate::process) resolver: Resolver,
    pub(in crate::process) tls: Store,
    pub(in crate::process) connect: Connect,
    pub(in crate::process) certified: Certified,
    pub(in crate::process) lifetimes: Lifetimes,
    pub(in crate::process) requests: Families,
    pub(in crate::process) links: Links,
}

/// As whom a service is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::process) enum Caller {
    /// With this workload's certificate: what connects before there is one waits for it.
    Certified,
    /// With the certificate if there is one.
    Anybody,
}

struct Dialer {
    services: Services,
    client: Client,
    service: ControlAddr,
    caller: Caller,
    /// Where the next attempt begins in the list of addresses.
    next: AtomicUsize,
    /// The last attempt failed: the change is logged, not each attempt.
    failing: AtomicBool,
}

impl Services {
    /// Channels to `service`, as many as its open streams need. Each opens one connection when it is used, and another when that
    /// is lost. Must be used within the runtime that will drive them.
    pub(in crate::process) fn channel(
        &self,
        client: Client,
        service: &ControlAddr,
        caller: Caller,
    ) -> Result<Counted, tonic::transport::Error> {
        let authority = service.addr.to_string();
        let endpoint = Endpoint::from_shared(format!("http://{authority}"))?
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        let dialer = Arc::new(Dialer {
            services: self.clone(),
            client,
            service: service.clone(),
            caller,
            next: AtomicUsize::new(fastrand::usize(..1 << 16)),
            failing: AtomicBool::new(false),
        });
        let (links, addr) = (self.links.clone(), authority.clone());
        let open = move || {
            let link = links.link(client, &addr);
            let (dialer, dialled) = (dialer.clone(), link.clone());
            let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
                let (dialer, link) = (dialer.clone(), dialled.clone());
                async move { dialer.connect(&link).await.map(TokioIo::new) }
            }));
            (channel, link)
        };
        Ok(self.requests.count(Lanes::new(open), &authority, service.identity.as_ref().map(server).as_ref()))
    }
}

/// Whom a service of that name must prove to be.
fn server(name: &DnsName) -> ServerTls {
    ServerTls { identity: Identity::Dns(name.clone()), server_name: name.clone() }
}

impl Dialer {
    async fn connect(&self, link: &Link) -> io::Result<Stream> {
        // A connection made without one would be refused for as long as it is kept.
        if self.caller == Caller::Certified && !self.services.certified.wait().await {
            return Err(io::Error::other("the proxy is ending"));
        }
        let result = self.try_addresses(link).await;
        if result.is_err() {
            link.failed();
        }
        let (client, addr) = (self.client.as_str(), &self.service.addr);
        match &result {
            Ok(stream) => {
                let peer = stream.peer_addr().ok();
                if self.failing.swap(false, Relaxed) {
                    tracing::info!(client, %addr, ?peer, "The control plane is reached again");
                } else {
                    tracing::debug!(client, %addr, ?peer, "Connected to the control plane");
                }
            }
            Err(error) if !self.failing.swap(true, Relaxed) => {
                tracing::warn!(client, %addr, %error, "The control plane cannot be reached");
            }
            Err(error) => tracing::debug!(client, %addr, %error, "The control plane still cannot be reached"),
        }
        result
    }

    /// Begins at another address than the last attempt did.
    async fn try_addresses(&self, link: &Link) -> io::Result<Stream> {
        let addrs =
            self.services.resolver.resolve(self.client.as_str(), &self.service.addr).await.map_err(io::Error::other)?;
        link.resolved(&addrs);
        let start = self.next.fetch_add(1, Relaxed) % addrs.len().max(1);
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for addr in addrs.iter().cycle().skip(start).take(addrs.len().min(ADDRESSES_PER_ATTEMPT)) {
            match self.dial(*addr).await {
                Ok(mut stream) => {
                    stream.meter(link.opened(*addr));
                    return Ok(stream);
                }
                Err(e) => failure = io::Error::new(e.kind(), format!("{addr}: {e}")),
            }
        }
        Err(failure)
    }

    async fn dial(&self, addr: SocketAddr) -> io::Result<Stream> {
        let Connect { timeout, socket, mark } = self.services.connect;
        let options = ConnectOptions { timeout, keepalive: socket.keepalive, user_timeout: socket.user_timeout, mark };
        let tcp = socket::connect(addr, &options).await?;
        let Some(name) = &self.service.identity else { return Ok(Stream::tcp(tcp)) };
        let server = server(name);
        let handshake = self.services.tls.connect(tcp, &server, false);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok((mut stream, _))) => {
                self.services.lifetimes.dialled(&mut stream);
                Ok(stream)
            }
            Ok(Err(e)) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, e)),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake timed out")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{ControlClients, HostPort, SocketOptions, StreamLimits},
        process::identity::uncertified,
    };
    use tokio::net::{TcpListener, TcpStream};
    use weft_model::policy::outbound::Backoff;
    use weft_telemetry::Registry;
    use weft_testkit::{ca::Ca, control::FakeControl};
    use weft_transport::tls::Key;

    const DAY: Duration = Duration::from_secs(86_400);

    fn name(account: &str) -> DnsName {
        format!("{account}.linkerd.serviceaccount.identity.linkerd.cluster.local").parse().unwrap()
    }

    fn certified(ca: &Ca, name: &DnsName) -> Store {
        let id = Identity::Dns(name.clone());
        let issued = ca.issue(&id, DAY).unwrap();
        let store = Store::new(ca.anchors_pem(), name.clone(), id).unwrap();
        let key = Key::from_pkcs8(&issued.key_pkcs8).unwrap();
        let intermediates: Vec<_> = issued.certificate.intermediates.iter().map(|i| i.to_vec()).collect();
        store.set_certificate(&key, &issued.certificate.leaf, &intermediates).unwrap();
        store
    }

    /// Terminates TLS in front of `control`, as the control plane's own proxy does.
    async fn front(control: &FakeControl, store: Store) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (addr, control) = (listener.local_addr().unwrap(), control.addr());
        tokio::spawn(async move {
            while let Ok((accepted, _)) = listener.accept().await {
                let store = store.clone();
                tokio::spawn(async move {
                    let (mut tls, _) = store.accept(accepted, bytes::Bytes::new(), false).await?;
                    let mut plain = TcpStream::connect(control).await?;
                    tokio::io::copy_bidirectional(&mut tls, &mut plain).await?;
                    anyhow::Ok(())
                });
            }
        });
        addr
    }

    fn services(ca: &Ca) -> Services {
        let id = name("web");
        let connect = Connect { timeout: Duration::from_secs(5), socket: SocketOptions::default(), mark: None };
        let backoff = Backoff { min: Duration::from_millis(1), max: Duration::from_millis(10), jitter: 0.0 };
        let control =
            ControlClients { connect, backoff, streams: StreamLimits::default(), dns_min_ttl: None, dns_max_ttl: None };
        let tls = Store::new(ca.anchors_pem(), id.clone(), Identity::Dns(id)).unwrap();
        let (_, certified) = uncertified();
        let registry = Registry::new(1, 10);
        let lifetimes = Lifetimes::new(Arc::new(std::time::SystemTime::now), DAY, &registry);
        Services {
            resolver: Resolver::new(&control, &registry),
            tls,
            connect,
            certified,
            lifetimes,
            requests: Families::new(&registry),
            links: Links::new(&registry, connect.timeout),
        }
    }

    async fn profile(services: &Services, addr: SocketAddr, identity: DnsName) -> Result<(), weft_wire::Error> {
        let service = ControlAddr { addr: HostPort::Addr(addr), identity: Some(identity) };
        let channel = services.channel(Client::Destination, &service, Caller::Anybody).unwrap();
        weft_wire::destination::Client::new(channel).get_profile("10.0.0.1:80", "").await.map(drop)
    }

    #[tokio::test]
    async fn only_the_named_identity_is_asked() {
        let control = FakeControl::start().unwrap();
        control.set_profile("10.0.0.1:80", weft_model::Profile::default());
        let addr = front(&control, certified(control.ca(), &name("linkerd-destination"))).await;
        let services = services(control.ca());
        profile(&services, addr, name("linkerd-destination")).await.unwrap();
        assert_eq!(control.calls().len(), 1);
        profile(&services, addr, name("somebody-else")).await.unwrap_err();
        assert_eq!(control.calls().len(), 1, "the wrong server was asked");
        let stranger = front(&control, certified(&Ca::new().unwrap(), &name("linkerd-destination"))).await;
        profile(&services, stranger, name("linkerd-destination")).await.unwrap_err();
        assert_eq!(control.calls().len(), 1, "a server of another authority was asked");
    }
}
