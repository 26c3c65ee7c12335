//! SIGTERM, SIGINT and SIGHUP: the first asks for a graceful shutdown, the second ends the process at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Exit, Failure};
use crate::role::supervisor::Supervisor;

/// Listens for all of them from its creation on, so that none is missed between two waits.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// None if whoever started this process has it ignored, as `nohup` does.
    hangup: Option<Signal>,
    supervisor: Option<Supervisor>,
    count: Count,
}

/// Signals so far. One that reaches this process and its supervisor, which passes it on, is one.
#[derive(Debug, Default)]
struct Count {
    own: u32,
    passed_on: u32,
}

impl Count {
    /// Counts one more; returns whether it is news.
    fn add(&mut self, is_passed_on: bool) -> bool {
        let before = self.own.max(self.passed_on);
        let count = if is_passed_on {
            &mut self.passed_on
        } else {
            &mut self.own
        };
        *count += 1;
        *count > before
    }
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(crate) fn install() -> Result<Self, Failure> {
        Self::install_with(None)
    }

    /// The same for a process whose supervisor passes signals on.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(crate) fn install_with(supervisor: Option<Supervisor>) -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Refused, "cannot install signal handlers").caused_by(error)
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: (!is_ignored(SignalKind::hangup()))
                .then(|| listen(SignalKind::hangup()))
                .transpose()?,
            supervisor,
            count: Count::default(),
        })
    }

    /// Waits for the next signal and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        loop {
            let passed_on = async {
                match &self.supervisor {
                    Some(supervisor) => supervisor.signal().await,
                    None => std::future::pending().await,
                }
            };
            let (name, is_passed_on) = tokio::select! {
                _ = self.terminate.recv() => ("SIGTERM", false),
                _ = self.interrupt.recv() => ("SIGINT", false),
                () = received(&mut self.hangup) => ("SIGHUP", false),
                name = passed_on => (name, true),
            };
            if self.count.add(is_passed_on) {
                return name;
            }
        }
    }

    /// Runs `shutdown` to its end unless another signal comes first, which ends the process.
    pub(crate) async fn or_force<T>(&mut self, shutdown: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            done = shutdown => Ok(done),
            name = self.next() => Err(Failure::new(
                Exit::Forced,
                format!("second signal ({name}): stopped before the shutdown was complete"),
            )),
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether this process was started with a signal ignored; no if the system does not tell.
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status) & (1 << (kind.as_raw_value() - 1)) != 0
}

/// The signals that `/proc/PID/status` says are ignored, a bit for each.
fn ignored_in(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Count, ignored_in};

    #[test]
    fn a_signal_that_comes_both_ways_counts_once() {
        let mut count = Count::default();
        let came = [false, true, true, false, false].map(|is_passed_on| count.add(is_passed_on));
        assert_eq!(came, [true, false, true, false, true]);
    }

    #[test]
    fn ignored_signals_are_told_from_others() {
        let ignored = ignored_in("Name:\twhiskraft\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n");
        assert_eq!(ignored, 0x1001);
        assert_eq!(ignored_in("Name:\twhiskraft\n"), 0);
    }
}
