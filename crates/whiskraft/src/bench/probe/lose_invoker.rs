//! Invokers are killed, or stopped in their tracks, one after the other, until no scheduler counts them as healthy.

use std::time::Duration;

use serde::Serialize;

use super::rotation::{Rotation, until_counted};
use super::{Finding, TIMEOUT, lost_how};
use crate::bench::busy::Busy;
use crate::bench::cluster::{Cluster, invoker};
use crate::bench::kind::Kind;
use crate::bench::plan::seconds;
use crate::bench::reasons::Reasons;
use crate::bench::run_clock::RunClock;
use crate::bench::times::Times;
use crate::bench::usage::Roles;
use crate::exit::{Exit, Failure};
use crate::units::show_ms;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct LoseInvoker {
    /// How often one is lost.
    pub(crate) times: u32,
    /// Whether it is stopped in its tracks and goes on later, instead of being killed.
    pub(crate) freeze: bool,
    /// Time before each loss in which all goes well.
    #[serde(serialize_with = "seconds")]
    pub(crate) pause: Duration,
    /// Threads that keep processors busy all the time.
    pub(crate) busy: u32,
}

impl LoseInvoker {
    pub(super) async fn run(&self, cluster: &mut Cluster, quiet: bool) -> Result<Finding, Failure> {
        let clock = RunClock::start();
        let mut rotation = Rotation::follow(cluster.endpoints(), clock).await?;
        let roles = Roles::new(cluster.roles());
        let busy = Busy::start(self.busy)?;
        let losses = self.losses(cluster, &mut rotation, clock, quiet);
        let mut lost = Ok(Lost::default());
        let watched = roles.during(clock, async { lost = losses.await }).await;
        drop(busy);
        let lost = lost?;
        // Each loss ends one session; whatever else has ended was taken for dead and was not.
        let ended = rotation.ended();
        let expired = ended.len().saturating_sub(self.times as usize);
        let done = lost.expired.count();
        Ok(Finding::new(done, Reasons::default(), watched.used(done))
            .with([("false_expiries", expired as f64)])
            .timed(Kind::OutOfRotation, lost.out)
            .timed(Kind::Expired, lost.expired))
    }

    async fn losses(
        &self,
        cluster: &mut Cluster,
        rotation: &mut Rotation,
        clock: RunClock,
        quiet: bool,
    ) -> Result<Lost, Failure> {
        let mut all = Lost::default();
        let invokers = u64::from(cluster.options().invokers);
        let endpoints = cluster.endpoints().to_vec();
        for n in 0..self.times {
            let id = u64::from(n) % invokers + 1;
            let name = invoker(id);
            wait(rotation.until(id, true), &name, "is not healthy").await?;
            tokio::time::sleep(self.pause).await;
            let lost = clock.elapsed();
            cluster.lose(&name, self.freeze).await?;
            let both = async {
                tokio::join!(
                    until_counted(&endpoints, invokers - 1, clock),
                    rotation.until(id, false)
                )
            };
            let (out, expired) = wait(both, &name, "still counts as healthy").await?;
            let (out, expired) = (out.saturating_sub(lost), expired.saturating_sub(lost));
            all.out.add(out);
            all.expired.add(expired);
            if !quiet {
                let [out, expired] = [out, expired].map(|time| show_ms(time.as_secs_f64() * 1000.0));
                eprintln!("{name} lost: out of rotation after {out}, gone from the tables after {expired}");
            }
            cluster.find(&name, self.freeze)?;
        }
        Ok(all)
    }

    pub(super) fn header(&self) -> String {
        let how = lost_how(self.freeze);
        let busy = match self.busy {
            0 => String::new(),
            threads => format!(", while {threads} threads keep processors busy"),
        };
        format!(
            "invokers {how} {} times, each after {:?} of rest{busy}; until no scheduler counts them as healthy",
            self.times, self.pause
        )
    }
}

/// What was seen of all losses.
#[derive(Debug, Default)]
struct Lost {
    out: Times,
    expired: Times,
}

async fn wait<T>(until: impl Future<Output = T>, name: &str, what: &str) -> Result<T, Failure> {
    tokio::time::timeout(TIMEOUT, until)
        .await
        .map_err(|_| Failure::new(Exit::Failed, format!("{name} {what} after {TIMEOUT:?}")))
}
