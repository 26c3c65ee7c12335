//! Dead letters: activations whose last run failed under a retry policy. Listed, run again, taken off the list.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tonic::Status;
use whiskraft_proto::{activation_id, activation_id_bytes, v1};
use whiskraft_raft::{Journal, Journaled, LaneId, Lookup, StoreError};
use whiskraft_state::journal::{
    JournalBatch, JournalCommand, JournalOutcome, JournalRow, RowState, UnixMillis,
};
use whiskraft_types::{
    ActionName, ActivationId, ActivationStatus, NameError, NamespaceName, QueueKey, Rejection,
};

use crate::cluster::Cluster;
use crate::context::Context;
use crate::internal::{Internal, InternalController};
use crate::journal::read_record;
use crate::message::Content;
use crate::wire;

/// Letters in an answer if the request says nothing, and at most.
const PAGE: u32 = 200;
const PAGE_MAX: u32 = 1000;
/// Rows looked at for one answer: an action with few letters among many gets a shorter page and a cursor.
const LOOK_MAX: usize = 5000;
/// Ids in one request.
const IDS_MAX: usize = 1000;
/// Letters that are run again at a time.
const REDRIVES_MAX: usize = 16;
/// Longest text of an error in a list, in characters.
const ERROR_LEN_MAX: usize = 200;

/// The letters; a cheap copy.
#[derive(Debug, Clone)]
pub(crate) struct Letters {
    context: Context,
    cluster: Cluster,
    internal: InternalController,
}

/// A place in the order of the list.
type Place = (UnixMillis, ActivationId);

impl Letters {
    pub(crate) const fn new(context: Context, cluster: Cluster, internal: InternalController) -> Self {
        Self {
            context,
            cluster,
            internal,
        }
    }

    /// A page of a namespace's letters, oldest first.
    ///
    /// # Errors
    /// If the request is none, or the journal cannot be read.
    pub(crate) async fn list(
        &self,
        request: v1::ListDeadLettersRequest,
    ) -> Result<v1::ListDeadLettersResponse, Status> {
        let namespace = namespace(&request.namespace)?;
        let action = (!request.action.is_empty()).then(|| request.action.parse());
        let action: Option<ActionName> = action
            .transpose()
            .map_err(|error: NameError| Status::invalid_argument(error.to_string()))?;
        let after = (!request.after.is_empty()).then(|| read_cursor(&request.after));
        let after = after.transpose()?;
        let limit = if request.limit == 0 {
            PAGE
        } else {
            request.limit.min(PAGE_MAX)
        } as usize;
        self.cluster.catch_up().await?;
        let page = move |journal: &Journal| page(journal, &namespace, action.as_ref(), after, limit);
        let (letters, next) = self
            .read(page)
            .await
            .and_then(|page| page.map_err(|error| error.to_string()))
            .map_err(Status::internal)?;
        Ok(v1::ListDeadLettersResponse {
            letters,
            next: next.map(write_cursor).unwrap_or_default().into(),
            rejection: None,
        })
    }

