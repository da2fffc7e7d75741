//! Keeps one process running: started, its end noted, started again after a while, ended when asked.

use super::{context::Shared, hands::Process, logs::Workload};
use crate::{
    Error,
    client::Source,
    launch::Launch,
    node::protocol::{Net, Signal},
};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How a process that ended comes back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restart {
    /// After a life this long an end is no failure.
    pub(crate) settled: Duration,
    /// The wait behind the second failure in a row; behind the first there is none.
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Restart {
    pub(crate) const PROGRAM: Self =
        Self { settled: Duration::from_secs(10), first: Duration::from_secs(1), longest: Duration::from_secs(60) };
    /// Without its proxy a pod is cut off.
    pub(crate) const PROXY: Self =
        Self { settled: Duration::from_secs(2), first: Duration::from_millis(250), longest: Duration::from_secs(10) };

    /// After a life of this length that followed `failures` short ones: how many short ones there are now, and the wait
    /// before the next start.
    fn after(self, life: Duration, failures: u32) -> (u32, Duration) {
        let failures = if life >= self.settled { 0 } else { failures.saturating_add(1) };
        (failures, self.wait(failures))
    }

    /// The wait before the start that follows `failures` short lives in a row. The first may be bad luck.
    fn wait(self, failures: u32) -> Duration {
        match failures {
            0 | 1 => Duration::ZERO,
            n => self.first.saturating_mul(1 << (n - 2).min(16)).min(self.longest),
        }
    }
}

/// What happens to a kept process, for whoever keeps its status.
#[derive(Clone, Debug)]
pub(crate) enum Life {
    Started {
        /// By which the node knows it.
        number: u64,
        pid: Option<u32>,
    },
    /// It is started again, unless it was asked to end.
    Ended { why: String },
}

/// Where a process runs and whose log it writes.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) net: Net,
    pub(crate) workload: Workload,
    pub(crate) pod: String,
    pub(crate) source: Source,
}

/// Runs what `launch` makes until `stop`, then asks it to end and kills it after `grace`.
pub(crate) async fn keep(
    context: &Shared,
    place: &Place,
    launch: impl Fn() -> Launch,
    restart: Restart,
    grace: Duration,
    stop: CancellationToken,
    mut on: impl FnMut(Life),
) {
    let what = if place.source == Source::Proxy { "the proxy" } else { "the program" };
    let mut failures = 0_u32;
    while !stop.is_cancelled() {
        let born = Instant::now();
        let why = match start(context, place, launch()).await {
            Err(error) => format!("{what} could not be started: {error}"),
            Ok(mut process) => {
                on(Life::Started { number: process.number(), pid: process.pid });
                let exit = tokio::select! {
                    exit = process.ended() => exit,
                    () = stop.cancelled() => {
                        end(context, &mut process, grace).await;
                        on(Life::Ended { why: format!("{what} was asked to end") });
                        return;
                    }
                };
                // Without the node there is nothing to start again.
                let Some(exit) = exit else { return };
                format!("{what} {exit}")
            }
        };
        let wait;
        (failures, wait) = restart.after(born.elapsed(), failures);
        context.logs.note(&place.workload, &place.pod, format!("{why}; it is started again in {wait:?}"));
        on(Life::Ended { why });
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Starts a process once, its output going to the log.
pub(crate) async fn start(context: &Shared, place: &Place, launch: Launch) -> Result<Process, Error> {
    let (reader, writer) = std::io::pipe().map_err(Error::io("making a pipe"))?;
    context
        .logs
        .collect(place.workload.clone(), place.pod.clone(), place.source, reader.into())
        .map_err(Error::io("reading a log"))?;
    context.node.spawn(place.net, launch, None, writer.into()).await
}

/// Asks a process to end, waits, and kills it.
pub(crate) async fn end(context: &Shared, process: &mut Process, grace: Duration) {
    // A signal that does not arrive finds the process or the node gone.
    let _ = context.node.signal(process.number(), Signal::Terminate).await;
    if tokio::time::timeout(grace, process.ended()).await.is_err() {
        let _ = context.node.signal(process.number(), Signal::Kill).await;
        process.ended().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound() {
        let seconds = |n| Restart::PROGRAM.wait(n).as_secs();
        assert_eq!([seconds(0), seconds(1), seconds(2), seconds(3), seconds(4), seconds(40)], [0, 0, 1, 2, 4, 60]);
        assert_eq!(Restart::PROXY.wait(3), Duration::from_millis(500));
    }

    #[test]
    fn what_ran_well_is_back_at_once() {
        let (mut failures, mut waits) = (40, vec![]);
        for life in [3600.0, 0.1, 0.1, 0.1, 2.0, 0.1] {
            let wait;
            (failures, wait) = Restart::PROXY.after(Duration::from_secs_f64(life), failures);
            waits.push(wait.as_millis());
        }
        assert_eq!(waits, [0, 0, 250, 500, 0, 0]);
        assert_eq!(Restart::PROGRAM.after(Duration::from_secs(3600), 40), (0, Duration::ZERO));
    }
}
