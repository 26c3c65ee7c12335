//! Hot path: one activation in its container, from the pool's order to the record.
//!
//! Budget per activation: the payload is passed on as it came unless the action has default parameters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use whiskraft_pool::{Finished, WorkerId};
use whiskraft_types::{
    ActivationId, ActivationRecord, ActivationStatus, ContainerId, Instant, InvokerId, SessionId,
};

use crate::backend::{Backend, Context, InitOutcome, InitRequest, Instance, RunOutcome, RunRequest};
use crate::clock;
use crate::event::Event;
use crate::words::{ActionSpec, Delivery, Input, Record, record_len};

/// A run that has not ended after this time counts as begun: containers that cannot take a run say so sooner.
const BEGUN_AFTER: Duration = Duration::from_millis(10);
/// After so much more it is reported as started: short runs save a message. Until then a scheduler sees it as delivered, which
/// it must stand anyway, as a report may be lost with its connection.
const TOLD_AFTER: Duration = Duration::from_millis(90);
/// What ends an activation that ran when its caller cancelled it.
const CANCELLED_TEXT: &str = "The activation was cancelled.";
/// What ends an activation that ran when its container was taken away.
const LOST_TEXT: &str = "The action did not produce a valid response and exited unexpectedly.";

/// An activation to run.
pub(crate) struct RunTask<'a> {
    pub(crate) backend: &'a dyn Backend,
    pub(crate) events: &'a mpsc::Sender<Event>,
    pub(crate) right: &'a watch::Receiver<Right>,
    pub(crate) worker: WorkerId,
    pub(crate) instance: Instance,
    pub(crate) ran_on: (InvokerId, ContainerId),
    pub(crate) namespace: String,
    pub(crate) action: &'a ActionSpec,
    pub(crate) code: Option<Bytes>,
    /// Whether the activation was cancelled.
    pub(crate) stopped: Arc<AtomicBool>,
}

/// Until when the invoker may start something, as of the last keepalive, and in which session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Right {
    pub(crate) session: Option<SessionId>,
    pub(crate) until: Option<Instant>,
}

impl Right {
    /// Whether what was accepted in `session` may start.
    fn allows(self, session: Option<SessionId>, now: Instant) -> bool {
        self.session == session && self.until.is_some_and(|until| now < until)
    }
}

/// The order.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: ActivationId,
    pub(crate) init: bool,
    pub(crate) start_by: Instant,
    pub(crate) delivery: Delivery,
}

