//! Log lines of one container: two streams of bytes become the lines of activations, within each one's limit.
//!
//! Pure. Whoever reads the pipes feeds [`LogShares`] with what arrived and when; at the end of an activation it takes
//! that activation's share. A sentinel ends a share. Invariant: what is held is never more than the limit.

use std::time::Duration;

use super::outcome::LogOutcome;

/// Ends an activation's share of a stream; written by the proxy.
const SENTINEL: &[u8] = b"XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX";
/// Width of the time column.
const TIME_WIDTH: usize = 30;
/// What a line costs besides its text: time, stream name and separators, so that empty lines are not free.
const LINE_OVERHEAD: usize = TIME_WIDTH + " stdout: \n".len();

const NOTICE_FAILED: &str = "There was an issue while collecting your logs. Data might be missing.";
const NOTICE_DEVELOPER: &str = "The action did not initialize or run as expected. Log data might be missing.";

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What ended an activation, as far as its logs care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShareEnd {
    /// Both sentinels are due.
    Sentinels,
    /// A developer error: no sentinel is due, and a notice says that lines may be missing.
    DeveloperError,
    /// Others run in the same container: lines cannot be told apart, whoever ends first gets what is there.
    Shared,
}

/// The lines of one activation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Formatted, in the order of arrival.
    pub(crate) lines: Vec<String>,
    /// Whether they are all there.
    pub(crate) outcome: LogOutcome,
}

/// Collects both streams of a container.
#[derive(Debug)]
pub(crate) struct LogShares {
    lines: Vec<String>,
    used: usize,
    limit: usize,
    truncated: bool,
    stdout: Partial,
    stderr: Partial,
}

/// The unfinished line of a stream.
#[derive(Debug, Default)]
struct Partial {
    bytes: Vec<u8>,
    /// Bytes of the line that were over the limit are dropped up to its end, all but what could be a sentinel.
    skipping: bool,
    sentinels: u32,
}

impl LogShares {
    /// Nothing collected, nothing kept until the first share begins.
    pub(crate) fn new() -> Self {
        let (stdout, stderr) = (Partial::default(), Partial::default());
        Self {
            lines: Vec::new(),
            used: 0,
            limit: 0,
            truncated: false,
            stdout,
            stderr,
        }
    }

    /// An activation begins: what was collected so far belongs to none and is dropped.
    pub(crate) fn begin(&mut self, limit: u64) {
        *self = Self {
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            ..Self::new()
        };
    }

    /// An activation takes over what its init wrote, under its own limit.
    pub(crate) fn continue_with(&mut self, limit: u64) {
        self.limit = usize::try_from(limit).unwrap_or(usize::MAX);
    }

    /// Bytes that arrived on a stream at this wall clock time.
    pub(crate) fn push(&mut self, stream: Stream, mut bytes: &[u8], at: Duration) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(stream, &bytes[..end]);
            self.end_line(stream, at);
            bytes = &bytes[end + 1..];
        }
        self.extend(stream, bytes);
    }

    /// The activation has ended and everything it wrote has been pushed.
    pub(crate) fn take(&mut self, end: ShareEnd, at: Duration) -> Share {
        let limit = self.limit;
        if limit == 0 {
            self.begin(0);
            return Share {
                lines: Vec::new(),
                outcome: LogOutcome::Complete,
            };
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.partial(stream).bytes.is_empty() {
                self.end_line(stream, at);
            }
        }
        let missing = self.stdout.sentinels == 0 || self.stderr.sentinels == 0;
        let mut lines = std::mem::take(&mut self.lines);
        let mut notice = |text: &str| lines.push(format_line(at, Stream::Stderr, text));
        let outcome = if self.truncated {
            let text = "Logs were truncated because the total bytes size exceeds the limit of";
            notice(&format!("{text} {limit} bytes."));
            LogOutcome::Truncated
        } else if end == ShareEnd::Sentinels && missing {
            notice(NOTICE_FAILED);
            LogOutcome::Incomplete
        } else {
            LogOutcome::Complete
        };
        if end == ShareEnd::DeveloperError {
            notice(NOTICE_DEVELOPER);
        }
        self.begin(0);
        Share { lines, outcome }
    }

    /// Adds a line of the platform's own, outside of the limit.
    pub(crate) fn note(&mut self, text: &str, at: Duration) {
        if self.limit > 0 {
            self.lines.push(format_line(at, Stream::Stderr, text));
        }
    }

    fn partial(&mut self, stream: Stream) -> &mut Partial {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn extend(&mut self, stream: Stream, bytes: &[u8]) {
        let room = self.limit.saturating_sub(self.used);
        self.partial(stream).extend(bytes, room);
    }

    /// Files the line that has just ended.
    fn end_line(&mut self, stream: Stream, at: Duration) {
        let partial = self.partial(stream);
        let mut text = std::mem::take(&mut partial.bytes);
        let mut skipped = std::mem::take(&mut partial.skipping);
        if let Some(found) = find(&text, SENTINEL) {
            partial.sentinels += 1;
            text.truncate(found);
            if text.is_empty() && !skipped {
                return;
            }
        }
        let cost = text.len() + LINE_OVERHEAD;
        skipped |= self.truncated || cost > self.limit.saturating_sub(self.used);
        if skipped {
            self.truncated |= self.limit > 0;
            return;
        }
        self.used += cost;
        let text = text.strip_suffix(b"\r").unwrap_or(&text);
        self.lines
            .push(format_line(at, stream, &String::from_utf8_lossy(text)));
    }
}

impl Partial {
    /// Adds bytes of a line. Past `room` only the last ones are kept, in which a sentinel would be.
    fn extend(&mut self, bytes: &[u8], room: usize) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > room + SENTINEL.len() {
            self.skipping = true;
            let surplus = self.bytes.len() - SENTINEL.len();
            self.bytes.drain(..surplus);
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if haystack.len() < needle.len() {
        return None;
    }
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// `<time, 30 characters> <stream>: <text>`.
fn format_line(at: Duration, stream: Stream, text: &str) -> String {
    format!("{:TIME_WIDTH$} {}: {text}", rfc3339(at), stream.name())
}

/// A time since the Unix epoch as `2026-01-31T23:59:59.123456789Z`.
fn rfc3339(at: Duration) -> String {
    let (days, seconds) = (at.as_secs() / 86_400, at.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z",
        at.subsec_nanos()
    )
}

/// Days since 1970-01-01 as year, month, day of the Gregorian calendar. Counts in years that begin in March, so that
/// the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970_FROM_MARCH_OF_YEAR_0: u64 = 719_468;
    const DAYS_PER_400_YEARS: u64 = 146_097;
    let days = days + DAYS_TO_1970_FROM_MARCH_OF_YEAR_0;
    let (era, day_of_era) = (days / DAYS_PER_400_YEARS, days % DAYS_PER_400_YEARS);
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March have 31, 30, 31, 30, 31 days, over and over: 153 days in five.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
#[path = "logs/logs_test.rs"]
mod logs_test;
