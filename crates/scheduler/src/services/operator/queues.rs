//! `Queues`: the queues that this scheduler leads, once or again at every interval.

use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use whiskraft_proto::v1;

use super::OperatorService;
use crate::shard::{Listing, Order};

/// Queues in one answer if the request names no number.
const LIMIT_DEFAULT: usize = 1000;
/// Most queues in one answer: some megabytes.
const LIMIT_MAX: usize = 10_000;
/// Shortest time between two answers.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Answers that wait for a slow reader: the next is made when there is room, so it is never old.
const ANSWERS_MAX: usize = 1;

type Answers = mpsc::Sender<Result<v1::QueuesResponse, Status>>;

impl OperatorService {
    /// Begins a stream of answers; it ends with its reader, the process, or after the first if no interval is given.
    pub(super) fn open_queues(
        &self,
        request: v1::QueuesRequest,
    ) -> Result<BoxStream<'static, Result<v1::QueuesResponse, Status>>, Status> {
        let permit = std::sync::Arc::clone(&self.streams).try_acquire_owned();
        let permit = permit
            .map_err(|_| Status::resource_exhausted("too many queue streams are open on this scheduler"))?;
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let this = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = this.context.stopping() => {}
                () = answers.closed() => {}
                () = this.answer(&request, &answers) => {}
            }
            drop(permit);
        });
        Ok(ReceiverStream::new(receiver).boxed())
    }

    async fn answer(&self, request: &v1::QueuesRequest, answers: &Answers) {
        let interval = Duration::from_millis(request.interval_ms.into()).max(INTERVAL_MIN);
        let mut interval = tokio::time::interval(interval);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let Ok(room) = answers.reserve().await else {
                return;
            };
            let answer = self.list(request).await;
            let is_last = answer.is_err() || request.interval_ms == 0;
            room.send(answer);
            if is_last {
                return;
            }
        }
    }

    async fn list(&self, request: &v1::QueuesRequest) -> Result<v1::QueuesResponse, Status> {
        let limit = match usize::try_from(request.limit).unwrap_or(usize::MAX) {
            0 => LIMIT_DEFAULT,
            limit => limit.min(LIMIT_MAX),
        };
        let listing = Listing::new(Order::LongestWaiting, limit).filtered(request);
        let listing = self.walk(listing).await?;
        Ok(v1::QueuesResponse {
            scheduler: self.context.node.id().0,
            queues_total: listing.queues,
            queues_matching: listing.matching,
            waiting_total: listing.waiting,
            fenced: !self.context.fence.allows(self.context.clock.now()),
            queues: listing.into_queues(),
        })
    }
}