impl RunTask<'_> {
    /// Runs the activation; what to tell the pool about its end.
    pub(crate) async fn run(self, run: Run) -> (ActivationId, Input) {
        let Run {
            id,
            init,
            start_by,
            delivery,
        } = run;
        let now = clock::now();
        if now >= start_by {
            return (
                id,
                self.not_started(id, true, "the invoker was fenced before the start".to_owned()),
            );
        }
        let session = self.right.borrow().session;
        let here = now.saturating_since(delivery.received_at).as_millis();
        let waited_ms = delivery
            .waited_ms
            .saturating_add(u64::try_from(here).unwrap_or(u64::MAX));
        let context = self.context(id, &delivery);
        let mut span = None;
        if init {
            match self
                .backend
                .init(self.instance, self.init_request(context.clone()))
                .await
            {
                InitOutcome::Ready(ready) => {
                    span = Some(ready);
                    // Fails only when the actor is gone, and then nobody wants more activations.
                    let _ = self
                        .events
                        .send(Event::Worker(Input::Initialised { worker: self.worker }))
                        .await;
                }
                InitOutcome::Failed(_) if self.is_stopped() => return (id, self.not_wanted(id)),
                InitOutcome::Failed(ended) => {
                    let record = ended.into_record((id, delivery.run), None, waited_ms, self.ran_on);
                    return (id, self.finished(id, (record, 0), false));
                }
                InitOutcome::GiveBack(back) => return (id, self.not_started(id, false, back.reason)),
            }
            if self.is_stopped() {
                return (id, self.not_wanted(id));
            }
            // An init may outlast the lease it began under; keepalives since then count.
            let right = *self.right.borrow();
            if !right.allows(session, clock::now()) {
                let reason = "the invoker was fenced between init and start".to_owned();
                return (id, self.not_started(id, true, reason));
            }
        }
        let request = RunRequest {
            payload: merged(delivery.payload, &self.action.parameters),
            run: delivery.run,
            context,
            timeout: self.action.limits.timeout,
            logs_max: self.action.limits.logs,
        };
        let (outcome, begun) = self.outcome(id, request).await;
        let input = match outcome {
            RunOutcome::Ended(ended) => {
                let (reusable, run_us) = (ended.is_reusable(), ended.run_us());
                let record = ended.into_record((id, delivery.run), span, waited_ms, self.ran_on);
                self.finished(id, (record, run_us), reusable)
            }
            RunOutcome::GiveBack(back) if begun => {
                tracing::warn!(activation = %id, reason = back.reason, "given back too late to run elsewhere");
                lost(self.worker, (id, delivery.run), self.ran_on, self.is_stopped())
            }
            RunOutcome::GiveBack(back) => self.not_started(id, false, back.reason),
        };
        (id, input)
    }

    /// Runs it, and says so when it has not ended soon; the second value is whether it had begun before it said anything.
    async fn outcome(&self, id: ActivationId, request: RunRequest) -> (RunOutcome, bool) {
        let mut run = self.backend.run(self.instance, request);
        if let Ok(outcome) = tokio::time::timeout(BEGUN_AFTER, &mut run).await {
            return (outcome, false);
        }
        if let Ok(outcome) = tokio::time::timeout(TOLD_AFTER, &mut run).await {
            return (outcome, true);
        }
        let worker = self.worker;
        // Fails only when the actor is gone, and then nobody hears of the result either.
        let _ = self.events.send(Event::Worker(Input::Begun { worker, id })).await;
        (run.await, true)
    }

    fn context(&self, id: ActivationId, delivery: &Delivery) -> Context {
        let key = self.action.provide_api_key && !delivery.api_key.is_empty();
        Context {
            namespace: self.namespace.clone(),
            action_name: format!("/{}", self.action.name),
            action_version: self.action.version.clone(),
            activation_id: id.to_string(),
            transaction_id: delivery.transaction.clone(),
            api_key: key.then(|| delivery.api_key.clone()),
        }
    }

    fn init_request(&self, context: Context) -> InitRequest {
        InitRequest {
            name: self.action.name.name().to_owned(),
            main: self.action.main.clone(),
            binary: self.action.binary,
            code: self.code.clone(),
            env: std::collections::BTreeMap::new(),
            context,
            timeout: self.action.limits.timeout,
            logs_max: self.action.limits.logs,
        }
    }

    fn not_started(&self, id: ActivationId, reusable: bool, reason: String) -> Input {
        Input::NotStarted {
            worker: self.worker,
            id,
            reusable,
            reason,
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// It was cancelled before it began; its container goes, or is gone.
    fn not_wanted(&self, id: ActivationId) -> Input {
        self.not_started(id, false, "the activation was cancelled".to_owned())
    }

    fn finished(&self, id: ActivationId, record: (ActivationRecord<Bytes>, u64), reusable: bool) -> Input {
        let (record, run_us) = record;
        let record = if self.is_stopped() {
            (cancelled(record), 0)
        } else {
            (record, run_us)
        };
        finished(self.worker, id, record, reusable)
    }
}

/// The end of an activation: its record and, in microseconds, the length of its run.
fn finished(
    worker: WorkerId,
    id: ActivationId,
    (record, run_us): (ActivationRecord<Bytes>, u64),
    reusable: bool,
) -> Input {
    let healthy = record.status != ActivationStatus::WhiskError;
    let record = Record {
        activation: record.into(),
        run_us,
    };
    let len = record_len(&record);
    Input::Finished(Finished {
        worker,
        id,
        record,
        len,
        reusable,
        healthy,
    })
}

/// The record of a run that was stopped: whatever it came to, its caller gets what it asked for. Times and logs stay.
fn cancelled(record: ActivationRecord<Bytes>) -> ActivationRecord<Bytes> {
    ActivationRecord {
        status: ActivationStatus::ApplicationError,
        result: serde_json::json!({ "error": CANCELLED_TEXT }).to_string().into(),
        timed_out: false,
        cancelled: true,
        ..record
    }
}

/// The end of a run whose container was removed before it answered.
pub(crate) fn lost(
    worker: WorkerId,
    (id, run): (ActivationId, u32),
    ran_on: (InvokerId, ContainerId),
    is_stopped: bool,
) -> Input {
    let now_ms = clock::wall_ms();
    let record = ActivationRecord {
        id,
        status: ActivationStatus::WhiskError,
        result: serde_json::json!({ "error": LOST_TEXT }).to_string().into(),
        logs: Vec::new(),
        start_ms: now_ms,
        end_ms: now_ms,
        init_ms: None,
        wait_ms: 0,
        timed_out: false,
        ran_on: Some(ran_on),
        run,
        cancelled: false,
    };
    let record = if is_stopped { cancelled(record) } else { record };
    finished(worker, id, (record, 0), false)
}

/// The payload over the action's default parameters, if it is an object; anything else stays as it is.
fn merged(payload: Bytes, defaults: &Map<String, Value>) -> Bytes {
    if defaults.is_empty() {
        return payload;
    }
    let caller = match payload.is_empty() {
        true => Ok(Value::Object(Map::new())),
        false => serde_json::from_slice(&payload),
    };
    let Ok(Value::Object(caller)) = caller else {
        return payload;
    };
    let mut all = defaults.clone();
    all.extend(caller);
    Value::Object(all).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(payload: &'static str, defaults: &str) -> String {
        let defaults = serde_json::from_str(defaults).unwrap();
        String::from_utf8(merged(Bytes::from_static(payload.as_bytes()), &defaults).to_vec()).unwrap()
    }

    #[test]
    fn callers_parameters_win() {
        assert_eq!(merge(r#"{"a":1}"#, r#"{"a":2,"b":3}"#), r#"{"a":1,"b":3}"#);
        assert_eq!(merge("", r#"{"b":3}"#), r#"{"b":3}"#);
    }

    #[test]
    fn what_is_no_object_is_passed_on_as_it_came() {
        assert_eq!(merge("[1, 2]", r#"{"b":3}"#), "[1, 2]");
        assert_eq!(merge("{\"a\" : 1}", "{}"), "{\"a\" : 1}");
    }
}
