//! Leaders of queues are killed, or stopped in their tracks, under a steady load, until their queues go on elsewhere.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use whiskraft_client::Client;
use whiskraft_types::SchedulerId;

use super::{Finding, TIMEOUT, connect, lost_how, plan_of};
use crate::bench::call::{Caller, End, Ends};
use crate::bench::cluster::{Cluster, scheduler};
use crate::bench::kind::Kind;
use crate::bench::mix::Mix;
use crate::bench::open::Sender;
use crate::bench::plan::seconds;
use crate::bench::prepare::prepare;
use crate::bench::run_clock::RunClock;
use crate::bench::schedule::{Schedule, Window};
use crate::bench::tally::Tallies;
use crate::bench::times::Times;
use crate::bench::usage::Roles;
use crate::command::call_failure;
use crate::exit::{Exit, Failure};
use crate::units::show_ms;

/// SDK clients that make the load.
const CLIENTS: usize = 2;
/// Time between two looks whether queues go on.
const LOOK: Duration = Duration::from_millis(5);
/// Time after a loss in which other queues are looked at.
const ELSEWHERE: Duration = Duration::from_secs(3);
/// Longest load: no run takes so long.
const LOAD_MAX: Duration = Duration::from_secs(3600);

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct LoseScheduler {
    /// How often a leader is lost.
    pub(crate) times: u32,
    /// Whether it is stopped in its tracks and goes on later, instead of being killed.
    pub(crate) freeze: bool,
    /// Time before each loss in which all goes well.
    #[serde(serialize_with = "seconds")]
    pub(crate) pause: Duration,
    /// Queues that the load goes through in turn.
    pub(crate) queues: u32,
    /// Activations per second, of no length.
    pub(crate) rate: f64,
}

/// A leader that was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Loss {
    at: Duration,
    /// Numbers of its queues.
    queues: BTreeSet<u64>,
}

impl LoseScheduler {
    pub(super) async fn run(&self, cluster: &mut Cluster, quiet: bool) -> Result<Finding, Failure> {
        let window = Window::after(Duration::ZERO, LOAD_MAX);
        let plan = plan_of(self.queues, self.queues, self.rate, (window.from, window.to));
        let mut clients = Vec::new();
        for n in 0..CLIENTS {
            clients.push(connect(cluster, n).await?);
        }
        let prepared = prepare(clients, &plan, quiet).await?;
        let mut caller = Caller::new(
            prepared.clients,
            prepared.mix,
            RunClock::start(),
            &plan,
            Tallies::new(window),
        );
        caller.ends = Some(Ends::default());
        let caller = Arc::new(caller);
        let schedule = Schedule::new(self.rate, window);
        let mut sender = Sender::start(Arc::clone(&caller), schedule, window, plan.under_way_max)?;
        let roles = Roles::new(cluster.roles());
        let losses = self.losses(cluster, &caller, quiet);
        let mut lost = Ok(Vec::new());
        let watched = roles.during(caller.clock, async { lost = losses.await }).await;
        sender.stop();
        sender.finish().await;
        let _ = tokio::time::timeout(TIMEOUT, caller.under_way.idle()).await;
        let losses = lost?;
        let tally = caller.tallies.take(window);
        let ends = caller.ends.as_ref().map(|ends| ends.after(0)).unwrap_or_default();
        let (takeover, elsewhere) = judge(&losses, &ends, self.queues.into());
        Ok(Finding::new(tally.done, tally.reasons, watched.used(tally.done))
            .with([("losses", losses.len() as f64)])
            .timed(Kind::Takeover, takeover)
            .timed(Kind::Elsewhere, elsewhere))
    }

    async fn losses(
        &self,
        cluster: &mut Cluster,
        caller: &Caller,
        quiet: bool,
    ) -> Result<Vec<Loss>, Failure> {
        let mut losses = Vec::new();
        for _ in 0..self.times {
            tokio::time::sleep(self.pause).await;
            let (leader, queues) = leader(&caller.clients[0], &caller.mix).await?;
            let name = scheduler(leader.0);
            let loss = Loss {
                at: caller.clock.elapsed(),
                queues,
            };
            cluster.lose(&name, self.freeze).await?;
            go_on(caller, &loss, &name).await?;
            if !quiet {
                let took = caller.clock.elapsed().saturating_sub(loss.at);
                let took = show_ms(took.as_secs_f64() * 1000.0);
                eprintln!("{name} lost: its {} queues go on after {took}", loss.queues.len());
            }
            cluster.find(&name, self.freeze)?;
            losses.push(loss);
            cluster.serves().await?;
        }
        Ok(losses)
    }

