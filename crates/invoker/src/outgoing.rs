//! Hot path: what one turn of the actor says to schedulers, as one frame per scheduler.
//!
//! Invariant: outputs of one kind reach a scheduler in the order the pool gave them, as far as the order matters
//! (see `frames`).

use std::collections::BTreeMap;

use whiskraft_pool::{MemoryUse, Output as PoolOutput, Report};
use whiskraft_proto::{activation_id_bytes, v1};
use whiskraft_types::{Instant, SchedulerId};

use crate::actor::Link;
use crate::frames::Frame;
use crate::wire;
use crate::words::Output;

/// Frames of this turn.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    pull: BTreeMap<SchedulerId, Vec<v1::PullUp>>,
    control: BTreeMap<SchedulerId, v1::ControlUp>,
}

impl Outgoing {
    /// Takes an output for a pull stream in; gives back any other.
    pub(crate) fn push(&mut self, output: Output) -> Option<Output> {
        let mut frame = v1::PullUp::default();
        let to = match output {
            PoolOutput::Credit {
                to,
                container,
                key,
                epoch,
                count,
                warmed,
            } => {
                frame.credits.push(v1::Credit {
                    container: Some(container.into()),
                    key: Some((&key).into()),
                    epoch: epoch.0,
                    count,
                    warmed,
                });
                to
            }
            PoolOutput::Started {
                to,
                id,
                container,
                epoch,
            } => {
                frame.started.push(v1::Started {
                    id: activation_id_bytes(id),
                    container: Some(container.into()),
                    epoch: epoch.0,
                });
                to
            }
            PoolOutput::Completed(completed) => {
                let to = completed.to;
                frame.completed.push(wire::completed(completed));
                to
            }
            PoolOutput::Refused {
                to,
                id,
                container,
                epoch,
                reason,
            } => {
                frame.refused.push(v1::Refused {
                    id: activation_id_bytes(id),
                    container: Some(container.into()),
                    epoch: epoch.0,
                    reason,
                });
                to
            }
            PoolOutput::Withdraw { to, container } => {
                let container = Some(container.into());
                frame.withdraw.push(v1::Withdraw { container });
                to
            }
            PoolOutput::Register(registration) => {
                let to = registration.to;
                frame.registers.push(wire::registration(registration));
                to
            }
            other => return Some(other),
        };
        self.push_pull(to, frame);
        None
    }

    fn push_pull(&mut self, to: SchedulerId, frame: v1::PullUp) {
        let frames = self.pull.entry(to).or_default();
        let apart = match frames.last_mut() {
            Some(last) => last.merge(frame),
            None => Some(frame),
        };
        frames.extend(apart);
    }

    pub(crate) fn keepalive(&mut self, to: SchedulerId, seq: u64) {
        self.control.entry(to).or_default().keepalive = Some(v1::Keepalive { seq });
    }

    pub(crate) fn memory(&mut self, to: SchedulerId, memory: MemoryUse) {
        self.control.entry(to).or_default().memory = Some(wire::memory(memory));
    }

    pub(crate) fn leaving(&mut self, to: SchedulerId) {
        self.control.entry(to).or_default().leaving = Some(v1::Leaving {});
    }

    pub(crate) fn report(&mut self, to: SchedulerId, report: Report) {
        self.control
            .entry(to)
            .or_default()
            .reports
            .push(wire::report(report));
    }

    /// Hands the frames to the links. What a closed link misses is said again when it opens; a link that takes no
    /// more is cut for the same effect.
    pub(crate) fn flush(&mut self, now: Instant, links: &mut BTreeMap<SchedulerId, Link>) {
        for (to, frames) in &mut self.pull {
            for frame in frames.drain(..) {
                let Some(up) = links.get(to).and_then(|link| link.up.as_ref()) else {
                    continue;
                };
                if up.pull.try_send(frame).is_err() {
                    cut(now, *to, links);
                }
            }
        }
        for (to, frame) in std::mem::take(&mut self.control) {
            let Some(up) = links.get(&to).and_then(|link| link.up.as_ref()) else {
                continue;
            };
            if up.control.try_send(frame).is_err() {
                cut(now, to, links);
            }
        }
    }
}

/// Drops the sending ends: both streams end, and the link's task opens new ones.
fn cut(now: Instant, to: SchedulerId, links: &mut BTreeMap<SchedulerId, Link>) {
    if let Some(link) = links.get_mut(&to) {
        tracing::warn!(scheduler = %to, at = ?now.since_origin(), "link takes no more frames and is cut");
        link.up = None;
    }
}
