//! What a log must keep for followers that are sent a snapshot: everything behind it, until they have caught up.
//!
//! A transfer may take longer than it takes to write as much again as the log keeps. Without this the follower would
//! find the start of what it needs gone, and be sent a snapshot again and again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The followers of one group; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    followers: Arc<Mutex<BTreeMap<u64, Hold>>>,
    transfers: Arc<AtomicU64>,
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    /// Last entry in the snapshot.
    last: u64,
    is_arrived: bool,
    transfer: u64,
}

/// A snapshot on its way. Dropped before it has arrived, it asks for nothing any more.
#[derive(Debug)]
pub(crate) struct Sending {
    held: Held,
    follower: u64,
    transfer: u64,
    is_arrived: bool,
}

impl Held {
    fn followers(&self) -> MutexGuard<'_, BTreeMap<u64, Hold>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to send a snapshot to a follower.
    pub(crate) fn begin(&self, follower: u64, last: u64) -> Sending {
        let transfer = self.transfers.fetch_add(1, Ordering::Relaxed);
        let hold = Hold {
            last,
            is_arrived: false,
            transfer,
        };
        self.followers().insert(follower, hold);
        Sending {
            held: self.clone(),
            follower,
            transfer,
            is_arrived: false,
        }
    }

    /// The last entry that may go, if everything up to `wanted` shall. `matched` says what a follower has; nothing for
    /// one that cannot catch up now.
    pub(crate) fn allowed(&self, wanted: u64, matched: impl Fn(u64) -> Option<u64>) -> u64 {
        let mut allowed = wanted;
        self.followers().retain(|follower, hold| {
            let Some(matched) = matched(*follower) else {
                return false;
            };
            let has = hold.last.max(matched);
            if hold.is_arrived && has >= wanted {
                return false;
            }
            allowed = allowed.min(if hold.is_arrived { has } else { hold.last });
            true
        });
        allowed
    }
}

impl Sending {
    /// The follower has put it in place, and goes on from the log.
    pub(crate) fn arrived(mut self) {
        self.is_arrived = true;
        let mut followers = self.held.followers();
        let ours = followers.get_mut(&self.follower);
        if let Some(hold) = ours.filter(|hold| hold.transfer == self.transfer) {
            hold.is_arrived = true;
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.is_arrived {
            let mut followers = self.held.followers();
            // The next one may have begun before this one was let go.
            followers.retain(|_, hold| hold.transfer != self.transfer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_a_snapshot_stays_until_the_follower_has_it() {
        let held = Held::default();
        let nobody = |_| -> Option<u64> { panic!("nobody is sent anything") };
        assert_eq!(held.allowed(900, nobody), 900);

        let sending = held.begin(7, 100);
        assert_eq!(held.allowed(50, |_| Some(3)), 50);
        assert_eq!(held.allowed(900, |_| Some(3)), 100, "on its way");
        sending.arrived();
        assert_eq!(held.allowed(900, |_| Some(3)), 100, "nobody has heard of it yet");
        assert_eq!(held.allowed(900, |_| Some(500)), 500, "it catches up");
        assert_eq!(held.allowed(900, |_| Some(901)), 900);
        assert_eq!(held.allowed(950, nobody), 950, "it has caught up");
    }

    #[test]
    fn a_transfer_that_fails_and_a_follower_that_goes_keep_nothing() {
        let held = Held::default();
        let (first, second) = (held.begin(7, 100), held.begin(8, 200));
        assert_eq!(held.allowed(900, |_| Some(0)), 100);
        let again = held.begin(7, 150);
        drop(first);
        assert_eq!(held.allowed(900, |_| Some(0)), 150);
        drop(again);
        assert_eq!(held.allowed(900, |_| Some(0)), 200);
        assert_eq!(held.allowed(900, |_| None), 900);
        second.arrived();
        assert_eq!(held.allowed(900, |_| Some(0)), 900);
    }
}
