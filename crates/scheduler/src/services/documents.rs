//! Documents service: entities and code, replicated by the cluster and kept on every scheduler's disk.
//!
//! Validation happens here, once; the state machine does not look inside a body.

use bytes::Bytes;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};
use whiskraft_proto::v1::{self, documents_server::Documents};
use whiskraft_proto::{InvalidMessage, Message as _, required};
use whiskraft_state::{BlobHash, Command, DocumentKey, PutDocument, Refusal, Response as Answer};
use whiskraft_types::{ActionName, NamespaceLimits, NamespaceName, Rejection, Revision};

use crate::clock::unix_ms;
use crate::context::{Context, Proposing};
use crate::schedules::{SCHEDULE, stored};
use crate::services::{action, blobs::Blobs};
use crate::together::together;
use crate::wire;

/// Largest body of a document: 1 MiB of content and 64 KiB of envelope; an entry of the log stays well below
/// what one append carries.
const BODY_LEN_MAX: usize = (1 << 20) + (64 << 10);
/// Longest kind of a document in bytes; kinds are words of ours.
const KIND_LEN_MAX: usize = 32;
/// Blobs one document may need; an action needs one.
const BLOBS_MAX: usize = 16;
/// Changes in one call: as many commands as the log takes into one append.
const CHANGES_MAX: usize = 1024;
/// Bytes of changes in one call, unless it is a single one, which gets an answer of its own.
const CHANGES_BYTES_MAX: usize = 8 << 20;
/// Documents in one answer of a listing, when the caller does not say and at most.
const LIST_LEN: (usize, usize) = (200, 1000);

/// Implements the service; one per process.
#[derive(Debug, Clone)]
pub(crate) struct DocumentsService {
    context: Context,
    blobs: Blobs,
}

impl DocumentsService {
    pub(crate) fn new(context: Context) -> Self {
        let blobs = Blobs::new(context.clone());
        Self { context, blobs }
    }

    /// Writes and deletes documents with one write to the log; for each what came of it.
    async fn change(&self, changes: Vec<v1::DocumentChange>) -> Vec<Result<PutOutcome, Rejection>> {
        let commands = changes.into_iter().map(|change| self.command(change));
        together(commands.collect(), |commands| self.write(commands)).await
    }

    fn command(&self, change: v1::DocumentChange) -> Result<Command, Rejection> {
        use v1::document_change::Change;

        match required(change.change, "change").map_err(|error| invalid(error.to_string()))? {
            Change::Put(put) => self.check_put(put).map(Command::PutDocument),
            Change::Delete(delete) => Ok(Command::DeleteDocument {
                key: document_key(delete.key)?,
                expected: delete.expected_revision.map(Revision),
            }),
        }
    }

    fn check_put(&self, request: v1::PutDocument) -> Result<PutDocument, Rejection> {
        let key = document_key(request.key)?;
        if request.body.len() > BODY_LEN_MAX {
            return Err(Rejection::TooLarge {
                len: request.body.len() as u64,
                len_max: BODY_LEN_MAX as u64,
            });
        }
        if request.blobs.len() > BLOBS_MAX {
            return Err(invalid(format!(
                "{} blobs, at most {BLOBS_MAX} per document",
                request.blobs.len()
            )));
        }
        let blobs = request
            .blobs
            .iter()
            .map(blob_hash)
            .collect::<Result<Vec<_>, _>>()?;
        let mut body = request.body;
        let limits = match key.kind.as_str() {
            SCHEDULE => {
                body = stored(&key, &body, unix_ms()).map_err(|error| invalid(error.to_string()))?;
                None
            }
            DocumentKey::ACTION => {
                let config = &self.context.config.documents;
                Some(
                    action::limits(config, &key, &body, &blobs)
                        .map_err(|error| invalid(error.to_string()))?,
                )
            }
            _ => None,
        };
        Ok(PutDocument {
            key,
            body: body.into(),
            expected: request.expected_revision.map(Revision),
            blobs,
            limits,
        })
    }

    async fn write(&self, commands: Vec<Command>) -> Vec<Result<PutOutcome, Rejection>> {
        if let Err(no) = self.context.available().await {
            return commands.iter().map(|_| Err(no.clone())).collect();
        }
        let proposed = self.context.propose_many(commands).await;
        let done = proposed.iter().filter_map(|proposed| proposed.as_ref().ok());
        let newest = done.map(|(revision, _)| *revision).max();
        let outcomes = proposed.into_iter().map(changed).collect();
        if let Some(newest) = newest {
            // Whoever writes here reads its own write here.
            let _ = self.context.node.wait_applied(newest).await;
        }
        outcomes
    }

