//! Streams of endpoints read for as little as possible, so that thousands of clients do not take the core that is measured: messages are
//! not taken apart, but for the addresses that somebody waits for.

use anyhow::{Result, ensure};
use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use std::net::Ipv4Addr;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

const GET: &str = "/io.linkerd.proxy.destination.Destination/Get";
/// The first byte of a message that adds endpoints: of `Update` the field 1, a message.
const ADD: u8 = 0x0a;
/// Before an IPv4 address in a message: field 1, four bytes.
const IPV4: u8 = 0x0d;

/// Follows the endpoints of `target`.
pub(crate) async fn of_endpoints(channel: Channel, target: &str, context: &str) -> Result<Streaming<Bytes>> {
    let mut asked = vec![];
    // `GetDestination`: the path is field 2, the context field 3.
    for (field, text) in [(2_u8, target), (3, context)] {
        // A longer one has a longer length.
        ensure!(text.len() < 128, "{text} is too long");
        asked.push(field << 3 | 2);
        asked.push(u8::try_from(text.len())?);
        asked.extend(text.as_bytes());
    }
    let mut client = Grpc::new(channel);
    client.ready().await?;
    let request = Request::new(Bytes::from(asked));
    Ok(client.server_streaming(request, PathAndQuery::from_static(GET), Raw).await?.into_inner())
}

/// What may be IPv4 addresses that a message adds: these, and a few numbers besides. Of endpoints that leave it tells none.
pub(crate) fn added(message: &[u8]) -> impl Iterator<Item = Ipv4Addr> {
    let adds = if message.first() == Some(&ADD) { message } else { &[] };
    adds.windows(5).filter_map(|bytes| match *bytes {
        [IPV4, a, b, c, d] => Some(Ipv4Addr::from_bits(u32::from_le_bytes([a, b, c, d]))),
        _ => None,
    })
}

/// Messages as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
