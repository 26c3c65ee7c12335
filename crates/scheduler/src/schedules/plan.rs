//! Which slots of a schedule are due: a pure function of its expression, its policy, what is settled, and the time.

use std::str::FromStr;

use croner::Cron;
use croner::errors::CronError;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Age at which a slot counts as missed: an election, a move of a queue and a busy moment are over long before.
pub(crate) const MISSED_AFTER_MS: u64 = 30_000;
/// Slots fired per look, so that a schedule that makes up for a long outage leaves room for the others.
pub(crate) const FIRED_MAX: usize = 100;
/// Skipped slots that are counted one by one; a longer outage says that there were this many.
const SKIPPED_MAX: u64 = 10_000;

/// Why an expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    /// It is no cron expression.
    #[error(
        "cron expression {expression:?}: {reason}; write minute, hour, day of month, month and day of week, as in \"*/5 * * * *\""
    )]
    Syntax { expression: String, reason: String },
    /// It names no date that exists.
    #[error("cron expression {expression:?} never comes: no such date exists")]
    Never { expression: String },
}

/// What happens to slots that nobody could fire in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missed {
    Skip,
    RunOnce,
    RunAll,
}

/// An expression and a policy.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    cron: Cron,
    missed: Missed,
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Due {
    /// Slots to fire, ascending, in milliseconds since the Unix epoch.
    pub(crate) fire: Vec<u64>,
    /// Slots that the policy leaves out.
    pub(crate) skipped: u64,
    /// Everything up to here is settled without firing anything.
    pub(crate) settled_ms: u64,
}

impl Plan {
    /// Reads an expression.
    ///
    /// # Errors
    /// Says what is wrong with it; one that will never be due is refused.
    pub(crate) fn new(expression: &str, missed: Missed) -> Result<Self, PlanError> {
        let expression = expression.to_owned();
        let cron = Cron::from_str(&expression).map_err(|error| PlanError::Syntax {
            expression: expression.clone(),
            reason: error.to_string(),
        })?;
        let plan = Self { cron, missed };
        match plan.cron.find_next_occurrence(&civil(0), false) {
            Ok(_) => Ok(plan),
            Err(CronError::TimeSearchLimitExceeded | CronError::InvalidDate) => {
                Err(PlanError::Never { expression })
            }
            Err(error) => Err(PlanError::Syntax {
                expression,
                reason: error.to_string(),
            }),
        }
    }

    /// The first slot after a moment; `None` if there is none any more.
    pub(crate) fn next_after(&self, ms: u64) -> Option<u64> {
        let next = self.cron.find_next_occurrence(&civil(ms), false).ok()?;
        Some(unix_ms(next)).filter(|next| *next > ms)
    }

    /// The last slot at or before a moment.
    fn last_until(&self, ms: u64) -> Option<u64> {
        let last = self.cron.find_previous_occurrence(&civil(ms), true).ok()?;
        Some(unix_ms(last)).filter(|last| *last <= ms)
    }

    /// What is due at `now_ms`, given that everything up to `settled_ms` is settled.
    pub(crate) fn due(&self, settled_ms: u64, now_ms: u64) -> Due {
        let missed_until = now_ms.saturating_sub(MISSED_AFTER_MS);
        let mut due = Due {
            settled_ms,
            ..Due::default()
        };
        match self.missed {
            Missed::RunAll => {}
            Missed::Skip if missed_until > settled_ms => {
                due.skipped = self.count(settled_ms, missed_until);
                due.settled_ms = missed_until;
            }
            Missed::RunOnce if missed_until > settled_ms => {
                let missed = self.count(settled_ms, missed_until);
                due.skipped = missed.saturating_sub(1);
                due.fire
                    .extend(self.last_until(missed_until).filter(|_| missed > 0));
                // The one that runs is settled by its firing, what is before it now.
                due.settled_ms = due.fire.first().map_or(missed_until, |slot| slot - 1);
            }
            Missed::Skip | Missed::RunOnce => {}
        }
        let mut at = due.fire.last().copied().unwrap_or(due.settled_ms);
        while due.fire.len() < FIRED_MAX
            && let Some(slot) = self.next_after(at).filter(|slot| *slot <= now_ms)
        {
            due.fire.push(slot);
            at = slot;
        }
        due
    }

    /// Slots after the first moment up to the second, as far as they are counted.
    fn count(&self, after_ms: u64, until_ms: u64) -> u64 {
        let slots = std::iter::successors(self.next_after(after_ms), |slot| self.next_after(*slot));
        let counted = slots.take_while(|slot| *slot <= until_ms);
        (0..SKIPPED_MAX).zip(counted).count() as u64
    }
}