    pub(super) fn header(&self) -> String {
        let how = lost_how(self.freeze);
        format!(
            "leaders of queues {how} {} times, each after {:?} of rest, under {}/s through {} queues; until each of their queues goes on",
            self.times, self.pause, self.rate, self.queues
        )
    }
}

/// Who leads the first queue, and what else it leads.
async fn leader(client: &Client, mix: &Mix) -> Result<(SchedulerId, BTreeSet<u64>), Failure> {
    let status = client.status().await.map_err(call_failure)?;
    let leader_of = |n: usize| {
        let known = status
            .queues
            .iter()
            .find(|known| known.queue.key == mix.queues()[n]);
        known.and_then(|known| known.queue.leader)
    };
    let leader = leader_of(0).ok_or_else(|| Failure::new(Exit::Failed, "nobody leads the first queue"))?;
    let led = (0..mix.queues().len()).filter(|n| leader_of(*n) == Some(leader));
    Ok((leader, led.map(|n| n as u64).collect()))
}

/// Waits until an activation through each queue of a lost leader is done that was due afterwards.
async fn go_on(caller: &Caller, loss: &Loss, name: &str) -> Result<(), Failure> {
    let ends = caller.ends.as_ref().expect("a load whose ends are looked at");
    let count = caller.mix.queues().len() as u64;
    let mut known = 0;
    let mut missing = loss.queues.clone();
    let waiting = async {
        while !missing.is_empty() {
            tokio::time::sleep(LOOK).await;
            let new = ends.after(known);
            known += new.len();
            for end in new.iter().filter(|end| end.is_good && end.due >= loss.at) {
                missing.remove(&(end.n % count));
            }
        }
    };
    tokio::time::timeout(TIMEOUT, waiting).await.map_err(|_| {
        let text = format!("queues of {name} do not go on {TIMEOUT:?} after it was lost");
        Failure::new(Exit::Failed, text)
    })
}

/// From each loss, for each queue of it, until the first good end that was due afterwards; and how long activations of all other
/// queues took that were due soon after it.
fn judge(losses: &[Loss], ends: &[End], queues: u64) -> (Times, Times) {
    let (mut takeover, mut elsewhere) = (Times::default(), Times::default());
    for loss in losses {
        let mut missing = loss.queues.clone();
        let after = ends.iter().filter(|end| end.is_good && end.due >= loss.at);
        for end in after {
            let queue = end.n % queues;
            if missing.remove(&queue) {
                takeover.add(end.at.saturating_sub(loss.at));
            } else if !loss.queues.contains(&queue) && end.due < loss.at + ELSEWHERE {
                elsewhere.add(end.at.saturating_sub(end.due));
            }
        }
    }
    (takeover, elsewhere)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn end(n: u64, due_ms: u64, at_ms: u64, is_good: bool) -> End {
        End {
            n,
            due: MS(due_ms),
            at: MS(at_ms),
            is_good,
        }
    }

    #[test]
    fn a_queue_goes_on_with_the_first_good_end_of_what_was_due_after_the_loss() {
        let loss = Loss {
            at: MS(1000),
            queues: [0, 2].into(),
        };
        let ends = [
            // Answered by the leader that was lost, or by nobody.
            end(0, 990, 1001, true),
            end(3, 1010, 1100, false),
            end(1, 1000, 1005, true),
            end(3, 1100, 1500, true),
            end(5, 1200, 1700, true),
            end(6, 1600, 1800, true),
            // Long after the loss.
            end(4, 9000, 9900, true),
        ];
        let (takeover, elsewhere) = judge(&[loss], &ends, 3);
        let (takeover, elsewhere) = (takeover.percentiles(), elsewhere.percentiles());
        assert_eq!((takeover.count, takeover.max_ms), (2, Some(700.0)));
        assert_eq!((elsewhere.count, elsewhere.max_ms), (1, Some(5.0)));
    }
}
