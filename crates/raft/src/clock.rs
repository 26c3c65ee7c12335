//! The one place of this crate that reads the clock.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

/// From where common moments are counted.
static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// Now, on the monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of this crate that reads the monotonic clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits until the next whole multiple of a pause. Duties that look now and then do it at common moments, so that a thread
/// that has nothing to do wakes once for all of them.
pub(crate) async fn beat(pause: Duration) {
    let since = now().duration_since(*ORIGIN.get_or_init(now));
    tokio::time::sleep(to_beat(since, pause)).await;
}

/// Time to the next whole multiple of a pause; none only for a pause of none.
fn to_beat(since: Duration, pause: Duration) -> Duration {
    let gone = since.as_nanos().checked_rem(pause.as_nanos()).unwrap_or_default();
    pause.saturating_sub(Duration::from_nanos(u64::try_from(gone).unwrap_or(u64::MAX)))
}

/// Holds a thread up that may block, until it looks again.
#[expect(
    clippy::disallowed_methods,
    reason = "the engine has no way to wait for a flush without asking for one"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Holds a thread up, to imitate a slow disk.
#[expect(
    clippy::disallowed_methods,
    reason = "imitates a slow disk in measurements; nothing waits for an event here"
)]
pub(crate) fn stall(time: Duration) {
    if !time.is_zero() {
        std::thread::sleep(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_common_moment_is_ahead() {
        let (pause, ms) = (Duration::from_millis(250), Duration::from_millis);
        assert_eq!(to_beat(Duration::ZERO, pause), pause);
        assert_eq!(to_beat(ms(1), pause), ms(249));
        assert_eq!(to_beat(ms(1249), pause), ms(1));
        assert_eq!(to_beat(ms(1250), pause), pause);
        assert_eq!(to_beat(ms(1250), Duration::ZERO), Duration::ZERO);
    }
}
