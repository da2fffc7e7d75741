//! TCP sockets with the options that a proxy needs, and where a redirected connection wanted to go.
//!
//! First in the way of a connection. It must not read or write bytes.

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd, RawFd},
    time::Duration,
};
use tokio::net::{TcpSocket, TcpStream};

/// How a connection is opened. `TCP_NODELAY` is always set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Bounds the connect itself; the error is [`io::ErrorKind::TimedOut`].
    pub timeout: Duration,
    /// Idle time before the first keepalive probe; `None` leaves keepalive off.
    pub keepalive: Option<Duration>,
    /// How long sent data may stay unacknowledged before the kernel gives the connection up.
    pub user_timeout: Option<Duration>,
    /// The packet mark (`SO_MARK`) that exempts the connection from redirection; needs `CAP_NET_ADMIN`.
    pub mark: Option<u32>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(1), keepalive: None, user_timeout: None, mark: None }
    }
}

/// What an accepted connection gets beside `TCP_NODELAY`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcceptOptions {
    pub keepalive: Option<Duration>,
    pub user_timeout: Option<Duration>,
}

/// A listening socket, non-blocking, so that `tokio::net::TcpListener::from_std` takes it.
///
/// `[::]` listens for both families, v4 clients having mapped addresses; any other v6 address listens for v6 alone.
///
/// # Errors
/// The address is in use or not of this machine.
pub fn listen(addr: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Opens a connection.
///
/// # Errors
/// The options are refused (a mark without the capability), the peer refuses, or the time is over.
pub async fn connect(addr: SocketAddr, options: &ConnectOptions) -> io::Result<TcpStream> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(mark) = options.mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    set(SockRef::from(&socket), options.keepalive, options.user_timeout)?;
    match tokio::time::timeout(options.timeout, socket.connect(addr)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "connect timed out")),
    }
}

/// Sets the options of an accepted connection.
///
/// # Errors
/// The peer has reset the connection already.
pub fn accepted(tcp: &TcpStream, options: &AcceptOptions) -> io::Result<()> {
    set(SockRef::from(tcp), options.keepalive, options.user_timeout)
}

fn set(socket: SockRef<'_>, keepalive: Option<Duration>, user_timeout: Option<Duration>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if let Some(idle) = keepalive {
        // The kernel counts whole seconds and takes no zero.
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle.max(Duration::from_secs(1))))?;
    }
    if user_timeout.is_some() {
        socket.set_tcp_user_timeout(user_timeout)?;
    }
    Ok(())
}

/// Raises the number of files and sockets that this process may have open to what the system allows it, and returns that.
///
/// # Errors
/// The kernel refuses.
pub fn raise_open_files() -> io::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Descriptors that whoever accepts connections leaves to others: what is open goes on with some, and they are wanted for onward
/// connections, the control plane and scrapes.
#[derive(Clone, Copy, Debug)]
pub struct Reserve {
    /// The lowest number of a descriptor that belongs to the reserve.
    first: RawFd,
}

impl Reserve {
    /// An eighth of what this process may have open now, at most 1,024.
    ///
    /// # Errors
    /// The kernel does not tell the limit.
    pub fn of_this_process() -> io::Result<Self> {
        use nix::sys::resource::{Resource, getrlimit};
        Ok(Self::of(getrlimit(Resource::RLIMIT_NOFILE)?.0))
    }

    fn of(limit: u64) -> Self {
        Self { first: RawFd::try_from(limit - (limit / 8).min(1024)).unwrap_or(RawFd::MAX) }
    }

    /// Whether the newest descriptor is one of the reserve. The kernel gives the lowest free number: all below it are taken then.
    pub fn is_reached_by(&self, newest: &impl AsFd) -> bool {
        newest.as_fd().as_raw_fd() >= self.first
    }

    /// Whether there is a free descriptor again that is none of the reserve; found out with a copy of `any`.
    pub fn is_whole(&self, any: &impl AsFd) -> bool {
        any.as_fd().try_clone_to_owned().is_ok_and(|copy| !self.is_reached_by(&copy))
    }
}

