//! How traffic fails that the mesh itself answers instead of a server: requests of HTTP by a status, of gRPC by a code; connections by
//! their end.

use crate::policy::route::Beyond;
use weft_model::policy::route::{Filter, Ratio};

const INTERNAL_SERVER_ERROR: u16 = 500;
const FORBIDDEN: u16 = 403;
// Of gRPC.
const PERMISSION_DENIED: u16 = 7;
const UNIMPLEMENTED: u16 = 12;
const UNAVAILABLE: u16 = 14;

/// What a route is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    Http,
    Grpc,
    Connections,
}

impl Traffic {
    /// What a rule wants with these filters and no client's proxy carries out, by the type of its filter.
    pub(super) fn unmet<'a>(self, filters: &[Filter], beyond: &'a Beyond) -> Option<&'a str> {
        let edits_responses = filters.iter().any(|filter| matches!(filter, Filter::ResponseHeaders(_)));
        // No message for gRPC on the wire can say it.
        let of_grpc = (self == Self::Grpc && edits_responses).then_some("ResponseHeaderModifier");
        beyond.unmet().or(of_grpc)
    }

    /// A rule, or one of its backends, wants something that nobody carries out: without it requests would go on as if they had it.
    pub(super) fn not_carried_out(self, what: &str) -> Filter {
        let message = format!("the route wants a {what}, which this proxy does not carry out");
        self.failing(INTERNAL_SERVER_ERROR, UNIMPLEMENTED, message)
    }

    /// A backend is none. Linkerd sends the status in place of gRPC's code, which is no code.
    pub(super) fn to_nobody(self, why: &str) -> Filter {
        self.failing(INTERNAL_SERVER_ERROR, UNAVAILABLE, why.to_owned())
    }

    /// It may not go where it wants to.
    pub(super) fn denied(self, why: &str) -> Filter {
        match self {
            Self::Http | Self::Grpc => self.failing(FORBIDDEN, PERMISSION_DENIED, why.to_owned()),
            Self::Connections => Filter::Forbidden,
        }
    }

    fn failing(self, status: u16, code: u16, message: String) -> Filter {
        let ratio = Ratio::ALWAYS;
        match self {
            Self::Http => Filter::HttpFailure { status, message, ratio },
            Self::Grpc => Filter::GrpcFailure { code, message, ratio },
            Self::Connections => Filter::Invalid(message),
        }
    }
}
