//! Addresses and networks.

use crate::error::{Invalid, Within, here, require, required};
use linkerd2_proxy_api::net as proto;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use weft_model::decide::cidr::Cidr;

pub(crate) fn decode_ip(ip: proto::IpAddress) -> Result<IpAddr, Invalid> {
    match require("ip", ip.ip)? {
        proto::ip_address::Ip::Ipv4(bits) => Ok(Ipv4Addr::from_bits(bits).into()),
        proto::ip_address::Ip::Ipv6(proto::IPv6 { first, last }) => {
            Ok(Ipv6Addr::from_bits((u128::from(first) << 64) | u128::from(last)).into())
        }
    }
}

pub(crate) fn encode_ip(ip: IpAddr) -> proto::IpAddress {
    ip.into()
}

/// A port of 1 to 65535.
pub(crate) fn decode_port(field: &str, port: u32) -> Result<u16, Invalid> {
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Invalid::new(field, format_args!("{port} is no port: it is 1 to 65535"))),
    }
}

pub(crate) fn decode_addr(addr: proto::TcpAddress) -> Result<SocketAddr, Invalid> {
    Ok(SocketAddr::new(required("ip", addr.ip, decode_ip)?, decode_port("port", addr.port)?))
}

pub(crate) fn encode_addr(addr: SocketAddr) -> proto::TcpAddress {
    proto::TcpAddress { ip: Some(encode_ip(addr.ip())), port: addr.port().into() }
}

pub(crate) fn decode_network(net: proto::IpNetwork) -> Result<Cidr, Invalid> {
    let ip = required("ip", net.ip, decode_ip)?;
    u8::try_from(net.prefix_len)
        .ok()
        .and_then(|len| Cidr::new(ip, len))
        .ok_or_else(|| here(format_args!("an address of {ip}'s family has no {} leading bits", net.prefix_len)))
        .within("prefix_len")
}

pub(crate) fn encode_network(net: Cidr) -> proto::IpNetwork {
    proto::IpNetwork { ip: Some(encode_ip(net.addr())), prefix_len: net.prefix_len().into() }
}
