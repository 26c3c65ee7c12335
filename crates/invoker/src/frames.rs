//! Frames on their way to schedulers: whatever is ready goes out as one message, and never waits for more.
//!
//! Hot path: one channel hop per actor turn and scheduler, merging moves vectors only.
//! Invariant: registrations and withdraws share a frame only with their like, so that the order in which a
//! scheduler reads the lists of one frame does not matter.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::sync::mpsc;
use whiskraft_proto::v1;

/// Estimated bytes at which a frame takes nothing more; large results must not hold up small messages for long.
const FRAME_BYTES: usize = 1 << 20;
/// Estimated bytes of a message without payload.
const SMALL: usize = 96;

/// A message that can take in the next one.
pub(crate) trait Frame: Sized + Default {
    /// Takes `next` in, or gives it back if it must stay behind in a frame of its own.
    fn merge(&mut self, next: Self) -> Option<Self>;
    /// Estimated bytes.
    fn weight(&self) -> usize;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PullClass {
    Hello,
    Ordinary,
    Withdraw,
    Register,
}

fn pull_class(frame: &v1::PullUp) -> PullClass {
    if frame.hello.is_some() {
        PullClass::Hello
    } else if !frame.registers.is_empty() {
        PullClass::Register
    } else if !frame.withdraw.is_empty() {
        PullClass::Withdraw
    } else {
        PullClass::Ordinary
    }
}

impl Frame for v1::PullUp {
    fn merge(&mut self, next: Self) -> Option<Self> {
        if pull_class(self) != pull_class(&next) || next.hello.is_some() {
            return Some(next);
        }
        self.credits.extend(next.credits);
        self.started.extend(next.started);
        self.completed.extend(next.completed);
        self.refused.extend(next.refused);
        self.withdraw.extend(next.withdraw);
        self.registers.extend(next.registers);
        None
    }

    fn weight(&self) -> usize {
        let record = |record: &v1::ActivationRecord| {
            SMALL + record.result.len() + record.logs.iter().map(String::len).sum::<usize>()
        };
        let completed: usize = self
            .completed
            .iter()
            .filter_map(|completed| completed.record.as_ref())
            .map(record)
            .sum();
        let registers: usize = self
            .registers
            .iter()
            .map(|register| {
                register.unacknowledged.iter().map(record).sum::<usize>() + SMALL * register.containers.len()
            })
            .sum();
        let small = self.credits.len() + self.started.len() + self.refused.len() + self.withdraw.len();
        completed + registers + SMALL * small
    }
}

impl Frame for v1::ControlUp {
    fn merge(&mut self, next: Self) -> Option<Self> {
        if self.hello.is_some() || next.hello.is_some() {
            return Some(next);
        }
        self.keepalive = next.keepalive.or(self.keepalive);
        self.memory = next.memory.or(self.memory);
        self.leaving = next.leaving.or(self.leaving);
        self.reports.extend(next.reports);
        None
    }

    fn weight(&self) -> usize {
        SMALL * (1 + self.reports.len())
    }
}

/// The stream that tonic reads: everything that waits when it asks becomes one frame.
#[derive(Debug)]
pub(crate) struct Merged<T> {
    frames: mpsc::Receiver<T>,
    held: Option<T>,
}

impl<T> Merged<T> {
    pub(crate) fn new(frames: mpsc::Receiver<T>) -> Self {
        Self { frames, held: None }
    }
}

impl<T: Frame + Unpin> Stream for Merged<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let this = self.get_mut();
        let first = match this.held.take() {
            Some(held) => Some(held),
            None => ready!(this.frames.poll_recv(context)),
        };
        let Some(mut frame) = first else {
            return Poll::Ready(None);
        };
        let mut weight = frame.weight();
        while weight < FRAME_BYTES {
            let Ok(next) = this.frames.try_recv() else { break };
            weight += next.weight();
            if let Some(apart) = frame.merge(next) {
                this.held = Some(apart);
                break;
            }
        }
        Poll::Ready(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn credit(seq: u64) -> v1::PullUp {
        let container = Some(v1::ContainerId { session: 1, seq });
        v1::PullUp {
            credits: vec![v1::Credit {
                container,
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn withdraw(seq: u64) -> v1::PullUp {
        let container = Some(v1::ContainerId { session: 1, seq });
        v1::PullUp {
            withdraw: vec![v1::Withdraw { container }],
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn what_waits_goes_out_together_and_barriers_stay_apart() {
        let (sender, receiver) = mpsc::channel(16);
        for frame in [credit(1), credit(2), withdraw(1), withdraw(2), credit(3)] {
            sender.try_send(frame).unwrap();
        }
        drop(sender);
        let shape: Vec<(usize, usize)> = Merged::new(receiver)
            .map(|frame| (frame.credits.len(), frame.withdraw.len()))
            .collect()
            .await;
        assert_eq!(shape, [(2, 0), (0, 2), (1, 0)]);
    }

    #[tokio::test]
    async fn large_results_are_not_piled_up() {
        let (sender, receiver) = mpsc::channel(16);
        for _ in 0..3 {
            let record = v1::ActivationRecord {
                result: vec![0; FRAME_BYTES].into(),
                ..Default::default()
            };
            let completed = v1::Completed {
                record: Some(record),
                ..Default::default()
            };
            sender
                .try_send(v1::PullUp {
                    completed: vec![completed],
                    ..Default::default()
                })
                .unwrap();
        }
        drop(sender);
        assert_eq!(Merged::new(receiver).count().await, 3);
    }
}
