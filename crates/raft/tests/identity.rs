//! Directories that do not belong where they are found.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::fs;
use std::path::Path;

use support::{Cluster, copy_dir, propose, put_namespace};
use whiskraft_raft::{Settings, StartError};
use whiskraft_types::{LogRevision, SchedulerId};

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_directory_is_refused_and_told_what_to_do() {
    let mut cluster = Cluster::running(3, Settings::default()).await;
    cluster.stop(2).await;
    fs::remove_dir_all(cluster.dir(2)).unwrap();
    let error = cluster.try_start(2).await.unwrap_err();
    assert!(matches!(error, StartError::Unknown(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("scheduler 2 was known to scheduler"), "{text}");
    assert!(text.contains("join as a new member"), "{text}");
    // And again: the directory made by the refused start is no better.
    let error = cluster.try_start(2).await.unwrap_err();
    assert!(matches!(error, StartError::Unknown(_)), "{error:?}");
    propose(cluster.node(1), put_namespace("a", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_an_earlier_life_of_the_cluster_is_refused() {
    let mut cluster = Cluster::running(3, Settings::default()).await;
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    let kept = tempfile::tempdir().unwrap();
    copy_dir(&cluster.dir(2), kept.path());
    for id in 1..=3 {
        fs::remove_dir_all(cluster.dir(id)).unwrap();
    }
    cluster.start_all(&[1, 2, 3]).await;
    cluster.stop(2).await;
    fs::remove_dir_all(cluster.dir(2)).unwrap();
    copy_dir(kept.path(), &cluster.dir(2));
    let error = cluster.try_start(2).await.unwrap_err();
    assert!(
        error.to_string().contains("with another data directory"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_cluster_or_scheduler_is_refused_with_both_names() {
    let mut cluster = Cluster::running(1, Settings::default()).await;
    let other = Cluster::running(1, Settings::default()).await;
    let (theirs, ours) = (
        other.node(1).cluster_id().to_owned(),
        cluster.node(1).cluster_id().to_owned(),
    );
    cluster.stop(1).await;
    let mut config = cluster.config(1);
    config.data_dir = other.dir(1);
    let mut other = other;
    other.stop(1).await;
    let text = whiskraft_raft::Node::start(config).await.unwrap_err().to_string();
    assert!(text.contains(&theirs) && text.contains(&ours), "{text}");

    let mut pair = Cluster::running(2, Settings::default()).await;
    pair.stop(1).await;
    pair.stop(2).await;
    let mut config = pair.config(1);
    config.data_dir = pair.dir(2);
    let text = whiskraft_raft::Node::start(config).await.unwrap_err().to_string();
    assert!(
        text.contains("belongs to scheduler 2, not to scheduler 1"),
        "{text}"
    );
}

/// Entries that scheduler 2 has, of group 0.
async fn grow(cluster: &Cluster, entries: u32) {
    let mut newest = LogRevision(0);
    for n in 0..entries {
        newest = propose(cluster.node(1), put_namespace("grown", n + 1)).await.0;
    }
    cluster.node(2).wait_applied(newest).await.unwrap();
}

/// Cuts bytes off the end of the newest write-ahead log in a data directory: synced writes that the disk has lost.
fn cut_tail(dir: &Path, bytes: u64) {
    let logs = fs::read_dir(dir.join("store"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let newest = logs
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .max()
        .unwrap();
    let file = fs::File::options().write(true).open(newest).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len - bytes).unwrap();
}

async fn assert_lost(cluster: &mut Cluster, id: u64) {
    let error = cluster.try_start(id).await.unwrap_err();
    assert!(matches!(error, StartError::Unknown(_)), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(&format!("scheduler {id} has lost what its disk had")),
        "{text}"
    );
    assert!(
        text.contains(&format!("cluster replace {id} --with NEW")),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_put_back_is_refused() {
    let mut cluster = Cluster::running(3, Settings::default()).await;
    grow(&cluster, 10).await;
    cluster.stop(2).await;
    let copy = tempfile::tempdir().unwrap();
    copy_dir(&cluster.dir(2), copy.path());
    cluster.start(2).await;
    grow(&cluster, 10).await;
    cluster.stop(2).await;
    let whole = tempfile::tempdir().unwrap();
    copy_dir(&cluster.dir(2), whole.path());
    for _ in 0..2 {
        fs::remove_dir_all(cluster.dir(2)).unwrap();
        copy_dir(copy.path(), &cluster.dir(2));
        assert_lost(&mut cluster, 2).await;
        propose(cluster.node(1), put_namespace("a", 1)).await;
    }
    // The newest directory is as good as ever.
    fs::remove_dir_all(cluster.dir(2)).unwrap();
    copy_dir(whole.path(), &cluster.dir(2));
    cluster.start(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_has_lost_acknowledged_entries_is_refused() {
    let mut cluster = Cluster::running(3, Settings::default()).await;
    grow(&cluster, 50).await;
    cluster.stop(2).await;
    cut_tail(&cluster.dir(2), 2_000);
    assert_lost(&mut cluster, 2).await;
    propose(cluster.node(1), put_namespace("a", 1)).await;
}

/// What one has shown is known to the others after they were all stopped, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_put_back_while_all_were_down_is_refused() {
    let mut cluster = Cluster::running(3, Settings::default()).await;
    grow(&cluster, 10).await;
    cluster.stop(2).await;
    let copy = tempfile::tempdir().unwrap();
    copy_dir(&cluster.dir(2), copy.path());
    cluster.start(2).await;
    grow(&cluster, 10).await;
    for id in 1..=3 {
        cluster.stop(id).await;
    }
    fs::remove_dir_all(cluster.dir(2)).unwrap();
    copy_dir(copy.path(), &cluster.dir(2));
    cluster.start_all(&[1, 3]).await;
    assert_lost(&mut cluster, 2).await;
    propose(cluster.node(1), put_namespace("a", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_is_refused() {
    let mut cluster = Cluster::running(1, Settings::default()).await;
    let mut config = cluster.joining(1, "unused");
    config.data_dir = cluster.dir(1);
    let error = whiskraft_raft::Node::start(config).await.unwrap_err();
    assert!(matches!(error, StartError::Locked { .. }), "{error:?}");
    cluster.stop(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schedulers_configured_for_different_clusters_do_not_form_one() {
    let mut cluster = Cluster::new(2, Settings::default());
    let first = cluster.config(1);
    let mut second = cluster.config(2);
    second.cluster_name = "other".to_owned();
    // The first to hear of the other gives up.
    let error = tokio::select! {
        first = whiskraft_raft::Node::start(first) => first.unwrap_err(),
        second = whiskraft_raft::Node::start(second) => second.unwrap_err(),
    };
    assert!(error.to_string().contains("belongs to cluster"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn configuration_that_contradicts_itself_is_refused() {
    let mut cluster = Cluster::new(1, Settings::default());
    let mut config = cluster.config(1);
    config.id = Some(SchedulerId(5));
    let text = whiskraft_raft::Node::start(config).await.unwrap_err().to_string();
    assert_eq!(
        text,
        "scheduler 5 is not in the initial cluster, which has the numbers 1"
    );

    let mut config = cluster.config(1);
    config.join = Some(vec!["a:1".to_owned()]);
    let text = whiskraft_raft::Node::start(config).await.unwrap_err().to_string();
    assert!(text.contains("forms a cluster or joins one"), "{text}");
}
