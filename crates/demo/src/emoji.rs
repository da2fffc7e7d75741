//! The emoji service: which emoji there are.

use crate::{
    catalogue,
    rpc::{self, EMOJI_SERVICE, Emoji, FindRequest, FindResponse, ListAllResponse},
    serve::Leave,
};
use bytes::Bytes;
use std::sync::Arc;
use tokio::net::TcpListener;
use tonic::Status;

pub(crate) async fn serve(listener: TcpListener, leave: Leave) -> anyhow::Result<()> {
    rpc::serve(listener, EMOJI_SERVICE, Arc::new(|path, body| Box::pin(async move { answer(&path, body) })), leave)
        .await
}

fn answer(path: &str, body: Bytes) -> Result<Bytes, Status> {
    match path.strip_prefix(EMOJI_SERVICE) {
        Some("ListAll") => {
            Ok(rpc::encode(&ListAllResponse { list: catalogue::EMOJI.iter().map(|e| message(*e)).collect() }))
        }
        Some("FindByShortcode") => {
            let wanted: FindRequest = rpc::decode(body)?;
            Ok(rpc::encode(&FindResponse { emoji: catalogue::find(&wanted.shortcode).map(message) }))
        }
        _ => Err(Status::unimplemented(format!("no method {path}"))),
    }
}

fn message((shortcode, unicode): (&str, &str)) -> Emoji {
    Emoji { unicode: unicode.into(), shortcode: format!(":{shortcode}:") }
}
