//! Trace context: what a proxy passes on is read by the next one as the same trace, as the child of the span that is said, and
//! as much wanted as before.

use weft_model::{
    decide::route::RequestView,
    trace::propagate::{self, B3_FLAGS, B3_SAMPLED, B3_SPAN, B3_TRACE, GRPC_TRACE_BIN, TRACEPARENT},
};

/// The headers that may carry a context, each on a line; an empty line is none.
struct Request(Vec<(&'static str, Vec<u8>)>);

const NAMES: [&str; 6] = [TRACEPARENT, GRPC_TRACE_BIN, B3_TRACE, B3_SPAN, B3_SAMPLED, B3_FLAGS];

impl RequestView for Request {
    fn method(&self) -> &str {
        "GET"
    }

    fn authority(&self) -> Option<&str> {
        None
    }

    fn path(&self) -> &str {
        "/"
    }

    fn query(&self) -> Option<&str> {
        None
    }

    fn header(&self, name: &str, wanted: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.0.iter().any(|(known, value)| *known == name && wanted(value))
    }

    fn fields(&self, each: &mut dyn FnMut(&[u8], &[u8])) {
        self.0.iter().for_each(|(name, value)| each(name.as_bytes(), value));
    }
}

pub(crate) fn run(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n');
    let fields = NAMES.into_iter().zip(lines).filter(|(_, line)| !line.is_empty());
    let mut request = Request(fields.map(|(name, line)| (name, line.to_vec())).collect());
    let Some((context, format)) = propagate::find(&request) else { return };
    assert!(context.trace != [0; 16] && context.parent != [0; 8], "ids of zeros name nothing");
    let (span, parent) = ([1, 2, 3, 4, 5, 6, 7, 8], [8, 7, 6, 5, 4, 3, 2, 1]);
    for (name, value) in propagate::headers(&context, format, span, parent) {
        request.0.retain(|(known, _)| *known != name);
        request.0.push((name, value.into_bytes()));
    }
    let Some((passed, again)) = propagate::find(&request) else { panic!("what is passed on is no context") };
    assert_eq!((passed.trace, passed.parent, passed.sampled), (context.trace, span, context.sampled));
    assert_eq!(again, format);
}
