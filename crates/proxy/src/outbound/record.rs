//! What is counted of one request: by its route, its backend and its endpoint; and what its endpoint is thought of afterwards.

use super::{
    Http,
    balance::{Member, Ticket},
};
use crate::{
    error::ProxyError,
    exchange::{Fields, Observe},
    metrics::route::{self, Backend, CANCEL, Kind, REFUSED, Route, Status},
    profile, turn,
};
use std::{
    rc::Rc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use weft_model::decide::{
    breaker::{self, Outcome},
    pick,
};

/// Follows one request to one endpoint.
pub(crate) struct Record {
    endpoint: profile::Record,
    member: Rc<Member<Http>>,
    /// `None` where the profile is followed, which counts otherwise.
    route: Option<Rc<Route>>,
    backend: Option<Rc<Backend>>,
    ticket: Option<Ticket>,
    start: Instant,
    /// When the last of the request came, as far as is known.
    sent: Instant,
    /// Of the endpoint's response; the proxy's own reply has none.
    head: Option<Head>,
    /// Of a response that has ended.
    grpc_status: Option<u16>,
    ended: bool,
    /// Another attempt follows: the request has not ended.
    repeated: bool,
}

/// The head of a response, as far as it matters here.
struct Head {
    status: u16,
    /// What it says of how long to leave the endpoint alone.
    hint: Option<String>,
}

impl Record {
    /// A request is sent to the endpoint. `start` is when its head came.
    pub(super) fn new(
        endpoint: profile::Record,
        member: Rc<Member<Http>>,
        start: Instant,
        route: Option<Rc<Route>>,
        backend: Option<Rc<Backend>>,
        ticket: Option<Ticket>,
    ) -> Self {
        if let Some(backend) = &backend {
            backend.request();
        }
        let sent = turn::now();
        Self {
            endpoint,
            member,
            route,
            backend,
            ticket,
            start,
            sent,
            head: None,
            grpc_status: None,
            ended: false,
            repeated: false,
        }
    }

    fn kind(&self) -> Kind {
        self.route.as_ref().map_or(Kind::Http, |route| route.kind())
    }

    /// Whether the fields of the response matter: nobody looks at them otherwise.
    fn looks(&self) -> bool {
        self.ticket.is_some() || self.member.penalty.is_some() || self.kind() == Kind::Grpc
    }

    /// What the head alone says. Whoever failed is known by it; whoever has not may still fail.
    fn judge(&mut self) {
        let Some(Head { status, hint }) = &self.head else { return };
        if let Some(policy) = &self.member.penalty
            && pick::is_penalised(*status, self.grpc_status)
        {
            let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let penalty = pick::penalty(policy, self.grpc_status.is_some(), hint.as_deref(), unix_now);
            // The time that it really took is told right behind, and changes next to nothing.
            self.member.responded(turn::now(), penalty);
        }
        let outcome = breaker::outcome(*status, self.grpc_status);
        if outcome != Outcome::Success {
            self.outcome(outcome);
        }
    }

    fn outcome(&mut self, outcome: Outcome) {
        if let Some(ticket) = &mut self.ticket {
            ticket.finish(outcome);
        }
    }

    fn finish(&mut self, error: Option<&'static str>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let status = match self.kind() {
            Kind::Http => self.head.as_ref().map(|head| head.status),
            Kind::Grpc => self.grpc_status,
        };
        let (status, now) = (Status { status, error }, turn::now());
        if let Some(route) = self.route.as_ref().filter(|_| !self.repeated) {
            route.ended(status, now - self.start);
        }
        if let Some(backend) = &self.backend {
            backend.ended(status, now - self.sent);
        }
    }
}

impl Observe for Record {
    fn request_body(&mut self, bytes: usize) {
        self.sent = turn::now();
        if let Some(route) = &self.route {
            route.data(bytes);
        }
        self.endpoint.request_body(bytes);
    }

    fn response_fields(&mut self, fields: &dyn Fields) {
        let mut head = Head { status: 0, hint: None };
        if self.looks() {
            let (mut grpc, mut pushback, mut retry_after) = (None, None, None);
            let text = |value: &[u8]| std::str::from_utf8(value).map(str::to_owned).ok();
            let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
            fields.each(&mut |name, value| match name {
                _ if name.eq_ignore_ascii_case(b"grpc-status") => grpc = number(value),
                _ if name.eq_ignore_ascii_case(b"grpc-retry-pushback-ms") => pushback = text(value),
                _ if name.eq_ignore_ascii_case(b"retry-after") => retry_after = text(value),
                _ => {}
            });
            self.grpc_status = grpc;
            head.hint = if self.grpc_status.is_some() { pushback } else { retry_after };
        }
        self.head = Some(head);
        self.endpoint.response_fields(fields);
    }

    fn response_head(&mut self, status: u16) {
        if let Some(head) = &mut self.head {
            head.status = status;
            self.judge();
        }
        self.endpoint.response_head(status);
    }

    fn first_byte(&mut self) {
        self.endpoint.first_byte();
    }

    fn response_body(&mut self, bytes: usize) {
        if let Some(ticket) = &mut self.ticket {
            ticket.flows();
        }
        if let Some(backend) = &self.backend {
            backend.data(bytes);
        }
        self.endpoint.response_body(bytes);
    }

    fn repeated(&mut self) {
        self.repeated = true;
        self.endpoint.repeated();
    }

    fn end(&mut self, grpc_status: Option<u16>, error: Option<&ProxyError>) {
        let status = self.head.as_ref().map(|head| head.status);
        if status.is_some() {
            self.grpc_status = grpc_status;
        }
        match (error, status) {
            (None, Some(status)) => self.outcome(breaker::outcome(status, grpc_status)),
            // What the client did wrong says nothing of the endpoint.
            (Some(error), _) if error.code.is_clients() => drop(self.ticket.take()),
            _ => self.outcome(Outcome::Failure),
        }
        self.finish(error.map(route::error));
        self.endpoint.end(grpc_status, error);
    }
}

impl Drop for Record {
    /// The client left before the end; or the endpoint had not looked at the request, and another one does.
    fn drop(&mut self) {
        self.finish(Some(if self.repeated { REFUSED } else { CANCEL }));
    }
}
