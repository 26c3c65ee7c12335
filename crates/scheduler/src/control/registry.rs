//! Which invokers have a Control stream to this scheduler, and the way to send a command down one.
//!
//! Control plane only: one short lock, never held across an await.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use whiskraft_proto::v1;
use whiskraft_types::{ContainerId, InvokerId, SessionId};

use crate::context::StreamId;

/// Commands that wait for one stream: twice the containers a large host starts at once. A stream that is full counts
/// as not connected, and its creations go elsewhere.
pub(crate) const COMMANDS_MAX: usize = 1024;

/// What goes down a Control stream.
#[derive(Debug)]
pub(crate) enum ControlCommand {
    /// Create or resume a container.
    Create(Box<v1::CreateContainer>),
    /// Remove one.
    Remove(v1::RemoveContainer),
    /// The members have changed: the invoker keeps a stream to each.
    Members,
    /// The session has ended; the stream ends after this.
    Expired,
}

/// The invoker has no stream here, or does not read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invoker {0} has no open control stream to this scheduler")]
pub(crate) struct NotConnected(pub(crate) InvokerId);

/// The registry; a cheap copy.
#[derive(Debug, Clone, Default)]
pub(crate) struct ControlStreams {
    streams: Arc<Mutex<BTreeMap<InvokerId, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    stream: StreamId,
    session: SessionId,
    commands: mpsc::Sender<ControlCommand>,
}

impl ControlStreams {
    /// A stream has said hello; it replaces an older one of the same invoker.
    pub(crate) fn open(
        &self,
        invoker: InvokerId,
        session: SessionId,
        stream: StreamId,
    ) -> mpsc::Receiver<ControlCommand> {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        self.with(|streams| {
            streams.insert(
                invoker,
                Entry {
                    stream,
                    session,
                    commands,
                },
            )
        });
        receiver
    }

    /// A stream has ended.
    pub(crate) fn close(&self, invoker: InvokerId, stream: StreamId) {
        self.with(|streams| {
            if streams.get(&invoker).is_some_and(|entry| entry.stream == stream) {
                streams.remove(&invoker);
            }
        });
    }

    /// Whether commands for this session of an invoker would leave now.
    pub(crate) fn is_connected(&self, invoker: InvokerId, session: SessionId) -> bool {
        self.with(|streams| {
            streams
                .get(&invoker)
                .is_some_and(|entry| entry.session == session && entry.commands.capacity() > 0)
        })
    }

    /// Sends a command to an invoker.
    ///
    /// # Errors
    /// If it has no stream here or does not read it.
    pub(crate) fn send(&self, invoker: InvokerId, command: ControlCommand) -> Result<(), NotConnected> {
        self.with(|streams| {
            let entry = streams.get(&invoker).ok_or(NotConnected(invoker))?;
            entry
                .commands
                .try_send(command)
                .map_err(|_| NotConnected(invoker))
        })
    }

    /// Tells an invoker to end a container: at once, or after what runs in it. Whether that left.
    pub(crate) fn remove(&self, invoker: InvokerId, container: ContainerId, now: bool) -> bool {
        let command = v1::RemoveContainer {
            container: Some(container.into()),
            now,
        };
        let sent = self.send(invoker, ControlCommand::Remove(command));
        if let Err(error) = &sent {
            tracing::debug!(%container, %error, "removal not sent");
        }
        sent.is_ok()
    }

    /// The members have changed: every stream passes the new list on. One that is full hears of it by its next
    /// refresh.
    pub(crate) fn announce_members(&self) {
        self.with(|streams| {
            for entry in streams.values() {
                let _ = entry.commands.try_send(ControlCommand::Members);
            }
        });
    }

    /// A session has ended: its stream is told and forgotten.
    pub(crate) fn expire(&self, session: SessionId) {
        self.expire_all(|other| other == session);
    }

    /// The same for every session that is said to have ended.
    pub(crate) fn expire_all(&self, has_ended: impl Fn(SessionId) -> bool) {
        self.with(|streams| {
            streams.retain(|_, entry| {
                let keep = !has_ended(entry.session);
                if !keep {
                    // A full channel ends the stream as well, when its sender goes with the entry.
                    let _ = entry.commands.try_send(ControlCommand::Expired);
                }
                keep
            });
        });
    }

    fn with<T>(&self, access: impl FnOnce(&mut BTreeMap<InvokerId, Entry>) -> T) -> T {
        // Nothing under this lock can leave the map half changed.
        access(&mut self.streams.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
