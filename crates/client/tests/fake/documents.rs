//! Documents and blobs of a fake scheduler.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};
use whiskraft_proto::v1;
use whiskraft_proto::v1::document_change::Change;
use whiskraft_proto::v1::document_changed::Outcome;
use whiskraft_proto::v1::documents_server::Documents;

use super::services::Frames;
use super::{Fake, STORED_AT_MS, Seen};

/// Documents by `namespace/name`, or `kind:namespace/name` if they are no actions; blobs by hash.
#[derive(Default)]
pub struct Store {
    pub documents: BTreeMap<String, (u64, Vec<u8>)>,
    pub blobs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// How long a call takes.
    pub pause: std::time::Duration,
    /// So many answers to calls with writes get lost after the write was done.
    pub answers_lost: u32,
    /// So many writes are done and then answered with `Unavailable`, as by a scheduler that lost touch meanwhile.
    pub answers_unknown: u32,
    /// Why the next write is refused.
    pub refusal: Option<String>,
    revision: u64,
}

impl Store {
    fn put(&mut self, request: v1::PutDocument) -> Outcome {
        if let Some(reason) = self.refusal.take() {
            return Outcome::Rejection(whiskraft_types::Rejection::Invalid { reason }.into());
        }
        if let Some(missing) = request
            .blobs
            .iter()
            .find(|hash| !self.blobs.contains_key(hash.as_ref()))
        {
            return Outcome::MissingBlob(v1::MissingBlob {
                sha256: missing.clone(),
            });
        }
        let name = name(request.key.as_ref());
        let current = self.documents.get(&name).map_or(0, |(revision, _)| *revision);
        if request
            .expected_revision
            .is_some_and(|expected| expected != current)
        {
            return Outcome::Conflict(v1::RevisionConflict { current });
        }
        self.revision += 1;
        let body = stored(&name, request.body.to_vec());
        self.documents.insert(name, (self.revision, body));
        Outcome::Revision(self.revision)
    }

    fn delete(&mut self, request: &v1::DeleteDocument) -> Outcome {
        match self.documents.remove(&name(request.key.as_ref())) {
            Some((revision, _)) => Outcome::Revision(revision + 1),
            None => Outcome::NotFound(v1::NotFound {}),
        }
    }

    fn change(&mut self, change: v1::DocumentChange) -> v1::DocumentChanged {
        let outcome = match change.change.unwrap() {
            Change::Put(put) => self.put(put),
            Change::Delete(delete) => self.delete(&delete),
        };
        let outcome = if self.answers_unknown > 0 {
            self.answers_unknown -= 1;
            let reason = "the outcome is not known".to_owned();
            Outcome::Rejection(whiskraft_types::Rejection::Unavailable { reason }.into())
        } else {
            outcome
        };
        v1::DocumentChanged {
            outcome: Some(outcome),
        }
    }

    fn change_all(&mut self, changes: Vec<v1::DocumentChange>) -> Result<Vec<v1::DocumentChanged>, Status> {
        let outcomes = changes.into_iter().map(|change| self.change(change)).collect();
        if self.answers_lost > 0 {
            self.answers_lost -= 1;
            return Err(Status::unavailable("the answer was lost by the test"));
        }
        Ok(outcomes)
    }
}

fn name(key: Option<&v1::DocumentKey>) -> String {
    let key = key.unwrap();
    format!("{}/{}", place(&key.kind, &key.namespace), key.name)
}

fn place(kind: &str, namespace: &str) -> String {
    match kind {
        "action" => namespace.to_owned(),
        kind => format!("{kind}:{namespace}"),
    }
}

/// The body as a scheduler stores it: it fills in when the slots of a schedule begin.
fn stored(name: &str, body: Vec<u8>) -> Vec<u8> {
    use whiskraft_proto::Message;

    if !name.starts_with("schedule:") {
        return body;
    }
    let mut schedule = v1::Schedule::decode(&body[..]).unwrap();
    if schedule.from_ms == 0 {
        schedule.from_ms = STORED_AT_MS;
    }
    schedule.encode_to_vec()
}

#[tonic::async_trait]
impl Documents for Fake {
    type GetBlobStream = Frames<v1::BlobChunk>;

