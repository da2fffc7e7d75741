//! A request that nobody has sent yet.

use super::{Untold, name::short};
use crate::policy::route::is_token;
use weft_model::{
    decide::{
        filter::{HeaderChange, request_changes, rewriting, rewritten},
        host::host_port,
        route::RequestView,
    },
    names::header,
    policy::route::Filter,
};

/// As far as routes see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    method: String,
    path: String,
    query: Option<String>,
    host: Option<String>,
    /// Names in lower case.
    headers: Vec<(String, Vec<u8>)>,
}

/// Bytes of the path with its query.
const MAX_PATH: usize = 16 << 10;
pub(super) const MAX_HEADERS: usize = 100;

impl Default for Request {
    fn default() -> Self {
        Self { method: "GET".to_owned(), path: "/".to_owned(), query: None, host: None, headers: vec![] }
    }
}

impl Request {
    /// # Errors
    /// No proxy would take it for a request.
    pub fn new(method: &str, target: &str) -> Result<Self, Untold> {
        if !is_token(method) || method.len() > 32 {
            return Err(Untold::new(format!("{:?} is no method", short(method)), "use one such as GET"));
        }
        if !target.starts_with('/')
            || target.len() > MAX_PATH
            || target.bytes().any(|b| b <= b' ' || b == 0x7f || b == b'#')
        {
            return Err(Untold::new(format!("{:?} is no path", short(target)), "use one such as /api/list?of=all"));
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        Ok(Self { method: method.to_owned(), path: path.to_owned(), query, ..Self::default() })
    }

    /// With the name that the client asks for; as good as none if it is empty.
    ///
    /// # Errors
    /// No proxy would take it for a host.
    pub fn with_host(self, host: Option<&str>) -> Result<Self, Untold> {
        let host = host.filter(|host| !host.is_empty());
        match host.filter(|host| host_port(host.as_bytes()).is_none()) {
            Some(host) => Err(Untold::new(format!("{:?} is no host", short(host)), "use one such as web.shop:80")),
            None => Ok(Self { host: host.map(str::to_owned), ..self }),
        }
    }

    /// Whether it says where a proxy in ingress mode is to send it.
    pub(super) fn names_target(&self) -> bool {
        self.headers.iter().any(|(name, _)| name == header::DST_OVERRIDE)
    }

    /// For a host that a route names.
    #[must_use]
    pub(super) fn named(self, host: String) -> Self {
        Self { host: Some(host), ..self }
    }

    /// # Errors
    /// There is no such header, or there are too many.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, Untold> {
        let name = name.trim().to_ascii_lowercase();
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !is_name || value.bytes().any(|b| b < b' ' || b == 0x7f) {
            return Err(Untold::new(format!("{:?} is no header", short(&name)), "use NAME:VALUE"));
        }
        if name == "host" {
            return Err(Untold::new("the host is no header here", "say it as the host"));
        }
        if self.headers.len() >= MAX_HEADERS {
            return Err(Untold::new(format!("there are more than {MAX_HEADERS} headers"), "leave some out"));
        }
        self.headers.push((name, value.trim().as_bytes().to_vec()));
        Ok(self)
    }

    /// What goes on once these filters have changed it; `prefix` is the one by which the rule matched, if it did by one.
    ///
    /// # Errors
    /// It cannot be rewritten as they want it.
    pub(super) fn changed<'f>(
        &self,
        filters: impl Iterator<Item = &'f Filter> + Clone,
        prefix: Option<&str>,
    ) -> Result<Self, &'static str> {
        let mut changed = self.clone();
        for HeaderChange { name, replaces, values } in request_changes(filters.clone()) {
            if replaces {
                changed.headers.retain(|(own, _)| *own != name);
            }
            changed.headers.extend(values.into_iter().map(|value| (name.clone(), value)));
        }
        if let Some(rewrite) = rewriting(filters) {
            if let Some(target) = rewritten(&rewrite, self, prefix)? {
                let (path, query) =
                    target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
                (changed.path, changed.query) = (path.to_owned(), query.map(str::to_owned));
            }
            changed.host = rewrite.host.or(changed.host);
        }
        Ok(changed)
    }

    pub(super) fn line(&self) -> String {
        match &self.query {
            Some(query) => format!("{} {}?{query}", self.method, self.path),
            None => format!("{} {}", self.method, self.path),
        }
    }
}

impl RequestView for Request {
    fn method(&self) -> &str {
        &self.method
    }

    fn authority(&self) -> Option<&str> {
        self.host.as_deref()
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    fn header(&self, name: &str, wanted: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.headers.iter().filter(|(own, _)| own == name).any(|(_, value)| wanted(value))
    }

    fn fields(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.headers.iter().for_each(|(name, value)| visit(name.as_bytes(), value));
    }
}
