//! Serves one accepted HTTP/1 connection: request after request, until it closes.

use super::{Director, ServerConnection};
use crate::{
    error::{Code, ProxyError},
    http1::io::Io,
};
use weft_transport::drain;

/// Serves `connection` until either side closes it, or the drain lets it end between two requests.
pub async fn serve_http1<D: Director>(connection: ServerConnection, director: &D, drain: drain::Watch) {
    let _ = (Io::new(connection.stream, &connection.prefix), drain);
    director.refused(&ProxyError::new(Code::Internal, "HTTP/1 is not served yet"));
}
