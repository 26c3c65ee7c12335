//! Waiting to within some microseconds. Tokio's timers count milliseconds, which would stretch a run of 300 µs to four
//! times its length; so its wheel carries the long part and one helper thread of the process the rest.

use std::time::Duration;

use futures_timer::Delay;

use super::clock;

/// The last part of a wait, which is not left to tokio: its rounding and as much again.
const FINE: Duration = Duration::from_millis(2);

/// Waits so long; zero is over at once.
pub(crate) async fn sleep(length: Duration) {
    if length.is_zero() {
        return;
    }
    let start = clock::now();
    if length > FINE {
        tokio::time::sleep(length - FINE).await;
    }
    let rest = length.saturating_sub(start.elapsed());
    if !rest.is_zero() {
        Delay::new(rest).await;
    }
}
