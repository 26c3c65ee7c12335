//! Settings of the pool.

use std::time::Duration;

use whiskraft_types::ByteSize;

/// Limits and times of an invoker's pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// Memory that containers may take together, removing ones included, in bytes. Default 2 GiB.
    pub memory: ByteSize,
    /// Time without an activation after which a container is paused (removed, if its code was never loaded).
    /// Pausing gives the slot back and costs the next activation a resume. Default 10 s.
    pub pause_grace: Duration,
    /// Time a paused container is kept for reuse before it is removed. Default 10 min.
    pub keep: Duration,
    /// Bytes of results that schedulers have not acknowledged; at this many no container asks for more work.
    /// What runs at that moment still adds its results. Default 32 MiB: all of them
    /// go into one `Register` after a change of leader.
    pub results_bytes_max: ByteSize,
    /// Count of such results at which no container asks for more work. Default 16384.
    pub results_len_max: usize,
    /// Shortest time between two memory reports that differ only in amounts. Default 1 s.
    pub memory_report_interval: Duration,
    /// Time after which an unhealthy invoker forgets its oldest bad outcome, so that it is tried again; doubles
    /// while it stays unhealthy, up to sixteen times this. Default 30 s.
    pub health_retry: Duration,
    /// Wait before asking again after a leader refused a pull for a passing reason. Default 500 ms.
    pub pull_retry: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            memory: ByteSize::mib(2048),
            pause_grace: Duration::from_secs(10),
            keep: Duration::from_secs(600),
            results_bytes_max: ByteSize::mib(32),
            results_len_max: 16_384,
            memory_report_interval: Duration::from_secs(1),
            health_retry: Duration::from_secs(30),
            pull_retry: Duration::from_millis(500),
        }
    }
}
