//! One subscription: reads a Watch stream, and opens it again elsewhere, without gap or repetition, when it breaks.

use std::sync::Arc;

use tonic::Streaming;
use whiskraft_proto::v1::watch_client::WatchClient;
use whiskraft_proto::v1::watch_frame::Frame;
use whiskraft_proto::{MESSAGE_LEN_MAX, v1};
use whiskraft_types::LogRevision;

use super::{Table, WatchEvent, WatchUpdate};
use crate::backoff::Backoff;
use crate::directory::Class;
use crate::shared::Shared;
use crate::stream::describe;

/// A subscription to some tables.
pub(crate) struct Subscription {
    shared: Arc<Shared>,
    tables: Vec<Table>,
    class: Class,
    /// Everything up to here has been handed out; `None`: nothing, so a snapshot is needed.
    after: Option<LogRevision>,
    /// Whether part of a snapshot has been handed out, and not its end.
    in_snapshot: bool,
    /// Where the open stream was asked to go on; what it repeats from before is dropped.
    resumed_after: Option<LogRevision>,
    stream: Option<Streaming<v1::WatchFrame>>,
    /// Who sends it.
    address: String,
    backoff: Backoff,
}

impl Subscription {
    /// Over connections of this class. Those of the SDK's own watch must not be filled by watches that nobody reads.
    pub(crate) fn new(
        shared: Arc<Shared>,
        tables: Vec<Table>,
        after: Option<LogRevision>,
        class: Class,
    ) -> Self {
        Self {
            shared,
            tables,
            class,
            after,
            in_snapshot: false,
            resumed_after: None,
            stream: None,
            address: String::new(),
            backoff: Backoff::default(),
        }
    }

    /// The next update; each interruption on the way is told to `interrupted`.
    pub(crate) async fn next(&mut self, interrupted: impl Fn(&str)) -> WatchUpdate {
        loop {
            let Some(stream) = &mut self.stream else {
                match self.open().await {
                    Ok(()) => {}
                    Err(cause) => {
                        interrupted(&cause);
                        tokio::time::sleep(self.backoff.next()).await;
                    }
                }
                continue;
            };
            let cause = match stream.message().await {
                Ok(Some(frame)) => {
                    self.backoff.reset();
                    match self.on_frame(frame) {
                        Some(update) => return update,
                        None => continue,
                    }
                }
                Ok(None) => "the scheduler ended the watch".to_owned(),
                Err(status) => describe(&status),
            };
            self.shared.directory.watch_failed(&self.address);
            interrupted(&cause);
            tokio::time::sleep(self.backoff.next()).await;
            if let Some(update) = self.on_lost() {
                return update;
            }
        }
    }

    /// Subscribes where this client watches, once.
    ///
    /// # Errors
    /// Says who failed and how.
    pub(crate) async fn open(&mut self) -> Result<(), String> {
        let address = self.shared.directory.to_watch().ok_or("no scheduler is known")?;
        let opened = self.open_at(&address).await;
        if opened.is_err() {
            self.shared.directory.watch_failed(&address);
        }
        self.address = address;
        opened
    }

    async fn open_at(&mut self, address: &str) -> Result<(), String> {
        let channel = self
            .shared
            .directory
            .channel(address, self.class)
            .map_err(|error| error.to_string())?;
        let request = v1::WatchRequest {
            tables: self.tables.iter().map(|table| table.to_wire().into()).collect(),
            after: self.after.map_or(0, |revision| revision.0),
        };
        let mut client = WatchClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX);
        let deadline = self.shared.settings.try_deadline;
        match tokio::time::timeout(deadline, client.watch(request)).await {
            Err(_) => Err(format!("{address} did not answer within {deadline:?}")),
            Ok(Err(status)) => Err(format!("{address}: {}", describe(&status))),
            Ok(Ok(stream)) => {
                self.stream = Some(stream.into_inner());
                self.resumed_after = self.after;
                Ok(())
            }
        }
    }

    fn on_frame(&mut self, frame: v1::WatchFrame) -> Option<WatchUpdate> {
        match frame.frame? {
            Frame::Resync(resync) => {
                // What follows may be older than what was seen elsewhere, and all of it is news.
                (self.after, self.resumed_after) = (None, None);
                self.in_snapshot = false;
                Some(WatchUpdate::Resync {
                    reason: resync.reason,
                })
            }
            Frame::Snapshot(batch) => {
                let revision = LogRevision(batch.revision);
                self.in_snapshot = !batch.last;
                self.after = batch.last.then_some(revision);
                Some(WatchUpdate::Snapshot {
                    revision,
                    events: parse(batch.events),
                    last: batch.last,
                })
            }
            Frame::Events(batch) => {
                let revision = LogRevision(batch.revision);
                // A scheduler that starts earlier than asked repeats what was handed out already.
                if self.resumed_after.is_some_and(|after| revision <= after) {
                    return None;
                }
                self.after = Some(revision);
                Some(WatchUpdate::Changes {
                    revision,
                    events: parse(batch.events),
                })
            }
        }
    }

    /// Half a snapshot cannot be resumed: another scheduler's parts are cut elsewhere.
    fn on_lost(&mut self) -> Option<WatchUpdate> {
        self.stream = None;
        if !std::mem::take(&mut self.in_snapshot) {
            return None;
        }
        self.after = None;
        Some(WatchUpdate::Resync {
            reason: "the watch broke off within a snapshot".to_owned(),
        })
    }
}

/// Changes of tables that a newer release added, or that cannot be read, are left out.
fn parse(events: Vec<v1::WatchEvent>) -> Vec<WatchEvent> {
    events
        .into_iter()
        .filter_map(|event| {
            WatchEvent::try_from(event)
                .inspect_err(|error| tracing::warn!(%error, "unreadable change of a table ignored"))
                .ok()
        })
        .collect()
}
