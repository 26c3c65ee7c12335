//! Documents: what decisions need of them is in memory, their bytes leave as effects.

use whiskraft_types::{ActionName, Revision};

use crate::bounds::{BLOBS_PER_DOCUMENT_MAX, DOCUMENT_LEN_MAX, DOCUMENT_NAME_LEN_MAX};
use crate::command::{DocumentKey, PutDocument};
use crate::event::{Effect, Event, Refusal, Response};
use crate::members::check_text;
use crate::record::{BlobHash, DocumentRecord};
use crate::state::State;
use crate::turn::Turn;

impl State {
    pub(crate) fn apply_put_document(
        &mut self,
        put: &PutDocument,
        turn: &mut Turn,
    ) -> Result<Response, Refusal> {
        let action = check_document(put)?;
        self.check_revision(&put.key, put.expected)?;
        let is_stored = |hash: &BlobHash| self.blob(hash).is_some_and(|blob| blob.missing.is_empty());
        if let Some(hash) = put.blobs.iter().find(|hash| !is_stored(hash)) {
            return Err(Refusal::MissingBlob { hash: *hash });
        }
        let revision = Revision(turn.revision.0);
        let row = DocumentRecord {
            revision,
            len: put.body.len() as u64,
            blobs: put.blobs.clone(),
            limits: put.limits.clone(),
        };
        let old = self.tables.documents.insert(put.key.clone(), row.clone());
        // New references first: a blob that both versions need is at no time without one.
        self.add_references(&put.blobs, turn.revision);
        old.iter()
            .for_each(|old| self.drop_references(&old.blobs, turn.revision));
        turn.event(Event::Document(put.key.clone(), Some(row)));
        turn.effect(Effect::PutDocument {
            key: put.key.clone(),
            revision: turn.revision,
            body: put.body.clone(),
        });
        if let Some(action) = action {
            self.raise_revision(&action, revision, turn);
        }
        Ok(Response::Revision(revision))
    }

    pub(crate) fn apply_delete_document(
        &mut self,
        key: &DocumentKey,
        expected: Option<Revision>,
        turn: &mut Turn,
    ) -> Result<Response, Refusal> {
        let row = self.document(key).ok_or(Refusal::NotFound)?.clone();
        self.check_revision(key, expected)?;
        self.tables.documents.remove(key);
        self.drop_references(&row.blobs, turn.revision);
        turn.event(Event::Document(key.clone(), None));
        turn.effect(Effect::DeleteDocument { key: key.clone() });
        if let Some(action) = action_of(key) {
            // Newer than anything that runs of it: their leaders let that finish, refuse more and remove them.
            self.raise_revision(&action, Revision(turn.revision.0), turn);
            self.delete_unplaced_containers_of(&action, turn);
        }
        Ok(Response::Revision(Revision(turn.revision.0)))
    }

    fn check_revision(&self, key: &DocumentKey, expected: Option<Revision>) -> Result<(), Refusal> {
        let current = self.document(key).map(|row| row.revision).unwrap_or_default();
        match expected {
            Some(expected) if expected != current => Err(Refusal::Conflict { current }),
            Some(_) | None => Ok(()),
        }
    }
}

/// The action that a document describes.
fn action_of(key: &DocumentKey) -> Option<ActionName> {
    let name = || format!("{}/{}", key.namespace, key.name).parse().ok();
    (key.kind == DocumentKey::ACTION).then(name).flatten()
}

/// Gives the action that it describes, if it describes one.
fn check_document(put: &PutDocument) -> Result<Option<ActionName>, Refusal> {
    let PutDocument { key, body, blobs, .. } = put;
    let invalid = |reason| Err(Refusal::Invalid { reason });
    check_text("kind", &key.kind)?;
    if key.kind.is_empty() || key.name.is_empty() || key.name.len() > DOCUMENT_NAME_LEN_MAX {
        return invalid(format!(
            "a document needs a kind and a name of 1 to {DOCUMENT_NAME_LEN_MAX} bytes"
        ));
    }
    let action = action_of(key);
    if key.kind == DocumentKey::ACTION && action.is_none() {
        return invalid(format!(
            "{}/{} is not the name of an action",
            key.namespace, key.name
        ));
    }
    if body.len() > DOCUMENT_LEN_MAX {
        return invalid(format!(
            "the document has {} bytes, at most {DOCUMENT_LEN_MAX} are allowed",
            body.len()
        ));
    }
    if blobs.len() > BLOBS_PER_DOCUMENT_MAX {
        return invalid(format!(
            "the document names {} blobs, at most {BLOBS_PER_DOCUMENT_MAX} are allowed",
            blobs.len()
        ));
    }
    Ok(action)
}

#[cfg(test)]
#[path = "documents_test.rs"]
mod tests;
