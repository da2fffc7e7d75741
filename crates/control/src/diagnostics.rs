//! What a control plane says to proxies, asked by people: `weft diagnostics`.
//!
//! Of a cluster it is asked over a forwarded connection to the plain ports of a destination pod, as Linkerd's command does; of the mesh on
//! one machine the same index answers here. Messages are shown as Linkerd shows them.

use crate::digest::sha256;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint};
use weft_cluster::{
    Index,
    index::{Answer, Place, Question, Target, WorkloadKind},
};
use weft_model::EndpointUpdate;
use weft_wire::{
    destination::{self, ShownEndpoint, ShownStep},
    inbound, outbound,
};

/// How long endpoints are listened to: a set may come in several steps.
pub const LISTEN: Duration = Duration::from_secs(5);
/// How long any other answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Labels whose values say who talks to whom.
const OBFUSCATED: [&str; 6] = ["authority", "client_id", "server_id", "target_addr", "dst_service", "dst_namespace"];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error("{0}")]
    Wire(#[from] weft_wire::Error),
    #[error("no connection to the control plane: {0}")]
    Connect(#[from] tonic::transport::Error),
    #[error("no answer within {ANSWER:?}")]
    Late,
    /// The index has none.
    #[error("{0}")]
    Refused(String),
}

/// One endpoint of `weft diagnostics endpoints`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub namespace: String,
    pub ip: IpAddr,
    pub port: u16,
    /// Or the ExternalWorkload.
    pub pod: String,
    /// `web.emojivoto`.
    pub service: String,
    pub weight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2: Option<Value>,
    pub labels: BTreeMap<String, String>,
}

/// Asks over a connection that the caller has made.
pub struct Asking(Channel);

impl Asking {
    /// # Errors
    /// Nobody answers, or somebody who speaks no HTTP/2.
    pub async fn new(connection: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Self, Unanswered> {
        let once = Mutex::new(Some(connection));
        let connector = tower::service_fn(move |_| {
            let connection = once.lock().take();
            async move { connection.map(TokioIo::new).ok_or_else(|| io::Error::other("the connection has ended")) }
        });
        let endpoint = Endpoint::from_static("http://control-plane").connect_timeout(ANSWER);
        Ok(Self(endpoint.connect_with_connector(connector).await?))
    }

    /// The endpoints of all authorities, after so long a time of listening.
    #[expect(clippy::missing_errors_doc, reason = "as the first of them that is refused")]
    pub async fn endpoints(
        &self,
        authorities: &[String],
        token: &str,
        listen: Duration,
    ) -> Result<Vec<Row>, Unanswered> {
        let until = Instant::now() + listen;
        let asked = authorities.iter().map(|authority| self.listen(authority, token, until));
        let sets = futures_util::future::try_join_all(asked).await?;
        Ok(sorted(sets.into_iter().flatten()))
    }

    async fn listen(&self, authority: &str, token: &str, until: Instant) -> Result<Vec<Row>, Unanswered> {
        let mut held: BTreeMap<SocketAddr, ShownEndpoint> = BTreeMap::new();
        let mut client = destination::Client::new(self.0.clone());
        let mut steps = answered(client.show(authority, token)).await?;
        while let Ok(Some(step)) = tokio::time::timeout_at(until, steps.next()).await {
            match step? {
                ShownStep::Add(endpoints) => held.extend(endpoints.into_iter().map(|e| (e.addr, e))),
                ShownStep::Remove(addrs) => held.retain(|addr, _| !addrs.contains(addr)),
                ShownStep::None => held.clear(),
            }
        }
        Ok(held.into_values().map(Row::from).collect())
    }

    #[expect(clippy::missing_errors_doc, reason = "as the control plane refuses")]
    pub async fn profile(&self, path: &str, token: &str) -> Result<String, Unanswered> {
        answered(destination::Client::new(self.0.clone()).show_profile(path, token)).await
    }

    #[expect(clippy::missing_errors_doc, reason = "as the control plane refuses")]
    pub async fn inbound(
        &self,
        namespace: &str,
        of: WorkloadKind,
        name: &str,
        port: u16,
    ) -> Result<String, Unanswered> {
        let workload = match of {
            WorkloadKind::Pod => format!("{namespace}:{name}"),
            WorkloadKind::ExternalWorkload => json!({"ns": namespace, "external_workload": name}).to_string(),
        };
        answered(inbound::Client::new(self.0.clone()).show(&workload, port)).await
    }

    #[expect(clippy::missing_errors_doc, reason = "as the control plane refuses")]
    pub async fn outbound(&self, authority: &str, token: &str) -> Result<String, Unanswered> {
        let target = outbound::Target::Authority(authority.to_owned());
        answered(outbound::Client::new(self.0.clone()).show(token, target)).await
    }
}

async fn answered<T>(asked: impl Future<Output = Result<T, weft_wire::Error>>) -> Result<T, Unanswered> {
    Ok(tokio::time::timeout(ANSWER, asked).await.map_err(|_| Unanswered::Late)??)
}

impl From<ShownEndpoint> for Row {
    fn from(ShownEndpoint { addr, weight, mut labels, http2 }: ShownEndpoint) -> Self {
        let namespace = labels.remove("namespace").unwrap_or_default();
        let service = labels.remove("service").unwrap_or_default();
        let workload = ["pod", "external_workload"].into_iter().find_map(|of| labels.get(of));
        let pod = workload.cloned().unwrap_or_default();
        Self {
            ip: addr.ip(),
            port: addr.port(),
            pod,
            service: format!("{service}.{namespace}"),
            namespace,
            weight,
            http2: http2.and_then(|json| serde_json::from_str(&json).ok()),
            labels,
        }
    }
}

fn sorted(rows: impl IntoIterator<Item = Row>) -> Vec<Row> {
    let key = |row: &Row| (row.namespace.clone(), row.service.clone(), row.ip, row.port);
    // Several authorities may lead to one.
    rows.into_iter().map(|row| (key(&row), row)).collect::<BTreeMap<_, _>>().into_values().collect()
}

/// What an index says, as its control plane would to a client that does not say where it is.
pub mod of_index {
    use super::{
        Answer, EndpointUpdate, Index, Place, Question, Row, ShownStep, Target, Unanswered, WorkloadKind, sorted,
    };
    use crate::services::ask;
    use weft_wire::{Invalid, destination, inbound, outbound};

