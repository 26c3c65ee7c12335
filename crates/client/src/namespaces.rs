//! Namespaces and their limits: written through the log, read from the watched table.

use std::collections::BTreeMap;

use futures::future::join_all;
use tonic::transport::Channel;
use whiskraft_proto::v1::documents_client::DocumentsClient;
use whiskraft_proto::v1::watch_client::WatchClient;
use whiskraft_proto::v1::watch_event::Event;
use whiskraft_proto::v1::watch_frame::Frame;
use whiskraft_proto::{InvalidMessage, MESSAGE_LEN_MAX, required, v1};
use whiskraft_types::{LogRevision, NamespaceLimits, NamespaceName, Rejection};

use crate::calls::{Call, Tried};
use crate::watch::Namespace;
use crate::{CallError, Client};

/// Namespaces by name, and the log revision at which they had these limits.
type Namespaces = (LogRevision, BTreeMap<NamespaceName, NamespaceLimits>);

impl Client {
    /// Creates a namespace or changes its limits, all of them: read the others first with
    /// [`namespace`](Self::namespace).
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn put_namespace(
        &self,
        name: &NamespaceName,
        limits: &NamespaceLimits,
    ) -> Result<LogRevision, CallError> {
        let request = v1::PutNamespaceRequest {
            name: name.to_string(),
            containers: limits.containers,
            over_provision_percent: Some(limits.over_provision_percent),
            invocations_per_minute: limits.invocations_per_minute,
            weight: Some(limits.weight),
        };
        let call = Call::written(self.shared(), "put namespace");
        Ok(call
            .ask(self.shared(), |channel| put(channel, request.clone()))
            .await?
            .value)
    }

    /// Limits of a namespace. `None`: nobody has set any, so the cluster's default counts.
    ///
    /// # Errors
    /// [`CallError`] if no scheduler answers.
    pub async fn namespace(&self, name: &NamespaceName) -> Result<Option<NamespaceLimits>, CallError> {
        Ok(self.namespaces().await?.remove(name))
    }

    /// Every namespace whose limits were set, as the scheduler that has applied most of the log knows it.
    ///
    /// # Errors
    /// [`CallError`] if no scheduler answers.
    pub async fn namespaces(&self) -> Result<BTreeMap<NamespaceName, NamespaceLimits>, CallError> {
        let shared = self.shared();
        let call = Call::quick(shared, "namespaces");
        let members = self.members();
        if members.is_empty() {
            // Asks the endpoints, so that the error says why nobody is known.
            return Ok(call.ask(shared, list).await?.value.1);
        }
        let answers = join_all(
            members
                .into_iter()
                .map(|(scheduler, _)| call.ask_member(shared, scheduler, list)),
        );
        let (mut newest, mut failure): (Option<Namespaces>, _) = (None, None);
        for answer in answers.await {
            match answer {
                Ok(found) if newest.as_ref().is_none_or(|newest| found.0 > newest.0) => newest = Some(found),
                Ok(_) => {}
                Err(error) => failure = Some(error),
            }
        }
        match (newest, failure) {
            (None, Some(error)) => Err(error),
            (newest, _) => Ok(newest.unwrap_or_default().1),
        }
    }
}

async fn put(channel: Channel, request: v1::PutNamespaceRequest) -> Tried<LogRevision> {
    use v1::put_namespace_response::Outcome;

    let response = DocumentsClient::new(channel)
        .put_namespace(request)
        .await?
        .into_inner();
    Ok(
        match required(response.outcome, "put_namespace.outcome").map_err(unreadable)? {
            Outcome::Revision(revision) => Ok(LogRevision(revision)),
            Outcome::Rejection(rejection) => Err(Rejection::try_from(rejection).map_err(unreadable)?),
        },
    )
}

/// One scheduler's table: the snapshot with which a watch begins.
async fn list(channel: Channel) -> Tried<Namespaces> {
    let request = v1::WatchRequest {
        tables: vec![v1::Table::Namespaces.into()],
        after: 0,
    };
    let mut client = WatchClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX);
    let mut frames = client.watch(request).await?.into_inner();
    let mut namespaces = BTreeMap::new();
    while let Some(frame) = frames.message().await? {
        let batch = match frame.frame {
            Some(Frame::Snapshot(batch)) => batch,
            Some(Frame::Resync(_)) | None => {
                namespaces.clear();
                continue;
            }
            Some(Frame::Events(_)) => break,
        };
        for event in batch.events {
            if let Some(Event::Namespace(info)) = event.event {
                let namespace = Namespace::try_from(info).map_err(unreadable)?;
                namespaces.insert(namespace.name, namespace.limits);
            }
        }
        if batch.last {
            return Ok(Ok((LogRevision(batch.revision), namespaces)));
        }
    }
    Err(tonic::Status::unavailable("the watch ended within its snapshot"))
}

fn unreadable(error: InvalidMessage) -> tonic::Status {
    tonic::Status::data_loss(error.to_string())
}
