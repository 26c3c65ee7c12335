//! Actions and namespaces: documents and blobs of the cluster.

use bytes::{Bytes, BytesMut};
use futures::stream;
use sha2::{Digest, Sha256};
use tonic::transport::Channel;
use whiskraft_proto::v1::document_change::Change;
use whiskraft_proto::v1::document_changed::Outcome;
use whiskraft_proto::v1::documents_client::DocumentsClient;
use whiskraft_proto::{MESSAGE_LEN_MAX, required, v1};
use whiskraft_types::{ActionName, NamespaceName, Rejection, Revision};

use crate::calls::{Call, Tried};
use crate::wire::{encode_action, read_action};
use crate::{ActionError, ActionPage, ActionSpec, ActionSummary, CallError, Client, Expect, StoredAction};

/// Kind of an action's document.
const KIND: &str = "action";
/// Bytes of code in one message.
const CHUNK_LEN: usize = 256 << 10;
/// Longest code that is fetched; the longest that OpenWhisk stores is 48 MiB.
const CODE_LEN_MAX: u64 = 256 << 20;
/// A blob may be collected between its upload and the write that needs it; then it is uploaded again.
const UPLOADS_MAX: u32 = 3;

impl Client {
    /// Stores an action; its code is uploaded only if the cluster does not have it yet.
    ///
    /// A write that had to be repeated because an answer was lost is recognised by what it left behind, so
    /// `Conflict` always means somebody else.
    ///
    /// # Errors
    /// [`ActionError::Conflict`] if `expect` does not hold; [`ActionError::Call`] otherwise.
    pub async fn put_action(&self, spec: &ActionSpec, expect: Expect) -> Result<Revision, ActionError> {
        let sha256 = match spec.code.is_empty() {
            true => Bytes::new(),
            false => Bytes::copy_from_slice(&Sha256::digest(&spec.code)),
        };
        let put = v1::PutDocument {
            key: Some(document_key(&spec.name)),
            body: encode_action(spec.to_wire(sha256.clone())),
            expected_revision: expect.to_wire(),
            blobs: Some(sha256).filter(|hash| !hash.is_empty()).into_iter().collect(),
        };
        let body = put.body.clone();
        let change = Change::Put(put);
        let mut is_repeated = false;
        for _ in 0..=UPLOADS_MAX {
            let call = Call::written(self.shared(), "put action");
            let answer = call.change(self.shared(), &change).await?;
            is_repeated |= answer.is_repeated;
            match answer.value {
                Outcome::Revision(revision) => return Ok(Revision(revision)),
                Outcome::MissingBlob(_) => self.put_blob(&spec.code).await?,
                Outcome::Conflict(conflict) if is_repeated => {
                    return self.own_write(&spec.name, &body, conflict.current).await;
                }
                other => return Err(refused(&spec.name, other)),
            }
        }
        let reason = "the code is missing again after every upload".to_owned();
        Err(CallError::BadAnswer {
            operation: "put action",
            reason,
        }
        .into())
    }

    /// Reads an action as of now.
    ///
    /// # Errors
    /// [`ActionError::NotFound`]; [`ActionError::Call`].
    pub async fn get_action(&self, name: &ActionName) -> Result<StoredAction, ActionError> {
        let document = self.document(name).await?;
        let revision = Revision(document.revision);
        read_action(revision, document.body).map_err(|reason| {
            CallError::BadAnswer {
                operation: "get action",
                reason,
            }
            .into()
        })
    }

    /// Fetches the code of an action and checks it against its hash.
    ///
    /// # Errors
    /// [`ActionError::Call`].
    pub async fn action_code(&self, action: &StoredAction) -> Result<Bytes, ActionError> {
        const OPERATION: &str = "get code";
        if action.code_sha256.is_empty() {
            return Ok(Bytes::new());
        }
        let request = v1::GetBlobRequest {
            sha256: action.code_sha256.clone(),
        };
        let call = Call::transfer(self.shared(), OPERATION);
        let code = call
            .ask(self.shared(), |channel| get_blob(channel, request.clone()))
            .await?
            .value;
        if Sha256::digest(&code).as_slice() != action.code_sha256 {
            let reason = "the code does not have the hash that the action names".to_owned();
            return Err(CallError::BadAnswer {
                operation: OPERATION,
                reason,
            }
            .into());
        }
        Ok(code)
    }

