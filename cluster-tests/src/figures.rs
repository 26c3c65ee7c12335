//! Figures of a run: percentiles, shares, what the machine and a process used.

use std::fmt;
use std::fs;
use std::time::Duration;

/// Percentiles of times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spread {
    /// How many there were.
    pub count: usize,
    /// Half are below.
    pub p50: Duration,
    /// One of a hundred is above.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl Spread {
    /// Of these times, in any order.
    #[must_use]
    pub fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut sorted: Vec<Duration> = times.into_iter().collect();
        sorted.sort_unstable();
        Self {
            count: sorted.len(),
            p50: percentile(&sorted, 0.5),
            p99: percentile(&sorted, 0.99),
            max: percentile(&sorted, 1.0),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, p50, p99, max } = self;
        write!(f, "p50 {p50:.1?} p99 {p99:.1?} max {max:.1?} (of {count})")
    }
}

/// The value below which `share` of the sorted values lie.
#[must_use]
pub fn percentile(sorted: &[Duration], share: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let at = (sorted.len() as f64 * share) as usize;
    sorted
        .get(at.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// Jain's index of what each got: 1 when all got the same, `1/n` when one got everything.
#[must_use]
pub fn jain(got: &[f64]) -> f64 {
    let (sum, squares) = got
        .iter()
        .fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    if squares == 0.0 {
        return 1.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of tenants")]
    let count = got.len() as f64;
    sum * sum / (count * squares)
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in user and kernel mode, of all threads.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident: u64,
}

impl Usage {
    /// Of a process; zero when it is gone.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let ticks = stat.rsplit(')').next().and_then(|rest| {
            // After the name: state is field 3, user time 14, system time 15.
            let mut fields = rest.split_whitespace().skip(11);
            let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            Some(user + system)
        });
        let per_second = rustix::param::clock_ticks_per_second();
        Self {
            cpu: Duration::from_millis(ticks.unwrap_or(0) * 1000 / per_second.max(1)),
            resident: resident_bytes(pid),
        }
    }

    /// Of both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_add(other.cpu),
            resident: self.resident + other.resident,
        }
    }

    /// Resident memory in MiB.
    #[must_use]
    pub const fn resident_mib(&self) -> u64 {
        self.resident >> 20
    }
}

/// Resident memory of a process in bytes; zero when it is gone.
#[must_use]
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Cores and load of the machine, for the reader of figures.
#[must_use]
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?").to_owned();
    format!("{cores} cores, load {load}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jain_tells_equal_from_unequal() {
        assert!((jain(&[3.0, 3.0, 3.0, 3.0]) - 1.0).abs() < 1e-9);
        assert!((jain(&[1.0, 0.0, 0.0, 0.0]) - 0.25).abs() < 1e-9);
        assert!((jain(&[]) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn spread_sorts_by_itself() {
        let spread = Spread::of([3, 1, 2].map(Duration::from_millis));
        assert_eq!(
            (spread.p50, spread.max),
            (Duration::from_millis(2), Duration::from_millis(3))
        );
    }

    #[test]
    fn own_process_uses_memory() {
        assert!(Usage::of(std::process::id()).resident > 0);
    }
}