    fn answer(index: &Index, question: &Question) -> Result<Answer, Unanswered> {
        index.answer(question).answer.map_err(|refusal| Unanswered::Refused(refusal.to_string()))
    }

    fn target(text: &str) -> Result<Target, Unanswered> {
        ask::target(text).map_err(|status| Unanswered::Refused(status.message().to_owned()))
    }

    fn unexpected() -> Unanswered {
        Unanswered::Refused("the index answers something else".to_owned())
    }

    fn cannot_say(invalid: Invalid) -> Unanswered {
        weft_wire::Error::from(invalid).into()
    }

    #[expect(clippy::missing_errors_doc, reason = "as the first of them that is refused")]
    pub fn endpoints(index: &Index, authorities: &[String]) -> Result<Vec<Row>, Unanswered> {
        let mut rows = vec![];
        for authority in authorities {
            let Target::Name(name) = target(authority)? else {
                return Err(Unanswered::Refused(format!("Invalid authority: {authority}")));
            };
            let Answer::Destination(endpoints) = answer(index, &Question::Destination(name))? else {
                return Err(unexpected());
            };
            let all = endpoints.seen_from(&Place::default()).into_values().collect();
            if let ShownStep::Add(shown) = destination::show(&EndpointUpdate::Add(all)).map_err(cannot_say)? {
                rows.extend(shown.into_iter().map(Row::from));
            }
        }
        Ok(sorted(rows))
    }

    #[expect(clippy::missing_errors_doc, reason = "as the index refuses")]
    pub fn profile(index: &Index, path: &str) -> Result<String, Unanswered> {
        // Of a client that nobody knows.
        match answer(index, &Question::Profile { from: String::new(), target: target(path)? })? {
            Answer::Profile(profile) => destination::show_profile(&profile).map_err(cannot_say),
            _ => Err(unexpected()),
        }
    }

    #[expect(clippy::missing_errors_doc, reason = "as the index refuses")]
    pub fn inbound(
        index: &Index,
        namespace: &str,
        of: WorkloadKind,
        name: &str,
        port: u16,
    ) -> Result<String, Unanswered> {
        let question = Question::Inbound { namespace: namespace.to_owned(), of, name: name.to_owned(), port };
        match answer(index, &question)? {
            Answer::Inbound(policy) => inbound::show(&policy).map_err(cannot_say),
            _ => Err(unexpected()),
        }
    }

    #[expect(clippy::missing_errors_doc, reason = "as the index refuses")]
    pub fn outbound(index: &Index, authority: &str) -> Result<String, Unanswered> {
        match answer(index, &Question::Outbound { from: String::new(), target: target(authority)? })? {
            Answer::Outbound(policy) => outbound::show(&policy).map_err(cannot_say),
            _ => Err(unexpected()),
        }
    }
}

/// An exposition in which nobody can be recognised: what the labels say is replaced by the beginning of its hash.
pub fn obfuscated(exposition: &str) -> String {
    exposition.split_inclusive('\n').map(line).collect()
}

fn line(line: &str) -> String {
    let Some((name, rest)) = line.split_once('{').filter(|_| !line.starts_with('#')) else { return line.to_owned() };
    let mut out = format!("{name}{{");
    let mut rest = rest;
    // label="value",
    while let Some((label, value)) = rest.split_once("=\"").filter(|(label, _)| !label.contains('}')) {
        let Some(end) = end_of_value(value) else { break };
        let (text, after) = value.split_at(end);
        let bare = label.trim_start_matches(',');
        let hash = || sha256(text.as_bytes()).get(..8).unwrap_or_default().to_owned();
        let shown = if OBFUSCATED.contains(&bare) { hash() } else { text.to_owned() };
        out.push_str(&format!("{label}=\"{shown}\""));
        rest = after.strip_prefix('"').unwrap_or(after);
    }
    out + rest
}

/// Where the quote stands that ends a value.
fn end_of_value(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_recognised() {
        let text = "# HELP a {authority=\"x\"}\nup 1\na{authority=\"web:80\",direction=\"in\",client_id=\"a\\\"b\"} 3\nb{} 4\nc{dst_pod=\"p\"} 1 # {x=\"y\"} 2\n";
        let hash = |text: &str| sha256(text.as_bytes())[..8].to_owned();
        let expected = format!(
            "# HELP a {{authority=\"x\"}}\nup 1\na{{authority=\"{}\",direction=\"in\",client_id=\"{}\"}} 3\nb{{}} 4\nc{{dst_pod=\"p\"}} 1 # {{x=\"y\"}} 2\n",
            hash("web:80"),
            hash("a\\\"b")
        );
        assert_eq!(obfuscated(text), expected);
    }
}
