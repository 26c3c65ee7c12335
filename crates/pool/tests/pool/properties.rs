//! Random histories against the world's model; its `invariant_…` functions run after each event.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::world::{TOTAL_MIB, World, id};
use proptest::prelude::*;
use whiskraft_pool::{Input, Life, PoolSettings, WorkerId};
use whiskraft_types::{ActivationId, ByteSize, ContainerId};

/// One event; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Event {
    Create {
        queue: usize,
        size: u64,
        concurrency: u32,
        resume: bool,
        evict_first: Vec<usize>,
    },
    Send {
        pick: usize,
    },
    SendAgain {
        pick: usize,
        other: usize,
    },
    /// A leader has settled a run, or lost it, and hands out the next one.
    SendRun {
        pick: usize,
        other: usize,
    },
    Stop {
        pick: usize,
    },
    Arrive {
        pick: usize,
    },
    End {
        pick: usize,
    },
    Fail {
        pick: usize,
    },
    NotStarted {
        pick: usize,
    },
    Begin {
        pick: usize,
    },
    AckResults,
    AckReports,
    Remove {
        pick: usize,
        now: bool,
    },
    ChangeLeader {
        queue: usize,
    },
    Reopen {
        queue: usize,
    },
    Pass {
        millis: u64,
        fenced: bool,
    },
    Expire,
}

fn event() -> impl Strategy<Value = Event> {
    let pick = 0..16_usize;
    prop_oneof![
        4 => (0..2_usize, 1..5_u64, 1..4_u32, any::<bool>(), prop::collection::vec(pick.clone(), 0..3)).prop_map(
            |(queue, size, concurrency, resume, evict_first)| Event::Create {
                queue,
                size,
                concurrency,
                resume,
                evict_first,
            }
        ),
        12 => pick.clone().prop_map(|pick| Event::Send { pick }),
        2 => (pick.clone(), pick.clone()).prop_map(|(pick, other)| Event::SendAgain { pick, other }),
        4 => (pick.clone(), pick.clone()).prop_map(|(pick, other)| Event::SendRun { pick, other }),
        2 => pick.clone().prop_map(|pick| Event::Stop { pick }),
        10 => pick.clone().prop_map(|pick| Event::Arrive { pick }),
        14 => pick.clone().prop_map(|pick| Event::End { pick }),
        2 => pick.clone().prop_map(|pick| Event::Fail { pick }),
        2 => pick.clone().prop_map(|pick| Event::NotStarted { pick }),
        3 => pick.clone().prop_map(|pick| Event::Begin { pick }),
        2 => Just(Event::AckResults),
        3 => Just(Event::AckReports),
        1 => (pick, any::<bool>()).prop_map(|(pick, now)| Event::Remove { pick, now }),
        1 => (0..2_usize).prop_map(|queue| Event::ChangeLeader { queue }),
        1 => (0..2_usize).prop_map(|queue| Event::Reopen { queue }),
        4 => (prop_oneof![Just(20), Just(700), Just(11_000), Just(700_000)], prop::bool::weighted(0.1))
            .prop_map(|(millis, fenced)| Event::Pass { millis, fenced }),
        1 => Just(Event::Expire),
    ]
}

fn choose<T: Clone>(all: &[T], pick: usize) -> Option<T> {
    (!all.is_empty()).then(|| all[pick % all.len()].clone())
}

struct History {
    world: World,
    next_id: u8,
    sent: Vec<(usize, ActivationId)>,
    /// The last run of each that was sent.
    runs: BTreeMap<ActivationId, u32>,
    acked: Vec<ActivationId>,
}

impl History {
    fn new() -> Self {
        let settings = PoolSettings {
            memory: ByteSize::mib(TOTAL_MIB),
            results_len_max: 6,
            ..PoolSettings::default()
        };
        Self {
            world: World::new(settings),
            next_id: 0,
            sent: Vec::new(),
            runs: BTreeMap::new(),
            acked: Vec::new(),
        }
    }

