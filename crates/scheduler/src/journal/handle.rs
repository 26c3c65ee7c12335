//! The near end of the journal actor: a mailbox that never makes a shard wait.
//!
//! Acceptances are bounded here. What ends or repeats an activation is not refused: a queue has one such entry under way
//! per activation it holds, so the ledgers bound them.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use whiskraft_types::{Epoch, QueueKey, Rejection};

use crate::config::JournalConfig;
use crate::journal::archive::{Archived, Archives};
use crate::journal::order::{Order, Place, Places};

/// What shards say to the actor.
#[derive(Debug)]
pub(crate) enum Message {
    /// A leadership begins: what its queue has open in the journal is to be taken over.
    Led { key: QueueKey, epoch: Epoch },
    /// A leadership has ended: nothing of it matters any more.
    Left { key: QueueKey, epoch: Epoch },
    /// To be written.
    Order(Order),
}

/// What both ends share.
#[derive(Debug)]
pub(crate) struct Shared {
    messages: Mutex<Vec<Message>>,
    archives: Mutex<Archives>,
    wake: Notify,
    places: Arc<Places>,
}

/// The near end; a cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct JournalHandle {
    shared: Arc<Shared>,
}

impl JournalHandle {
    pub(crate) fn new(config: &JournalConfig) -> Self {
        let bytes = |size: whiskraft_types::ByteSize| usize::try_from(size.as_bytes()).unwrap_or(usize::MAX);
        let places = Places::new(config.accepting_max.get(), bytes(config.accepting_bytes_max));
        let archives = Archives::new(config.archiving_max.get(), bytes(config.archiving_bytes_max));
        Self {
            shared: Arc::new(Shared {
                messages: Mutex::default(),
                archives: Mutex::new(archives),
                wake: Notify::new(),
                places: Arc::new(places),
            }),
        }
    }

    /// The far end.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// A place for an acceptance of so many bytes.
    ///
    /// # Errors
    /// `Unavailable` if there are as many under way as may be.
    pub(crate) fn place(&self, len: usize) -> Result<Place, Rejection> {
        self.shared
            .places
            .take(len)
            .ok_or_else(|| Rejection::Unavailable {
                reason: format!(
                    "{} durable activations wait for the disks of this scheduler; try again",
                    self.accepting()
                ),
            })
    }

    /// Acceptances under way.
    pub(crate) fn accepting(&self) -> usize {
        self.shared.places.taken()
    }

    /// Hands over what a turn of a shard caused, in order.
    pub(crate) fn send(&self, messages: &mut Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        self.shared.lock().append(messages);
        self.shared.wake.notify_one();
    }

    /// Keeps records of activations that were not durable; how many there was no room for.
    pub(crate) fn archive(&self, records: &mut Vec<Archived>) -> u64 {
        if records.is_empty() {
            return 0;
        }
        let (mut dropped, is_first) = {
            let mut archives = self.shared.lock_archives();
            let is_first = archives.is_empty();
            let dropped = records.drain(..).filter_map(|record| archives.push(record).err());
            (dropped.collect::<Vec<_>>(), is_first)
        };
        if is_first {
            self.shared.wake.notify_one();
        }
        // Outside of the lock: the last copy of a record may be a large one.
        dropped.drain(..).count() as u64
    }
}

impl Shared {
    /// Waits until there may be something.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Everything that waits, in order.
    pub(crate) fn take(&self) -> Vec<Message> {
        std::mem::take(&mut *self.lock())
    }

    /// Records that wait, up to a batch.
    pub(crate) fn take_archives(&self) -> Vec<Archived> {
        self.lock_archives().take()
    }

    /// Whether records wait.
    pub(crate) fn has_archives(&self) -> bool {
        !self.lock_archives().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Message>> {
        // Nothing under this lock can leave the list half changed.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_archives(&self) -> std::sync::MutexGuard<'_, Archives> {
        self.archives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
