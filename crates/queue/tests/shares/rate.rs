//! The bound of the rate in every window, its exactness over a long time, and the hint when to come back.

use std::time::Duration;

use proptest::prelude::*;
use whiskraft_queue::{TokenBucket, burst, per_minute_max};
use whiskraft_types::Instant;

const MINUTE: Duration = Duration::from_secs(60);

fn at(nanos: u64) -> Instant {
    Instant::from_origin(Duration::from_nanos(nanos))
}

/// Most granted in a window that ends with a grant; windows of 60 s are closed, which is the stricter reading.
fn most_in_a_minute(grants: &[(Instant, u32)]) -> u64 {
    let in_window = |end: Instant| {
        let inside = grants
            .iter()
            .filter(|(when, _)| *when <= end && end.saturating_since(*when) <= MINUTE);
        inside.map(|(_, granted)| u64::from(*granted)).sum::<u64>()
    };
    grants.iter().map(|(end, _)| in_window(*end)).max().unwrap_or(0)
}

/// Pauses from nothing over single nanoseconds to longer than a burst takes.
fn pause() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1_u64..5, 1_u64..2_000_000_000, 1_u64..80_000_000_000]
}

fn rate() -> impl Strategy<Value = u32> {
    prop_oneof![0_u32..20, 0_u32..1_000, 0_u32..2_000_000]
}

fn wanted() -> impl Strategy<Value = u32> {
    prop_oneof![0_u32..4, 0_u32..2_000, Just(u32::MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_window_holds_more_than_the_bound(
        per_minute in rate(),
        calls in proptest::collection::vec((pause(), wanted()), 1..100),
    ) {
        let (mut now, mut grants) = (0, Vec::new());
        let mut bucket = TokenBucket::new(per_minute, at(0));
        for (pause, wanted) in calls {
            now += pause;
            let taken = bucket.take(at(now), wanted);
            prop_assert!(taken.granted <= wanted);
            grants.push((at(now), taken.granted));
        }
        prop_assert!(most_in_a_minute(&grants) <= u64::from(per_minute_max(per_minute)));
    }

    #[test]
    fn rate_that_goes_up_and_down_gains_nothing(
        highest in 1_u32..2_000,
        calls in proptest::collection::vec((pause(), wanted(), proptest::option::of(0.0_f64..=1.0)), 1..100),
    ) {
        let (mut now, mut grants) = (0, Vec::new());
        let mut bucket = TokenBucket::new(highest, at(0));
        for (pause, wanted, part) in calls {
            now += pause;
            if let Some(part) = part {
                bucket.set_rate((f64::from(highest) * part) as u32, at(now));
            }
            grants.push((at(now), bucket.take(at(now), wanted).granted));
        }
        prop_assert!(most_in_a_minute(&grants) <= 7 * u64::from(burst(highest)));
    }

    #[test]
    fn who_always_wants_gets_the_rate_exactly(per_minute in 7_u32..100_000, part in 0_u64..=1_000, calls in 1_u64..500) {
        // Less than a token is left after a call, and in no pause the rest of the burst comes back, so nothing overflows.
        // A burst of one, of the rates up to six, leaves no such pause.
        let rest = u64::from(burst(per_minute) - 1) * 60_000_000_000 / u64::from(per_minute);
        let pause = 1.max(rest * part / 1_000);
        let mut bucket = TokenBucket::new(per_minute, at(0));
        let mut granted = u128::from(bucket.take(at(0), u32::MAX).granted);
        for call in 1..=calls {
            granted += u128::from(bucket.take(at(call * pause), u32::MAX).granted);
        }
        let worth = u128::from(per_minute) * u128::from(calls * pause) / MINUTE.as_nanos();
        prop_assert_eq!(granted, u128::from(burst(per_minute)) + worth);
    }

    #[test]
    fn hint_is_the_first_moment_that_grants(per_minute in 1_u32..1_000_000, calls in proptest::collection::vec((pause(), wanted()), 1..20)) {
        let mut now = 0;
        let mut bucket = TokenBucket::new(per_minute, at(0));
        for (pause, wanted) in calls {
            now += pause;
            let taken = bucket.take(at(now), wanted);
            let hint = u64::try_from(taken.retry_after.as_nanos()).unwrap();
            prop_assert_eq!(bucket.clone().take(at(now + hint), 1).granted, 1);
            prop_assert!(hint == 0 || bucket.clone().take(at(now + hint - 1), 1).granted == 0);
            prop_assert!(taken.retry_after <= MINUTE);
            prop_assert!(taken.granted == wanted || hint > 0);
        }
    }
}
