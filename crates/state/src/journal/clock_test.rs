//! The clock of a lane: cases, and random leaders against the time that really passes.

use std::time::Duration;

use proptest::prelude::*;
use whiskraft_types::Instant;

use super::{LaneClock, LaneMillis};

fn moment(ms: u64) -> Instant {
    Instant::from_origin(Duration::from_millis(ms))
}

#[test]
fn a_leader_moves_the_clock_as_time_passes_and_loses_none_while_batches_are_under_way() {
    let mut clock = LaneClock::new(LaneMillis(100), moment(5_000));
    assert_eq!(clock.stamp(Some(1), moment(5_010)), LaneMillis(110));
    // What was given out at 5010 is applied only now.
    clock.see(LaneMillis(110), moment(5_050));
    assert_eq!(clock.stamp(Some(1), moment(5_060)), LaneMillis(160));
    assert_eq!(clock.now(moment(5_060)), LaneMillis(120), "never ahead");
}

#[test]
fn a_follower_counts_on_from_the_last_batch_and_an_old_leader_begins_anew() {
    let mut clock = LaneClock::new(LaneMillis(0), moment(0));
    assert_eq!(clock.stamp(Some(1), moment(40)), LaneMillis(40));
    // Another one led, and its clock had begun later.
    clock.see(LaneMillis(45), moment(1_000));
    clock.see(LaneMillis(45), moment(2_000));
    assert_eq!(clock.now(moment(2_500)), LaneMillis(545));
    assert_eq!(clock.stamp(Some(3), moment(2_600)), LaneMillis(645));
}

#[test]
fn a_leader_that_does_not_have_all_of_the_terms_before_does_not_move_the_clock() {
    let mut clock = LaneClock::new(LaneMillis(7), moment(0));
    assert_eq!(clock.stamp(None, moment(9_000)), LaneMillis(7));
    // That batch is not nine seconds old.
    assert_eq!(clock.stamp(Some(2), moment(9_010)), LaneMillis(17));
}

/// A node of the lane: what it knows of the clock, and how much of the log it has applied.
#[derive(Debug, Clone, Copy)]
struct Node {
    clock: LaneClock,
    applied: usize,
}

/// A lane without its rows: the times in its log, all of them committed, and when each was given.
#[derive(Debug)]
struct Lane {
    real: u64,
    term: u64,
    /// Index of the first batch of the term.
    began: usize,
    leader: Option<usize>,
    nodes: Vec<Node>,
    log: Vec<(LaneMillis, u64)>,
    /// The clock after each batch.
    clocks: Vec<LaneMillis>,
}

#[derive(Debug, Clone)]
enum Event {
    Pass(u64),
    Lead(usize),
    LoseLeader,
    Write,
    Apply(usize, usize),
    Restart(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1_u64..50).prop_map(Event::Pass),
        1 => (1_000_u64..100_000).prop_map(Event::Pass),
        2 => (0..3_usize).prop_map(Event::Lead),
        1 => Just(Event::LoseLeader),
        6 => Just(Event::Write),
        6 => (0..3_usize, 1..4_usize).prop_map(|(node, count)| Event::Apply(node, count)),
        1 => (0..3_usize).prop_map(Event::Restart),
    ]
}

impl Lane {
    fn new() -> Self {
        let node = Node {
            clock: LaneClock::new(LaneMillis(0), moment(0)),
            applied: 0,
        };
        Self {
            real: 0,
            term: 0,
            began: 0,
            leader: None,
            nodes: vec![node; 3],
            log: Vec::new(),
            clocks: Vec::new(),
        }
    }

    fn event(&mut self, event: &Event) {
        match *event {
            Event::Pass(time) => self.real += time,
            Event::Lead(node) => {
                (self.term, self.leader) = (self.term + 1, Some(node));
                self.began = self.log.len();
            }
            Event::LoseLeader => self.leader = None,
            Event::Write => self.write(),
            Event::Apply(node, count) => (0..count).for_each(|_| self.apply(node)),
            Event::Restart(node) => {
                let applied = self.nodes[node].applied;
                let clock = applied
                    .checked_sub(1)
                    .map_or(LaneMillis(0), |last| self.clocks[last]);
                self.nodes[node].clock = LaneClock::new(clock, moment(self.real));
                self.leader = self.leader.filter(|leader| *leader != node);
            }
        }
    }

    fn write(&mut self) {
        let Some(leader) = self.leader else { return };
        let node = &mut self.nodes[leader];
        let term = (node.applied >= self.began).then_some(self.term);
        let stamp = node.clock.stamp(term, moment(self.real));
        let before = self.clocks.last().copied().unwrap_or_default();
        self.log.push((stamp, self.real));
        self.clocks.push(before.max(stamp));
    }

    fn apply(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        if let Some(clock) = self.clocks.get(node.applied) {
            node.applied += 1;
            node.clock.see(*clock, moment(self.real));
        }
    }

    /// No batch is older by the clock than it is.
    fn check(&self) -> Result<(), TestCaseError> {
        let ages = |clock: LaneMillis, real: u64, until: usize| {
            let given = self.clocks[..until].iter().zip(&self.log);
            given
                .map(|(then, (_, given))| (clock.since(*then), Duration::from_millis(real - given)))
                .collect::<Vec<_>>()
        };
        if let (Some(clock), Some((_, real))) = (self.clocks.last(), self.log.last()) {
            for (by_clock, really) in ages(*clock, *real, self.clocks.len()) {
                prop_assert!(
                    by_clock <= really,
                    "{by_clock:?} by the clock, {really:?} in truth"
                );
            }
        }
        for node in &self.nodes {
            for (by_clock, really) in ages(node.clock.now(moment(self.real)), self.real, node.applied) {
                prop_assert!(by_clock <= really, "read as {by_clock:?}, {really:?} in truth");
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn no_lane_counts_more_time_than_has_passed_whoever_leads_it(
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut lane = Lane::new();
        for event in events {
            lane.event(&event);
            lane.check()?;
        }
    }

    #[test]
    fn with_a_leader_all_time_counts(steps in prop::collection::vec((1_u64..1_000, 0_u64..50), 1..50)) {
        let mut lane = Lane::new();
        lane.event(&Event::Lead(1));
        lane.write();
        for (time, late) in steps {
            lane.real += time;
            lane.write();
            lane.real += late;
            lane.apply(1);
        }
        let (clock, (_, real)) = (lane.clocks.last().unwrap(), lane.log.last().unwrap());
        prop_assert_eq!(clock.0, *real);
    }
}