/// Wall time in UTC of a moment; one beyond the calendar is its end.
fn civil(ms: u64) -> DateTime {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).map_or(DateTime::MAX, |moment| TimeZone::UTC.to_datetime(moment))
}

fn unix_ms(time: DateTime) -> u64 {
    let moment = TimeZone::UTC.to_timestamp(time);
    moment.map_or(u64::MAX, |moment| {
        u64::try_from(moment.as_millisecond()).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;
    /// 2026-11-30 00:00:00 UTC.
    const DAY: u64 = 1_796_000_000_000 - 1_796_000_000_000 % 86_400_000;

    fn plan(expression: &str, missed: Missed) -> Plan {
        Plan::new(expression, missed).unwrap()
    }

    fn fired(due: &Due) -> Vec<u64> {
        due.fire.iter().map(|slot| (slot - DAY) / 1000).collect()
    }

    #[test]
    fn slots_are_in_utc_and_come_once() {
        let plan = plan("*/5 * * * *", Missed::Skip);
        assert_eq!(plan.next_after(DAY), Some(DAY + 5 * MINUTE));
        assert_eq!(plan.next_after(DAY - 1), Some(DAY));
        let at_the_slot = plan.due(DAY, DAY + 5 * MINUTE);
        assert_eq!(fired(&at_the_slot), [300]);
        assert_eq!(
            plan.due(DAY + 5 * MINUTE, DAY + 5 * MINUTE).fire,
            Vec::<u64>::new()
        );
        assert_eq!(
            plan.due(DAY, DAY + 5 * MINUTE - 1).fire,
            Vec::<u64>::new(),
            "never early"
        );
    }

    #[test]
    fn seconds_are_allowed() {
        let plan = plan("*/10 * * * * *", Missed::Skip);
        assert_eq!(fired(&plan.due(DAY, DAY + 25_000)), [10, 20]);
    }

    #[test]
    fn each_policy_treats_an_outage_its_own_way() {
        // Down for six minutes, back twelve seconds after a slot that is not missed yet.
        let (settled, now) = (DAY, DAY + 6 * MINUTE + 12_000);
        let due = |missed| plan("* * * * *", missed).due(settled, now);
        let skip = due(Missed::Skip);
        assert_eq!((fired(&skip), skip.skipped), (vec![360], 5));
        let once = due(Missed::RunOnce);
        assert_eq!((fired(&once), once.skipped), (vec![300, 360], 4));
        let all = due(Missed::RunAll);
        assert_eq!((fired(&all), all.skipped), (vec![60, 120, 180, 240, 300, 360], 0));
    }

    #[test]
    fn what_was_skipped_or_runs_once_is_settled_for_good() {
        let (settled, now) = (DAY, DAY + 6 * MINUTE + 45_000);
        let skip = plan("* * * * *", Missed::Skip);
        let first = skip.due(settled, now);
        assert_eq!((fired(&first), first.skipped), (vec![], 6));
        assert_eq!(skip.due(first.settled_ms, now).skipped, 0);
        let once = plan("* * * * *", Missed::RunOnce);
        let first = once.due(settled, now);
        assert_eq!((fired(&first), first.skipped), (vec![360], 5));
        let again = once.due(first.settled_ms, now);
        assert_eq!(
            (fired(&again), again.skipped),
            (vec![360], 0),
            "until it is fired"
        );
        assert_eq!(once.due(first.fire[0], now).fire, Vec::<u64>::new());
    }

    #[test]
    fn a_long_outage_is_made_up_for_in_parts() {
        let plan = plan("* * * * * *", Missed::RunAll);
        let due = plan.due(DAY, DAY + 1_000_000);
        assert_eq!(due.fire.len(), FIRED_MAX);
        assert_eq!(
            plan.due(due.fire[FIRED_MAX - 1], DAY + 1_000_000).fire[0],
            DAY + 101_000
        );
    }

    #[test]
    fn a_year_of_seconds_is_skipped_without_counting_them_all() {
        let plan = plan("* * * * * *", Missed::Skip);
        let due = plan.due(DAY - 365 * 86_400_000, DAY);
        assert_eq!((due.skipped, due.fire.len()), (SKIPPED_MAX, 30));
    }

    #[test]
    fn what_never_comes_and_what_is_no_expression_are_refused() {
        let never = Plan::new("0 0 30 2 *", Missed::Skip).unwrap_err();
        assert_eq!(
            never.to_string(),
            "cron expression \"0 0 30 2 *\" never comes: no such date exists"
        );
        for expression in ["", "* * *", "61 * * * *", "a b c d e"] {
            let error = Plan::new(expression, Missed::Skip).unwrap_err();
            assert!(matches!(error, PlanError::Syntax { .. }), "{expression}: {error}");
        }
    }
}
