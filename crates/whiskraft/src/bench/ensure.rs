//! Queues without an activation: what a controller asks for before its first submission.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use tonic::transport::Channel;
use whiskraft_proto::v1::controller_client::ControllerClient;
use whiskraft_proto::v1::queue_ensured::Outcome;
use whiskraft_proto::v1::{EnsureQueue, EnsureQueuesRequest};
use whiskraft_types::QueueKey;

use crate::exit::{Exit, Failure};

/// Queues in one question, and questions under way at once: enough to fill the batches of the log.
const QUEUES: usize = 128;
const UNDER_WAY: usize = 6;
/// Questions for the same queues, and the pause between them: some seconds, as a busy machine may cost a scheduler its lease.
const TRIES_MAX: usize = 100;
const PAUSE: Duration = Duration::from_millis(100);

type Client = ControllerClient<Channel>;

/// Makes sure that queues exist, through all schedulers in turn; `step` hears of each.
///
/// # Errors
/// If a scheduler takes no connection, or all of them refuse a queue again and again.
pub(super) async fn ensure(
    endpoints: &[String],
    queues: impl Iterator<Item = QueueKey>,
    step: impl Fn(),
) -> Result<(), Failure> {
    let mut clients = Vec::new();
    for endpoint in endpoints {
        let client = Client::connect(format!("http://{endpoint}")).await;
        let unreachable =
            |error| Failure::new(Exit::Unreachable, format!("cannot connect to {endpoint}")).caused_by(error);
        clients.push(client.map_err(unreachable)?);
    }
    let asked = stream::iter(queues).chunks(QUEUES).enumerate();
    let asked = asked.map(|(n, keys)| ask(&clients, n, keys, &step));
    let mut answers = asked.buffer_unordered(UNDER_WAY);
    while let Some(answer) = answers.next().await {
        answer?;
    }
    Ok(())
}

/// Asks one scheduler after the other until all of these queues are there.
async fn ask(
    clients: &[Client],
    first: usize,
    mut keys: Vec<QueueKey>,
    step: &impl Fn(),
) -> Result<(), Failure> {
    let mut why = String::new();
    for n in first..first + TRIES_MAX {
        let mut client = clients[n % clients.len()].clone();
        let queues = keys.iter().map(|key| EnsureQueue {
            key: Some(key.into()),
            resubmits: false,
        });
        let request = EnsureQueuesRequest {
            queues: queues.collect(),
        };
        match client.ensure_queues(request).await {
            Ok(answer) => {
                let mut outcomes = answer.into_inner().outcomes.into_iter();
                keys.retain(|_| match outcomes.next().map(|ensured| ensured.outcome) {
                    Some(Some(Outcome::Leadership(_))) => {
                        step();
                        false
                    }
                    outcome => {
                        why = format!("{outcome:?}");
                        true
                    }
                });
            }
            Err(status) => why = status.to_string(),
        }
        if keys.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Failure::new(
        Exit::Failed,
        format!("{} queues were not made: {why}", keys.len()),
    ))
}
