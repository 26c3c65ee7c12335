//! The end of the sync thread, whatever the disk does.

use std::time::Duration;

use tempfile::TempDir;

use super::SyncThread;
use super::store_test::engine;
use super::watchdog::Patience;
use crate::fatal::Fatal;

#[tokio::test]
async fn the_sync_thread_ends_with_its_owner_although_a_handle_is_left() {
    let dir = TempDir::new().unwrap();
    let engine = engine(dir.path()).unwrap();
    let (owner, syncs) = SyncThread::start(engine, Fatal::new(), Duration::ZERO).unwrap();
    syncs.wait().await.unwrap();
    drop(owner);
    assert!(syncs.wait().await.is_err(), "nothing is synced after the end");
}

#[tokio::test]
async fn a_sync_that_never_returns_stops_the_node_and_does_not_hold_it_up() {
    let dir = TempDir::new().unwrap();
    let (engine, fatal) = (engine(dir.path()).unwrap(), Fatal::new());
    let patience = Patience {
        turn: Duration::from_millis(10),
        stop: 2,
        abort: u32::MAX,
        ..Patience::default()
    };
    let never = Duration::from_secs(24 * 60 * 60);
    let (owner, syncs) = SyncThread::start_with(engine, fatal.clone(), never, patience).unwrap();
    let waiting = tokio::spawn(async move { syncs.wait().await });
    let reason = tokio::time::timeout(Duration::from_secs(30), fatal.wait()).await;
    let reason = reason.unwrap().to_string();
    assert!(reason.contains("the disk does not answer"), "{reason}");
    drop(owner);
    assert!(!waiting.is_finished(), "nothing was said to be synced");
    waiting.abort();
}
