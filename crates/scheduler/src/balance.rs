//! Evens out how many queues each scheduler leads, after one has come back or joined: the log's leader is the one decider.
//!
//! A queue that moves costs its callers some milliseconds, so this is slow on purpose: at most a part of all queues per minute,
//! in small batches, only such as nothing is wrong with, and nothing until the schedulers have been the same for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};
use whiskraft_proto::v1::GiveQueuesRequest;
use whiskraft_proto::v1::hand_off_client::HandOffClient;
use whiskraft_types::{Instant, SchedulerId, SessionId};

use crate::config::BalanceConfig;
use crate::context::Context;
use crate::drain::successors;
use crate::handoff::{Bare, HandOver, Settled, Targets};
use crate::neighbours::Channels;
use crate::shard::Pick;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Queues in one batch: each stands still until all of them have moved.
const BATCH_MAX: u32 = 16;
/// Activations in one batch.
const ACTIVATIONS_MAX: usize = 4096;
/// Difference up to which nothing is moved, however few queues there are.
const DIFFERENCE_MIN: u32 = 2;
/// Longest wait for a scheduler that gives queues.
const GIVE_WAIT_MAX: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);

/// One step towards balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    from: SchedulerId,
    to: SchedulerId,
    count: u32,
}

/// A scheduler as the tables have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Load {
    session: SessionId,
    led: u32,
    /// Whether it drains, or cannot be reached: it neither gives nor takes.
    is_aside: bool,
}

type Loads = BTreeMap<SchedulerId, Load>;

/// What the decider remembers.
#[derive(Debug, Default)]
struct Balance {
    /// Sessions of the schedulers at the last look, and since when they are the same.
    seen: Vec<(SchedulerId, SessionId)>,
    since: Option<Instant>,
    /// Moves that the rate allows, in parts of a queue, and when that was reckoned.
    allowance: f64,
    reckoned_at: Option<Instant>,
}

impl Balance {
    /// The next step, if one is due.
    fn look(&mut self, now: Instant, loads: &Loads, config: &BalanceConfig) -> Option<Step> {
        let total: u32 = loads.values().map(|load| load.led).sum();
        self.reckon(now, total, config.rate);
        let seen: Vec<_> = loads.iter().map(|(id, load)| (*id, load.session)).collect();
        if seen != self.seen {
            (self.seen, self.since) = (seen, Some(now));
        }
        if self
            .since
            .is_none_or(|since| now.saturating_since(since) < config.settle)
        {
            return None;
        }
        let able = || loads.iter().filter(|(_, load)| !load.is_aside);
        let (from, most) = able().max_by_key(|(id, load)| (load.led, std::cmp::Reverse(**id)))?;
        let (to, fewest) = able().min_by_key(|(id, load)| (load.led, **id))?;
        let difference = most.led - fewest.led;
        let tolerated = (f64::from(most.led) * config.difference).max(f64::from(DIFFERENCE_MIN));
        if f64::from(difference) <= tolerated {
            return None;
        }
        let allowed = self.allowance as u32;
        let count = (difference / 2).min(BATCH_MAX).min(allowed);
        (count > 0).then_some(Step {
            from: *from,
            to: *to,
            count,
        })
    }

    /// Lets the allowance grow; it never holds more than a batch.
    fn reckon(&mut self, now: Instant, total: u32, rate: f64) {
        let passed = self
            .reckoned_at
            .map_or(Duration::ZERO, |at| now.saturating_since(at));
        self.reckoned_at = Some(now);
        // Few queues are moved one by one, not never.
        let per_minute = (f64::from(total) * rate).max(1.0);
        let burst = (per_minute / 2.0).clamp(1.0, f64::from(BATCH_MAX));
        // What a burst takes is missing in the minute that follows.
        let growth = (per_minute - burst).max(per_minute / 2.0);
        let grown = self.allowance + growth * passed.as_secs_f64() / MINUTE.as_secs_f64();
        self.allowance = grown.min(burst);
    }

    fn moved(&mut self, count: u32) {
        self.allowance = (self.allowance - f64::from(count)).max(0.0);
    }
}

/// Looks now and then, and asks those who lead too many to give some away.
pub(crate) struct BalanceActor {
    context: Context,
    hand_over: HandOver,
    channels: Channels,
}

impl BalanceActor {
    pub(crate) fn new(context: Context, hand_over: HandOver) -> Self {
        Self {
            context,
            hand_over,
            channels: Channels::default(),
        }
    }

