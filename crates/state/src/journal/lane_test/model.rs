//! Random batches against a naive model, with rows that expire under it.

use proptest::prelude::*;

use super::*;

/// Activation, queue, payload, run, end (expiry, dead letter).
type Entry = (u8, u8, Option<u8>, u32, Option<(u64, bool)>);

/// The rules in their plainest form: everything in one list, looked through from the start.
#[derive(Debug, Default)]
struct Model {
    now: u64,
    entries: Vec<Entry>,
    epochs: BTreeMap<u8, u64>,
    /// Places of those that are to end as cancelled.
    cancelled: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
enum Draw {
    Accept(u8, u8, u64, u8),
    Retry(u8, u8, u64, u32),
    End(u8, u8, u64, u32, u64, bool),
    Archive(u8, u8, u64),
    Fence(u8, u64),
    Purge(u8),
    Cancel(u8, u8, u64),
}

impl Draw {
    fn command(&self) -> JournalCommand {
        match *self {
            Self::Accept(number, queue, epoch, payload) => accept(number, queue, epoch, payload),
            Self::Retry(number, queue, epoch, run) => retry(number, queue, epoch, run),
            Self::End(number, queue, epoch, run, lasts, dead) => {
                let kind = if dead {
                    EndKind::DeadLetter
                } else {
                    EndKind::Record
                };
                end(number, queue, epoch, run, lasts, kind)
            }
            Self::Archive(number, queue, lasts) => archive(number, queue, lasts),
            Self::Fence(queue, epoch) => fence(queue, epoch),
            Self::Purge(number) => JournalCommand::Purge {
                ids: vec![id(number)],
            },
            Self::Cancel(number, queue, epoch) => cancel(number, queue, epoch),
        }
    }
}

fn draw() -> impl Strategy<Value = Draw> {
    let (number, queue, epoch, run, lasts) = (0..4_u8, 0..2_u8, 1..4_u64, 1..4_u32, 0..40_u64);
    prop_oneof![
        4 => (number.clone(), queue.clone(), epoch.clone(), 0..2_u8)
            .prop_map(|(number, queue, epoch, payload)| Draw::Accept(number, queue, epoch, payload)),
        2 => (number.clone(), queue.clone(), epoch.clone(), run.clone())
            .prop_map(|(number, queue, epoch, run)| Draw::Retry(number, queue, epoch, run)),
        4 => (number.clone(), queue.clone(), epoch.clone(), run, lasts.clone(), any::<bool>())
            .prop_map(|(number, queue, epoch, run, lasts, dead)| {
                Draw::End(number, queue, epoch, run, lasts, dead)
            }),
        1 => (number.clone(), queue.clone(), lasts)
            .prop_map(|(number, queue, lasts)| Draw::Archive(number, queue, lasts)),
        1 => (number.clone(), queue.clone(), epoch.clone())
            .prop_map(|(number, queue, epoch)| Draw::Cancel(number, queue, epoch)),
        1 => (queue, epoch).prop_map(|(queue, epoch)| Draw::Fence(queue, epoch)),
        1 => number.prop_map(Draw::Purge),
    ]
}

impl Model {
    fn place(&self, number: u8) -> Option<usize> {
        let mut places = self.entries.iter();
        places.position(|entry| entry.0 == number && entry.4.is_none_or(|(expires, _)| expires > self.now))
    }

    fn is_stale(&self, queue: u8, epoch: u64) -> Option<JournalOutcome> {
        let current = self.epochs.get(&queue).copied().unwrap_or_default();
        (current > epoch).then(|| stale(current))
    }

    fn raise(&mut self, queue: u8, epoch: u64) {
        let current = self.epochs.entry(queue).or_default();
        *current = epoch.max(*current);
    }