/// Whether an operation failed because this process, or the system, has as many files and sockets open as it may.
pub fn is_descriptor_limit(error: &io::Error) -> bool {
    use nix::errno::Errno;
    error.raw_os_error().is_some_and(|code| [Errno::EMFILE, Errno::ENFILE].contains(&Errno::from_raw(code)))
}

/// Where the client wanted to go before the connection was redirected here (`SO_ORIGINAL_DST`).
///
/// The table to ask is chosen by the client's address family; a v4 client mapped to v6 is a v4 client.
///
/// # Errors
/// The kernel does not track this connection: it was not redirected and no rule looks at connections.
pub fn original_dst(tcp: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(tcp);
    let original = match tcp.peer_addr()?.ip().to_canonical() {
        IpAddr::V4(_) => socket.original_dst_v4()?,
        IpAddr::V6(_) => socket.original_dst_v6()?,
    };
    original.as_socket().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "original destination is no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_begins_where_all_below_is_taken() {
        assert_eq!(Reserve::of(80).first, 70);
        assert_eq!(Reserve::of(1_000_000).first, 998_976);
        assert_eq!(Reserve::of(u64::MAX).first, RawFd::MAX);
        let file = std::fs::File::open("/dev/null").unwrap();
        let (taken, free) = (Reserve { first: 0 }, Reserve { first: RawFd::MAX });
        assert!(taken.is_reached_by(&file) && !taken.is_whole(&file));
        assert!(!free.is_reached_by(&file) && free.is_whole(&file));
    }

    #[tokio::test]
    async fn options_are_set_on_both_sides() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = tokio::net::TcpListener::from_std(listen(address.parse().unwrap(), 16).unwrap()).unwrap();
            let (idle, give_up) = (Some(Duration::from_secs(7)), Some(Duration::from_secs(30)));
            let options = ConnectOptions { keepalive: idle, user_timeout: give_up, ..ConnectOptions::default() };
            let client = connect(listener.local_addr().unwrap(), &options).await.unwrap();
            let server = listener.accept().await.unwrap().0;
            accepted(&server, &AcceptOptions { keepalive: idle, user_timeout: give_up }).unwrap();
            for tcp in [&client, &server] {
                let socket = SockRef::from(tcp);
                assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
                assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(7));
                assert_eq!(socket.tcp_user_timeout().unwrap(), give_up);
            }
            let plain = connect(listener.local_addr().unwrap(), &ConnectOptions::default()).await.unwrap();
            let socket = SockRef::from(&plain);
            assert!(socket.tcp_nodelay().unwrap() && !socket.keepalive().unwrap());
            // The address is taken, for a second listener too.
            let again = listen(listener.local_addr().unwrap(), 16).unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[tokio::test]
    async fn the_unspecified_v6_address_takes_both_families() {
        let listener = tokio::net::TcpListener::from_std(listen("[::]:0".parse().unwrap(), 16).unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        for address in [IpAddr::from([127, 0, 0, 1]), "::1".parse().unwrap()] {
            let _client = connect(SocketAddr::new(address, port), &ConnectOptions::default()).await.unwrap();
            assert_eq!(listener.accept().await.unwrap().1.ip().to_canonical(), address);
        }
    }

    #[tokio::test]
    async fn another_v6_address_does_not() {
        // The port may be some other program's on the other family: then another one is tried.
        for _ in 0..20 {
            let listener = listen("[::1]:0".parse().unwrap(), 16).unwrap();
            let v4 = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), listener.local_addr().unwrap().port());
            let refused = connect(v4, &ConnectOptions::default()).await.map_err(|error| error.kind());
            if refused.is_err_and(|kind| kind == io::ErrorKind::ConnectionRefused) && listen(v4, 16).is_ok() {
                return;
            }
        }
        panic!("the v4 port was taken twenty times");
    }

    #[tokio::test]
    async fn a_connect_ends_in_time() {
        // A backlog that is full drops what comes.
        let listener = listen("127.0.0.1:0".parse().unwrap(), 0).unwrap();
        let options = ConnectOptions { timeout: Duration::from_millis(50), ..ConnectOptions::default() };
        let mut open = Vec::new();
        let error = loop {
            match connect(listener.local_addr().unwrap(), &options).await {
                Ok(tcp) => open.push(tcp),
                Err(error) => break error,
            }
            assert!(open.len() < 100);
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
