//! One call to one scheduler: who leads these queues?

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use whiskraft_proto::gather::{CallBounds, Load};
use whiskraft_proto::v1::controller_client::ControllerClient;
use whiskraft_proto::v1::queue_ensured::Outcome;
use whiskraft_proto::{MESSAGE_LEN_MAX, Message, required, v1};
use whiskraft_types::{Epoch, QueueKey, Rejection, SchedulerId};

use crate::core::EnsureAnswer;
use crate::directory::{Candidate, Class, Directory};
use crate::stream::describe;

/// Calls under way: more than go to one scheduler, so that one that does not answer holds up only part of what is asked.
pub(crate) const CALLS: CallBounds = CallBounds {
    calls_max: 4,
    count_max: 512,
    bytes_max: 1 << 20,
};

/// Calls under way to one scheduler, while others are connected.
const CALLS_AT_ONE_MAX: usize = 2;

/// Calls under way, by address.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Mutex<BTreeMap<String, usize>>);

impl UnderWay {
    /// Begins a call to the best candidate that has room; to the best one if nobody else is connected.
    fn begin(self: &Arc<Self>, directory: &Directory) -> Option<Begun> {
        let candidates = directory.writers();
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = |one: &&Candidate| {
            let under_way = calls.get(&one.address);
            under_way.is_none_or(|under_way| *under_way < CALLS_AT_ONE_MAX)
        };
        let best = candidates.first()?;
        let mut others = candidates.iter().filter(|one| directory.is_connected(one));
        let candidate = match has_room(&best) {
            true => best,
            false => others.find(has_room).unwrap_or(best),
        };
        *calls.entry(candidate.address.clone()).or_default() += 1;
        Some(Begun {
            candidate: candidate.clone(),
            calls: Arc::clone(self),
        })
    }
}

/// A call under way, until it is dropped.
struct Begun {
    candidate: Candidate,
    calls: Arc<UnderWay>,
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut calls = self.calls.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = calls.get_mut(&self.candidate.address) {
            *under_way -= 1;
            if *under_way == 0 {
                calls.remove(&self.candidate.address);
            }
        }
    }
}

/// A queue that is asked for.
pub(crate) struct Ask {
    pub(crate) key: QueueKey,
    request: v1::EnsureQueue,
}

impl Ask {
    /// `resubmits`: activations of it may have begun.
    pub(crate) fn new(key: QueueKey, resubmits: bool) -> Self {
        let request = v1::EnsureQueue {
            key: Some((&key).into()),
            resubmits,
        };
        Self { key, request }
    }
}

impl Load for Ask {
    fn bytes(&self) -> usize {
        self.request.encoded_len()
    }

    fn is_unwanted(&self) -> bool {
        false
    }
}

/// Asks the best candidate once; an answer for each. Who asks again, and when, is the router's business; the next question
/// goes to another scheduler if this one failed.
pub(crate) async fn ensure_queues(
    directory: &Directory,
    under_way: &Arc<UnderWay>,
    asks: Vec<Ask>,
    deadline: Duration,
) -> Vec<(QueueKey, EnsureAnswer)> {
    let (keys, queues): (Vec<_>, Vec<_>) = asks.into_iter().map(|ask| (ask.key, ask.request)).unzip();
    let called = match under_way.begin(directory) {
        Some(begun) => {
            let candidate = &begun.candidate;
            let called = call(directory, candidate, queues, deadline).await;
            // A scheduler that has lost touch with the others may still take itself for the one that writes the log. Some that are
            // unavailable only say that the log is slow.
            if called
                .as_ref()
                .map_or(true, |outcomes| outcomes.iter().all(is_unavailable))
            {
                directory.note_failed(candidate);
            }
            called
        }
        None => Err("no scheduler is known".to_owned()),
    };
    let mut outcomes = called.map(Vec::into_iter);
    let answer = |key| {
        let answer = match &mut outcomes {
            Ok(outcomes) => outcomes.next().map_or_else(
                || EnsureAnswer::Failed("the scheduler answered nothing".to_owned()),
                read,
            ),
            Err(cause) => EnsureAnswer::Failed(cause.clone()),
        };
        (key, answer)
    };
    keys.into_iter().map(answer).collect()
}

async fn call(
    directory: &Directory,
    candidate: &Candidate,
    queues: Vec<v1::EnsureQueue>,
    deadline: Duration,
) -> Result<Vec<v1::QueueEnsured>, String> {
    let channel = directory.channel(&candidate.address, Class::Quick);
    let channel = channel.map_err(|error| error.to_string())?;
    let mut client = ControllerClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX);
    let request = v1::EnsureQueuesRequest { queues };
    let cause = match tokio::time::timeout(deadline, client.ensure_queues(request)).await {
        Ok(Ok(response)) => {
            let response = response.into_inner();
            directory.note_log_leader(response.log_leader);
            return Ok(response.outcomes);
        }
        Ok(Err(status)) => describe(&status),
        Err(_) => format!("no answer within {deadline:?}"),
    };
    Err(format!("{}: {cause}", candidate.address))
}

fn is_unavailable(ensured: &v1::QueueEnsured) -> bool {
    let Some(Outcome::Rejection(rejection)) = &ensured.outcome else {
        return false;
    };
    matches!(rejection.kind, Some(v1::rejection::Kind::Unavailable(_)))
}

fn read(ensured: v1::QueueEnsured) -> EnsureAnswer {
    match required(ensured.outcome, "ensure_queues.outcome") {
        Ok(Outcome::Leadership(leadership)) if leadership.leader != 0 => EnsureAnswer::Leadership {
            leader: SchedulerId(leadership.leader),
            epoch: Epoch(leadership.epoch),
            address: Some(leadership.client_address).filter(|address| !address.is_empty()),
        },
        Ok(Outcome::Leadership(_)) => EnsureAnswer::Failed("nobody leads the queue now".to_owned()),
        Ok(Outcome::Rejection(rejection)) => match Rejection::try_from(rejection) {
            Ok(rejection) => EnsureAnswer::Rejected(rejection),
            Err(error) => EnsureAnswer::Failed(error.to_string()),
        },
        Err(error) => EnsureAnswer::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    #[test]
    fn one_scheduler_has_no_more_than_half_of_the_calls_while_others_are_connected() {
        let directory = Directory::new(Settings::default(), vec!["h:1".to_owned()]).unwrap();
        let under_way = Arc::new(UnderWay::default());
        let all = |count| -> Vec<_> { (0..count).filter_map(|_| under_way.begin(&directory)).collect() };
        let at = |begun: &[Begun], address: &str| {
            let there = begun.iter().filter(|begun| begun.candidate.address == address);
            there.count()
        };
        for id in 1..=3 {
            directory.add(SchedulerId(id), format!("h:{id}"));
        }
        directory.set_connected(SchedulerId(2), true);
        directory.note_log_leader(2);
        let begun = all(4);
        assert_eq!(at(&begun, "h:2"), 4, "nobody else is connected");
        drop(begun);
        directory.set_connected(SchedulerId(3), true);
        let begun = all(4);
        assert_eq!((at(&begun, "h:2"), at(&begun, "h:3")), (2, 2));
        drop(begun);
        assert_eq!(at(&all(2), "h:2"), 2, "what has ended leaves room");
        assert!(under_way.0.lock().unwrap().is_empty());
    }
}