    fn decide(&mut self, draw: &Draw) -> JournalOutcome {
        match *draw {
            Draw::Fence(queue, epoch) => self.raise(queue, epoch),
            Draw::Purge(number) => {
                if let Some(place) = self.place(number)
                    && let Some((_, dead)) = &mut self.entries[place].4
                {
                    *dead = false;
                }
            }
            Draw::Archive(number, queue, lasts) => {
                if let Some(place) = self.place(number) {
                    return known(self.entries[place].3, self.entries[place].4.is_some());
                }
                let ended = Some((self.now + lasts, false));
                self.entries.push((number, queue, None, 1, ended));
            }
            Draw::Accept(number, queue, epoch, payload) => {
                if let Some(stale) = self.is_stale(queue, epoch) {
                    return stale;
                }
                if let Some(place) = self.place(number) {
                    let (_, in_queue, with, run, ended) = self.entries[place];
                    let same = in_queue == queue && with.is_none_or(|with| with == payload);
                    return if same {
                        known(run, ended.is_some())
                    } else {
                        JournalOutcome::Conflict
                    };
                }
                self.raise(queue, epoch);
                self.entries.push((number, queue, Some(payload), 1, None));
            }
            Draw::Retry(number, queue, epoch, run) => {
                return self.go_on(number, queue, epoch, |entry| {
                    let moves = run > entry.3;
                    if moves {
                        entry.3 = run;
                    }
                    moves
                });
            }
            Draw::Cancel(number, queue, epoch) => {
                let outcome = self.go_on(number, queue, epoch, |_| true);
                if outcome == JournalOutcome::Written {
                    self.cancelled.extend(self.place(number));
                }
                return outcome;
            }
            Draw::End(number, queue, epoch, run, lasts, dead) => {
                let expires = self.now + lasts;
                return self.go_on(number, queue, epoch, |entry| {
                    let ends = run >= entry.3;
                    if ends {
                        (entry.3, entry.4) = (run, Some((expires, dead)));
                    }
                    ends
                });
            }
        }
        JournalOutcome::Written
    }

    fn go_on(
        &mut self,
        number: u8,
        queue: u8,
        epoch: u64,
        change: impl FnOnce(&mut Entry) -> bool,
    ) -> JournalOutcome {
        if let Some(stale) = self.is_stale(queue, epoch) {
            return stale;
        }
        let place = self.place(number);
        let entry = place.map(|place| &mut self.entries[place]);
        match entry.filter(|entry| entry.1 == queue) {
            None => JournalOutcome::Missing,
            Some(entry) if entry.4.is_some() => known(entry.3, true),
            Some(entry) => {
                if change(entry) {
                    JournalOutcome::Written
                } else {
                    known(entry.3, false)
                }
            }
        }
    }

    /// Open activations, listed dead letters, records that are there.
    fn lists(&self) -> (BTreeSet<u8>, BTreeSet<u8>, BTreeSet<u8>) {
        let live: Vec<_> = (0..4)
            .filter_map(|number| Some(&self.entries[self.place(number)?]))
            .collect();
        let pick = |wanted: &dyn Fn(Option<(u64, bool)>) -> bool| {
            let picked = live.iter().filter(|entry| wanted(entry.4));
            picked.map(|entry| entry.0).collect::<BTreeSet<_>>()
        };
        (
            pick(&|ended| ended.is_none()),
            pick(&|ended| ended.is_some_and(|(_, dead)| dead)),
            pick(&|ended| ended.is_some()),
        )
    }
}

fn number(id: ActivationId) -> u8 {
    id.as_bytes()[0]
}

proptest! {
    #[test]
    fn a_lane_decides_like_the_model_whenever_it_is_compacted(
        batches in prop::collection::vec(
            (0..15_u64, prop::collection::vec(draw(), 1..6), any::<bool>()),
            1..25,
        ),
    ) {
        let (mut model, mut store) = (Model::default(), Store::default());
        for (step, draws, compacts) in batches {
            model.now += step;
            let commands = draws.iter().map(Draw::command).collect();
            let now = LaneMillis(model.now);
            let wanted: Vec<_> = draws.iter().map(|draw| model.decide(draw)).collect();
            prop_assert_eq!(store.apply(JournalBatch { now, commands }), wanted);
            if compacts {
                store.compact();
            }
            let mut seen = store.clone();
            seen.compact();
            let (open, dead, ended) = model.lists();
            let of = |ids: Vec<ActivationId>| ids.into_iter().map(number).collect::<BTreeSet<_>>();
            prop_assert_eq!(of(seen.open.iter().map(|(_, id)| *id).collect()), open.clone());
            prop_assert_eq!(of(seen.dead.keys().map(|(_, _, id)| *id).collect()), dead.clone());
            prop_assert_eq!(of(seen.records.keys().copied().collect()), ended);
            let cancelled = (0..4_u8)
                .filter(|number| model.place(*number).is_some_and(|place| model.cancelled.contains(&place)));
            let marked = seen.rows.values().filter(|row| row.cancelled);
            prop_assert_eq!(of(marked.map(|row| row.id).collect()), cancelled.collect::<BTreeSet<_>>());
            let kept: BTreeSet<_> = open.union(&dead).copied().collect();
            prop_assert_eq!(of(seen.payloads.keys().copied().collect()), kept);
        }
    }
}
