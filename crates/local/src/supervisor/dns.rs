//! DNS for programs: the mesh's names from the zone, all others from the host's resolver.

use super::names::{Found, Zone};
use hickory_server::{
    Server,
    net::runtime::Time,
    proto::{
        op::{Metadata, OpCode, ResponseCode},
        rr::{
            Name, RData, Record, RecordType,
            rdata::{A, AAAA, SRV},
        },
    },
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use parking_lot::RwLock;
use std::{future::Future, io, net::IpAddr, pin::Pin, str::FromStr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::Semaphore,
};

/// How long answers may be kept, in seconds: pods come and go.
const TTL: u32 = 5;
/// Of a client over TCP.
const TIMEOUT: Duration = Duration::from_secs(10);
const RESPONSES: usize = 64;
/// Questions with the host's resolver at once; each holds a thread.
const LOOKUPS: usize = 32;
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// The zone in force; replaced whole.
pub(crate) type Current = Arc<RwLock<Arc<Zone>>>;

/// Serves until dropped.
pub(crate) fn serve(
    zone: Current,
    outside: bool,
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
) -> Server<impl RequestHandler> {
    let mut server = Server::new(Handler { zone, outside, lookups: Arc::new(Semaphore::new(LOOKUPS)) });
    for socket in udp {
        server.register_socket(socket);
    }
    for listener in tcp {
        server.register_listener(listener, TIMEOUT, RESPONSES);
    }
    server
}

struct Handler {
    zone: Current,
    /// Whether names outside the mesh are answered at all.
    outside: bool,
    lookups: Arc<Semaphore>,
}

type Answer = Result<Vec<Record>, ResponseCode>;

// What `async_trait` writes, which is not worth a dependency.
impl RequestHandler for Handler {
    fn handle_request<'s, 'r, 'f, R, T>(
        &'s self,
        request: &'r Request,
        mut responder: R,
    ) -> Pin<Box<dyn Future<Output = ResponseInfo> + Send + 'f>>
    where
        's: 'f,
        'r: 'f,
        R: ResponseHandler + 'f,
        T: Time + 'f,
        Self: 'f,
    {
        Box::pin(async move {
            let answer = match request.request_info() {
                Ok(info) if request.metadata.op_code == OpCode::Query => {
                    self.answer(&info.query.name().into(), info.query.query_type()).await
                }
                Ok(_) => Err(ResponseCode::NotImp),
                Err(_) => Err(ResponseCode::FormErr),
            };
            let mut metadata = Metadata::response_from_request(&request.metadata);
            metadata.recursion_available = self.outside;
            let records = answer.unwrap_or_else(|code| {
                metadata.response_code = code;
                vec![]
            });
            let response = MessageResponseBuilder::from_message_request(request).build(
                metadata,
                records.iter(),
                std::iter::empty(),
                std::iter::empty(),
                std::iter::empty(),
            );
            responder.send_response(response).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "a DNS answer was not sent");
                hickory_server::proto::op::Header { metadata, counts: Default::default() }.into()
            })
        })
    }
}

impl Handler {
    async fn answer(&self, name: &Name, kind: RecordType) -> Answer {
        let text = name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let zone = self.zone.read().clone();
        let record = |data| Record::from_rdata(name.clone(), TTL, data);
        if kind == RecordType::SRV {
            return match zone.ports(&text) {
                Found::Here(ports) => Ok(ports
                    .iter()
                    .filter_map(|p| Some(record(RData::SRV(SRV::new(0, 100, p.port, Name::from_str(&p.target).ok()?)))))
                    .collect()),
                Found::Nowhere => Err(ResponseCode::NXDomain),
                Found::Outside => Err(ResponseCode::NotImp),
            };
        }
        let found = match zone.addresses(&text) {
            Found::Here(ips) => ips.to_vec(),
            Found::Nowhere => return Err(ResponseCode::NXDomain),
            Found::Outside if !self.outside => return Err(ResponseCode::Refused),
            Found::Outside if matches!(kind, RecordType::A | RecordType::AAAA) => self.host(&text).await?,
            // The host's resolver, as the C library has it, knows addresses only.
            Found::Outside => vec![],
        };
        Ok(found
            .into_iter()
            .filter_map(|ip| match (ip, kind) {
                (IpAddr::V4(v4), RecordType::A) => Some(record(RData::A(A(v4)))),
                (IpAddr::V6(v6), RecordType::AAAA) => Some(record(RData::AAAA(AAAA(v6)))),
                _ => None,
            })
            .collect())
    }

    async fn host(&self, name: &str) -> Result<Vec<IpAddr>, ResponseCode> {
        // A name of one label is the host's own or a neighbour's, never one that a program of the mesh should reach.
        if !name.contains('.') {
            return Err(ResponseCode::NXDomain);
        }
        let Ok(_permit) = self.lookups.acquire().await else { return Err(ResponseCode::ServFail) };
        // The dot at the end keeps the host's search path out of it.
        let found = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((format!("{name}."), 0))).await;
        match found {
            Ok(Ok(found)) => Ok(found.map(|addr| addr.ip()).collect()),
            Ok(Err(error)) if is_absent(&error) => Err(ResponseCode::NXDomain),
            _ => Err(ResponseCode::ServFail),
        }
    }
}

/// The standard library tells answers of the resolver apart by their text only.
fn is_absent(error: &io::Error) -> bool {
    let text = error.to_string();
    text.contains("not known") || text.contains("No address")
}
