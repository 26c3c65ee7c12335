//! Storing schedules: documents, as actions are, and beside each the cluster's own document of what became of it.

use bytes::Bytes;
use whiskraft_proto::v1::document_change::Change;
use whiskraft_proto::v1::document_changed::Outcome;
use whiskraft_proto::{required, v1};
use whiskraft_types::{ActionName, NamespaceName, Rejection, Revision};

use crate::calls::Call;
use crate::documents::{get_document, list_documents};
use crate::{
    CallError, Client, Expect, ScheduleError, SchedulePage, ScheduleProgress, ScheduleSpec, ScheduleSummary,
    StoredSchedule,
};

/// Kind of a schedule's document.
const KIND: &str = "schedule";
/// Kind of the document of what became of it.
const STATE: &str = "schedule-state";
/// Writes tried when somebody else writes the same schedule at the same time.
const WRITES_MAX: u32 = 5;

impl Client {
    /// Stores a schedule. The cluster checks it: an expression that it cannot read or that names no date is refused.
    ///
    /// ```no_run
    /// # async fn example(client: whiskraft_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use whiskraft_client::{Expect, ScheduleSpec};
    ///
    /// let spec = ScheduleSpec::new("guest/report".parse()?, "0 6 * * 1-5");
    /// client.put_schedule(&"guest".parse()?, "weekdays", &spec, Expect::Anything).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ScheduleError::Invalid`] says what to change; [`ScheduleError::Conflict`] if `expect` does not hold.
    pub async fn put_schedule(
        &self,
        namespace: &NamespaceName,
        name: &str,
        spec: &ScheduleSpec,
        expect: Expect,
    ) -> Result<Revision, ScheduleError> {
        const OPERATION: &str = "put schedule";
        let change = Change::Put(v1::PutDocument {
            key: Some(key(KIND, namespace, name)?),
            body: spec.encode(),
            expected_revision: expect.to_wire(),
            blobs: Vec::new(),
        });
        let call = Call::written(self.shared(), OPERATION);
        let answer = call.change(self.shared(), &change);
        let answer = answer.await.map_err(|error| refused(name, error))?;
        match answer.value {
            Outcome::Revision(revision) => Ok(Revision(revision)),
            // A lost answer may have been a yes.
            Outcome::Conflict(found) if answer.is_repeated => {
                let stored = self.schedule(namespace, name).await?;
                match stored {
                    Some((revision, stored)) if spec.is_stored_as(&stored) => Ok(revision),
                    _ => Err(conflict(name, found.current)),
                }
            }
            Outcome::Conflict(found) => Err(conflict(name, found.current)),
            _ => Err(odd(OPERATION)),
        }
    }

