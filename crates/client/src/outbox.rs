//! Hot path: what waits to go out on one Submit stream.
//!
//! The actor puts submissions in; the HTTP/2 connection takes them out as one frame whenever it can write, so a
//! frame holds exactly what was ready. Submissions never wait for more and are bounded by the stream's window. Nobody waits
//! for a receipt: it goes along with the next submission, or the actor sees to it a moment later. Receipts are bounded by the
//! results that came in.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::Stream;
use whiskraft_proto::{activation_id_bytes, v1};
use whiskraft_types::ActivationId;

/// Payload bytes after which a frame is closed; with one payload of 1 MiB more it stays below gRPC's 4 MiB.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Submissions in one frame: enough for the best throughput, little enough to start decoding early.
const FRAME_SUBMISSIONS_MAX: usize = 256;
/// Receipts in one frame, 18 bytes each.
const FRAME_RECEIPTS_MAX: usize = 4096;
/// Receipts that do not wait for a submission.
const RECEIPTS_MAX: usize = 64;

/// Shared by the actor, which fills it, and the stream that is open now, which empties it.
#[derive(Debug, Default)]
pub(crate) struct Outbox(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Life of the stream that may take from here; `None` while none is open.
    generation: Option<u64>,
    hello: Option<v1::SubmitHello>,
    submissions: VecDeque<(ActivationId, v1::Submission)>,
    received: VecDeque<Bytes>,
    /// Whether receipts have waited long enough.
    is_due: bool,
    /// Whether the stream ends once it is empty.
    is_finished: bool,
    waker: Option<Waker>,
}

impl Outbox {
    /// Starts a new life with its first frame; the stream of frames ends when that life does.
    pub(crate) fn open(self: &Arc<Self>, generation: u64, hello: v1::SubmitHello) -> Frames {
        let mut state = self.lock();
        *state = State {
            generation: Some(generation),
            hello: Some(hello),
            ..State::default()
        };
        Frames {
            outbox: Arc::clone(self),
            generation,
        }
    }

    /// Ends the life; what was never taken certainly was not sent.
    pub(crate) fn close(&self) -> Vec<ActivationId> {
        let mut state = self.lock();
        state.generation = None;
        state.received.clear();
        state.wake();
        state.submissions.drain(..).map(|(id, _)| id).collect()
    }

    /// Puts a submission in; dropped if the stream has had another life since.
    pub(crate) fn submit(&self, generation: u64, id: ActivationId, submission: v1::Submission) {
        self.put(generation, |state| {
            state.submissions.push_back((id, submission));
            true
        });
    }

    /// Puts a receipt in; dropped if the stream has had another life since, the result then comes again.
    pub(crate) fn received(&self, generation: u64, id: ActivationId) {
        self.put(generation, |state| {
            state.received.push_back(activation_id_bytes(id));
            state.has_urgent()
        });
    }

    /// Lets receipts go that still wait.
    pub(crate) fn end_quiet(&self) {
        let mut state = self.lock();
        if !state.received.is_empty() {
            state.is_due = true;
            state.wake();
        }
    }

    /// Lets receipts go and ends the stream after them; whether somebody reads it. Submissions stay: nobody waits for them
    /// any more.
    pub(crate) fn finish(&self) -> bool {
        let mut state = self.lock();
        state.is_finished = true;
        state.submissions.clear();
        state.wake();
        state.generation.is_some() && state.hello.is_none()
    }

    /// Whether it has been [finished](Outbox::finish).
    pub(crate) fn is_finished(&self) -> bool {
        self.lock().is_finished
    }