    /// Deletes an action, and with it its queues.
    ///
    /// # Errors
    /// [`ActionError::NotFound`]; [`ActionError::Conflict`] if `expect` does not hold; [`ActionError::Call`].
    pub async fn delete_action(&self, name: &ActionName, expect: Expect) -> Result<(), ActionError> {
        let change = Change::Delete(v1::DeleteDocument {
            key: Some(document_key(name)),
            expected_revision: expect.to_wire(),
        });
        let call = Call::written(self.shared(), "delete action");
        let answer = call.change(self.shared(), &change).await?;
        match answer.value {
            Outcome::Revision(_) => Ok(()),
            // Gone after a repeated request: it was ours.
            Outcome::NotFound(_) if answer.is_repeated => Ok(()),
            Outcome::Conflict(conflict) if answer.is_repeated && conflict.current == 0 => Ok(()),
            other => Err(refused(name, other)),
        }
    }

    /// Lists the actions of a namespace by name: up to `limit` (1 to 1000; 0 is 200) of them, those after `after`.
    ///
    /// # Errors
    /// [`ActionError::Call`].
    pub async fn list_actions(
        &self,
        namespace: &NamespaceName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<ActionPage, ActionError> {
        const OPERATION: &str = "list actions";
        let request = v1::ListDocumentsRequest {
            kind: KIND.to_owned(),
            namespace: namespace.to_string(),
            after: after.unwrap_or_default().to_owned(),
            limit,
        };
        let call = Call::bulk(self.shared(), OPERATION);
        let list = call
            .ask(self.shared(), |channel| list_documents(channel, request.clone()))
            .await?
            .value;
        page(list).map_err(|reason| {
            CallError::BadAnswer {
                operation: OPERATION,
                reason,
            }
            .into()
        })
    }

    /// After a repeated write met a conflict: ours, if exactly our bytes are there.
    async fn own_write(
        &self,
        name: &ActionName,
        body: &Bytes,
        current: u64,
    ) -> Result<Revision, ActionError> {
        match self.document(name).await {
            Ok(document) if document.body == *body => Ok(Revision(document.revision)),
            Ok(_) | Err(ActionError::NotFound { .. }) => Err(conflict(name, current)),
            Err(error) => Err(error),
        }
    }

    async fn document(&self, name: &ActionName) -> Result<v1::Document, ActionError> {
        let request = v1::GetDocumentRequest {
            key: Some(document_key(name)),
            linearizable: true,
        };
        let call = Call::bulk(self.shared(), "get action");
        let answer = call.ask(self.shared(), |channel| get_document(channel, request.clone()));
        answer.await?.value.ok_or_else(|| ActionError::NotFound {
            name: name.to_string(),
        })
    }

    async fn put_blob(&self, code: &Bytes) -> Result<(), CallError> {
        let chunks = chunks(code);
        let call = Call::transfer(self.shared(), "upload code");
        call.ask(self.shared(), |channel| put_blob(channel, chunks.clone()))
            .await?;
        Ok(())
    }
}

pub(crate) async fn get_document(
    channel: Channel,
    request: v1::GetDocumentRequest,
) -> Tried<Option<v1::Document>> {
    use v1::get_document_response::Outcome;

    let response = documents(channel).get_document(request).await?.into_inner();
    Ok(
        match required(response.outcome, "get_document.outcome").map_err(unreadable)? {
            Outcome::Document(document) => Ok(Some(document)),
            Outcome::NotFound(_) => Ok(None),
            Outcome::Rejection(rejection) => Err(Rejection::try_from(rejection).map_err(unreadable)?),
        },
    )
}

pub(crate) async fn list_documents(
    channel: Channel,
    request: v1::ListDocumentsRequest,
) -> Tried<v1::ListDocumentsResponse> {
    Ok(Ok(documents(channel).list_documents(request).await?.into_inner()))
}

async fn put_blob(channel: Channel, chunks: Vec<v1::BlobChunk>) -> Tried<()> {
    use v1::put_blob_response::Outcome;

    let response = documents(channel)
        .put_blob(stream::iter(chunks))
        .await?
        .into_inner();
    Ok(
        match required(response.outcome, "put_blob.outcome").map_err(unreadable)? {
            Outcome::Len(_) => Ok(()),
            Outcome::Rejection(rejection) => Err(Rejection::try_from(rejection).map_err(unreadable)?),
        },
    )
}

async fn get_blob(channel: Channel, request: v1::GetBlobRequest) -> Tried<Bytes> {
    let mut chunks = documents(channel).get_blob(request).await?.into_inner();
    let mut code = BytesMut::new();
    while let Some(chunk) = chunks.message().await? {
        if (code.len() + chunk.data.len()) as u64 > CODE_LEN_MAX {
            return Ok(Err(Rejection::TooLarge {
                len: chunk.len,
                len_max: CODE_LEN_MAX,
            }));
        }
        code.extend_from_slice(&chunk.data);
    }
    Ok(Ok(code.freeze()))
}

/// The code in order; slices, not copies.
fn chunks(code: &Bytes) -> Vec<v1::BlobChunk> {
    let mut chunks: Vec<_> = (0..code.len())
        .step_by(CHUNK_LEN)
        .map(|at| v1::BlobChunk {
            data: code.slice(at..code.len().min(at + CHUNK_LEN)),
            ..Default::default()
        })
        .collect();
    if let Some(first) = chunks.first_mut() {
        first.sha256 = Bytes::copy_from_slice(&Sha256::digest(code));
        first.len = code.len() as u64;
    }
    chunks
}

fn documents(channel: Channel) -> DocumentsClient<Channel> {
    DocumentsClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX)
}

