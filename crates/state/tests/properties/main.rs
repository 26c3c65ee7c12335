//! Random command sequences: against a reference model, with every invariant after every command, and replayed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod draw;
mod invariants;
mod mirror;
mod model;
mod model_slots;

use std::collections::BTreeMap;

use draw::{Draw, draws, opening};
use invariants::History;
use model::Model;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use whiskraft_state::{Applied, Command, Effect, Event, Grant, Refusal, Response, State};
use whiskraft_types::{LogRevision, QueueKey};

/// Commands of one run at most, after those that bring the cluster to life.
const LEN_MAX: usize = 120;

fn encode(state: &State) -> Vec<u8> {
    bincode::serde::encode_to_vec(state, bincode::config::standard()).unwrap()
}

fn decode(bytes: &[u8]) -> State {
    bincode::serde::decode_from_slice(bytes, bincode::config::standard())
        .unwrap()
        .0
}

/// Applies drawn commands one after the other; hands each to `see` with the state before and after it.
fn run(draws: &[Draw], mut see: impl FnMut(LogRevision, &Command, &Applied, &State, &State)) -> State {
    let mut state = State::default();
    let mut opening = opening().into_iter();
    let mut draws = [Draw::HEALTHY].into_iter().chain(draws.iter().copied());
    loop {
        let drawn = || draws.next().map(|draw| draw.command(&state));
        let Some(command) = opening.next().or_else(drawn) else {
            return state;
        };
        // Entries that are not commands leave gaps.
        let revision = LogRevision(state.revision().0 + 1 + state.revision().0 % 2);
        let before = state.clone();
        let applied = state.apply(revision, &command);
        see(revision, &command, &applied, &before, &state);
    }
}

fn log(draws: &[Draw]) -> Vec<(LogRevision, Command)> {
    let mut log = Vec::new();
    run(draws, |revision, command, _, _, _| {
        log.push((revision, command.clone()))
    });
    log
}

fn replay(state: &mut State, log: &[(LogRevision, Command)]) -> Vec<Applied> {
    log.iter()
        .map(|(revision, command)| state.apply(*revision, command))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_model(draws in draws(LEN_MAX)) {
        let mut model = Model::default();
        run(&draws, |revision, command, applied, _, after| {
            model.check(revision, command, &applied.response, after);
        });
    }

    #[test]
    fn keeps_its_invariants(draws in draws(LEN_MAX)) {
        let mut history = History::default();
        run(&draws, |_, _, applied, before, after| invariants::check(before, after, applied, &mut history));
    }

    #[test]
    fn one_log_gives_the_same_bytes_twice(draws in draws(LEN_MAX)) {
        let log = log(&draws);
        let (mut first, mut second) = (State::default(), State::default());
        prop_assert_eq!(replay(&mut first, &log), replay(&mut second, &log));
        prop_assert_eq!(encode(&first), encode(&second));
    }

    #[test]
    fn snapshot_in_the_middle_changes_nothing(draws in draws(LEN_MAX), cut in 0.0..1.0_f64) {
        let log = log(&draws);
        let (head, tail) = log.split_at((log.len() as f64 * cut) as usize);
        let mut direct = State::default();
        replay(&mut direct, head);
        let (bytes, kept) = (encode(&direct), direct.clone());
        let mut restored = decode(&bytes);
        prop_assert_eq!(&restored, &direct);
        prop_assert_eq!(replay(&mut restored, tail), replay(&mut direct, tail));
        prop_assert_eq!(encode(&restored), encode(&direct));
        // The copy that a snapshot is written from does not see later commands.
        prop_assert_eq!(encode(&kept), bytes);
    }

    #[test]
    fn command_at_a_revision_that_was_applied_changes_nothing(draws in draws(LEN_MAX / 4), back in 0..9_u64) {
        let log = log(&draws);
        let mut state = State::default();
        replay(&mut state, &log);
        let bytes = encode(&state);
        let revision = LogRevision(state.revision().0.saturating_sub(back));
        for (_, command) in &log {
            let applied = state.apply(revision, command);
            let is_refused = matches!(applied.response, Response::Refused(Refusal::Invalid { .. }));
            prop_assert!(is_refused, "{:?}", applied.response);
        }
        prop_assert_eq!(encode(&state), bytes);
    }

    #[test]
    fn bytes_of_a_broken_snapshot_are_refused_or_read_but_never_panic(
        draws in draws(LEN_MAX / 4),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let log = log(&draws);
        let mut state = State::default();
        replay(&mut state, &log);
        let mut bytes = encode(&state);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let config = bincode::config::standard().with_limit::<1_000_000>();
        let read: Result<(State, usize), _> = bincode::serde::decode_from_slice(&bytes, config);
        if let Ok((mut state, _)) = read {
            // Checksums keep such bytes out; if they came in all the same, no command may bring a node down.
            let last = state.revision().0;
            for (n, (_, command)) in log.iter().enumerate() {
                state.apply(LogRevision(last.saturating_add(n as u64 + 1)), command);
            }
        }
    }
}

