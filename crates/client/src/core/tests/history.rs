//! Random events against the promises that hold for every history.

use super::*;

/// Random events against the promises that hold for every history.
#[test]
fn no_history_settles_twice_or_sends_what_ended() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut bench = Bench::ready();
        let mut generations = [0, 1, 1, 1];
        let mut submitted = 0_u8;
        let mut ended = BTreeMap::new();
        let mut attempts: BTreeMap<u8, u32> = BTreeMap::new();
        for _ in 0..200 {
            random_event(&mut bench, &mut rng, &mut generations, &mut submitted);
            for output in std::mem::take(&mut bench.out) {
                match output {
                    Output::Settled { id, .. } | Output::Forgotten { id } => {
                        assert_eq!(ended.insert(number(id), ()), None, "seed {seed}: ended twice");
                    }
                    Output::Send {
                        id,
                        stream,
                        submission,
                    } => {
                        assert!(
                            !ended.contains_key(&number(id)),
                            "seed {seed}: sent after its end"
                        );
                        assert_eq!(
                            stream.generation,
                            generations[usize::try_from(stream.scheduler.0).unwrap()]
                        );
                        let before = attempts.insert(number(id), submission.attempt);
                        assert!(
                            before.unwrap_or(1) <= submission.attempt,
                            "seed {seed}: attempt fell"
                        );
                    }
                    _ => {}
                }
            }
        }
        heal_and_finish(&mut bench, &generations);
        let forgotten = usize::try_from(bench.router.stats().forgotten).unwrap();
        assert_eq!(
            bench.settled.len() + forgotten,
            usize::from(submitted),
            "seed {seed}: something hangs"
        );
    }
}

fn can_submit(bench: &mut Bench, n: u8) -> bool {
    bench.router.admit(bench.now, &activation(n)).is_ok()
}

fn random_event(bench: &mut Bench, rng: &mut StdRng, generations: &mut [u64; 4], submitted: &mut u8) {
    let scheduler = rng.random_range(1..=3_u64);
    let generation = generations[usize::try_from(scheduler).unwrap()];
    let at = stream(scheduler, generation);
    let n = rng.random_range(1..=(*submitted).max(1));
    match rng.random_range(0..13) {
        0..=2 if *submitted < 60 && can_submit(bench, *submitted + 1) => {
            *submitted += 1;
            let durable = rng.random_bool(0.5);
            bench.submit_as(NewActivation {
                durable,
                ..activation(*submitted)
            });
        }
        12 => bench.step(Input::Forget { id: id(n) }),
        3 => bench.accepted(scheduler, generation, n),
        4 => bench.step(Input::Completed {
            stream: at,
            record: record(n),
        }),
        5 => bench.step(Input::Rejected {
            stream: at,
            id: id(n),
            rejection: unavailable(),
        }),
        6 => {
            let rejection = not_leader(rng.random_range(0..=3), rng.random_range(1..=20));
            bench.step(Input::Rejected {
                stream: at,
                id: id(n),
                rejection,
            });
        }
        7 => {
            let unsent = if rng.random() { vec![id(n)] } else { Vec::new() };
            bench.step(Input::StreamLost { stream: at, unsent });
            generations[usize::try_from(scheduler).unwrap()] += 1;
        }
        8 => bench.opened(scheduler, generation),
        9 => bench.leads(rng.random_range(0..=3), rng.random_range(1..=20)),
        10 => bench.ensured(rng.random_range(1..=3), rng.random_range(1..=20)),
        _ => bench.pass(Duration::from_millis(rng.random_range(1..2000))),
    }
}

/// All streams open, a newest leader: everything has to come to its end through it.
fn heal_and_finish(bench: &mut Bench, generations: &[u64; 4]) {
    for scheduler in 1..=3_u64 {
        bench.lost(scheduler, generations[usize::try_from(scheduler).unwrap()], &[]);
        bench.opened(scheduler, 1000);
    }
    bench.leads(2, 1000);
    for _ in 0..100 {
        let sent: Vec<_> = std::mem::take(&mut bench.out)
            .into_iter()
            .filter_map(|output| match output {
                Output::Send { stream, id, .. } => Some((stream, id)),
                _ => None,
            })
            .collect();
        for (stream, id) in sent {
            bench.step(Input::Accepted { stream, id });
            bench.step(Input::Completed {
                stream,
                record: record(number(id)),
            });
        }
    }
}