    async fn get(&self, request: v1::GetDocumentRequest) -> Result<Option<v1::Document>, Rejection> {
        let key = document_key(request.key)?;
        if request.linearizable {
            self.context.available().await?;
            let unavailable = |reason: String| Rejection::Unavailable { reason };
            self.context
                .node
                .read_index()
                .await
                .map_err(|error| unavailable(error.to_string()))?;
        }
        let found = self.context.node.document(&key).map_err(|error| {
            tracing::error!(kind = key.kind, name = key.name, %error, "document unreadable");
            Rejection::Unavailable {
                reason: error.to_string(),
            }
        })?;
        Ok(found.map(|(revision, body)| v1::Document {
            key: Some(wire::document_key(&key)),
            revision: revision.0,
            body,
        }))
    }

    fn list(&self, request: &v1::ListDocumentsRequest) -> Result<v1::ListDocumentsResponse, Rejection> {
        let namespace: NamespaceName = request
            .namespace
            .parse()
            .map_err(|error| invalid(format!("namespace: {error}")))?;
        let limit = match request.limit as usize {
            0 => LIST_LEN.0,
            limit => limit.min(LIST_LEN.1),
        };
        let mut documents: Vec<_> = self.context.node.read(|state| {
            let after = (!request.after.is_empty()).then_some(request.after.as_str());
            let rows = state.documents(&request.kind, &namespace, after);
            rows.take(limit + 1)
                .map(|(key, record)| v1::DocumentSummary {
                    key: Some(wire::document_key(key)),
                    revision: record.revision.0,
                    len: record.len,
                })
                .collect()
        });
        let more = documents.len() > limit;
        documents.truncate(limit);
        Ok(v1::ListDocumentsResponse { documents, more })
    }

    async fn put_namespace(&self, request: v1::PutNamespaceRequest) -> Result<u64, Rejection> {
        let name = request
            .name
            .parse()
            .map_err(|error| invalid(format!("name: {error}")))?;
        let defaults = NamespaceLimits::default();
        let limits = NamespaceLimits {
            containers: request.containers,
            over_provision_percent: request
                .over_provision_percent
                .unwrap_or(defaults.over_provision_percent),
            invocations_per_minute: request.invocations_per_minute,
            weight: request.weight.unwrap_or(defaults.weight),
        };
        self.context.available().await?;
        let proposed = self.context.propose(Command::PutNamespace { name, limits }).await;
        match proposed.map_err(|error| wire::propose_error(&error))? {
            (_, Answer::Refused(refusal)) => Err(wire::refusal(refusal)),
            (revision, _) => {
                let _ = self.context.node.wait_applied(revision).await;
                Ok(revision.0)
            }
        }
    }
}

use v1::document_changed::Outcome as PutOutcome;

/// What came of a command about a document.
fn changed(proposed: Proposing) -> Result<PutOutcome, Rejection> {
    let (_, answer) = proposed.map_err(|error| wire::propose_error(&error))?;
    match answer {
        Answer::Revision(document) => Ok(PutOutcome::Revision(document.0)),
        Answer::Refused(Refusal::Conflict { current }) => {
            Ok(PutOutcome::Conflict(v1::RevisionConflict { current: current.0 }))
        }
        Answer::Refused(Refusal::MissingBlob { hash }) => Ok(PutOutcome::MissingBlob(v1::MissingBlob {
            sha256: Bytes::copy_from_slice(&hash.0),
        })),
        Answer::Refused(Refusal::NotFound) => Ok(PutOutcome::NotFound(v1::NotFound {})),
        Answer::Refused(refusal) => Err(wire::refusal(refusal)),
        _ => Err(wire::unexpected("a change of a document")),
    }
}

fn invalid(reason: String) -> Rejection {
    Rejection::Invalid { reason }
}

