//! Queues without an activation: what a controller asks for before its first submission.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use tonic::transport::Channel;
use whiskraft_proto::v1::EnsureQueueRequest;
use whiskraft_proto::v1::controller_client::ControllerClient;
use whiskraft_proto::v1::ensure_queue_response::Outcome;
use whiskraft_types::QueueKey;

use crate::exit::{Exit, Failure};

/// Questions under way at once: enough to fill the batches of the log.
const UNDER_WAY: usize = 256;
/// Questions for one queue, and the pause between them: some seconds, as a busy machine may cost a scheduler its lease.
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
    let asked = queues.enumerate().map(|(n, key)| ask(&clients, n, key));
    let mut answers = stream::iter(asked).buffer_unordered(UNDER_WAY);
    while let Some(answer) = answers.next().await {
        answer?;
        step();
    }
    Ok(())
}

/// Asks one scheduler after the other until one says that a queue is there.
async fn ask(clients: &[Client], first: usize, key: QueueKey) -> Result<(), Failure> {
    let request = EnsureQueueRequest {
        key: Some((&key).into()),
        resubmits: false,
    };
    let mut why = String::new();
    for n in first..first + TRIES_MAX {
        let mut client = clients[n % clients.len()].clone();
        let answer = client.ensure_queue(request.clone()).await;
        why = match answer.map(|answer| answer.into_inner().outcome) {
            Ok(Some(Outcome::Leadership(_))) => return Ok(()),
            Ok(outcome) => format!("{outcome:?}"),
            Err(status) => status.to_string(),
        };
        tokio::time::sleep(PAUSE).await;
    }
    Err(Failure::new(
        Exit::Failed,
        format!("queue {key} was not made: {why}"),
    ))
}