    /// Reads the journal where it may block.
    ///
    /// # Errors
    /// While the process stops.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Journal) -> T + Send + 'static,
    ) -> Result<T, String> {
        let journal = self.context.node.journal().clone();
        let read = tokio::task::spawn_blocking(move || read(&journal)).await;
        read.map_err(|_| "the scheduler is stopping; ask another one".to_owned())
    }

    /// Runs letters again, each as a new activation.
    ///
    /// # Errors
    /// If the request is none, or the journal cannot be read.
    pub(crate) async fn redrive(
        &self,
        request: v1::RedriveDeadLettersRequest,
    ) -> Result<v1::RedriveDeadLettersResponse, Status> {
        let namespace = namespace(&request.namespace)?;
        let ids = ids(&request.ids)?;
        self.cluster.catch_up().await?;
        let mut response = v1::RedriveDeadLettersResponse::default();
        let mut gone_on: BTreeMap<LaneId, Vec<ActivationId>> = BTreeMap::new();
        let namespace = &namespace;
        let redriven = stream::iter(ids).map(async |id| (id, self.redrive_one(id, namespace).await));
        let redriven: Vec<_> = redriven.buffered(REDRIVES_MAX).collect().await;
        for (id, outcome) in redriven {
            let outcome = match outcome {
                Ok((new_id, lane)) => {
                    gone_on.extend_with(lane, id);
                    Ok(new_id)
                }
                Err(error) => Err(error),
            };
            response.redriven.push(v1::Redriven {
                id: activation_id_bytes(id),
                new_id: outcome
                    .as_ref()
                    .map(|id| activation_id_bytes(*id))
                    .unwrap_or_default(),
                error: outcome.err().unwrap_or_default(),
            });
        }
        // One that stays listed for want of a quorum is redriven to the same new id, which changes nothing.
        if let Err(rejection) = self.purge_rows(gone_on).await {
            tracing::warn!(%rejection, "redriven dead letters stay on the list");
        }
        Ok(response)
    }

    /// Submits one again; its new id, and where its row is if it is to be taken off the list.
    ///
    /// # Errors
    /// Says why it was not, and what to do.
    async fn redrive_one(
        &self,
        id: ActivationId,
        namespace: &NamespaceName,
    ) -> Result<(ActivationId, Option<LaneId>), String> {
        let namespace = namespace.clone();
        let look = self.read(move |journal| look(journal, id, &namespace)).await??;
        let (lane, key, new_id, payload) = match look {
            Redrive::Listed {
                lane,
                key,
                new_id,
                payload,
            } => (lane, key, new_id, payload),
            Redrive::Done { new_id } => return Ok((new_id, None)),
        };
        let mut content =
            Content::decode(payload).map_err(|error| format!("payload of activation {id}: {error}"))?;
        content.cause = id.to_string();
        let internal = Internal {
            id: new_id,
            key,
            payload: Arc::new(content),
            not_before_ms: 0,
        };
        self.internal
            .submit(internal)
            .await
            .map_err(|rejection| rejection.to_string())?;
        Ok((new_id, Some(lane)))
    }

    /// Takes letters off the list.
    ///
    /// # Errors
    /// If the request is none, or the journal cannot be read.
    pub(crate) async fn purge(
        &self,
        request: v1::PurgeDeadLettersRequest,
    ) -> Result<v1::PurgeDeadLettersResponse, Status> {
        let namespace = namespace(&request.namespace)?;
        let ids = ids(&request.ids)?;
        self.cluster.catch_up().await?;
        let find = move |journal: &Journal| {
            let (mut rows, mut purged) = (BTreeMap::new(), 0);
            for id in ids {
                if let Ok((Journaled { lane, row }, _)) = ended(journal, id, &namespace)
                    && is_listed(&row)
                {
                    rows.extend_with(Some(lane), id);
                    purged += 1;
                }
            }
            (rows, purged)
        };
        let (rows, purged) = self.read(find).await.map_err(Status::unavailable)?;
        let mut response = v1::PurgeDeadLettersResponse::default();
        match self.purge_rows(rows).await {
            Ok(()) => response.purged = purged,
            Err(rejection) => response.rejection = Some(rejection.into()),
        }
        Ok(response)
    }

    async fn purge_rows(&self, rows: BTreeMap<LaneId, Vec<ActivationId>>) -> Result<(), Rejection> {
        for (lane, ids) in rows {
            let batch = JournalBatch::of(vec![JournalCommand::Purge { ids }]);
            let appended = self.context.node.journal().append(lane, batch).await;
            let (_, outcomes) = appended.map_err(|error| wire::propose_error(&error))?;
            if outcomes != [JournalOutcome::Written] {
                return Err(wire::unexpected("Purge"));
            }
        }
        Ok(())
    }
}

/// A page of letters, and the place after which the next one begins, if there may be one.
fn page(
    journal: &Journal,
    namespace: &NamespaceName,
    action: Option<&ActionName>,
    mut after: Option<Place>,
    limit: usize,
) -> Result<(Vec<v1::DeadLetter>, Option<Place>), StoreError> {
    let (mut letters, mut looked) = (Vec::new(), 0);
    let mut is_end = false;
    while letters.len() < limit && looked < LOOK_MAX && !is_end {
        let count = limit - letters.len();
        let page = journal.dead_letters(namespace, after, count)?;
        is_end = page.len() < count;
        looked += page.len();
        for Journaled { lane, row } in page {
            after = ended_at(&row).map(|at| (at, row.id));
            if action.is_none_or(|action| row.key.action == *action) {
                letters.push(letter(journal, lane, &row));
            }
        }
    }
    Ok((letters, after.filter(|_| !is_end)))
}

/// What there is to run again of an activation.
enum Redrive {
    /// A letter.
    Listed {
        lane: LaneId,
        key: QueueKey,
        new_id: ActivationId,
        payload: Bytes,
    },
    /// It was run again before, for somebody who did not hear the answer.
    Done { new_id: ActivationId },
}

/// Looks up one that is to be run again.
///
/// # Errors
/// Says why it cannot be.
fn look(journal: &Journal, id: ActivationId, namespace: &NamespaceName) -> Result<Redrive, String> {
    let (Journaled { lane, row }, at) = ended(journal, id, namespace)?;
    let new_id = redriven_id(id, at);
    if !is_listed(&row) {
        return match journal.find(new_id).map_err(|error| error.to_string())? {
            Lookup::Missing => Err(format!("activation {id} is not a dead letter (any more)")),
            Lookup::Gone | Lookup::Found(_) => Ok(Redrive::Done { new_id }),
        };
    }
    let payload = journal.payload(lane, id).map_err(|error| error.to_string())?;
    let payload = payload.ok_or_else(|| format!("the payload of activation {id} is not in the journal"))?;
    Ok(Redrive::Listed {
        lane,
        key: row.key,
        new_id,
        payload,
    })
}

