//! What a scheduler says about activations by id, asked one by one over plain gRPC: no SDK chooses whom to believe.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use serde_json::Value;
use whiskraft_proto::v1::controller_client::ControllerClient;
use whiskraft_proto::v1::find_activation_response::State;
use whiskraft_proto::{activation_id_bytes, v1};
use whiskraft_types::ActivationId;

use super::Operation;
use crate::wait::Deadline;

/// Questions under way at once.
const AT_ONCE: usize = 64;
/// How often a question without an answer is asked again, and after which pause.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// What a scheduler says about one activation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// How far it is.
    pub state: State,
    /// Runs begun, as the answer says.
    pub runs: u32,
    /// Whether it is listed as a dead letter.
    pub dead_letter: bool,
    /// Digest of the record; two records with one digest are the same.
    pub digest: u64,
    /// The record's end.
    pub status: i32,
    /// `n` and `proof` of the result.
    pub echo: Option<(u64, String)>,
}

impl Evidence {
    fn of(answer: &v1::FindActivationResponse) -> Self {
        let record = answer.record.clone().unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        format!("{record:?}").hash(&mut hasher);
        let result: Value = serde_json::from_slice(&record.result).unwrap_or_default();
        let proof = result.get("proof").and_then(Value::as_str).map(str::to_owned);
        Self {
            state: answer.state(),
            runs: answer.runs,
            dead_letter: answer.dead_letter,
            digest: hasher.finish(),
            status: record.status,
            echo: result.get("n").and_then(Value::as_u64).zip(proof),
        }
    }

    /// Whether it ended with success and the result of its own arguments.
    #[must_use]
    pub fn is_right(&self, n: u64) -> bool {
        self.state == State::Done
            && self.status == v1::Status::Success as i32
            && self.echo == Some((n, super::proof(n)))
    }
}

/// Asks one scheduler about these activations until it has said something about each of them that `settled` accepts, or
/// `limit` has passed; what it said last.
///
/// # Panics
/// When it takes no connection or a question finds no answer for 100 times: a judgement needs all of the evidence.
pub async fn look(
    endpoint: &str,
    operations: &[&Operation],
    limit: Duration,
    settled: fn(&Evidence) -> bool,
) -> BTreeMap<ActivationId, Evidence> {
    let deadline = Deadline::after(limit);
    let client = ControllerClient::connect(format!("http://{endpoint}")).await;
    let client = client.expect("the scheduler takes connections");
    let questions = operations.iter().map(|operation| {
        let client = client.clone();
        async move {
            loop {
                let evidence = ask(client.clone(), operation).await;
                if settled(&evidence) || deadline.is_past() {
                    return (operation.id, evidence);
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    });
    stream::iter(questions).buffer_unordered(AT_ONCE).collect().await
}

async fn ask(mut client: ControllerClient<tonic::transport::Channel>, operation: &Operation) -> Evidence {
    let mut last = String::new();
    for _ in 0..TRIES {
        let request = v1::FindActivationRequest {
            id: activation_id_bytes(operation.id),
            namespace: operation.key.namespace.to_string(),
        };
        match client.find_activation(request).await {
            Ok(answer) => return Evidence::of(&answer.into_inner()),
            Err(status) => last = status.to_string(),
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!(
        "activation {}: no answer after {TRIES} questions: {last}",
        operation.id
    );
}
