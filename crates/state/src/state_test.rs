//! Cases of the state as a whole.

use whiskraft_types::{InvokerId, NamespaceLimits};

use super::*;
use crate::command::{BlobChunk, ContainerChange, PutDocument};
use crate::record::BlobHash;
use crate::world::{World, namespace, put, queue};

/// At least one row in every table.
fn full_world() -> World {
    let mut world = World::new();
    let key = queue("guest", "hello");
    let epoch = world.ensure(&key).epoch;
    let container = world.run(&key, 1);
    world.update(container, ContainerChange::Warm);
    world.reserve(&key, 2);
    let ended = world.run(&key, 1);
    world.update(ended, ContainerChange::Ended);
    world.apply(Command::PutNamespace {
        name: namespace("guest"),
        limits: NamespaceLimits {
            containers: 2,
            over_provision_percent: 150,
            invocations_per_minute: Some(600),
            weight: 300,
        },
    });
    world.apply(Command::SetActionThrottle {
        key,
        epoch,
        throttled: true,
    });
    let hash = BlobHash([7; 32]);
    world.apply(Command::PutBlobChunk(BlobChunk {
        hash,
        len: 3,
        index: 0,
        data: vec![1, 2, 3],
    }));
    if let Command::PutDocument(document) = put("coded", Some(0), Some(5)) {
        world.apply(Command::PutDocument(PutDocument {
            blobs: vec![hash],
            ..document
        }));
    }
    world
}

fn hex(bytes: &[u8]) -> String {
    let lines = bytes
        .chunks(32)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    lines.collect::<Vec<String>>().join("\n")
}

#[test]
fn serialised_state_keeps_its_bytes() {
    let bytes = bincode::serde::encode_to_vec(&full_world().state, bincode::config::standard()).unwrap();
    let golden = include_str!("state_golden.hex");
    assert_eq!(
        hex(&bytes),
        golden.trim_end(),
        "snapshots of older releases could not be read any more"
    );
}

#[test]
fn state_that_was_read_equals_the_one_that_was_written() {
    let state = full_world().state;
    let bytes = bincode::serde::encode_to_vec(&state, bincode::config::standard()).unwrap();
    let (read, len): (State, usize) =
        bincode::serde::decode_from_slice(&bytes, bincode::config::standard()).unwrap();
    assert_eq!((&read, len), (&state, bytes.len()));
    assert!(read.snapshot().eq(state.snapshot()));
    assert_eq!(read.containers_on(InvokerId(1)).count(), 2);
}

#[test]
fn command_at_a_revision_that_has_passed_is_refused() {
    let mut world = full_world();
    let before = world.state.clone();
    for revision in [LogRevision(0), before.revision()] {
        let applied = world.state.apply(revision, &put("late", None, None));
        assert!(matches!(
            applied.response,
            Response::Refused(Refusal::Invalid { .. })
        ));
        assert_eq!(world.state, before);
    }
}
