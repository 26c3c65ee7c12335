//! Tells somebody who waits for an activation why it does not start: on standard error, once per reason.

use std::time::Duration;

use whiskraft_client::{Client, Explained, InvokeError, Progress};
use whiskraft_types::{ActivationId, NamespaceName, WaitReason};

use super::advice::{Facts, advice};
use super::explain::sentences::why;

/// Nobody minds a wait shorter than this.
const FIRST_AFTER: Duration = Duration::from_secs(2);
/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Why an activation does not run yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Obstacle {
    /// `None`: no scheduler has it, or its leader gives no reason.
    reason: Option<WaitReason>,
    /// The same in words.
    pub(super) text: String,
}

/// Waits for `call`, the invocation of `id`. Returns its result, and what stood in the way of one that did not end.
pub(super) async fn with_notice<T>(
    client: &Client,
    namespace: &NamespaceName,
    id: ActivationId,
    call: impl Future<Output = Result<T, InvokeError>>,
) -> Result<T, (InvokeError, Option<Obstacle>)> {
    let mut told: Option<Obstacle> = None;
    let mut pause = FIRST_AFTER;
    let mut call = std::pin::pin!(call);
    let error = loop {
        let looking = async {
            tokio::time::sleep(pause).await;
            look(client, namespace, id).await
        };
        let found = tokio::select! {
            biased;
            result = &mut call => match result {
                Ok(value) => return Ok(value),
                Err(error) => break error,
            },
            found = looking => found,
        };
        pause = INTERVAL;
        if let Some(obstacle) = &found
            && told.as_ref().is_none_or(|told| told.reason != obstacle.reason)
        {
            eprintln!("activation {id} does not run yet: {}", obstacle.text);
        }
        told = found;
    };
    // A deadline before the first look is no reason to say nothing.
    if told.is_none() && matches!(error, InvokeError::Deadline { .. }) {
        told = look(client, namespace, id).await;
    }
    Err((error, told))
}

/// What keeps it from running now; `None` if it runs or has run, or nobody could be asked.
async fn look(client: &Client, namespace: &NamespaceName, id: ActivationId) -> Option<Obstacle> {
    let explained = client.operator().explain(id, Some(namespace)).await.ok()?;
    read(&explained)
}

fn read(explained: &Explained) -> Option<Obstacle> {
    let Some(best) = &explained.best else {
        return Some(Obstacle {
            reason: None,
            text: "no scheduler has accepted it".to_owned(),
        });
    };
    match best.found.progress {
        Progress::Waiting => {}
        // One that is delayed was asked to be.
        Progress::Delayed | Progress::Delivered | Progress::Started | Progress::Done(_) | Progress::Gone => {
            return None;
        }
    }
    let key = best.found.key.as_ref()?;
    let status = best.queue.as_ref()?;
    let mut text = why(status)?;
    if let Some(reason) = status.wait_reason {
        let facts = Facts {
            key,
            leader: status.queue.leader,
            containers: None,
        };
        text.push_str(&format!("; what helps: {}", advice(reason, &facts)));
    }
    Some(Obstacle {
        reason: status.wait_reason,
        text,
    })
}