    /// Puts something in; it says whether it is to go at once.
    fn put(&self, generation: u64, put: impl FnOnce(&mut State) -> bool) {
        let mut state = self.lock();
        if state.generation == Some(generation) && put(&mut state) {
            state.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Whether there is something that is not to wait.
    fn has_urgent(&self) -> bool {
        let is_waited_for = self.hello.is_some() || !self.submissions.is_empty();
        is_waited_for || self.is_due || self.is_finished || self.received.len() >= RECEIPTS_MAX
    }

    fn next_frame(&mut self) -> Option<v1::SubmitFrame> {
        if !self.has_urgent() {
            return None;
        }
        let hello = self.hello.take();
        let receipts = self.received.len().min(FRAME_RECEIPTS_MAX);
        let received: Vec<_> = self.received.drain(..receipts).collect();
        let mut bytes = 0;
        let mut submissions = Vec::new();
        while submissions.len() < FRAME_SUBMISSIONS_MAX
            && bytes < FRAME_BYTES_MAX
            && let Some((_, submission)) = self.submissions.pop_front()
        {
            bytes += submission.payload.len();
            submissions.push(submission);
        }
        self.is_due &= !self.received.is_empty();
        let is_empty = hello.is_none() && received.is_empty() && submissions.is_empty();
        (!is_empty).then_some(v1::SubmitFrame {
            hello,
            submissions,
            received,
        })
    }
}

/// The frames of one life, taken by the connection when it can write.
#[derive(Debug)]
pub(crate) struct Frames {
    outbox: Arc<Outbox>,
    generation: u64,
}

impl Stream for Frames {
    type Item = v1::SubmitFrame;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.outbox.lock();
        if state.generation != Some(self.generation) {
            return Poll::Ready(None);
        }
        match state.next_frame() {
            Some(frame) => Poll::Ready(Some(frame)),
            None if state.is_finished => Poll::Ready(None),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    fn id(n: u8) -> ActivationId {
        ActivationId::from_bytes([n; 16])
    }

    fn submission(len: usize) -> v1::Submission {
        v1::Submission {
            payload: vec![b' '; len].into(),
            ..Default::default()
        }
    }

    fn opened() -> (Arc<Outbox>, Frames) {
        let outbox = Arc::new(Outbox::default());
        let mut frames = outbox.open(1, v1::SubmitHello::default());
        assert!(frames.next().now_or_never().flatten().unwrap().hello.is_some());
        (outbox, frames)
    }

    #[test]
    fn a_frame_holds_whatever_was_ready_in_order() {
        let (outbox, mut frames) = opened();
        for n in 0..10 {
            outbox.submit(1, id(n), submission(usize::from(n)));
        }
        outbox.received(1, id(77));
        let frame = frames.next().now_or_never().flatten().unwrap();
        assert!(frame.hello.is_none());
        assert_eq!(
            frame
                .submissions
                .iter()
                .map(|s| s.payload.len())
                .collect::<Vec<_>>(),
            (0..10).collect::<Vec<_>>()
        );
        assert_eq!(frame.received, [activation_id_bytes(id(77))]);
        assert!(frames.next().now_or_never().is_none(), "nothing left");
    }

    #[test]
    fn receipts_wait_for_a_submission_for_company_or_until_they_are_due() {
        let (outbox, mut frames) = opened();
        let mut received = move |outbox: &Outbox, n: u8| {
            outbox.received(1, id(n));
            let frame = frames.next().now_or_never().flatten();
            frame.map_or(0, |frame| frame.received.len())
        };
        assert_eq!(received(&outbox, 1), 0);
        outbox.submit(1, id(2), submission(1));
        assert_eq!(received(&outbox, 3), 2);
        assert_eq!(received(&outbox, 4), 0);
        outbox.end_quiet();
        assert_eq!(received(&outbox, 5), 2);
        for n in 1..RECEIPTS_MAX {
            assert_eq!(received(&outbox, 6), 0, "{n}");
        }
        assert_eq!(received(&outbox, 7), RECEIPTS_MAX);
    }

    #[test]
    fn what_is_there_leaves_before_a_finished_stream_ends() {
        let (outbox, mut frames) = opened();
        assert!(!outbox.is_finished());
        outbox.received(1, id(1));
        outbox.submit(1, id(2), submission(1));
        assert!(outbox.finish() && outbox.is_finished());
        let frame = frames.next().now_or_never().flatten().unwrap();
        assert_eq!((frame.received.len(), frame.submissions.len()), (1, 0));
        assert_eq!(frames.next().now_or_never(), Some(None));
        outbox.close();
        assert!(!outbox.finish(), "nobody reads it");
        let _frames = outbox.open(2, v1::SubmitHello::default());
        assert!(!outbox.finish(), "nobody reads it yet");
    }

    #[test]
    fn large_payloads_are_spread_over_frames() {
        let (outbox, mut frames) = opened();
        for n in 0..3 {
            outbox.submit(1, id(n), submission(FRAME_BYTES_MAX));
        }
        for _ in 0..3 {
            assert_eq!(
                frames.next().now_or_never().flatten().unwrap().submissions.len(),
                1
            );
        }
    }

    #[test]
    fn closing_returns_what_was_never_taken_and_ends_the_frames() {
        let (outbox, mut frames) = opened();
        outbox.submit(1, id(1), submission(1));
        assert!(frames.next().now_or_never().flatten().is_some());
        outbox.submit(1, id(2), submission(1));
        assert_eq!(outbox.close(), [id(2)]);
        assert_eq!(frames.next().now_or_never(), Some(None));
        outbox.submit(1, id(3), submission(1));
        assert!(
            outbox.close().is_empty(),
            "a submission for an ended life is dropped"
        );
    }
}
