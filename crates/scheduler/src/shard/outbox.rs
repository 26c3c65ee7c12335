//! Hot path: what one turn of a shard has to say to streams, batched per stream.
//! Budget per activation: one push into a vector that the stream takes whole; no lock, no copy of payloads.
//!
//! What nobody waits for is quiet: it goes along with the next item that somebody does, or together after a moment.

use std::collections::BTreeMap;
use std::time::Duration;

use whiskraft_queue::ControllerId;
use whiskraft_types::{Instant, InvokerId, SessionId};

use crate::context::StreamId;
use crate::message::{PullItem, ResultItem, StreamEnd};

/// Longest time that a quiet item waits for company.
pub(crate) const QUIET_MAX: Duration = Duration::from_millis(10);
/// Quiet items of one stream that are company enough.
pub(crate) const QUIET_ITEMS: usize = 64;

/// Streams that this shard can reach, and what is about to leave on them.
#[derive(Default)]
pub(crate) struct Outbox {
    controllers: BTreeMap<ControllerId, Lane<ResultItem>>,
    invokers: BTreeMap<InvokerId, (SessionId, Lane<PullItem>)>,
    /// Lanes that hold items: a turn touches few of many.
    touched_controllers: Vec<ControllerId>,
    touched_invokers: Vec<InvokerId>,
    /// When lanes that hold nothing but quiet items are emptied.
    quiet_until: Option<Instant>,
}

struct Lane<T> {
    end: StreamEnd<T>,
    items: Vec<T>,
    /// Whether it is emptied at the end of the turn.
    is_touched: bool,
}

impl<T> Lane<T> {
    const fn new(end: StreamEnd<T>) -> Self {
        Self {
            end,
            items: Vec::new(),
            is_touched: false,
        }
    }
}

impl Outbox {
    /// A stream of a controller opens, and ends the one that was there. Streams that a process finds when it wakes from a
    /// standstill come in any order: an end that the controller has given up long ago may come after the one that it reads.
    /// Cut, that one is opened again; left alone, it would wait for answers that go to nobody.
    pub(crate) fn open_controller(&mut self, controller: ControllerId, end: StreamEnd<ResultItem>) {
        if let Some(old) = self.controllers.insert(controller, Lane::new(end)) {
            old.end.cut.notify_one();
        }
    }

    pub(crate) fn close_controller(&mut self, controller: ControllerId, stream: StreamId) {
        if self
            .controllers
            .get(&controller)
            .is_some_and(|lane| lane.end.stream == stream)
        {
            self.controllers.remove(&controller);
        }
    }

    /// A stream of an invoker opens; false if it replaces one.
    pub(crate) fn open_invoker(
        &mut self,
        invoker: InvokerId,
        session: SessionId,
        end: StreamEnd<PullItem>,
    ) -> bool {
        let old = self.invokers.insert(invoker, (session, Lane::new(end)));
        if let Some((_, lane)) = &old {
            lane.end.cut.notify_one();
        }
        old.is_none()
    }

    /// Forgets an invoker's stream if it is this one; whether it was.
    pub(crate) fn close_invoker(&mut self, invoker: InvokerId, stream: StreamId) -> bool {
        let is_current = self.is_current(invoker, stream);
        if is_current {
            self.invokers.remove(&invoker);
        }
        is_current
    }

    /// Ends an invoker's stream if it is this one; whether it was.
    pub(crate) fn cut_invoker(&mut self, invoker: InvokerId, stream: StreamId) -> bool {
        let is_current = self.is_current(invoker, stream);
        if is_current && let Some((_, lane)) = self.invokers.remove(&invoker) {
            lane.end.cut.notify_one();
        }
        is_current
    }

    /// Ends an invoker's stream if it is of this session.
    pub(crate) fn cut_session(&mut self, session: SessionId) {
        let of_session = self.invokers.iter().find(|(_, (other, _))| *other == session);
        if let Some(invoker) = of_session.map(|(invoker, _)| *invoker)
            && let Some((_, lane)) = self.invokers.remove(&invoker)
        {
            lane.end.cut.notify_one();
        }
    }