    async fn change_documents(
        &self,
        request: Request<v1::ChangeDocumentsRequest>,
    ) -> Result<Response<v1::ChangeDocumentsResponse>, Status> {
        self.check_up()?;
        let changes = request.into_inner().changes;
        self.see(Seen::Changes(changes.len()));
        // Long enough for others to be asked for meanwhile.
        tokio::time::sleep(self.with(|state| state.store.pause)).await;
        let outcomes = self.with(|state| state.store.change_all(changes))?;
        let log_leader = self.with(|state| state.log_leader);
        Ok(Response::new(v1::ChangeDocumentsResponse {
            outcomes,
            log_leader,
        }))
    }

    async fn get_document(
        &self,
        request: Request<v1::GetDocumentRequest>,
    ) -> Result<Response<v1::GetDocumentResponse>, Status> {
        use v1::get_document_response::Outcome;

        self.check_up()?;
        let request = request.into_inner();
        let found = self.with(|state| state.store.documents.get(&name(request.key.as_ref())).cloned());
        let outcome = match found {
            Some((revision, body)) => Outcome::Document(v1::Document {
                key: request.key,
                revision,
                body: body.into(),
            }),
            None => Outcome::NotFound(v1::NotFound {}),
        };
        Ok(Response::new(v1::GetDocumentResponse {
            outcome: Some(outcome),
        }))
    }

    async fn list_documents(
        &self,
        request: Request<v1::ListDocumentsRequest>,
    ) -> Result<Response<v1::ListDocumentsResponse>, Status> {
        let request = request.into_inner();
        let limit = usize::try_from(request.limit).unwrap();
        let names: Vec<(String, u64)> = self.with(|state| {
            let all = state.store.documents.iter();
            all.filter_map(|(name, (revision, _))| {
                let (namespace, name) = name.split_once('/').unwrap();
                let wanted =
                    namespace == place(&request.kind, &request.namespace) && name > request.after.as_str();
                wanted.then(|| (name.to_owned(), *revision))
            })
            .collect()
        });
        let documents = names
            .iter()
            .take(limit)
            .map(|(name, revision)| v1::DocumentSummary {
                key: Some(v1::DocumentKey {
                    kind: request.kind.clone(),
                    namespace: request.namespace.clone(),
                    name: name.clone(),
                }),
                revision: *revision,
                len: 1,
            });
        let (documents, more) = (documents.collect(), names.len() > limit);
        Ok(Response::new(v1::ListDocumentsResponse { documents, more }))
    }

    async fn put_blob(
        &self,
        request: Request<Streaming<v1::BlobChunk>>,
    ) -> Result<Response<v1::PutBlobResponse>, Status> {
        use v1::put_blob_response::Outcome;

        let mut chunks = request.into_inner();
        let first = chunks.next().await.unwrap()?;
        let mut blob = first.data.to_vec();
        let mut count = 1;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            assert!(chunk.sha256.is_empty() && chunk.data.len() <= 256 << 10);
            blob.extend_from_slice(&chunk.data);
            count += 1;
        }
        assert_eq!(first.sha256, Sha256::digest(&blob).as_slice());
        assert_eq!(first.len, blob.len() as u64);
        self.see(Seen::PutBlob(count));
        self.with(|state| state.store.blobs.insert(first.sha256.to_vec(), blob));
        Ok(Response::new(v1::PutBlobResponse {
            outcome: Some(Outcome::Len(first.len)),
        }))
    }

    async fn get_blob(
        &self,
        request: Request<v1::GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        let hash = request.into_inner().sha256;
        let Some(blob) = self.with(|state| state.store.blobs.get(hash.as_ref()).cloned()) else {
            return Err(Status::not_found("no such blob"));
        };
        let chunks: Vec<_> = blob
            .chunks(1000)
            .map(|part| {
                Ok(v1::BlobChunk {
                    data: part.to_vec().into(),
                    ..Default::default()
                })
            })
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn put_namespace(
        &self,
        request: Request<v1::PutNamespaceRequest>,
    ) -> Result<Response<v1::PutNamespaceResponse>, Status> {
        self.check_up()?;
        let request = request.into_inner();
        let info = v1::NamespaceInfo {
            name: request.name,
            containers: request.containers,
            removed: false,
            over_provision_percent: request.over_provision_percent.unwrap_or_default(),
            invocations_per_minute: request.invocations_per_minute,
            weight: request.weight.unwrap_or_default(),
        };
        self.world.log(v1::WatchEvent {
            event: Some(v1::watch_event::Event::Namespace(info)),
        });
        let revision = v1::put_namespace_response::Outcome::Revision(self.world.revision());
        Ok(Response::new(v1::PutNamespaceResponse {
            outcome: Some(revision),
        }))
    }
}
