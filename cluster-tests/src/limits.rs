//! Replays the containers table from a watch and looks at the number of slots in use after every log revision.

use std::collections::BTreeMap;

use tokio::sync::watch as cell;
use tokio::task::JoinHandle;
use whiskraft_proto::v1;
use whiskraft_proto::v1::container_info::State;
use whiskraft_proto::v1::watch_client::WatchClient;

/// Slots in use as of the newest revision seen, and the most ever seen at one revision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slots {
    /// Log revision.
    pub revision: u64,
    /// In progress or running now.
    pub now: usize,
    /// The most at any revision.
    pub most: usize,
    /// Revisions that were looked at.
    pub revisions: u64,
}

/// Follows the containers of one namespace; ends when dropped.
#[derive(Debug)]
pub struct SlotWatch {
    slots: cell::Receiver<Slots>,
    task: JoinHandle<()>,
}

impl SlotWatch {
    /// Follows `namespace` through the scheduler at `address`.
    pub async fn start(address: &str, namespace: &str) -> Self {
        let mut client = WatchClient::connect(format!("http://{address}"))
            .await
            .expect("the scheduler takes connections");
        let request = v1::WatchRequest {
            tables: vec![v1::Table::Containers.into()],
            after: 0,
        };
        let mut frames = client
            .watch(request)
            .await
            .expect("the watch starts")
            .into_inner();
        let (sender, slots) = cell::channel(Slots::default());
        let namespace = namespace.to_owned();
        let task = tokio::spawn(async move {
            let mut table = BTreeMap::new();
            while let Ok(Some(frame)) = frames.message().await {
                fold(frame, &namespace, &mut table, &sender);
            }
        });
        Self { slots, task }
    }

    /// What has been seen so far.
    #[must_use]
    pub fn slots(&self) -> Slots {
        *self.slots.borrow()
    }
}

impl Drop for SlotWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Table = BTreeMap<(u64, u64), State>;

fn fold(frame: v1::WatchFrame, namespace: &str, table: &mut Table, slots: &cell::Sender<Slots>) {
    use v1::watch_frame::Frame;

    let batch = match frame.frame {
        Some(Frame::Resync(_)) => return table.clear(),
        Some(Frame::Snapshot(batch) | Frame::Events(batch)) => batch,
        None => return,
    };
    for event in batch.events {
        let Some(v1::watch_event::Event::Container(info)) = event.event else {
            continue;
        };
        if info.key.as_ref().is_none_or(|key| key.namespace != namespace) {
            continue;
        }
        let id = info.container.unwrap_or_default();
        match info.state() {
            State::Removed | State::Unspecified => table.remove(&(id.session, id.seq)),
            state => table.insert((id.session, id.seq), state),
        };
    }
    let now = table
        .values()
        .filter(|state| matches!(state, State::InProgress | State::Running))
        .count();
    slots.send_modify(|slots| {
        *slots = Slots {
            revision: batch.revision,
            now,
            most: slots.most.max(now),
            revisions: slots.revisions + 1,
        };
    });
}