    fn workers(&self) -> Vec<WorkerId> {
        self.world.hosts.keys().copied().collect()
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Create {
                queue,
                size,
                concurrency,
                resume,
                evict_first,
            } => {
                let all: Vec<_> = self.world.containers.keys().copied().collect();
                let chosen = evict_first.into_iter().filter_map(|pick| choose(&all, pick));
                self.world.evict_first = chosen.collect();
                let paused = self.world.evictable();
                let chosen = self.world.evict_first.clone();
                let warm = self
                    .world
                    .warm
                    .iter()
                    .copied()
                    .find(|c| self.world.containers[c] == queue);
                let warm = warm.filter(|_| resume);
                // The row of a warm container that is granted goes away with the grant.
                self.world.warm.retain(|c| Some(*c) != warm);
                let size = warm.map_or(size * 128, |c| self.world.memory_of[&c]);
                self.world.create(queue, size, concurrency, warm);
                self.invariant_the_leaders_choice_goes_first(&paused, &chosen, warm);
            }
            Event::Send { pick } => self.send(pick),
            Event::SendAgain { pick, other } => self.send_again(pick, other),
            Event::SendRun { pick, other } => self.send_run(pick, other),
            Event::Stop { pick } => self.stop(pick),
            Event::Arrive { pick } => self.world.arrive_one(pick),
            Event::End { pick } => {
                if let Some(worker) = choose(&self.workers(), pick) {
                    let host = self.world.hosts[&worker].clone();
                    self.world.end_one(worker, &host);
                }
            }
            Event::Fail { pick } => {
                if let Some(worker) = choose(&self.workers(), pick) {
                    let host = self.world.hosts[&worker].clone();
                    self.world.fail_one(worker, &host);
                }
            }
            Event::NotStarted { pick } => {
                if let Some(worker) = choose(&self.workers(), pick)
                    && let Some((id, _)) = self.world.hosts[&worker].runs.first()
                    && !self.world.told_started.contains(&(*id, self.world.run_of[id]))
                {
                    self.world.not_started(worker, pick % 2 == 0);
                }
            }
            Event::Begin { pick } => {
                if let Some(worker) = choose(&self.workers(), pick)
                    && let Some((id, _)) = self.world.hosts[&worker].runs.first().copied()
                {
                    self.world.step(Input::Begun { worker, id });
                }
            }
            Event::AckResults => {
                // Behind whatever the leader delivered before.
                for (queue, activation) in self.sent.clone() {
                    // The ack names no run: a leader sends it before it sends the next one.
                    let ended = self.world.ended.get(&activation);
                    if ended.is_some_and(|ended| *ended >= self.runs[&activation]) {
                        self.acked.push(activation);
                        let from = self.world.leaders[queue].id;
                        self.world.down.push_back((
                            from,
                            Input::ResultsAcked {
                                ids: vec![activation],
                            },
                        ));
                    }
                }
            }
            Event::AckReports => {
                let seqs = self.world.reports.iter().map(|report| report.seq).collect();
                self.world.step(Input::ReportsAcked { seqs });
            }
            Event::Remove { pick, now } => {
                let all: Vec<_> = self.world.containers.keys().copied().collect();
                if let Some(container) = choose(&all, pick) {
                    self.world.step(Input::Remove { container, now });
                }
            }
            Event::ChangeLeader { queue } => self.world.change_leader(queue),
            Event::Reopen { queue } => {
                // The former stream is gone with all it carried.
                let from = self.world.leaders[queue].id;
                self.world.down.retain(|(sender, _)| *sender != from);
                for leader in self.world.leaders.iter_mut().filter(|leader| leader.id == from) {
                    leader.asks.clear();
                    leader.waits = true;
                }
                self.world.step(Input::PullOpened { scheduler: from });
                self.world.announce(from);
            }
            Event::Pass { millis, fenced } => self.world.pass(Duration::from_millis(millis), fenced),
            Event::Expire => self.expire(),
        }
    }

    /// Whoever was evicted without having been chosen went after all that were.
    fn invariant_the_leaders_choice_goes_first(
        &self,
        paused: &[ContainerId],
        chosen: &[ContainerId],
        resumed: Option<ContainerId>,
    ) {
        let stays = |c: &&ContainerId| self.world.life(**c) == Some(Life::Paused);
        let others = paused
            .iter()
            .filter(|c| !chosen.contains(c) && Some(**c) != resumed);
        let evicted_others = others.filter(|c| !stays(c)).count();
        let chosen_that_stay = paused.iter().filter(|c| chosen.contains(c)).filter(stays).count();
        assert!(
            evicted_others == 0 || chosen_that_stay == 0,
            "{evicted_others} others went before {chosen_that_stay} of the leader's choice"
        );
    }

    fn send(&mut self, pick: usize) {
        let mut open = Vec::new();
        for (queue, leader) in self
            .world
            .leaders
            .iter()
            .enumerate()
            .filter(|(_, leader)| !leader.waits)
        {
            let asking = leader.asks.iter().filter(|(_, count)| **count > 0);
            open.extend(asking.map(|(container, _)| (queue, *container)));
        }
        let Some((queue, container)) = choose(&open, pick) else {
            return;
        };
        if self.next_id == u8::MAX {
            return;
        }
        self.next_id += 1;
        let activation = id(self.next_id);
        self.sent.push((queue, activation));
        self.runs.insert(activation, 1);
        *self.world.leaders[queue].asks.get_mut(&container).unwrap() -= 1;
        let delivery = self.world.delivery(queue, activation, container);
        self.world
            .down
            .push_back((self.world.leaders[queue].id, delivery));
    }

    /// A leader that does not know better delivers an id for a second time, never one whose result it has.
    fn send_again(&mut self, pick: usize, other: usize) {
        let again: Vec<_> = self
            .sent
            .iter()
            .filter(|(_, id)| !self.acked.contains(id))
            .cloned()
            .collect();
        let Some((queue, activation)) = choose(&again, pick) else {
            return;
        };
        if self.world.leaders[queue].waits {
            return;
        }
        let asking: Vec<_> = self.world.leaders[queue]
            .asks
            .iter()
            .filter(|(_, count)| **count > 0)
            .collect();
        let Some(container) = choose(&asking, other).map(|(container, _)| *container) else {
            return;
        };
        *self.world.leaders[queue].asks.get_mut(&container).unwrap() -= 1;
        // The last one: a leader knows from the journal which that is, and epochs keep older leaders away.
        let run = self.runs[&activation];
        let delivery = self.world.delivery_of(queue, (activation, run), container);
        self.world
            .down
            .push_back((self.world.leaders[queue].id, delivery));
    }

    /// Whatever became of the run before, the next one may be sent: once, and to a container that asks.
    fn send_run(&mut self, pick: usize, other: usize) {
        let Some((queue, activation)) = choose(&self.sent, pick) else {
            return;
        };
        if self.world.leaders[queue].waits {
            return;
        }
        let asking: Vec<_> = self.world.leaders[queue]
            .asks
            .iter()
            .filter(|(_, count)| **count > 0)
            .collect();
        let Some(container) = choose(&asking, other).map(|(container, _)| *container) else {
            return;
        };
        *self.world.leaders[queue].asks.get_mut(&container).unwrap() -= 1;
        let run = self.runs[&activation] + 1;
        self.runs.insert(activation, run);
        self.acked.retain(|acked| *acked != activation);
        let delivery = self.world.delivery_of(queue, (activation, run), container);
        self.world
            .down
            .push_back((self.world.leaders[queue].id, delivery));
    }

    fn stop(&mut self, pick: usize) {
        let views: Vec<_> = self.world.pool.containers().collect();
        let here = views
            .iter()
            .flat_map(|view| view.running.iter().map(|id| (*id, view.container)));
        let Some((activation, container)) = choose(&here.collect::<Vec<_>>(), pick) else {
            return;
        };
        let stop = self.world.stopping(activation, container);
        let from = self.world.leaders[self.world.containers[&container]].id;
        self.world.down.push_back((from, stop));
    }

    fn expire(&mut self) {
        self.world.step(Input::SessionExpired);
        self.world.down.clear();
        self.world.settle();
        assert!(self.world.pool.is_empty(), "everything goes with the session");
        // The cluster has ended what was delivered here.
        self.world.owed.clear();
        self.world.warm.clear();
        self.acked.extend(self.sent.iter().map(|(_, id)| *id));
        for leader in &mut self.world.leaders {
            leader.asks.clear();
        }
        self.world.open_session();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_after_any_history(events in prop::collection::vec(event(), 1..160)) {
        let mut history = History::new();
        for event in events {
            history.apply(event);
        }
        history.world.renew();
        history.world.settle();
        history.world.invariant_every_delivered_id_is_answered();

        // With everything acknowledged and no work, the host ends up empty and every container is accounted for.
        for _ in 0..4 {
            let ids = history.world.completed.clone();
            history.world.step(Input::ResultsAcked { ids });
            history.world.pass(Duration::from_secs(700), false);
            history.world.settle();
        }
        prop_assert!(history.world.pool.is_empty());
        prop_assert_eq!(history.world.pool.memory_real(), ByteSize::ZERO);
        prop_assert_eq!(history.world.pool.memory_use().busy, ByteSize::ZERO);
    }
}
