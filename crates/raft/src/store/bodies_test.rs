//! Bodies on a real directory: what a start does with them, and what readers see while they are replaced.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use whiskraft_state::Effect;
use whiskraft_types::LogRevision;

use super::store_test::{apply, engine, id, key, machine, put_document, put_namespace, snapshot};
use super::{Bodies, Machine, Ring};
use crate::types::META_GROUP;

#[tokio::test(flavor = "multi_thread")]
async fn a_start_from_a_snapshot_leaves_bodies_that_are_there_alone() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path()).unwrap();
    let bodies = Bodies::new(engine, META_GROUP);
    let snapshots = dir.path().join("snapshots");
    let open = || Machine::open(bodies.clone(), &snapshots, META_GROUP, Ring::new(100, 1 << 20)).unwrap();
    let mut first = open();
    apply(&mut first, vec![put_document(1, "d", b"body")]).await;
    apply(&mut first, (2..=10).map(put_namespace).collect()).await;
    snapshot(&mut first).await;
    drop(first);
    // Gone if everything is written anew.
    let sign = Effect::PutDocument {
        key: key("sign"),
        revision: LogRevision(1),
        body: b"here".to_vec(),
    };
    bodies.apply(vec![sign], bodies.mark().unwrap()).unwrap();
    let again = open();
    assert_eq!(again.last(), Some(id(10)));
    let here = bodies.document(&key("sign")).unwrap();
    assert!(here.is_some(), "bodies were written anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_exists_is_never_missing_while_a_snapshot_is_put_in_place() {
    let (source_dir, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut source = machine(source_dir.path()).unwrap();
    let filler = |index| put_document(index, &format!("a{index:03}"), &vec![3; 256 << 10]);
    apply(&mut source, (1..=64).map(filler).collect()).await;
    apply(&mut source, vec![put_document(65, "kept", b"k")]).await;
    let built = source
        .get_snapshot_builder()
        .await
        .build_snapshot()
        .await
        .unwrap();

    let bodies = Bodies::new(engine(dir.path()).unwrap(), META_GROUP);
    let snapshots = dir.path().join("snapshots");
    let ring = Ring::new(100, 1 << 20);
    let mut target = Machine::open(bodies.clone(), &snapshots, META_GROUP, ring).unwrap();
    apply(&mut target, vec![put_document(1, "kept", b"k")]).await;
    let (reader, stop) = (bodies.clone(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let reading = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            match reader.document(&key("kept")) {
                Ok(found) => assert!(found.is_some(), "it exists before and after"),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
            }
        }
    });
    target
        .install_snapshot(&built.meta, built.snapshot)
        .await
        .unwrap();
    stop.store(true, Ordering::Relaxed);
    reading.join().unwrap();
    assert!(bodies.document(&key("kept")).unwrap().is_some());
    assert!(bodies.document(&key("a064")).unwrap().is_some());
}
