//! Documents and blobs: compare and set, what is refused and how, and code in chunks.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use bytes::Bytes;
use common::{Cluster, change, changes};
use sha2::{Digest, Sha256};
use tonic::transport::Channel;
use whiskraft_proto::v1;
use whiskraft_proto::v1::document_change::Change;
use whiskraft_proto::v1::document_changed::Outcome;
use whiskraft_proto::v1::documents_client::DocumentsClient;
use whiskraft_proto::v1::rejection::Kind;
use whiskraft_types::{ActionLimits, ByteSize};

fn note(name: &str, body: &str, expected: Option<u64>) -> v1::PutDocument {
    v1::PutDocument {
        key: Some(v1::DocumentKey {
            kind: "note".into(),
            namespace: "guest".into(),
            name: name.into(),
        }),
        body: Bytes::from(body.to_owned()),
        expected_revision: expected,
        blobs: Vec::new(),
    }
}

async fn put(client: &mut DocumentsClient<Channel>, request: v1::PutDocument) -> Outcome {
    change(client, Change::Put(request)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_one_call_have_outcomes_of_their_own() {
    let cluster = Cluster::start().await;
    for at in 1..=3 {
        let mut client = DocumentsClient::new(cluster.channel(at).await);
        let name = format!("a{at}");
        let delete = |name: &str| {
            Change::Delete(v1::DeleteDocument {
                key: note(name, "", None).key,
                expected_revision: None,
            })
        };
        let asked = vec![
            Change::Put(note(&name, "one", Some(0))),
            Change::Put(note(" bad", "x", None)),
            Change::Put(note(&name, "two", Some(0))),
            delete("nothing"),
            delete(&name),
            Change::Put(note(&name, "three", Some(0))),
        ];
        let outcomes = changes(&mut client, asked).await;
        let Outcome::Revision(first) = outcomes[0] else {
            panic!("{outcomes:?}")
        };
        assert!(matches!(outcomes[1], Outcome::Rejection(_)), "{outcomes:?}");
        assert!(matches!(&outcomes[2], Outcome::Conflict(at) if at.current == first));
        assert!(matches!(outcomes[3], Outcome::NotFound(_)), "{outcomes:?}");
        assert!(matches!(outcomes[4], Outcome::Revision(_)), "{outcomes:?}");
        let Outcome::Revision(last) = outcomes[5] else {
            panic!("{outcomes:?}")
        };
        // Whoever writes here reads its own write here.
        let request = v1::GetDocumentRequest {
            key: note(&name, "", None).key,
            linearizable: false,
        };
        let got = client.get_document(request).await.unwrap().into_inner().outcome;
        let Some(v1::get_document_response::Outcome::Document(document)) = got else {
            panic!("{got:?}")
        };
        assert_eq!((document.revision, &document.body[..]), (last, &b"three"[..]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_with_too_many_changes_is_refused() {
    let cluster = Cluster::start().await;
    let mut client = DocumentsClient::new(cluster.channel(1).await);
    let many = v1::ChangeDocumentsRequest {
        changes: vec![v1::DocumentChange::default(); 1025],
    };
    let status = client.change_documents(many).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_is_written_only_over_the_revision_that_was_read() {
    let cluster = Cluster::start().await;
    let mut client = DocumentsClient::new(cluster.channel(1).await);
    let Outcome::Revision(first) = put(&mut client, note("a", "one", Some(0))).await else {
        panic!("not created")
    };
    let Outcome::Conflict(conflict) = put(&mut client, note("a", "two", Some(0))).await else {
        panic!("overwritten")
    };
    assert_eq!(conflict.current, first);
    let Outcome::Revision(second) = put(&mut client, note("a", "two", Some(first))).await else {
        panic!("refused")
    };
    assert!(second > first);

    let mut elsewhere = DocumentsClient::new(cluster.channel(3).await);
    let request = v1::GetDocumentRequest {
        key: note("a", "", None).key,
        linearizable: true,
    };
    let got = elsewhere
        .get_document(request.clone())
        .await
        .unwrap()
        .into_inner()
        .outcome
        .unwrap();
    let v1::get_document_response::Outcome::Document(document) = got else {
        panic!("{got:?}")
    };
    assert_eq!((document.revision, &document.body[..]), (second, &b"two"[..]));

    put(&mut client, note("b", "b", None)).await;
    put(&mut client, note("pkg/c", "c", None)).await;
    let list = v1::ListDocumentsRequest {
        kind: "note".into(),
        namespace: "guest".into(),
        after: "a".into(),
        limit: 1,
    };
    let listed = client.list_documents(list).await.unwrap().into_inner();
    assert_eq!(
        (
            listed.documents[0].key.as_ref().unwrap().name.as_str(),
            listed.more
        ),
        ("b", true)
    );

    let delete = v1::DeleteDocument {
        key: note("a", "", None).key,
        expected_revision: Some(second),
    };
    let deleted = change(&mut client, Change::Delete(delete)).await;
    assert!(matches!(deleted, Outcome::Revision(_)));
    let gone = elsewhere
        .get_document(request)
        .await
        .unwrap()
        .into_inner()
        .outcome
        .unwrap();
    assert!(matches!(gone, v1::get_document_response::Outcome::NotFound(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_document_is_said() {
    use whiskraft_proto::Message;

    let cluster = Cluster::start().await;
    let mut client = DocumentsClient::new(cluster.channel(1).await);
    let Outcome::Rejection(no) = put(&mut client, note(" a", "x", None)).await else {
        panic!("bad name stored")
    };
    assert!(matches!(no.kind, Some(Kind::Invalid(_))));
    let large = "x".repeat((1 << 20) + (64 << 10) + 1);
    let Outcome::Rejection(no) = put(&mut client, note("a", &large, None)).await else {
        panic!("large body stored")
    };
    assert!(matches!(no.kind, Some(Kind::TooLarge(_))));

    let limits = ActionLimits {
        memory: ByteSize::mib(1),
        ..Default::default()
    };
    let action = v1::Action {
        name: "guest/a".into(),
        kind: "sh".into(),
        limits: Some((&limits).into()),
        ..Default::default()
    };
    let mut request = note("a", "", None);
    request.key.as_mut().unwrap().kind = "action".into();
    request.body = action.encode_to_vec().into();
    let Outcome::Rejection(no) = put(&mut client, request).await else {
        panic!("limits not checked")
    };
    let Some(Kind::Invalid(invalid)) = no.kind else {
        panic!("{no:?}")
    };
    assert_eq!(
        invalid.reason,
        "limits.memory: 1 MiB is outside the allowed 64 MiB to 2 GiB"
    );
}

fn chunks(sha256: &[u8], body: &[u8]) -> Vec<v1::BlobChunk> {
    let mut chunks: Vec<_> = body
        .chunks(256 * 1024)
        .map(|data| v1::BlobChunk {
            data: Bytes::copy_from_slice(data),
            ..Default::default()
        })
        .collect();
    chunks[0].sha256 = Bytes::copy_from_slice(sha256);
    chunks[0].len = body.len() as u64;
    chunks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_goes_in_and_out_in_chunks_and_only_with_its_own_hash() {
    use v1::put_blob_response::Outcome as Put;

    let cluster = Cluster::start().await;
    let body: Vec<u8> = (0..700_000_u32).map(|at| (at % 251) as u8).collect();
    let hash = Sha256::digest(&body);
    let mut client = DocumentsClient::new(cluster.channel(1).await);
    let wrong = tokio_stream::iter(chunks(&[7; 32], &body));
    let refused = client
        .put_blob(wrong)
        .await
        .unwrap()
        .into_inner()
        .outcome
        .unwrap();
    assert!(matches!(refused, Put::Rejection(_)));

    let mut needs = note("a", "x", None);
    needs.blobs = vec![Bytes::copy_from_slice(&hash)];
    let Outcome::MissingBlob(missing) = put(&mut client, needs.clone()).await else {
        panic!("stored without its blob")
    };
    assert_eq!(&missing.sha256[..], &hash[..]);
    for _ in 0..2 {
        let right = tokio_stream::iter(chunks(&hash, &body));
        let stored = client
            .put_blob(right)
            .await
            .unwrap()
            .into_inner()
            .outcome
            .unwrap();
        assert!(matches!(stored, Put::Len(700_000)), "{stored:?}");
    }
    assert!(matches!(put(&mut client, needs).await, Outcome::Revision(_)));

    cluster
        .until_on(2, "the blob is everywhere", |state| {
            state
                .blob(&whiskraft_state::BlobHash(hash.into()))
                .is_some_and(|blob| blob.missing.is_empty())
        })
        .await;
    let mut elsewhere = DocumentsClient::new(cluster.channel(2).await);
    let request = v1::GetBlobRequest {
        sha256: Bytes::copy_from_slice(&hash),
    };
    let mut stream = elsewhere.get_blob(request).await.unwrap().into_inner();
    let mut got = Vec::new();
    while let Some(chunk) = stream.message().await.unwrap() {
        got.extend_from_slice(&chunk.data);
    }
    assert!(got == body);
}
