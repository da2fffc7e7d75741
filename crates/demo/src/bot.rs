//! The bot: asks web for the list and votes, 15 % for the doughnut.

use crate::{catalogue, client::Client};
use std::time::Duration;
use tokio::time;

/// Longest a request may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn run(web: &str, rate: f64) -> anyhow::Result<()> {
    let mut ticks = time::interval(Duration::from_secs_f64(1.0 / rate));
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut client = Client::new(web);
    loop {
        ticks.tick().await;
        match time::timeout(PATIENCE, round(&mut client)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("{error:#}"),
            Err(_) => tracing::warn!("no answer from {web} within {PATIENCE:?}"),
        }
    }
}

async fn round(client: &mut Client) -> anyhow::Result<()> {
    client.get("/api/list").await?;
    let choice = if fastrand::f64() < 0.15 {
        "doughnut"
    } else {
        fastrand::choice(catalogue::EMOJI).map_or("crab", |(code, _)| code)
    };
    let status = client.get(&format!("/api/vote?choice=:{choice}:")).await?;
    tracing::info!(choice, status, "voted");
    Ok(())
}