    /// Ends the streams of all sessions that are said to have ended; gives their invokers.
    pub(crate) fn cut_ended(&mut self, has_ended: impl Fn(SessionId) -> bool) -> Vec<InvokerId> {
        let mut cut = Vec::new();
        self.invokers.retain(|invoker, (session, lane)| {
            let ends = has_ended(*session);
            if ends {
                lane.end.cut.notify_one();
                cut.push(*invoker);
            }
            !ends
        });
        cut
    }

    pub(crate) fn is_current(&self, invoker: InvokerId, stream: StreamId) -> bool {
        self.invokers
            .get(&invoker)
            .is_some_and(|(_, lane)| lane.end.stream == stream)
    }

    pub(crate) fn is_connected(&self, invoker: InvokerId) -> bool {
        self.invokers.contains_key(&invoker)
    }

    /// For a controller; dropped if it is away: it submits again when it is back, and the ledger answers.
    pub(crate) fn result(&mut self, controller: ControllerId, item: ResultItem) {
        if let Some(lane) = self.controllers.get_mut(&controller) {
            if !std::mem::replace(&mut lane.is_touched, true) {
                self.touched_controllers.push(controller);
            }
            lane.items.push(item);
        }
    }

    /// For an invoker; dropped if its stream is broken: its next `Register` settles what it did not get.
    pub(crate) fn pull(&mut self, invoker: InvokerId, item: PullItem) {
        if let Some((_, lane)) = self.invokers.get_mut(&invoker) {
            if !std::mem::replace(&mut lane.is_touched, true) {
                self.touched_invokers.push(invoker);
            }
            lane.items.push(item);
        }
    }

    /// For an invoker that does not wait for it.
    pub(crate) fn pull_quietly(&mut self, now: Instant, invoker: InvokerId, item: PullItem) {
        let Some((_, lane)) = self.invokers.get_mut(&invoker) else {
            return;
        };
        lane.items.push(item);
        if lane.is_touched {
            return;
        }
        if lane.items.len() >= QUIET_ITEMS {
            lane.is_touched = true;
            self.touched_invokers.push(invoker);
        } else {
            self.quiet_until.get_or_insert(now + QUIET_MAX);
        }
    }

    /// When quiet items have waited long enough.
    pub(crate) const fn quiet_until(&self) -> Option<Instant> {
        self.quiet_until
    }

    /// Lets quiet items go at the end of this turn, if they have waited long enough.
    pub(crate) fn end_quiet(&mut self, now: Instant) {
        if self.quiet_until.is_none_or(|until| until > now) {
            return;
        }
        self.quiet_until = None;
        for (invoker, (_, lane)) in &mut self.invokers {
            if !lane.items.is_empty() && !std::mem::replace(&mut lane.is_touched, true) {
                self.touched_invokers.push(*invoker);
            }
        }
    }

