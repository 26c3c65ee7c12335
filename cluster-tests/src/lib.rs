//! Fault tests against real processes of the release binary.
//!
//! [`Cluster`] starts schedulers and invokers, [`Relay`] stands between them and cuts who may talk to whom,
//! [`Recorder`] is the history that no fault touches: every run of the test action appends a line to it.
//! Conditions are waited for with deadlines, never slept for. A run in which a fault did not bite is an error,
//! not a pass.

mod cluster;
mod limits;
mod load;
mod process;
mod recorder;
mod relay;
mod wait;

pub use cluster::{Cluster, ClusterOptions, Member};
pub use limits::{SlotWatch, Slots};
pub use load::{Load, LoadReport, percentile};
pub use process::{Exit, Process, binary};
pub use recorder::{Recorder, Run};
pub use relay::{Relay, Switchboard};
pub use wait::{Deadline, until};