    /// Runs until the process stops.
    pub(crate) async fn run(mut self) {
        let context = self.context.clone();
        tokio::select! {
            () = context.stopping() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        if !self.context.config.balance.enabled {
            return std::future::pending().await;
        }
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut balance = Balance::default();
        loop {
            looks.tick().await;
            if !self.context.node.is_leader() || self.context.is_leaving() {
                balance = Balance::default();
                continue;
            }
            let now = self.context.clock.now();
            let loads = loads(&self.context);
            let Some(step) = balance.look(now, &loads, &self.context.config.balance) else {
                continue;
            };
            let moved = self.take(step).await;
            // A step that came to nothing counts as well: whoever cannot give now is not asked every second.
            balance.moved(step.count);
            tracing::info!(from = %step.from, to = %step.to, wanted = step.count, moved, "queues moved for balance");
        }
    }

    async fn take(&mut self, step: Step) -> u32 {
        let context = &self.context;
        if step.from == context.node.id() {
            return give(context, &self.hand_over, step.to, step.count).await;
        }
        let address = context.node.read(|state| {
            let member = state.member(step.from);
            member.map(|member| member.client_address.clone())
        });
        let Some(channel) = address.and_then(|address| self.channels.get(&address)) else {
            return 0;
        };
        let request = GiveQueuesRequest {
            to: step.to.0,
            count: step.count,
        };
        let mut client = HandOffClient::new(channel);
        match timeout(GIVE_WAIT_MAX, client.give_queues(request)).await {
            Ok(Ok(answer)) => answer.into_inner().moved,
            _ => 0,
        }
    }
}

fn loads(context: &Context) -> Loads {
    let node = &context.node;
    node.read(|state| {
        let members = state.members();
        let loads = members.filter_map(|(id, member)| {
            let session = state.scheduler_session(id)?;
            let is_reachable = id == node.id() || node.reachable(id);
            let load = Load {
                session,
                led: state.queues_led(session),
                is_aside: member.draining || !is_reachable,
            };
            Some((id, load))
        });
        loads.collect()
    })
}

/// Hands up to `count` queues that nothing is wrong with to another scheduler; says how many moved.
pub(crate) async fn give(context: &Context, hand_over: &HandOver, to: SchedulerId, count: u32) -> u32 {
    let Some(session) = context.fence.session() else {
        return 0;
    };
    if !successors(context).iter().any(|(_, id)| *id == to) {
        return 0;
    }
    let pick = Pick::Sound {
        count: count.min(BATCH_MAX) as usize,
        activations: ACTIVATIONS_MAX,
    };
    let mut moved = 0;
    let moving = hand_over.run(session, pick, Targets::Only(to), Bare::Never);
    for (key, settled) in moving.await {
        match settled {
            Settled::Moved { .. } => moved += 1,
            Settled::Stayed(rejection) => {
                tracing::debug!(queue = %key, %rejection, "queue not moved for balance");
            }
            Settled::Gone => {}
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads_of(led: [u32; 3]) -> Loads {
        let ids = (1..).map(SchedulerId);
        let load = |(id, led): (SchedulerId, u32)| {
            let session = SessionId(100 + id.0);
            (
                id,
                Load {
                    session,
                    led,
                    is_aside: false,
                },
            )
        };
        ids.zip(led).map(load).collect()
    }

    fn at(secs: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(secs))
    }

    /// Steps of so many seconds, each carried out at once; gives the loads and how many queues moved.
    fn run(balance: &mut Balance, loads: &mut Loads, seconds: std::ops::Range<u64>) -> u32 {
        let config = BalanceConfig::default();
        let mut moved = 0;
        for second in seconds {
            if let Some(step) = balance.look(at(second), loads, &config) {
                loads.get_mut(&step.from).unwrap().led -= step.count;
                loads.get_mut(&step.to).unwrap().led += step.count;
                balance.moved(step.count);
                moved += step.count;
            }
        }
        moved
    }

    #[test]
    fn a_scheduler_that_came_back_gets_its_part_at_a_tenth_of_all_queues_per_minute() {
        let (mut balance, mut loads) = (Balance::default(), loads_of([450, 450, 0]));
        let settle = BalanceConfig::default().settle.as_secs();
        assert_eq!(
            run(&mut balance, &mut loads, 0..settle),
            0,
            "not before it has settled"
        );
        let mut seconds = 0..settle;
        for _ in 0..10 {
            seconds = seconds.end..seconds.end + 60;
            assert!(run(&mut balance, &mut loads, seconds.clone()) <= 90);
        }
        let led: Vec<u32> = loads.values().map(|load| load.led).collect();
        let (most, fewest) = (led.iter().max().unwrap(), led.iter().min().unwrap());
        assert!(most - fewest <= most / 5 + 1, "{led:?}");
    }

    #[test]
    fn small_differences_and_schedulers_that_drain_are_left_alone() {
        let mut balance = Balance::default();
        assert_eq!(run(&mut balance, &mut loads_of([100, 90, 85]), 0..600), 0);
        assert_eq!(run(&mut balance, &mut loads_of([2, 1, 0]), 600..1200), 0);
        let mut drained = loads_of([50, 50, 0]);
        drained.get_mut(&SchedulerId(3)).unwrap().is_aside = true;
        assert_eq!(run(&mut balance, &mut drained, 1200..1800), 0);
    }

    #[test]
    fn a_change_of_the_schedulers_begins_the_wait_anew() {
        let (mut balance, mut loads) = (Balance::default(), loads_of([9, 9, 0]));
        let config = BalanceConfig::default();
        let settle = config.settle.as_secs();
        assert_eq!(balance.look(at(0), &loads, &config), None);
        loads.get_mut(&SchedulerId(3)).unwrap().session = SessionId(900);
        assert_eq!(balance.look(at(settle - 1), &loads, &config), None);
        assert_eq!(balance.look(at(2 * settle - 2), &loads, &config), None);
        let due = balance.look(at(2 * settle + 60), &loads, &config).unwrap();
        assert_eq!((due.from, due.to, due.count), (SchedulerId(1), SchedulerId(3), 1));
    }
}
