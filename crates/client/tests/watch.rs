//! The watch: snapshot, changes exactly once, resumption elsewhere, resync; and what the client keeps from it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fake;

use fake::{Fake, Seen, World, builder, cluster, events_frame, eventually, queue_event};
use whiskraft_client::watch::{Table, WatchEvent, WatchStream, WatchUpdate};
use whiskraft_proto::v1;

fn epochs(events: &[WatchEvent]) -> Vec<u64> {
    let epoch = |event: &WatchEvent| match event {
        WatchEvent::Queue(queue) => Some(queue.epoch.0),
        _ => None,
    };
    events.iter().filter_map(epoch).collect()
}

async fn changes(watch: &mut WatchStream) -> (u64, Vec<u64>) {
    match watch.next().await.unwrap() {
        WatchUpdate::Changes { revision, events } => (revision.0, epochs(&events)),
        other => panic!("{other:?}"),
    }
}

/// The schedulers that serve a watch of sessions too: only the test's own watches do.
async fn serving(fakes: &[Fake]) -> Fake {
    loop {
        for fake in fakes {
            let serves = fake.with(|state| state.seen.iter().any(is_own_watch));
            if serves {
                return fake.clone();
            }
        }
        tokio::task::yield_now().await;
    }
}

fn is_own_watch(seen: &Seen) -> bool {
    matches!(seen, Seen::Watch(request) if request.tables.contains(&v1::Table::Sessions.into()))
}

#[tokio::test]
async fn a_snapshot_comes_first_then_every_change_once_in_order() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    let client = builder(&fakes).connect().await.unwrap();
    let mut watch = client
        .watch(&[Table::Queues, Table::Sessions], None)
        .await
        .unwrap();
    let WatchUpdate::Snapshot {
        revision,
        events,
        last: true,
    } = watch.next().await.unwrap()
    else {
        panic!("no snapshot")
    };
    assert_eq!((revision.0, epochs(&events)), (world.revision(), vec![1]));
    serving(&fakes).await;
    world.change(&fakes, queue_event(1, 2)).await;
    world.change(&fakes, queue_event(1, 3)).await;
    assert_eq!(changes(&mut watch).await.1, [2]);
    assert_eq!(changes(&mut watch).await.1, [3]);
}

#[tokio::test]
async fn a_broken_watch_resumes_at_another_scheduler_without_gap_or_repetition() {
    let (world, fakes) = cluster(2).await;
    world.log(queue_event(1, 1));
    let client = builder(&fakes).connect().await.unwrap();
    for fake in &fakes {
        fake.connected().await;
    }
    let mut watch = client
        .watch(&[Table::Queues, Table::Sessions], None)
        .await
        .unwrap();
    watch.next().await.unwrap();
    let first = serving(&fakes).await;
    world.change(&fakes, queue_event(1, 2)).await;
    let (seen, _) = changes(&mut watch).await;
    first.die().await;
    // Changed while no watch was open.
    world.log(queue_event(1, 3));
    let (revision, found) = changes(&mut watch).await;
    assert_eq!((revision, found), (seen + 1, vec![3]));
    let second = fakes.iter().find(|fake| fake.id != first.id).unwrap();
    let resumed = second.with(|state| {
        state.seen.iter().rev().find_map(|seen| match seen {
            Seen::Watch(request) if is_own_watch(&Seen::Watch(request.clone())) => Some(request.after),
            _ => None,
        })
    });
    assert_eq!(resumed, Some(seen));
}

#[tokio::test]
async fn what_a_scheduler_repeats_after_a_resumption_is_dropped() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    let client = builder(&fakes).connect().await.unwrap();
    let after = whiskraft_types::LogRevision(world.revision());
    let mut watch = client.watch(&[Table::Sessions], Some(after)).await.unwrap();
    serving(&fakes).await;
    fakes[0]
        .watch_say(events_frame(after.0, vec![queue_event(1, 7)]))
        .await;
    fakes[0]
        .watch_say(events_frame(after.0 + 1, vec![queue_event(1, 8)]))
        .await;
    assert_eq!(changes(&mut watch).await, (after.0 + 1, vec![8]));
}

#[tokio::test]
async fn what_follows_an_older_snapshot_is_news_though_it_was_seen_elsewhere() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    let client = builder(&fakes).connect().await.unwrap();
    let after = whiskraft_types::LogRevision(world.revision());
    let mut watch = client.watch(&[Table::Sessions], Some(after)).await.unwrap();
    serving(&fakes).await;
    let resync = v1::Resync {
        reason: "behind".to_owned(),
    };
    let snapshot = v1::WatchBatch {
        revision: after.0 - 1,
        events: Vec::new(),
        last: true,
    };
    for frame in [
        v1::watch_frame::Frame::Resync(resync),
        v1::watch_frame::Frame::Snapshot(snapshot),
    ] {
        fakes[0].watch_say(v1::WatchFrame { frame: Some(frame) }).await;
    }
    assert!(matches!(watch.next().await, Some(WatchUpdate::Resync { .. })));
    assert!(matches!(watch.next().await, Some(WatchUpdate::Snapshot { .. })));
    fakes[0]
        .watch_say(events_frame(after.0, vec![queue_event(1, 7)]))
        .await;
    assert_eq!(changes(&mut watch).await, (after.0, vec![7]));
}

#[tokio::test]
async fn a_resync_is_passed_on_and_half_a_snapshot_is_never_resumed() {
    let (world, fakes) = cluster(1).await;
    world.log(queue_event(1, 1));
    let client = builder(&fakes).connect().await.unwrap();
    let mut watch = client.watch(&[Table::Sessions], None).await.unwrap();
    watch.next().await.unwrap();
    serving(&fakes).await;
    let resync = v1::Resync {
        reason: "too slow".to_owned(),
    };
    fakes[0]
        .watch_say(v1::WatchFrame {
            frame: Some(v1::watch_frame::Frame::Resync(resync)),
        })
        .await;
    assert_eq!(
        watch.next().await,
        Some(WatchUpdate::Resync {
            reason: "too slow".to_owned()
        })
    );
    let part = v1::WatchBatch {
        revision: 50,
        events: vec![queue_event(1, 2)],
        last: false,
    };
    fakes[0]
        .watch_say(v1::WatchFrame {
            frame: Some(v1::watch_frame::Frame::Snapshot(part)),
        })
        .await;
    assert!(matches!(
        watch.next().await,
        Some(WatchUpdate::Snapshot { last: false, .. })
    ));
    fakes[0].cut_watches().await;
    assert!(matches!(watch.next().await, Some(WatchUpdate::Resync { .. })));
    let Some(WatchUpdate::Snapshot {
        events, last: true, ..
    }) = watch.next().await
    else {
        panic!("no snapshot")
    };
    assert_eq!(epochs(&events), [1]);
}

#[tokio::test]
async fn a_new_member_is_connected_and_a_removed_one_forgotten() {
    let (world, fakes) = cluster(1).await;
    let client = builder(&fakes).connect().await.unwrap();
    let newcomer = Fake::start(2, &World::default()).await;
    world
        .change(&fakes, fake::member_event(2, &newcomer.address))
        .await;
    newcomer.connected().await;
    assert_eq!(client.members().len(), 2);
    let removed = v1::MemberInfo {
        scheduler: 2,
        removed: true,
        ..Default::default()
    };
    let event = v1::WatchEvent {
        event: Some(v1::watch_event::Event::Member(removed)),
    };
    world.change(&fakes, event).await;
    eventually(|| client.members().len() == 1).await;
}