/// The row of one that has ended, and when it did.
///
/// # Errors
/// Says that it is not known, or has not ended.
fn ended(
    journal: &Journal,
    id: ActivationId,
    namespace: &NamespaceName,
) -> Result<(Journaled, UnixMillis), String> {
    let found = journal.find(id).map_err(|error| error.to_string())?;
    let Lookup::Found(journaled) = found else {
        return Err(format!("activation {id} is not known"));
    };
    if journaled.row.key.namespace != *namespace {
        return Err(format!("activation {id} is not known"));
    }
    let at = ended_at(&journaled.row).ok_or_else(|| format!("activation {id} has not ended"))?;
    Ok((journaled, at))
}

const fn is_listed(row: &JournalRow) -> bool {
    matches!(
        row.state,
        RowState::Ended {
            dead_letter: true,
            ..
        }
    )
}

/// Ids by lane.
trait ExtendWith {
    fn extend_with(&mut self, lane: Option<LaneId>, id: ActivationId);
}

impl ExtendWith for BTreeMap<LaneId, Vec<ActivationId>> {
    fn extend_with(&mut self, lane: Option<LaneId>, id: ActivationId) {
        if let Some(lane) = lane {
            self.entry(lane).or_default().push(id);
        }
    }
}

/// The id of a redrive: always the same for one that ended then, so that asking twice runs it once.
fn redriven_id(id: ActivationId, ended: UnixMillis) -> ActivationId {
    let mut hasher = Sha256::new();
    hasher.update(b"whiskraft-redrive-v1\0");
    hasher.update(id.as_bytes());
    hasher.update(ended.0.to_be_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize()[..16]);
    ActivationId::from_bytes(bytes)
}

const fn ended_at(row: &JournalRow) -> Option<UnixMillis> {
    match row.state {
        RowState::Ended { at, .. } => Some(at),
        RowState::Open { .. } => None,
    }
}

fn letter(journal: &Journal, lane: LaneId, row: &JournalRow) -> v1::DeadLetter {
    let payload = journal.payload(lane, row.id).ok().flatten();
    let record = read_record(journal, lane, row.id).ok().flatten();
    let status = record
        .as_ref()
        .map_or(ActivationStatus::WhiskError, |record| record.status);
    v1::DeadLetter {
        id: activation_id_bytes(row.id),
        key: Some((&row.key).into()),
        runs: row.run,
        ended_ms: ended_at(row).map_or(0, |at| at.0),
        status: v1::Status::from(status).into(),
        error: record.map_or_else(String::new, |record| first_line(&record.result)),
        payload_len: payload.map_or(0, |payload| payload.len() as u64),
    }
}

/// First line of the error in a result, shortened.
fn first_line(result: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(result).unwrap_or_default();
    let text = match value.get("error") {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => value.to_string(),
    };
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(ERROR_LEN_MAX).collect()
}

fn namespace(text: &str) -> Result<NamespaceName, Status> {
    let namespace: Result<NamespaceName, NameError> = text.parse();
    namespace.map_err(|error| Status::invalid_argument(error.to_string()))
}

fn ids(ids: &[bytes::Bytes]) -> Result<Vec<ActivationId>, Status> {
    if ids.len() > IDS_MAX {
        let text = format!("{} ids in one request; at most {IDS_MAX} are taken", ids.len());
        return Err(Status::invalid_argument(text));
    }
    let ids = ids.iter().map(|id| activation_id(id));
    ids.collect::<Result<_, _>>()
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

fn write_cursor((at, id): Place) -> Vec<u8> {
    [at.0.to_be_bytes().as_slice(), id.as_bytes()].concat()
}

fn read_cursor(bytes: &[u8]) -> Result<Place, Status> {
    let read = bytes.split_first_chunk::<8>().and_then(|(at, id)| {
        let id: [u8; 16] = id.try_into().ok()?;
        let at = UnixMillis(u64::from_be_bytes(*at));
        Some((at, ActivationId::from_bytes(id)))
    });
    read.ok_or_else(|| Status::invalid_argument("after: not a cursor of an earlier answer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_and_anything_else_is_refused() {
        let place = (UnixMillis(1_700_000_000_123), ActivationId::from_bytes([9; 16]));
        assert_eq!(read_cursor(&write_cursor(place)).unwrap(), place);
        assert!(read_cursor(b"short").is_err());
        assert!(read_cursor(&[0; 25]).is_err());
    }

    #[test]
    fn a_redrive_has_the_same_id_as_often_as_it_is_asked_for() {
        let id = |n| ActivationId::from_bytes([n; 16]);
        let first = redriven_id(id(1), UnixMillis(5));
        assert_eq!(first, redriven_id(id(1), UnixMillis(5)));
        assert_ne!(first, redriven_id(id(2), UnixMillis(5)));
        // Another end is another letter.
        assert_ne!(first, redriven_id(id(1), UnixMillis(6)));
    }

    #[test]
    fn the_error_of_a_letter_is_one_short_line() {
        assert_eq!(first_line(br#"{"error":"boom\nTraceback"}"#), "boom");
        assert_eq!(first_line(br#"{"error":{"code":3}}"#), r#"{"code":3}"#);
        let long = format!("{{\"error\":\"{}\"}}", "x".repeat(1000));
        assert_eq!(first_line(long.as_bytes()).len(), ERROR_LEN_MAX);
    }
}
