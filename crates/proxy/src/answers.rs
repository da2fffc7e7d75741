//! What a server's answers say of its port: that it speaks HTTP, or that it does not.
//!
//! Behind route in both directions, where a connection's protocol had to be found out. The client's own bytes say nothing of a port:
//! anybody may send a request to a server that speaks first, and who is silent there afterwards would wait for its greeting in vain. It
//! must not decide anything for the request itself.

use crate::{
    error::NOT_HTTP,
    exchange::{Fields, Observe},
};
use std::{cell::Cell, rc::Rc};
use weft_model::names::header::PROXY_ERROR;

/// What the answer to a request was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Http,
    Other,
}

/// The port to which the requests of one connection go.
pub(crate) struct Answers {
    /// So that it is told once and not by each request.
    last: Cell<Option<Said>>,
    /// Boxed: connections, of which there are many, hold one pointer.
    told: Box<dyn Fn(Said)>,
}

/// Listens to the answer to one request; where nothing is to be learned, to nothing.
pub(crate) struct Answer(pub(crate) Option<Rc<Answers>>);

impl Answers {
    /// `told` hears what the answers are, when that changes.
    pub(crate) fn new(told: impl Fn(Said) + 'static) -> Rc<Self> {
        Rc::new(Self { last: Cell::new(None), told: Box::new(told) })
    }

    fn heard(&self, said: Said) {
        if self.last.replace(Some(said)) != Some(said) {
            (self.told)(said);
        }
    }
}

impl Observe for Answer {
    fn response_fields(&mut self, fields: &dyn Fields) {
        let Some(answers) = self.0.as_ref().filter(|answers| answers.last.get() != Some(Said::Http)) else { return };
        let mut said = Some(Said::Http);
        fields.each(&mut |name, value| {
            // The server's proxy answered in its stead.
            if name.eq_ignore_ascii_case(PROXY_ERROR.as_bytes()) {
                said = value.starts_with(NOT_HTTP.as_bytes()).then_some(Said::Other);
            }
        });
        said.into_iter().for_each(|said| answers.heard(said));
    }

    fn not_http(&mut self) {
        self.0.iter().for_each(|answers| answers.heard(Said::Other));
    }

    fn response_head(&mut self, _: u16) {}

    fn first_byte(&mut self) {}

    fn end(&mut self, _: Option<u16>, _: Option<&crate::error::ProxyError>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue};
    use std::cell::RefCell;

    #[test]
    fn only_the_servers_own_answers_count_and_each_change_once() {
        let heard = Rc::new(RefCell::new(vec![]));
        let told = Rc::clone(&heard);
        let answers = Answers::new(move |said| told.borrow_mut().push(said));
        let answer = |error: Option<&'static str>| {
            let fields: HeaderMap =
                error.into_iter().map(|text| (PROXY_ERROR.parse().unwrap(), HeaderValue::from_static(text))).collect();
            Answer(Some(Rc::clone(&answers))).response_fields(&fields);
        };
        answer(Some("connection refused [CONNECT_FAILED]"));
        assert!(heard.borrow().is_empty());
        answer(None);
        answer(None);
        Answer(Some(Rc::clone(&answers))).not_http();
        answer(Some("the server's answer is not HTTP [UPSTREAM_PROTOCOL]"));
        answer(None);
        assert_eq!(*heard.borrow(), [Said::Http, Said::Other, Said::Http]);
        Answer(None).not_http();
    }
}
