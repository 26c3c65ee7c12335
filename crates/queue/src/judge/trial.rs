//! What an invoker has to show after a suspicion before it is trusted again.
//!
//! It gets one container, and the next one when something was heard of that. So one that is as bad as before does little
//! harm each time it is tried, and one that has recovered is back after a few runs.

use std::time::Duration;

use whiskraft_types::Instant;

use crate::judge::{Observation, SlowSettings, SuspicionReason};

/// What it has to show.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialSettings {
    /// Runs that must go well. Default 3.
    pub runs_min: u32,
    /// Creations that must go well of one whose creations failed. Default 10: one at a time also goes well where there is
    /// less memory than was said.
    pub creations_min: u32,
    /// Standard errors by which its runs must stand out to be slow again. Default 4: fewer than of one that was never
    /// caught.
    pub errors: f64,
    /// Time without a word of its container after which it gets another one: that one may idle or run for long.
    /// Default 10 s.
    pub probe_wait: Duration,
}

impl Default for TrialSettings {
    fn default() -> Self {
        Self {
            runs_min: 3,
            creations_min: 10,
            errors: 4.0,
            probe_wait: Duration::from_secs(10),
        }
    }
}

impl TrialSettings {
    /// When one on trial is slow: each run counts at once.
    pub(super) fn slow(&self, settings: &SlowSettings) -> SlowSettings {
        SlowSettings {
            samples_min: 1,
            errors: self.errors,
            ..settings.clone()
        }
    }
}

/// What it has shown so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Trial {
    begun: bool,
    good: u32,
    /// Until when nothing else is needed to be heard of its container.
    waits_until: Option<Instant>,
}

impl Trial {
    /// Whether this is the first time.
    pub(super) const fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.begun, true)
    }

    /// Takes what was no bad sign.
    pub(super) fn observe(
        &mut self,
        now: Instant,
        observation: Observation,
        reason: SuspicionReason,
        settings: &TrialSettings,
    ) {
        let is_failing = reason == SuspicionReason::Failing;
        match observation {
            Observation::Placed => self.waits_until = Some(now + settings.probe_wait),
            Observation::Opened | Observation::Ended => self.waits_until = None,
            Observation::Created if is_failing => self.went_well(),
            Observation::Run { .. } if !is_failing => self.went_well(),
            Observation::Run { .. } | Observation::Late { .. } | Observation::Created => {}
            // Bad signs, if not bad enough.
            Observation::Silent | Observation::CreationFailed => self.waits_until = None,
        }
    }

    fn went_well(&mut self) {
        self.good = self.good.saturating_add(1);
        self.waits_until = None;
    }

    pub(super) const fn has_passed(&self, reason: SuspicionReason, settings: &TrialSettings) -> bool {
        self.good
            >= match reason {
                SuspicionReason::Failing => settings.creations_min,
                SuspicionReason::Flapping | SuspicionReason::Slow | SuspicionReason::Silent => {
                    settings.runs_min
                }
            }
    }

    /// Until when its container is waited for.
    pub(super) fn waits_until(&self, now: Instant) -> Option<Instant> {
        self.waits_until.filter(|until| *until > now)
    }
}
