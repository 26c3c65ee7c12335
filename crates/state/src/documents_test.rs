//! Cases of documents.

use super::*;
use crate::command::{BlobChunk, Command};
use crate::world::{World, document, namespace, put};

const HASH: BlobHash = BlobHash([7; 32]);

fn put_with(change: impl FnOnce(&mut PutDocument)) -> Command {
    let Command::PutDocument(mut document) = put("new", None, None) else {
        panic!("not a document")
    };
    change(&mut document);
    Command::PutDocument(document)
}

fn chunk(index: u32, len: u64, data: usize) -> Command {
    Command::PutBlobChunk(BlobChunk {
        hash: HASH,
        len,
        index,
        data: vec![0; data],
    })
}

fn is_invalid(response: &Response) -> bool {
    matches!(response, Response::Refused(Refusal::Invalid { .. }))
}

#[test]
fn write_gives_the_document_its_log_revision_and_its_body_to_the_disk() {
    let mut world = World::new();
    let revision = world.next();
    let applied = world.apply(put("new", None, Some(3)));
    assert_eq!(applied.response, Response::Revision(Revision(revision.0)));
    assert_eq!(
        applied.effects,
        [Effect::PutDocument {
            key: document("new"),
            revision,
            body: b"{}".to_vec()
        }]
    );
    let row = world.state.document(&document("new")).unwrap();
    assert_eq!((row.revision, row.len), (Revision(revision.0), 2));
    assert_eq!(
        applied.events,
        [Event::Document(document("new"), Some(row.clone()))]
    );
}

#[test]
fn write_compares_the_revision() {
    let mut world = World::new();
    let revision = world.put_action("new", None);
    let conflict = |current| Response::Refused(Refusal::Conflict { current });
    assert_eq!(world.respond(put("new", Some(0), None)), conflict(revision));
    assert_eq!(
        world.respond(put("new", Some(revision.0 + 1), None)),
        conflict(revision)
    );
    assert_eq!(world.respond(put("absent", Some(1), None)), conflict(Revision(0)));
    let Response::Revision(second) = world.respond(put("new", Some(revision.0), None)) else {
        panic!("refused")
    };
    assert!(second > revision);
    // The repetition of a conditional write changes nothing.
    assert_eq!(
        world.respond(put("new", Some(revision.0), None)),
        conflict(second)
    );
    assert!(matches!(
        world.respond(put("absent", Some(0), None)),
        Response::Revision(_)
    ));
}

#[test]
fn delete_compares_the_revision() {
    let mut world = World::new();
    let revision = world.put_action("new", None);
    let delete = |expected| Command::DeleteDocument {
        key: document("new"),
        expected,
    };
    let conflict = Refusal::Conflict { current: revision };
    assert_eq!(
        world.respond(delete(Some(Revision(1)))),
        Response::Refused(conflict)
    );
    let applied = world.apply(delete(Some(revision)));
    assert_eq!(applied.effects, [Effect::DeleteDocument { key: document("new") }]);
    assert_eq!(world.state.document(&document("new")), None);
    assert_eq!(world.respond(delete(None)), Response::Refused(Refusal::NotFound));
}

#[test]
fn document_needs_complete_blobs() {
    let mut world = World::new();
    let with_blob = put_with(|put| put.blobs = vec![HASH]);
    let missing = Response::Refused(Refusal::MissingBlob { hash: HASH });
    assert_eq!(world.respond(with_blob.clone()), missing);
    let len = BlobChunk::LEN as u64 + 1;
    world.apply(chunk(1, len, 1));
    assert_eq!(world.respond(with_blob.clone()), missing);
    world.apply(chunk(0, len, BlobChunk::LEN));
    assert!(matches!(world.respond(with_blob), Response::Revision(_)));
    assert_eq!(world.state.blob(&HASH).unwrap().references, 1);
}

#[test]
fn references_follow_the_documents() {
    let mut world = World::new();
    world.apply(chunk(0, 1, 1));
    let references = |world: &World| world.state.blob(&HASH).unwrap().references;
    world.apply(put_with(|put| put.blobs = vec![HASH]));
    world.apply(put_with(|put| put.blobs = vec![HASH]));
    assert_eq!(references(&world), 1);
    world.apply(put_with(|put| {
        (put.blobs, put.key.name) = (vec![HASH], "second".to_owned())
    }));
    assert_eq!(references(&world), 2);
    world.apply(put("new", None, None));
    assert_eq!(references(&world), 1);
    let dropped = world.next();
    world.apply(Command::DeleteDocument {
        key: document("second"),
        expected: None,
    });
    let row = world.state.blob(&HASH).unwrap();
    assert_eq!((row.references, row.touched), (0, dropped));
}

#[test]
fn malformed_documents_are_refused() {
    let mut world = World::new();
    assert!(is_invalid(
        &world.respond(put_with(|put| put.body = vec![0; DOCUMENT_LEN_MAX + 1]))
    ));
    assert!(is_invalid(&world.respond(put_with(
        |put| put.blobs = vec![HASH; BLOBS_PER_DOCUMENT_MAX + 1]
    ))));
    assert!(is_invalid(
        &world.respond(put_with(|put| put.key.kind = String::new()))
    ));
    assert!(is_invalid(
        &world.respond(put_with(|put| put.key.kind = "k".repeat(1000)))
    ));
    for name in [
        "",
        "a/b/c",
        "/",
        "no\nline",
        &"x".repeat(DOCUMENT_NAME_LEN_MAX + 1),
    ] {
        assert!(
            is_invalid(&world.respond(put_with(|put| put.key.name = name.to_owned()))),
            "{name:?}"
        );
    }
    let largest = put_with(|put| put.body = vec![0; DOCUMENT_LEN_MAX]);
    assert!(matches!(world.respond(largest), Response::Revision(_)));
}

#[test]
fn documents_are_listed_by_name_within_kind_and_namespace() {
    let mut world = World::new();
    for (kind, owner, name) in [
        ("action", "guest", "a"),
        ("action", "guest", "c"),
        ("action", "alice", "b"),
        ("rule", "guest", "b"),
    ] {
        let key = DocumentKey {
            kind: kind.to_owned(),
            namespace: namespace(owner),
            name: name.to_owned(),
        };
        world.apply(put_with(|put| put.key = key));
    }
    let guest = namespace("guest");
    let list = |after| {
        world
            .state
            .documents("action", &guest, after)
            .map(|(key, _)| key.name.as_str())
    };
    assert!(list(None).eq(["a", "c", "hello"]));
    assert!(list(Some("a")).eq(["c", "hello"]));
    assert!(list(Some("b")).eq(["c", "hello"]));
    assert_eq!(list(Some("z")).count(), 0);
    assert_eq!(world.state.documents("trigger", &guest, None).count(), 0);
}
