//! Hot path: records on their way out, one per message or what is ready together; nothing waits for a fuller one.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use clap::ValueEnum;
use futures::Stream;
use serde::Serialize;
use tokio::sync::mpsc;

use super::IN_FLIGHT_MAX;

/// Most records of one message, where they share one.
const TOGETHER_MAX: usize = 64;

/// How many records one gRPC message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PerFrame {
    /// Nothing is shared
    One,
    /// All that is ready when the connection can write, at most 64
    Ready,
}

impl PerFrame {
    /// As it is written on the command line.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Ready => "ready",
        }
    }

    const fn max(self) -> usize {
        match self {
            Self::One => 1,
            Self::Ready => TOGETHER_MAX,
        }
    }
}

/// A message that carries records.
pub(super) trait Frame {
    /// What it carries.
    type Record;
    /// The message of these.
    fn of(records: Vec<Self::Record>) -> Self;
}

/// The stream that tonic reads.
#[derive(Debug)]
pub(super) struct Frames<F: Frame> {
    first: Option<F>,
    records: mpsc::Receiver<F::Record>,
    max: usize,
}

impl<F: Frame> Frames<F> {
    /// A stream that begins with this message, and where its records are put in.
    pub(super) fn new(first: F, per_frame: PerFrame) -> (mpsc::Sender<F::Record>, Self) {
        let (sender, records) = channel();
        (sender, Self::over(first, records, per_frame))
    }

    /// The same over the end of a [channel].
    pub(super) const fn over(first: F, records: mpsc::Receiver<F::Record>, per_frame: PerFrame) -> Self {
        Self {
            first: Some(first),
            records,
            max: per_frame.max(),
        }
    }
}

/// Room for all that is in flight.
pub(super) fn channel<T>() -> (mpsc::Sender<T>, mpsc::Receiver<T>) {
    mpsc::channel(IN_FLIGHT_MAX as usize)
}

impl<F: Frame + Unpin> Stream for Frames<F> {
    type Item = F;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<F>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(first));
        }
        let mut records = Vec::with_capacity(this.records.len().clamp(1, this.max));
        let count = ready!(this.records.poll_recv_many(context, &mut records, this.max));
        Poll::Ready((count > 0).then(|| F::of(records)))
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    impl Frame for Vec<u32> {
        type Record = u32;

        fn of(records: Self) -> Self {
            records
        }
    }

    async fn lens(per_frame: PerFrame) -> Vec<usize> {
        let (sender, frames) = Frames::<Vec<u32>>::new(Vec::new(), per_frame);
        (0..100).for_each(|n| sender.try_send(n).unwrap());
        drop(sender);
        frames.map(|frame| frame.len()).collect().await
    }

    #[tokio::test]
    async fn a_frame_has_one_record_or_what_is_ready() {
        assert_eq!(lens(PerFrame::Ready).await, [0, 64, 36], "the hello comes first");
        assert_eq!(lens(PerFrame::One).await.len(), 101);
    }
}
