//! Settings of a client, with their defaults and reasons.

use std::time::Duration;

use whiskraft_proto::transport::Patience;

/// Every bound and deadline of a client. The defaults suit a client next to its cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How long [`Client::connect`](crate::Client::connect) waits for a usable scheduler. Default 10 s.
    pub connect_deadline: Duration,
    /// Longest TCP connect. Default 1 s.
    pub tcp_connect_deadline: Duration,
    /// HTTP/2 ping interval; with `keepalive_timeout` the time after which a blackholed scheduler is noticed.
    /// Default 300 ms.
    pub keepalive_interval: Duration,
    /// Longest wait for the answer to a ping. Default 600 ms.
    pub keepalive_timeout: Duration,
    /// Longest wait for one answer of one scheduler to a short question; then another is asked. Default 1 s.
    pub try_deadline: Duration,
    /// Longest time for a short question over all tries. Default 10 s.
    pub call_deadline: Duration,
    /// Longest time for one transfer of an action's code. Default 120 s.
    pub transfer_deadline: Duration,
    /// Most activations without a result. More are refused with `InvokeError::Full`. Default 16,384.
    pub unfinished_max: usize,
    /// Most bytes of their arguments, which are kept for resubmission. Default 256 MiB.
    pub unfinished_bytes_max: u64,
    /// Whether an activation that a known throttle would refuse is refused here, without asking a scheduler. It saves a
    /// round trip; but what the scheduler would have done at the sight of it (a queue without containers has other
    /// queues of its namespace give up an idle one) does not happen. Default false: the scheduler decides.
    pub refuse_early: bool,
    /// When an activation without any answer is given up.
    pub giving_up: GivingUp,
}

impl Settings {
    pub(crate) const fn patience(&self) -> Patience {
        Patience {
            connect: self.tcp_connect_deadline,
            ping_interval: self.keepalive_interval,
            ping_wait: self.keepalive_timeout,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_deadline: Duration::from_secs(10),
            tcp_connect_deadline: Duration::from_secs(1),
            keepalive_interval: Duration::from_millis(300),
            keepalive_timeout: Duration::from_millis(600),
            try_deadline: Duration::from_secs(1),
            call_deadline: Duration::from_secs(10),
            transfer_deadline: Duration::from_secs(120),
            unfinished_max: 16_384,
            unfinished_bytes_max: 256 << 20,
            refuse_early: false,
            giving_up: GivingUp::default(),
        }
    }
}

/// An activation is given up `max(time limit, time_limit_std) · factor + addend` after it was submitted.
#[derive(Debug, Clone, PartialEq)]
pub struct GivingUp {
    /// Least time limit that is counted. Default 60 s.
    pub time_limit_std: Duration,
    /// Time limit of an action whose own is not known to the caller: the longest there is. Default 5 min.
    pub time_limit_max: Duration,
    /// Default 2: init and run may each use the full limit.
    pub factor: u32,
    /// Default 1 min.
    pub addend: Duration,
}

impl Default for GivingUp {
    fn default() -> Self {
        Self {
            time_limit_std: Duration::from_secs(60),
            time_limit_max: Duration::from_secs(300),
            factor: 2,
            addend: Duration::from_secs(60),
        }
    }
}

impl GivingUp {
    /// Time from submission until an activation of an action with this time limit is given up.
    #[must_use]
    pub fn after(&self, time_limit: Option<Duration>) -> Duration {
        let limit = time_limit.unwrap_or(self.time_limit_max).max(self.time_limit_std);
        limit.saturating_mul(self.factor).saturating_add(self.addend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formula_matches_the_examples() {
        let after = |ms: u64| {
            GivingUp::default()
                .after(Some(Duration::from_millis(ms)))
                .as_secs()
        };
        assert_eq!((after(100), after(60_000), after(300_000)), (180, 180, 660));
        assert_eq!(GivingUp::default().after(None).as_secs(), 660);
    }

    #[test]
    fn factor_and_addend_are_settings() {
        let rule = GivingUp {
            factor: 3,
            addend: Duration::from_secs(5),
            ..GivingUp::default()
        };
        assert_eq!(rule.after(Some(Duration::from_secs(100))).as_secs(), 305);
        let huge = GivingUp {
            factor: u32::MAX,
            ..rule
        };
        assert_eq!(huge.after(Some(Duration::MAX)), Duration::MAX);
    }
}
