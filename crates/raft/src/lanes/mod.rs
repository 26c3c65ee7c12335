//! Background duties of the lanes: where each is led, who its members are, what its log keeps, what time it is.
//!
//! One task per lane and duty, on every node; those of a leader do nothing elsewhere.

mod members;
mod placement;
mod tidy;

use std::time::Duration;

use crate::journal::Journal;
use crate::runtime::Runtime;

pub(crate) use members::leave;
pub(crate) use placement::preferred;

/// Pause between two looks at a lane.
const ROUND_PAUSE: Duration = Duration::from_millis(250);
/// Longest wait for the time to be written.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);

/// Starts the tasks; they end with the runtime.
pub(crate) fn start(runtime: &Runtime, journal: &Journal) {
    for lane in journal.all() {
        let core = journal.core().clone();
        runtime.spawn(members::follow(core.clone(), lane.group.clone()));
        runtime.spawn(placement::place(core, lane.group.clone()));
        runtime.spawn(tidy::tidy(lane.group.clone(), lane.shared.clone()));
        runtime.spawn(tidy::tell_time(lane.group.clone(), lane.shared.clone()));
    }
}
