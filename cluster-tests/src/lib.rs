//! Fault tests against real processes of the release binary.
//!
//! [`Cluster`] starts schedulers and invokers, [`Relay`] stands between them and cuts who may talk to whom,
//! [`Recorder`] is the history that no fault touches: every run of the test action appends a line to it.
//! Conditions are waited for with deadlines, never slept for. A run in which a fault did not bite is an error,
//! not a pass.

mod calm;
mod chance;
mod cluster;
pub mod damage;
mod disk;
mod driver;
mod durable;
mod figures;
mod limits;
mod load;
mod members;
mod operator;
mod options;
mod placements;
mod power;
mod process;
mod recorder;
mod relay;
mod starts;
mod tally;
pub mod tenants;
mod wait;
mod writes;

pub use calm::pass;
pub use chance::{Chance, drawn, size};
pub use cluster::{Cluster, Member};
pub use disk::{Disk, DiskError, can_make_disks, test_dir};
pub use driver::{Ask, Done, Driver, Outcome};
pub use durable::{DurableLoad, Evidence, Fate, Judgement, Operation, Work, judge, look, resubmit};
pub use figures::{Spread, Usage, jain, machine, percentile};
pub use limits::{SlotWatch, Slots};
pub use load::{Load, LoadReport};
pub use members::Newcomer;
pub use operator::{Answer, ensure_queues};
pub use options::ClusterOptions;
pub use placements::{Placement, PlacementWatch};
pub use process::{Exit, Process, binary, old_binary, worker_of};
pub use recorder::{Recorder, Run};
pub use relay::{Relay, Switchboard};
pub use starts::{Start, Starts};
pub use tally::{Tally, containers_at_once};
pub use wait::{Deadline, until};
pub use writes::{Writes, longest_gap};
