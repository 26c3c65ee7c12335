//! The one place of this crate that reads the clock.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

/// What common moments are counted from.
static BEGIN: OnceLock<Instant> = OnceLock::new();

/// Now, on the monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of this crate that reads the monotonic clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits for the next moment that all who look with this pause share, at most that long: a node that has nothing to do wakes once
/// for all of its looks, those with a multiple of the pause included.
pub(crate) async fn common_moment(pause: Duration) {
    let now = now();
    let begin = *BEGIN.get_or_init(|| now);
    tokio::time::sleep_until(now + until_common(now.saturating_duration_since(begin), pause)).await;
}

fn until_common(since: Duration, pause: Duration) -> Duration {
    let gone = since.as_nanos() % pause.as_nanos().max(1);
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
    fn looks_meet_and_none_waits_longer_than_its_pause() {
        let ms = Duration::from_millis;
        assert_eq!(until_common(ms(0), ms(200)), ms(200));
        assert_eq!(until_common(ms(130), ms(200)), ms(70));
        assert_eq!(until_common(ms(330), ms(400)), ms(70));
        assert_eq!(until_common(ms(400), ms(400)), ms(400));
        assert_eq!(until_common(ms(399), ms(400)), ms(1));
    }
}
