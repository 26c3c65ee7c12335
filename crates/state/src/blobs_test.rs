//! Cases of blobs.

use super::*;
use crate::command::Command;
use crate::world::{World, document, put};

const HASH: BlobHash = BlobHash([7; 32]);
const LEN: u64 = 2 * BlobChunk::LEN as u64 + 10;

fn chunk(len: u64, index: u32, data: usize) -> Command {
    Command::PutBlobChunk(BlobChunk {
        hash: HASH,
        len,
        index,
        data: vec![index as u8; data],
    })
}

#[test]
fn chunks_come_in_any_order_and_more_than_once() {
    let mut world = World::new();
    assert_eq!(world.respond(chunk(LEN, 2, 10)), Response::Missing(vec![0, 1]));
    assert_eq!(
        world.respond(chunk(LEN, 0, BlobChunk::LEN)),
        Response::Missing(vec![1])
    );
    let again = world.apply(chunk(LEN, 2, 10));
    assert_eq!(
        (again.response, again.effects),
        (Response::Missing(vec![1]), vec![])
    );
    let last = world.apply(chunk(LEN, 1, BlobChunk::LEN));
    assert_eq!(last.response, Response::Missing(vec![]));
    assert!(matches!(&last.effects[..], [Effect::PutBlobChunk(chunk)] if chunk.index == 1));
}

#[test]
fn chunk_that_does_not_fit_its_blob_is_refused() {
    let full = BlobChunk::LEN;
    let bad = [
        (0, 0, 0),
        (BLOB_LEN_MAX + 1, 0, full),
        (u64::MAX, u32::MAX, full),
        (LEN, 3, 10),
        (LEN, 0, full - 1),
        (LEN, 0, full + 1),
        (LEN, 2, 9),
        (full as u64, 1, 0),
    ];
    for (len, index, data) in bad {
        let response = World::new().respond(chunk(len, index, data));
        assert!(
            matches!(response, Response::Refused(Refusal::Invalid { .. })),
            "{len} {index} {data}: {response:?}"
        );
    }
}

#[test]
fn chunk_with_another_length_than_the_first_is_refused() {
    let mut world = World::new();
    world.apply(chunk(LEN, 2, 10));
    let response = world.respond(chunk(LEN + 1, 2, 11));
    assert!(
        matches!(response, Response::Refused(Refusal::Invalid { .. })),
        "{response:?}"
    );
}

#[test]
fn largest_blob_is_accepted() {
    let last = (BLOB_LEN_MAX / BlobChunk::LEN as u64 - 1) as u32;
    let response = World::new().respond(chunk(BLOB_LEN_MAX, last, BlobChunk::LEN));
    assert_eq!(response, Response::Missing((0..last).collect()));
}

#[test]
fn sweep_takes_blobs_that_are_old_and_unneeded() {
    let mut world = World::new();
    let Command::PutDocument(mut needed) = put("new", None, None) else {
        panic!("not a document")
    };
    needed.blobs = vec![HASH];
    let touched = world.next();
    world.apply(chunk(5, 0, 5));
    world.apply(Command::SweepBlobs { before: touched });
    assert!(
        world.state.blob(&HASH).is_some(),
        "a blob that was touched at the bound stays"
    );
    world.apply(Command::PutDocument(needed));
    world.apply(Command::SweepBlobs {
        before: LogRevision(u64::MAX),
    });
    assert!(
        world.state.blob(&HASH).is_some(),
        "a blob that a document needs stays"
    );
    world.apply(Command::DeleteDocument {
        key: document("new"),
        expected: None,
    });
    let applied = world.apply(Command::SweepBlobs {
        before: LogRevision(u64::MAX),
    });
    assert_eq!(applied.effects, [Effect::DeleteBlob { hash: HASH }]);
    assert_eq!(world.state.blob(&HASH), None);
}