    /// Reads a schedule as of now, and what became of it so far.
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`]; [`ScheduleError::Call`].
    pub async fn get_schedule(
        &self,
        namespace: &NamespaceName,
        name: &str,
    ) -> Result<StoredSchedule, ScheduleError> {
        let (revision, spec) = self
            .schedule(namespace, name)
            .await?
            .ok_or_else(|| not_found(name))?;
        let state = self.read(STATE, namespace, name).await?;
        let progress = state.map(|(_, body)| ScheduleProgress::decode(body));
        Ok(StoredSchedule {
            name: name.to_owned(),
            revision,
            spec,
            progress: progress.transpose().map_err(unreadable)?.unwrap_or_default(),
        })
    }

    /// Lists the schedules of a namespace by name: up to `limit` (1 to 1000; 0 is 200) of them, those after `after`.
    ///
    /// # Errors
    /// [`ScheduleError::Call`].
    pub async fn list_schedules(
        &self,
        namespace: &NamespaceName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<SchedulePage, ScheduleError> {
        let request = v1::ListDocumentsRequest {
            kind: KIND.to_owned(),
            namespace: namespace.to_string(),
            after: after.unwrap_or_default().to_owned(),
            limit,
        };
        let call = Call::bulk(self.shared(), "list schedules");
        let list = call
            .ask(self.shared(), |channel| list_documents(channel, request.clone()))
            .await?
            .value;
        let mut schedules = Vec::with_capacity(list.documents.len());
        for summary in list.documents {
            let key = required(summary.key, "document.key").map_err(|error| unreadable(error.to_string()))?;
            schedules.push(ScheduleSummary {
                name: key.name,
                revision: Revision(summary.revision),
            });
        }
        let last = schedules.last().map(|last| last.name.clone());
        Ok(SchedulePage {
            next: last.filter(|_| list.more),
            schedules,
        })
    }

    /// Lets no slot of a schedule be due, or the slots from now on; what lay in a pause never runs. Says at which
    /// revision it is so.
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`]; [`ScheduleError::Conflict`] if somebody else writes it again and again.
    pub async fn pause_schedule(
        &self,
        namespace: &NamespaceName,
        name: &str,
        paused: bool,
    ) -> Result<Revision, ScheduleError> {
        let mut writes = 0;
        loop {
            let stored = self.schedule(namespace, name).await?;
            let (revision, mut spec) = stored.ok_or_else(|| not_found(name))?;
            if spec.paused == paused {
                return Ok(revision);
            }
            spec.paused = paused;
            spec.from = spec.from.filter(|_| paused);
            writes += 1;
            let expect = Expect::Revision(revision);
            match self.put_schedule(namespace, name, &spec, expect).await {
                Err(ScheduleError::Conflict { .. }) if writes < WRITES_MAX => {}
                ended => return ended,
            }
        }
    }

    /// Deletes a schedule. What it has started goes on.
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`]; [`ScheduleError::Conflict`] if `expect` does not hold; [`ScheduleError::Call`].
    pub async fn delete_schedule(
        &self,
        namespace: &NamespaceName,
        name: &str,
        expect: Expect,
    ) -> Result<(), ScheduleError> {
        const OPERATION: &str = "delete schedule";
        let change = Change::Delete(v1::DeleteDocument {
            key: Some(key(KIND, namespace, name)?),
            expected_revision: expect.to_wire(),
        });
        let call = Call::written(self.shared(), OPERATION);
        let answer = call.change(self.shared(), &change).await?;
        match answer.value {
            Outcome::Revision(_) => Ok(()),
            // Gone after a repeated request: it was ours.
            Outcome::NotFound(_) if answer.is_repeated => Ok(()),
            Outcome::Conflict(found) if answer.is_repeated && found.current == 0 => Ok(()),
            Outcome::NotFound(_) => Err(not_found(name)),
            Outcome::Conflict(found) => Err(conflict(name, found.current)),
            Outcome::MissingBlob(_) | Outcome::Rejection(_) => Err(odd(OPERATION)),
        }
    }

    async fn schedule(
        &self,
        namespace: &NamespaceName,
        name: &str,
    ) -> Result<Option<(Revision, ScheduleSpec)>, ScheduleError> {
        let Some((revision, body)) = self.read(KIND, namespace, name).await? else {
            return Ok(None);
        };
        Ok(Some((revision, ScheduleSpec::decode(body).map_err(unreadable)?)))
    }

    async fn read(
        &self,
        kind: &str,
        namespace: &NamespaceName,
        name: &str,
    ) -> Result<Option<(Revision, Bytes)>, ScheduleError> {
        let request = v1::GetDocumentRequest {
            key: Some(key(kind, namespace, name)?),
            linearizable: true,
        };
        let call = Call::bulk(self.shared(), "get schedule");
        let answer = call.ask(self.shared(), |channel| get_document(channel, request.clone()));
        let document = answer.await?.value;
        Ok(document.map(|document| (Revision(document.revision), document.body)))
    }
}

fn key(kind: &str, namespace: &NamespaceName, name: &str) -> Result<v1::DocumentKey, ScheduleError> {
    // The rules of an action's name are those of every document.
    let checked: Result<ActionName, _> = format!("{namespace}/{name}").parse();
    checked.map_err(|error| ScheduleError::Invalid {
        name: name.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(v1::DocumentKey {
        kind: kind.to_owned(),
        namespace: namespace.to_string(),
        name: name.to_owned(),
    })
}

fn refused(name: &str, error: CallError) -> ScheduleError {
    match error {
        CallError::Rejected {
            rejection: Rejection::Invalid { reason },
            ..
        } => ScheduleError::Invalid {
            name: name.to_owned(),
            reason,
        },
        other => other.into(),
    }
}

fn conflict(name: &str, current: u64) -> ScheduleError {
    ScheduleError::Conflict {
        name: name.to_owned(),
        current: (current != 0).then_some(Revision(current)),
    }
}

fn not_found(name: &str) -> ScheduleError {
    ScheduleError::NotFound {
        name: name.to_owned(),
    }
}

fn unreadable(reason: String) -> ScheduleError {
    bad("get schedule", reason)
}

fn odd(operation: &'static str) -> ScheduleError {
    bad(operation, "the answer does not belong to the request".to_owned())
}

fn bad(operation: &'static str, reason: String) -> ScheduleError {
    CallError::BadAnswer { operation, reason }.into()
}
