//! Counters of one client.

/// What a client has done since it was made, and what it holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Activations taken from the caller.
    pub submitted: u64,
    /// Times an activation was sent again after its stream or its leader was lost.
    pub resubmitted: u64,
    /// Times an activation was sent again after a rejection that asked for it.
    pub retried: u64,
    /// Activations that ended with a record.
    pub completed: u64,
    /// Activations that ended with an error.
    pub failed: u64,
    /// Durably accepted activations that nobody here waited for any more; the cluster goes on with them.
    pub forgotten: u64,
    /// Results for activations that had ended or were forgotten already; dropped.
    pub results_late: u64,
    /// `EnsureQueue` requests.
    pub ensures: u64,
    /// Streams to schedulers that were lost.
    pub streams_lost: u64,
    /// Activations without a result now.
    pub unfinished: usize,
    /// Bytes of their arguments.
    pub unfinished_bytes: u64,
}
