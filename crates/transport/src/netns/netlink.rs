//! Links, addresses and routes of one network namespace, one request and one answer at a time.
//!
//! Blocking: the kernel answers a netlink request at once.

use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
        link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use std::{
    fmt, io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
};

/// Of every bridge, each in a namespace of its own: a locally administered one, for one receiver.
const BRIDGE_ADDRESS: [u8; 6] = [0x02, 0x77, 0x65, 0x66, 0x74, 0x01];

/// A netlink socket of the namespace in which it was opened.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// The kernel's number of a link, valid within one namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkIndex(u32);

impl Netlink {
    /// Opens a socket in the calling thread's namespace. See [`super::Namespace::netlink`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The link with this name.
    ///
    /// # Errors
    /// There is none.
    pub fn link(&mut self, name: &str) -> io::Result<LinkIndex> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.request(RouteNetlinkMessage::GetLink(message), 0)? {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(LinkIndex(link.header.index)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel answered something other than a link")),
        }
    }

    /// A bridge that keeps its link address whatever joins it. One that was not given any takes the lowest of its links', and
    /// neighbours go on sending to the one before for as long as they remember it: a minute.
    ///
    /// # Errors
    /// The name is taken or too long (15 bytes), or `CAP_NET_ADMIN` is missing.
    pub fn add_bridge(&mut self, name: &str) -> io::Result<LinkIndex> {
        let mut message = named(name);
        message.attributes.push(LinkAttribute::Address(BRIDGE_ADDRESS.to_vec()));
        self.add_link(message, vec![LinkInfo::Kind(InfoKind::Bridge)])?;
        self.link(name)
    }

    /// A pair of links, one here and the other in `peer_namespace`.
    ///
    /// # Errors
    /// As [`Netlink::add_bridge`].
    pub fn add_veth(&mut self, name: &str, peer: &str, peer_namespace: impl AsFd) -> io::Result<LinkIndex> {
        let mut other = named(peer);
        other.attributes.push(LinkAttribute::NetNsFd(peer_namespace.as_fd().as_raw_fd()));
        let data = LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other)));
        self.add_link(named(name), vec![LinkInfo::Kind(InfoKind::Veth), data])?;
        self.link(name)
    }

    /// Deletes a link; the other end of a pair goes with it.
    ///
    /// # Errors
    /// There is no such link.
    pub fn delete_link(&mut self, link: LinkIndex) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = link.0;
        self.acknowledged(RouteNetlinkMessage::DelLink(message), 0)
    }

    /// # Errors
    /// There is no such link.
    pub fn set_up(&mut self, link: LinkIndex) -> io::Result<()> {
        self.change(link, |message| {
            message.header.flags = LinkFlags::Up;
            message.header.change_mask = LinkFlags::Up;
        })
    }

    /// Brings the loopback interface up.
    ///
    /// # Errors
    /// `CAP_NET_ADMIN` is missing.
    pub fn set_loopback_up(&mut self) -> io::Result<()> {
        let lo = self.link("lo")?;
        self.set_up(lo)
    }

    /// Attaches a link to a bridge.
    ///
    /// # Errors
    /// One of them is not there.
    pub fn set_master(&mut self, link: LinkIndex, bridge: LinkIndex) -> io::Result<()> {
        self.change(link, |message| message.attributes.push(LinkAttribute::Controller(bridge.0)))
    }

    /// Gives a link an address, usable at once (v6: without asking the neighbours whether it is taken).
    ///
    /// # Errors
    /// It has the address already.
    pub fn add_address(&mut self, link: LinkIndex, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.index = link.0;
        message.header.prefix_len = prefix;
        message.header.scope = if address.is_loopback() { AddressScope::Host } else { AddressScope::Universe };
        message.header.family = family(address);
        message.attributes.push(AddressAttribute::Address(address));
        if address.is_ipv4() {
            message.attributes.push(AddressAttribute::Local(address));
        } else {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.acknowledged(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Adds a route to `network`/`prefix` (`0.0.0.0/0` or `::/0`: everything) over a gateway, a link, or both.
    ///
    /// # Errors
    /// It is there already, or the gateway cannot be reached.
    pub fn add_route(
        &mut self,
        network: IpAddr,
        prefix: u8,
        gateway: Option<IpAddr>,
        link: Option<LinkIndex>,
    ) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(network);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = if gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
        message.header.kind = RouteType::Unicast;
        message.header.destination_prefix_length = prefix;
        if prefix > 0 {
            message.attributes.push(RouteAttribute::Destination(route_address(network)));
        }
        if let Some(gateway) = gateway {
            message.attributes.push(RouteAttribute::Gateway(route_address(gateway)));
        }
        if let Some(link) = link {
            message.attributes.push(RouteAttribute::Oif(link.0));
        }
        self.acknowledged(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    fn add_link(&mut self, mut message: LinkMessage, info: Vec<LinkInfo>) -> io::Result<()> {
        message.attributes.push(LinkAttribute::LinkInfo(info));
        self.acknowledged(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    fn change(&mut self, link: LinkIndex, with: impl FnOnce(&mut LinkMessage)) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = link.0;
        with(&mut message);
        self.acknowledged(RouteNetlinkMessage::SetLink(message), 0)
    }

    fn acknowledged(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(message, flags | NLM_F_ACK).map(drop)
    }

    /// Sends one message and waits for its answer: an acknowledgement (`None`), a message, or an error.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Option<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            return match answer.payload {
                NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
                NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
                _ => Ok(None),
            };
        }
    }
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }
}

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netlink").finish_non_exhaustive()
    }
}
