//! The voting service: counts votes in memory. Votes for the doughnut fail, which is the demo's fault to find.

use crate::{
    catalogue,
    rpc::{self, Empty, ResultsResponse, VOTING_SERVICE, VotingResult},
    serve::Leave,
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tonic::Status;

#[derive(Default)]
struct Votes(Mutex<BTreeMap<&'static str, i32>>);

pub(crate) async fn serve(
    listener: TcpListener,
    failure_rate: f64,
    delay: Duration,
    leave: Leave,
) -> anyhow::Result<()> {
    let votes = Arc::new(Votes::default());
    let handler = move |path: String, _: Bytes| {
        let votes = votes.clone();
        let fails = fastrand::f64() < failure_rate;
        let reply: rpc::Reply = Box::pin(async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            votes.answer(&path, fails)
        });
        reply
    };
    rpc::serve(listener, VOTING_SERVICE, Arc::new(handler), leave).await
}

impl Votes {
    /// `doughnut_fails` is this call's luck.
    fn answer(&self, path: &str, doughnut_fails: bool) -> Result<Bytes, Status> {
        let method = path.strip_prefix(VOTING_SERVICE).unwrap_or_default();
        if method == "Results" {
            return Ok(rpc::encode(&self.results()));
        }
        match catalogue::voted_by(method) {
            Some(("doughnut", _)) if doughnut_fails => Err(Status::unknown("the doughnut cannot be voted for")),
            Some((shortcode, _)) => {
                let mut votes = self.0.lock();
                let count = votes.entry(shortcode).or_default();
                *count = count.saturating_add(1);
                Ok(rpc::encode(&Empty {}))
            }
            None => Err(Status::unimplemented(format!("no method {path}"))),
        }
    }

    /// Most votes first.
    fn results(&self) -> ResultsResponse {
        let mut results: Vec<_> = self
            .0
            .lock()
            .iter()
            .map(|(shortcode, votes)| VotingResult { shortcode: format!(":{shortcode}:"), votes: *votes })
            .collect();
        results.sort_by_key(|r| std::cmp::Reverse(r.votes));
        ResultsResponse { results }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doughnut_fails_and_others_count() {
        let votes = Votes::default();
        let status = votes.answer("/emojivoto.v1.VotingService/VoteDoughnut", true).unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unknown);
        for _ in 0..2 {
            votes.answer("/emojivoto.v1.VotingService/VoteCrab", true).unwrap();
        }
        assert_eq!(votes.results().results, [VotingResult { shortcode: ":crab:".into(), votes: 2 }]);
    }
}