fn document_key(name: &ActionName) -> v1::DocumentKey {
    let (namespace, rest) = name.as_str().split_once('/').unwrap_or((name.as_str(), ""));
    v1::DocumentKey {
        kind: KIND.to_owned(),
        namespace: namespace.to_owned(),
        name: rest.to_owned(),
    }
}

/// What came of a change.
pub(crate) fn outcome(response: v1::DocumentChanged) -> Tried<Outcome> {
    Ok(
        match required(response.outcome, "document.outcome").map_err(unreadable)? {
            Outcome::Rejection(rejection) => Err(Rejection::try_from(rejection).map_err(unreadable)?),
            other => Ok(other),
        },
    )
}

/// An answer that cannot be read is final: another scheduler would say the same.
fn unreadable(error: whiskraft_proto::InvalidMessage) -> tonic::Status {
    tonic::Status::data_loss(error.to_string())
}

fn refused(name: &ActionName, outcome: Outcome) -> ActionError {
    match outcome {
        Outcome::Conflict(found) => conflict(name, found.current),
        Outcome::NotFound(_) => ActionError::NotFound {
            name: name.to_string(),
        },
        Outcome::Revision(_) | Outcome::MissingBlob(_) | Outcome::Rejection(_) => {
            let reason = "the answer does not belong to the request".to_owned();
            CallError::BadAnswer {
                operation: "change action",
                reason,
            }
            .into()
        }
    }
}

fn conflict(name: &ActionName, current: u64) -> ActionError {
    ActionError::Conflict {
        name: name.to_string(),
        current: (current != 0).then_some(Revision(current)),
    }
}

fn page(list: v1::ListDocumentsResponse) -> Result<ActionPage, String> {
    let mut next = None;
    let mut actions = Vec::with_capacity(list.documents.len());
    for summary in list.documents {
        let key = required(summary.key, "document.key").map_err(|error| error.to_string())?;
        let name = format!("{}/{}", key.namespace, key.name);
        next = Some(key.name);
        actions.push(ActionSummary {
            name: name.parse().map_err(|error| format!("{error}"))?,
            revision: Revision(summary.revision),
        });
    }
    Ok(ActionPage {
        actions,
        next: next.filter(|_| list.more),
    })
}
