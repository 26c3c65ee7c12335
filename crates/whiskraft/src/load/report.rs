//! What a run of many invocations showed, as numbers and as text.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::units::show_ms;

/// Result of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Report {
    /// The action.
    pub(crate) action: String,
    /// Invocations asked for.
    pub(crate) asked: u64,
    /// Invocations made; fewer than asked for only if the run was interrupted.
    pub(crate) made: u64,
    /// Ended with success and the expected result.
    pub(crate) right: u64,
    /// Ended with a record that is not what was expected.
    pub(crate) wrong: u64,
    /// Ended without a record.
    pub(crate) lost: u64,
    /// From the first call to the last end.
    pub(crate) wall_ms: f64,
    /// Invocations per second over that time.
    pub(crate) per_second: f64,
    /// Time from when the call was due to its end.
    pub(crate) latency: Latency,
    /// Longest time in which nothing ended.
    pub(crate) gap: Gap,
    /// Why activations were wrong or lost, with how often.
    pub(crate) reasons: BTreeMap<String, u64>,
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

/// The longest time between two successive ends.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Gap {
    /// Its length.
    pub(crate) longest_ms: f64,
    /// When it began, from the start of the run.
    pub(crate) began_ms: f64,
    /// How many activations had ended before it.
    pub(crate) after: u64,
}

impl Report {
    /// Whether every invocation that was asked for was right.
    pub(crate) const fn is_all_right(&self) -> bool {
        self.right == self.asked
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            right,
            wrong,
            lost,
            asked,
            made,
            latency,
            gap,
            ..
        } = self;
        write!(
            f,
            "results   {right} of {asked} right, {wrong} wrong, {lost} lost"
        )?;
        if made < asked {
            write!(f, " (interrupted after {made})")?;
        }
        writeln!(f)?;
        for (reason, count) in &self.reasons {
            writeln!(f, "          {count} × {reason}")?;
        }
        writeln!(
            f,
            "latency   p50 {}, p90 {}, p99 {}, p99.9 {}, max {}",
            show_ms(latency.p50_ms),
            show_ms(latency.p90_ms),
            show_ms(latency.p99_ms),
            show_ms(latency.p999_ms),
            show_ms(latency.max_ms)
        )?;
        let (longest, began) = (show_ms(gap.longest_ms), show_ms(gap.began_ms));
        writeln!(
            f,
            "gap       {longest} without a result, {began} after the start, {} results in",
            gap.after
        )?;
        write!(
            f,
            "wall      {}, {:.0} activations/s",
            show_ms(self.wall_ms),
            self.per_second
        )
    }
}
