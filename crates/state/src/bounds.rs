//! How large the parts of a command may be. What is over a bound is refused, so that no proposer can make the
//! tables, a log entry or the time of one `apply` grow without limit.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Longest body of a document: a payload of 1 MiB, OpenWhisk's limit, with room for what surrounds it.
pub const DOCUMENT_LEN_MAX: usize = (1 << 20) + (64 << 10);

/// Longest blob: OpenWhisk's 48 MiB for the code of an action.
pub const BLOB_LEN_MAX: u64 = 48 << 20;

/// Most containers in one slot request; a queue that wants more asks again.
pub const SLOTS_PER_REQUEST_MAX: u32 = 10_000;

/// Shortest time to live of a session: under it a slow disk or a pause of the network ends it.
pub const TTL_MIN: Duration = Duration::from_millis(100);

/// Longest time to live of a session: a dead process holds what hangs on it for so long.
pub const TTL_MAX: Duration = Duration::from_secs(3600);

/// Least and greatest weight of a namespace.
pub(crate) const WEIGHT_RANGE: RangeInclusive<u32> = 1..=10_000;

/// Least and greatest over-provision of a namespace: none, and ten times its containers.
pub(crate) const OVER_PROVISION_RANGE: RangeInclusive<u32> = 100..=1000;

/// Longest address, zone, version, tag or kind in bytes; a host name has 253.
pub(crate) const TEXT_LEN_MAX: usize = 300;

/// Longest name of a document in bytes: two segments of 256 and the slash between them.
pub(crate) const DOCUMENT_NAME_LEN_MAX: usize = 513;

/// Most tags, kinds or dedicated namespaces of an invoker.
pub(crate) const PROFILE_LIST_LEN_MAX: usize = 256;

/// Most blobs of one document.
pub(crate) const BLOBS_PER_DOCUMENT_MAX: usize = 64;
