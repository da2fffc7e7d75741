//! What is wrong with a message, and where.

use std::fmt::Display;

/// A message that cannot be converted, and the field that is to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// The path of the field in its message: `protocol.detect.timeout`, `rules[0].backends`.
    pub field: String,
    pub reason: String,
}

/// Why a call or one message of a stream failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The call failed; its stream is over.
    #[error("{}: {}", .0.code(), .0.message())]
    Rpc(tonic::Status),
    /// The message cannot be used; its stream goes on.
    #[error("invalid message: {0}")]
    Invalid(Invalid),
}

/// What a call that failed says of its question (data plane 3.11, 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it failed on its way, or whoever was asked is not ready.
    None,
    /// There is nothing of the sort.
    Unknown,
    /// Whoever was asked has no such service.
    Unserved,
    /// It is not answered, as it is put or as things are.
    Refused,
}

impl Error {
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Rpc(status) => match status.code() {
                tonic::Code::NotFound => Verdict::Unknown,
                tonic::Code::Unimplemented => Verdict::Unserved,
                tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition => Verdict::Refused,
                _ => Verdict::None,
            },
            Self::Invalid(_) => Verdict::None,
        }
    }
}

impl Invalid {
    pub(crate) fn new(field: &str, reason: impl Display) -> Self {
        Self { field: field.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn missing(field: &str) -> Self {
        Self::new(field, "is required")
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Self::Rpc(status)
    }
}

/// Names the message that a field is in.
pub(crate) trait Within {
    fn within(self, outer: &str) -> Self;
}

impl Within for Invalid {
    fn within(self, outer: &str) -> Self {
        let Self { field, reason } = self;
        let field = if field.is_empty() { outer.to_owned() } else { format!("{outer}.{field}") };
        Self { field, reason }
    }
}

impl<T> Within for Result<T, Invalid> {
    fn within(self, outer: &str) -> Self {
        self.map_err(|invalid| invalid.within(outer))
    }
}

/// The field's content, or an error that names it.
pub(crate) fn require<T>(field: &str, value: Option<T>) -> Result<T, Invalid> {
    value.ok_or_else(|| Invalid::missing(field))
}

/// Converts each element of a list; errors name its index.
pub(crate) fn each<P, T, C: FromIterator<T>>(
    field: &str,
    list: impl IntoIterator<Item = P>,
    mut convert: impl FnMut(P) -> Result<T, Invalid>,
) -> Result<C, Invalid> {
    list.into_iter().enumerate().map(|(i, item)| convert(item).within(&format!("{field}[{i}]"))).collect()
}

/// Converts the elements of a list that can be converted; errors name the index of each other one.
pub(crate) fn usable<P, T>(
    field: &str,
    list: impl IntoIterator<Item = P>,
    mut convert: impl FnMut(P) -> Result<T, Invalid>,
) -> (Vec<T>, Vec<Invalid>) {
    let (mut all, mut invalid) = (vec![], vec![]);
    for (i, item) in list.into_iter().enumerate() {
        match convert(item).within(&format!("{field}[{i}]")) {
            Ok(value) => all.push(value),
            Err(error) => invalid.push(error),
        }
    }
    (all, invalid)
}

/// A field that may be absent as if it were, where it cannot be used.
pub(crate) fn if_usable<T>(value: Result<Option<T>, Invalid>, invalid: &mut Vec<Invalid>) -> Option<T> {
    value.unwrap_or_else(|unusable| {
        invalid.push(unusable);
        None
    })
}

/// Converts a field that may be absent.
pub(crate) fn optional<P, T>(
    field: &str,
    value: Option<P>,
    convert: impl FnOnce(P) -> Result<T, Invalid>,
) -> Result<Option<T>, Invalid> {
    value.map(convert).transpose().within(field)
}

/// Converts a field that must be present.
pub(crate) fn required<P, T>(
    field: &str,
    value: Option<P>,
    convert: impl FnOnce(P) -> Result<T, Invalid>,
) -> Result<T, Invalid> {
    convert(require(field, value)?).within(field)
}

/// An error at this very place; callers add where that is.
pub(crate) fn here(reason: impl Display) -> Invalid {
    Invalid::new("", reason)
}
