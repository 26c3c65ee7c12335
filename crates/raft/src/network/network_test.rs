//! What becomes of a snapshot on its way.

use std::future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use openraft::errors::{RPCError, StreamingError};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{BasicNode, EntryPayload};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tonic::Status;

use super::snapshot::while_taken;
use super::{Network, rpc_error};
use crate::Settings;
use crate::held::Held;
use crate::identity::{DataDir, Identity};
use crate::peers::Peers;
use crate::store::{Engine, LaneMachine, LaneRows, Retention};
use crate::types::{Entry, LeaderId, LogId, Types, Vote};

const LANE: u32 = 2;

/// A lane that has applied an entry.
async fn lane(dir: &Path) -> LaneMachine {
    let lock = DataDir::open(dir).unwrap().into_lock();
    let retention = Retention::default();
    let engine = Engine::open(&dir.join("store"), lock, &retention).unwrap();
    let rows = LaneRows::new(Arc::new(engine), LANE, retention);
    let mut machine = LaneMachine::open(rows, &dir.join("snapshots"), LANE).unwrap();
    let log_id = LogId {
        leader_id: LeaderId { term: 1, node_id: 1 },
        index: 1,
    };
    let payload = EntryPayload::Blank;
    let entry: EntryResponder<Types> = (Entry { log_id, payload }, None);
    machine.apply(stream::iter([Ok(entry)])).await.unwrap();
    machine
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_for_a_follower_that_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut lane = lane(dir.path()).await;
    let snapshot = lane.get_current_snapshot().await.unwrap().unwrap();
    let runtimes = (Handle::current(), Handle::current());
    let identity = Identity::new("test", "cluster".to_owned(), 1, 3).unwrap();
    let peers = Peers::new(runtimes, &identity, &Settings::default());
    // A port that nobody listens at.
    let addr = "127.0.0.1:1".to_owned();
    let mut network = Network::new(peers, LANE, Held::default(), Arc::default());
    let mut connection = network.new_snapshot_client(7, &BasicNode { addr }).await;
    let option = RPCOption::new(Duration::from_secs(30));
    let sent = connection
        .full_snapshot(Vote::new(1, 1), snapshot, future::pending(), option)
        .await;
    let Err(StreamingError::Unreachable(error)) = sent else {
        panic!("not backed off from: {sent:?}")
    };
    let error = error.to_string();
    assert!(error.contains("scheduler 7 does not answer"), "{error}");
    // Names of files are numbered.
    let next = lane.dir().temporary();
    assert!(next.path().ends_with("0.tmp"), "{next:?}");
}

#[test]
fn one_that_has_no_room_for_a_snapshot_is_not_asked_again_at_once() {
    let refused = rpc_error(&Status::resource_exhausted("other snapshots are being received"));
    assert!(matches!(refused, RPCError::Unreachable(_)), "{refused:?}");
}

const PAUSE: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_long_snapshot_has_the_time_it_takes_as_long_as_it_moves() {
    let (progress, taken) = watch::channel(0);
    // One task polls all of it, what moves before what waits: a slow machine is slow for both.
    let answer = async {
        for _ in 0..20 {
            tokio::time::sleep(PAUSE / 4).await;
            progress.send_modify(|bytes| *bytes += 64 << 20);
        }
        drop(progress);
        tokio::time::sleep(PAUSE * 2).await;
        "in place"
    };
    assert_eq!(while_taken(PAUSE, taken, answer).await, Ok("in place"));
}

#[tokio::test]
async fn a_snapshot_that_does_not_move_is_given_up() {
    let (progress, taken) = watch::channel(0);
    progress.send_replace(5 << 20);
    let stuck = while_taken(PAUSE, taken.clone(), future::pending::<()>()).await;
    assert_eq!(
        stuck.unwrap_err(),
        "nothing was taken for 200ms after 5242880 bytes"
    );
    drop(progress);
    let stuck = while_taken(PAUSE, taken, future::pending::<()>()).await;
    assert_eq!(
        stuck.unwrap_err(),
        "5242880 bytes were not put in place within 1.2s"
    );
}
