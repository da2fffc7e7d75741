//! The bot: asks web for the list and votes, 15 % for the doughnut.

use crate::catalogue;
use anyhow::Context;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::{net::TcpStream, time};

/// Longest a request may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn run(web: &str, rate: f64) -> anyhow::Result<()> {
    let mut ticks = time::interval(Duration::from_secs_f64(1.0 / rate));
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut connection = None;
    loop {
        ticks.tick().await;
        match time::timeout(PATIENCE, round(web, &mut connection)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!("{error:#}");
                connection = None;
            }
            Err(_) => {
                tracing::warn!("no answer from {web} within {PATIENCE:?}");
                connection = None;
            }
        }
    }
}

async fn round(web: &str, connection: &mut Option<SendRequest<Empty<Bytes>>>) -> anyhow::Result<()> {
    get(web, connection, "/api/list").await?;
    let choice = if fastrand::f64() < 0.15 {
        "doughnut"
    } else {
        fastrand::choice(catalogue::EMOJI).map_or("crab", |(code, _)| code)
    };
    let status = get(web, connection, &format!("/api/vote?choice=:{choice}:")).await?;
    tracing::info!(choice, status, "voted");
    Ok(())
}

async fn get(web: &str, connection: &mut Option<SendRequest<Empty<Bytes>>>, path: &str) -> anyhow::Result<u16> {
    let mut sender = match kept(connection.take()).await {
        Some(sender) => sender,
        None => connect(web).await?,
    };
    let request = Request::get(path).header("host", web).body(Empty::new())?;
    let response = sender.send_request(request).await.with_context(|| format!("asking {web} for {path}"))?;
    let status = response.status().as_u16();
    response.into_body().collect().await.with_context(|| format!("reading {path} from {web}"))?;
    *connection = Some(sender);
    Ok(status)
}

/// The kept connection, if the server has not closed it since.
async fn kept(connection: Option<SendRequest<Empty<Bytes>>>) -> Option<SendRequest<Empty<Bytes>>> {
    let mut sender = connection?;
    sender.ready().await.ok().map(|()| sender)
}

async fn connect(web: &str) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(web).await.with_context(|| format!("connecting to {web}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
