//! Cron expressions, to be shown: when the next slots are. The cluster decides which of them are due.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use croner::Cron;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The first `count` slots of an expression after a moment, in UTC; fewer if there are no more.
///
/// # Errors
/// Says what is wrong with the expression.
pub(crate) fn next_slots(
    expression: &str,
    after: SystemTime,
    count: usize,
) -> Result<Vec<SystemTime>, String> {
    let cron = Cron::from_str(expression).map_err(|error| {
        format!("{error}; write minute, hour, day of month, month and day of week, as in '*/5 * * * *'")
    })?;
    let mut slots = Vec::new();
    let mut at = civil(after);
    while slots.len() < count
        && let Ok(next) = cron.find_next_occurrence(&at, false)
        && next > at
    {
        slots.extend(moment(next));
        at = next;
    }
    Ok(slots)
}

/// Reads an expression that names at least one time to come.
pub(crate) fn parse(expression: &str, now: SystemTime) -> Result<String, String> {
    match next_slots(expression, now, 1)?.is_empty() {
        true => Err("it names no time that is still to come".to_owned()),
        false => Ok(expression.to_owned()),
    }
}

/// Wall time in UTC; a moment beyond the calendar is its end.
fn civil(at: SystemTime) -> DateTime {
    Timestamp::try_from(at).map_or(DateTime::MAX, |at| TimeZone::UTC.to_datetime(at))
}

fn moment(time: DateTime) -> Option<SystemTime> {
    let at = TimeZone::UTC.to_timestamp(time).ok()?;
    let ms = u64::try_from(at.as_millisecond()).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn slots_are_the_times_that_an_expression_names() {
        assert_eq!(next_slots("*/5 * * * *", at(1), 2), Ok(vec![at(300), at(600)]));
        assert_eq!(
            next_slots("*/5 * * * *", at(300), 1),
            Ok(vec![at(600)]),
            "after, not at"
        );
        assert_eq!(next_slots("*/20 * * * * *", at(0), 2), Ok(vec![at(20), at(40)]));
        assert_eq!(next_slots("@daily", at(0), 1), Ok(vec![at(86_400)]));
    }

    #[test]
    fn an_expression_that_never_comes_or_is_none_is_told() {
        assert_eq!(next_slots("0 0 31 4 *", at(0), 1), Ok(vec![]));
        assert!(parse("0 0 31 4 *", at(0)).unwrap_err().contains("no time"));
        assert!(parse("often", at(0)).unwrap_err().contains("*/5 * * * *"));
        assert_eq!(parse("@hourly", at(0)), Ok("@hourly".to_owned()));
    }
}