/// What happened, by name: answers, and events that are hard to come by.
fn happenings(before: &State, applied: &Applied) -> Vec<&'static str> {
    let answer = match &applied.response {
        Response::Done => "done",
        Response::Session(_) => "session",
        Response::Leadership(_) => "leadership",
        Response::Grants(_) => "grants",
        Response::Revision(_) => "revision",
        Response::Missing(_) => "missing",
        Response::HandedOver(moved) if moved.is_empty() => "nothing handed over",
        Response::HandedOver(_) => "handed over",
        Response::Refused(Refusal::NoSession { .. }) => "no session",
        Response::Refused(Refusal::Held { .. }) => "held",
        Response::Refused(Refusal::NoScheduler) => "no scheduler",
        Response::Refused(Refusal::NoAction { .. }) => "no action",
        Response::Refused(Refusal::StaleEpoch { .. }) => "stale",
        Response::Refused(Refusal::Conflict { .. }) => "conflict",
        Response::Refused(Refusal::MissingBlob { .. }) => "missing blob",
        Response::Refused(Refusal::NotFound) => "not found",
        Response::Refused(Refusal::Invalid { .. }) => "invalid",
    };
    let ends_a_session = applied
        .events
        .iter()
        .any(|event| matches!(event, Event::Session(_, None)));
    let is_full = |key: &QueueKey| {
        let limit = before.namespace_limits(&key.namespace).containers;
        before.namespace_counts(&key.namespace).slots() >= limit
    };
    let event = |event: &Event| match event {
        Event::Queue(key, Some(row)) => match before.queue(key).map(|old| old.leader) {
            Some(None) => Some("orphan adopted"),
            Some(old) if old != row.leader && row.leader.is_none() => Some("orphan"),
            Some(old) if old != row.leader && ends_a_session => Some("leader changed"),
            Some(old) if old != row.leader => Some("moved"),
            Some(_) | None => None,
        },
        Event::Container {
            record,
            removed: false,
            ..
        } if record.resumes.is_some() => Some("resumed"),
        Event::Container {
            record,
            before: None,
            removed: false,
            ..
        } if is_full(&record.key) => Some("excess"),
        Event::Container {
            record,
            removed: true,
            ..
        } if record.invoker.is_none() => Some("unplaced gone"),
        Event::NamespaceThrottle(_, true) => Some("throttled"),
        Event::NamespaceThrottle(_, false) => Some("released"),
        _ => None,
    };
    let effect = |effect: &Effect| matches!(effect, Effect::DeleteBlob { .. }).then_some("swept");
    let events = applied.events.iter().filter_map(event);
    let stale = matches!(&applied.response, Response::Grants(grants) if grants.contains(&Grant::StaleEpoch));
    let repeated = matches!(&applied.response, Response::Grants(grants) if !grants.is_empty() && !stale)
        && applied.events.is_empty();
    [answer]
        .into_iter()
        .chain(events)
        .chain(applied.effects.iter().filter_map(effect))
        .chain(stale.then_some("stale grant"))
        .chain(repeated.then_some("repeated or without room"))
        .collect()
}

/// Random runs prove something only if they reach the interesting places.
#[test]
fn draws_reach_what_is_hard_to_reach() {
    let mut seen = BTreeMap::new();
    let mut runner = TestRunner::deterministic();
    for _ in 0..96 {
        let draws = draws(LEN_MAX).new_tree(&mut runner).unwrap().current();
        run(&draws, |_, _, applied, before, _| {
            for what in happenings(before, applied) {
                *seen.entry(what).or_insert(0) += 1;
            }
        });
    }
    let wanted = [
        "done",
        "session",
        "leadership",
        "grants",
        "revision",
        "missing",
        "no session",
        "held",
        "no scheduler",
        "no action",
        "stale",
        "conflict",
        "missing blob",
        "not found",
        "invalid",
        "orphan",
        "orphan adopted",
        "leader changed",
        "moved",
        "excess",
        "resumed",
        "unplaced gone",
        "throttled",
        "released",
        "swept",
        "stale grant",
        "repeated or without room",
    ];
    for what in wanted {
        assert!(
            seen.get(what).is_some_and(|count| *count >= 10),
            "{what} is rare in {seen:?}"
        );
    }
}