    /// Hands every batch to its stream; gives the invokers whose streams do not take any more and were cut.
    pub(crate) fn flush(&mut self) -> Vec<InvokerId> {
        for controller in self.touched_controllers.drain(..) {
            let Some(lane) = self.controllers.get_mut(&controller) else {
                continue;
            };
            lane.is_touched = false;
            if !lane.end.send(std::mem::take(&mut lane.items)) {
                tracing::warn!(%controller, "controller does not read its results, stream cut");
                self.controllers.remove(&controller);
            }
        }
        let mut cut = Vec::new();
        for invoker in self.touched_invokers.drain(..) {
            let Some((_, lane)) = self.invokers.get_mut(&invoker) else {
                continue;
            };
            lane.is_touched = false;
            if !lane.end.send(std::mem::take(&mut lane.items)) {
                tracing::warn!(%invoker, "invoker does not read its deliveries, stream cut");
                self.invokers.remove(&invoker);
                cut.push(invoker);
            }
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use tokio::sync::{Notify, mpsc};
    use whiskraft_types::ActivationId;

    use super::*;

    /// The two ends of a stream, and what cuts it.
    fn stream<T>(number: u64) -> (StreamEnd<T>, Arc<Notify>, mpsc::Receiver<Vec<T>>) {
        let (items, receiver) = mpsc::channel(8);
        let cut = Arc::new(Notify::new());
        let end = StreamEnd {
            stream: StreamId(number),
            items,
            cut: Arc::clone(&cut),
        };
        (end, cut, receiver)
    }

    fn open(outbox: &mut Outbox, number: u64) -> (Arc<Notify>, mpsc::Receiver<Vec<PullItem>>) {
        let (end, cut, receiver) = stream(number);
        outbox.open_invoker(InvokerId(number), SessionId(100 + number), end);
        (cut, receiver)
    }

    #[test]
    fn a_controllers_stream_ends_the_one_before_it_whichever_is_the_newer() {
        let mut outbox = Outbox::default();
        let controller = ControllerId([7; 16]);
        let mut open = |number| {
            let (end, cut, receiver) = stream(number);
            outbox.open_controller(controller, end);
            (cut, receiver)
        };
        // The one that is read, and one that was given up before it and comes after it.
        let (read, _answers) = open(2);
        let (given_up, _nobody) = open(1);
        assert!(read.notified().now_or_never().is_some(), "it is opened again");
        let (again, _answers) = open(3);
        assert!(given_up.notified().now_or_never().is_some());
        outbox.close_controller(controller, StreamId(1));
        assert!(again.notified().now_or_never().is_none());
        assert!(outbox.controllers.contains_key(&controller), "the last one stays");
    }

    fn ack(n: u8) -> PullItem {
        PullItem::CompletedAck(ActivationId::from_bytes([n; 16]))
    }

    fn at(ms: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(ms))
    }

    #[test]
    fn quiet_items_wait_for_company_or_for_a_moment_and_keep_their_order() {
        let mut outbox = Outbox::default();
        let (_cut, mut items) = open(&mut outbox, 1);
        let mut sent = |outbox: &mut Outbox| {
            assert!(outbox.flush().is_empty());
            items.try_recv().map_or(0, |items| items.len())
        };
        outbox.pull_quietly(at(0), InvokerId(1), ack(1));
        assert_eq!((sent(&mut outbox), outbox.quiet_until()), (0, Some(at(10))));
        outbox.pull(InvokerId(1), ack(2));
        outbox.pull_quietly(at(5), InvokerId(1), ack(3));
        assert_eq!(sent(&mut outbox), 3, "what somebody waits for takes all along");
        outbox.pull_quietly(at(6), InvokerId(1), ack(4));
        outbox.end_quiet(at(9));
        assert_eq!(sent(&mut outbox), 0);
        outbox.end_quiet(at(10));
        assert_eq!((sent(&mut outbox), outbox.quiet_until()), (1, None));
        for n in 0..QUIET_ITEMS {
            assert_eq!(sent(&mut outbox), 0, "{n}");
            outbox.pull_quietly(at(20), InvokerId(1), ack(5));
        }
        assert_eq!(sent(&mut outbox), QUIET_ITEMS);
    }

    #[test]
    fn streams_of_ended_sessions_are_cut_and_no_others() {
        let mut outbox = Outbox::default();
        let (ended, _ended_items) = open(&mut outbox, 1);
        let (live, _live_items) = open(&mut outbox, 2);
        assert_eq!(
            outbox.cut_ended(|session| session == SessionId(101)),
            [InvokerId(1)]
        );
        assert!(!outbox.is_connected(InvokerId(1)) && outbox.is_connected(InvokerId(2)));
        assert!(ended.notified().now_or_never().is_some());
        assert!(live.notified().now_or_never().is_none());
    }
}