fn document_key(key: Option<v1::DocumentKey>) -> Result<DocumentKey, Rejection> {
    let parse = |key: v1::DocumentKey| -> Result<DocumentKey, InvalidMessage> {
        let kind_is_word = key
            .kind
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        if key.kind.is_empty() || key.kind.len() > KIND_LEN_MAX || !kind_is_word {
            let reason = format!("{:?} must be 1 to {KIND_LEN_MAX} lower-case letters", key.kind);
            return Err(InvalidMessage::Invalid {
                field: "key.kind",
                reason,
            });
        }
        // The rules of an action's name are those of every entity: `[package/]name` within a namespace.
        let _: ActionName = format!("{}/{}", key.namespace, key.name).parse()?;
        Ok(DocumentKey {
            kind: key.kind,
            namespace: key.namespace.parse()?,
            name: key.name,
        })
    };
    required(key, "key")
        .and_then(parse)
        .map_err(|error| invalid(error.to_string()))
}

pub(crate) fn blob_hash(bytes: &Bytes) -> Result<BlobHash, Rejection> {
    let hash = bytes[..]
        .try_into()
        .map_err(|_| invalid(format!("sha256: {} bytes, must be 32", bytes.len())))?;
    Ok(BlobHash(hash))
}

#[tonic::async_trait]
impl Documents for DocumentsService {
    async fn change_documents(
        &self,
        request: Request<v1::ChangeDocumentsRequest>,
    ) -> Result<Response<v1::ChangeDocumentsResponse>, Status> {
        let len = request.get_ref().encoded_len();
        let changes = request.into_inner().changes;
        if changes.len() > CHANGES_MAX || (changes.len() > 1 && len > CHANGES_BYTES_MAX) {
            let count = changes.len();
            return Err(Status::invalid_argument(format!(
                "{count} changes of {len} bytes in one call, at most {CHANGES_MAX} of {CHANGES_BYTES_MAX}"
            )));
        }
        let outcomes = self.change(changes).await.into_iter();
        let outcomes = outcomes.map(|outcome| v1::DocumentChanged {
            outcome: Some(outcome.unwrap_or_else(|no| PutOutcome::Rejection(no.into()))),
        });
        Ok(Response::new(v1::ChangeDocumentsResponse {
            outcomes: outcomes.collect(),
            log_leader: self.context.log_leader(),
        }))
    }

    async fn get_document(
        &self,
        request: Request<v1::GetDocumentRequest>,
    ) -> Result<Response<v1::GetDocumentResponse>, Status> {
        use v1::get_document_response::Outcome;

        let outcome = match self.get(request.into_inner()).await {
            Ok(Some(document)) => Outcome::Document(document),
            Ok(None) => Outcome::NotFound(v1::NotFound {}),
            Err(rejection) => Outcome::Rejection(rejection.into()),
        };
        Ok(Response::new(v1::GetDocumentResponse {
            outcome: Some(outcome),
        }))
    }

    async fn list_documents(
        &self,
        request: Request<v1::ListDocumentsRequest>,
    ) -> Result<Response<v1::ListDocumentsResponse>, Status> {
        // A unary call that belongs to nobody else: here a status is the right form of a no.
        let listed = self
            .list(request.get_ref())
            .map_err(|no| Status::invalid_argument(no.to_string()))?;
        Ok(Response::new(listed))
    }

    async fn put_blob(
        &self,
        request: Request<Streaming<v1::BlobChunk>>,
    ) -> Result<Response<v1::PutBlobResponse>, Status> {
        use v1::put_blob_response::Outcome;

        let outcome = match self.blobs.put(request.into_inner()).await {
            Ok(len) => Outcome::Len(len),
            Err(rejection) => Outcome::Rejection(rejection.into()),
        };
        Ok(Response::new(v1::PutBlobResponse {
            outcome: Some(outcome),
        }))
    }

    type GetBlobStream = BoxStream<'static, Result<v1::BlobChunk, Status>>;

    async fn get_blob(
        &self,
        request: Request<v1::GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        let hash =
            blob_hash(&request.get_ref().sha256).map_err(|no| Status::invalid_argument(no.to_string()))?;
        self.blobs.get(hash).map(Response::new)
    }

    async fn put_namespace(
        &self,
        request: Request<v1::PutNamespaceRequest>,
    ) -> Result<Response<v1::PutNamespaceResponse>, Status> {
        use v1::put_namespace_response::Outcome;

        let outcome = match self.put_namespace(request.into_inner()).await {
            Ok(revision) => Outcome::Revision(revision),
            Err(rejection) => Outcome::Rejection(rejection.into()),
        };
        Ok(Response::new(v1::PutNamespaceResponse {
            outcome: Some(outcome),
        }))
    }
}
