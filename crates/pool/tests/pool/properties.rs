//! Random histories against the world's model; its `invariant_…` functions run after each event.

use std::time::Duration;

use crate::world::{TOTAL_MIB, World, id};
use proptest::prelude::*;
use whiskraft_pool::{Deliver, Input, Life, PoolSettings, WorkerId};
use whiskraft_types::{ActivationId, ByteSize, ContainerId, Epoch};

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
    /// A leader hands out once more what it does not know to have ended.
    SendAgain {
        pick: usize,
        other: usize,
        run: u32,
    },
    /// A leader has settled a run, or lost it, and hands out the next one.
    SendRun {
        pick: usize,
        other: usize,
    },
    /// What a former leader has delivered comes once more.
    Late {
        pick: usize,
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
        2 => (pick.clone(), pick.clone(), 0..3_u32).prop_map(|(pick, other, run)| Event::SendAgain { pick, other, run }),
        4 => (pick.clone(), pick.clone()).prop_map(|(pick, other)| Event::SendRun { pick, other }),
        1 => (0..64_usize).prop_map(|pick| Event::Late { pick }),
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

/// An activation that was delivered.
#[derive(Debug, Clone)]
struct Sent {
    id: ActivationId,
    queue: usize,
    /// The last run that a leader of the queue has sent.
    run: u32,
    /// The run that was sent last, and in which epoch: the leader of that epoch sends no earlier one.
    last: (Epoch, u32),
    /// Its leader knows how the last run ended, and has said that its result may be forgotten.
    settled: bool,
}

struct History {
    world: World,
    sent: Vec<Sent>,
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
            sent: Vec::new(),
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
            Event::SendAgain { pick, other, run } => self.send_again(pick, other, run),
            Event::SendRun { pick, other } => self.send_run(pick, other),
            Event::Late { pick } => self.late(pick),
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
                    && !self.world.runs.is_told_started(*id)
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
            Event::AckResults => self.ack_results(),
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

    /// Behind whatever the leader delivered before. The ack names no run: a leader sends it before it sends the next one.
    fn ack_results(&mut self) {
        for sent in &mut self.sent {
            if self.world.runs.ended(sent.id) < sent.last.1 {
                continue;
            }
            sent.settled = true;
            let ids = vec![sent.id];
            let from = self.world.leaders[sent.queue].id;
            self.world.down.push_back((from, Input::ResultsAcked { ids }));
        }
    }

    fn send(&mut self, pick: usize) {
        let open: Vec<_> = (0..self.world.leaders.len())
            .flat_map(|queue| {
                self.asking(queue)
                    .into_iter()
                    .map(move |container| (queue, container))
            })
            .collect();
        let Some((queue, container)) = choose(&open, pick) else {
            return;
        };
        let Some(number) = u8::try_from(self.sent.len() + 1).ok() else {
            return;
        };
        let id = id(number);
        self.sent.push(Sent {
            id,
            queue,
            run: 0,
            last: (Epoch(0), 0),
            settled: false,
        });
        self.put(self.sent.len() - 1, 1, container);
    }

    /// Containers of a queue that ask; a leader that waits for a registration does not know of any.
    fn asking(&self, queue: usize) -> Vec<ContainerId> {
        let leader = &self.world.leaders[queue];
        let asks = leader
            .asks
            .iter()
            .filter(|(_, count)| **count > 0 && !leader.waits);
        asks.map(|(container, _)| *container).collect()
    }

    /// The leader of the queue answers an ask with this run.
    fn put(&mut self, at: usize, run: u32, container: ContainerId) {
        let sent = &mut self.sent[at];
        let leader = &mut self.world.leaders[sent.queue];
        *leader.asks.get_mut(&container).unwrap() -= 1;
        (sent.run, sent.last, sent.settled) = (sent.run.max(run), (leader.epoch, run), false);
        let (from, queue, id) = (leader.id, sent.queue, sent.id);
        let delivery = self.world.delivery_of(queue, (id, run), container);
        self.world.down.push_back((from, delivery));
    }

    /// One whose result it has is never delivered again. The leader of one epoch counts its runs up; the next one may know
    /// less than its predecessor, since nobody writes down the runs of what is not durable.
    fn send_again(&mut self, pick: usize, other: usize, run: u32) {
        let open: Vec<_> = (0..self.sent.len())
            .filter(|at| !self.sent[*at].settled)
            .collect();
        let Some(at) = choose(&open, pick) else {
            return;
        };
        let sent = &self.sent[at];
        let Some(container) = choose(&self.asking(sent.queue), other) else {
            return;
        };
        let (epoch, last) = sent.last;
        let run = if epoch == self.world.leaders[sent.queue].epoch {
            last
        } else {
            sent.run.min(1 + run)
        };
        self.put(at, run, container);
    }

    /// Whatever became of the run before, the next one may be sent: once, and to a container that asks.
    fn send_run(&mut self, pick: usize, other: usize) {
        let all: Vec<_> = (0..self.sent.len()).collect();
        let Some(at) = choose(&all, pick) else {
            return;
        };
        let Some(container) = choose(&self.asking(self.sent[at].queue), other) else {
            return;
        };
        self.put(at, self.sent[at].run + 1, container);
    }

    /// A stream of a former leader was slow. Within an epoch streams deliver once.
    fn late(&mut self, pick: usize) {
        let runs = &self.world.runs;
        let is_late = |deliver: &&Deliver<u32>| {
            let queue = self.world.containers[&deliver.container];
            runs.told.get(&queue).is_some_and(|told| deliver.epoch < *told)
        };
        let late: Vec<_> = runs.delivered.iter().filter(is_late).cloned().collect();
        if let Some(deliver) = choose(&late, pick) {
            self.world.step(Input::Deliver(deliver));
        }
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
        self.world.warm.clear();
        // The cluster has ended what was delivered here.
        self.sent.iter_mut().for_each(|sent| sent.settled = true);
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
        history.world.invariant_every_delivery_is_answered();

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
