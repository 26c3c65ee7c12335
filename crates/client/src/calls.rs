//! Questions with one answer: asked at one scheduler after the other until one answers or time is up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tonic::Code;
use tonic::transport::Channel;
use whiskraft_proto::v1::document_change::Change;
use whiskraft_proto::v1::document_changed::Outcome;
use whiskraft_types::{Rejection, SchedulerId};

use crate::CallError;
use crate::backoff::Backoff;
use crate::directory::{Candidate, Class};
use crate::shared::Shared;
use crate::stream::describe;

/// How one kind of question is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    /// Shown in errors.
    pub(crate) operation: &'static str,
    pub(crate) class: Class,
    /// For one try.
    pub(crate) try_deadline: Duration,
    /// For all tries.
    pub(crate) deadline: Duration,
    /// Whether it writes into the log of the cluster.
    pub(crate) writes: bool,
}

/// An answer, and whether an earlier try of the same question may have been carried out as well.
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    pub(crate) is_repeated: bool,
}

/// What one try gives: a value, a typed no, or a failure of the transport.
pub(crate) type Tried<T> = Result<Result<T, Rejection>, tonic::Status>;

/// One try, as whoever carries it out sees it.
#[derive(Debug, Clone)]
pub(crate) struct Try {
    /// Time that it has.
    pub(crate) limit: Duration,
    /// Set by whoever comes first: who carries it out, or who gives it up.
    is_taken: Arc<AtomicBool>,
}

impl Try {
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            is_taken: Arc::default(),
        }
    }

    /// Whether it may be carried out, which it may have been from now on.
    pub(crate) fn leave(&self) -> bool {
        self.take()
    }

    /// Whether it has never left; now it never will.
    fn give_up(&self) -> bool {
        self.take()
    }

    fn take(&self) -> bool {
        !self.is_taken.swap(true, Ordering::AcqRel)
    }
}

impl Call {
    pub(crate) fn quick(shared: &Shared, operation: &'static str) -> Self {
        Self {
            operation,
            class: Class::Quick,
            try_deadline: shared.settings.try_deadline,
            deadline: shared.settings.call_deadline,
            writes: false,
        }
    }

    /// Goes through a log, and is too small to need the bulk connection.
    pub(crate) fn logged(shared: &Shared, operation: &'static str) -> Self {
        Self {
            class: Class::Quick,
            ..Self::bulk(shared, operation)
        }
    }

    /// Documents go through the log and over the bulk connection: a try gets the time of the whole call.
    pub(crate) fn bulk(shared: &Shared, operation: &'static str) -> Self {
        let deadline = shared.settings.call_deadline;
        Self {
            operation,
            class: Class::Bulk,
            try_deadline: deadline / 2,
            deadline,
            writes: false,
        }
    }

    /// Documents that are written.
    pub(crate) fn written(shared: &Shared, operation: &'static str) -> Self {
        Self {
            writes: true,
            ..Self::bulk(shared, operation)
        }
    }

    pub(crate) fn transfer(shared: &Shared, operation: &'static str) -> Self {
        let deadline = shared.settings.transfer_deadline;
        Self {
            operation,
            class: Class::Bulk,
            try_deadline: deadline,
            deadline,
            writes: false,
        }
    }

    /// Asks until somebody answers.
    pub(crate) async fn ask<T, F>(
        self,
        shared: &Shared,
        ask: impl Fn(Channel) -> F,
    ) -> Result<Answer<T>, CallError>
    where
        F: Future<Output = Tried<T>>,
    {
        let ask = |_: &Candidate, once: Try, channel| {
            once.leave();
            ask(channel)
        };
        self.ask_at(shared, ask).await
    }

    /// Writes or deletes a document, together with whatever else is to be written at the moment.
    pub(crate) async fn change(self, shared: &Shared, change: &Change) -> Result<Answer<Outcome>, CallError> {
        let change = |candidate: &Candidate, once, channel| {
            let address = candidate.address.clone();
            shared.changes.change(address, channel, once, change.clone())
        };
        self.ask_at(shared, change).await
    }

    /// The same, and whoever asks hears at whom.
    async fn ask_at<T, F>(
        self,
        shared: &Shared,
        ask: impl Fn(&Candidate, Try, Channel) -> F,
    ) -> Result<Answer<T>, CallError>
    where
        F: Future<Output = Tried<T>>,
    {
        let started = shared.clock.now();
        let deadline = started + self.deadline;
        let mut backoff = Backoff::default();
        let (mut tries, mut is_repeated) = (0, false);
        let mut asked = Asked::default();
        loop {
            let candidates = match self.writes {
                true => shared.directory.writers(),
                false => shared.directory.candidates(),
            };
            for candidate in candidates {
                let left = shared.clock.left(deadline);
                if left.is_zero() {
                    break;
                }
                tries += 1;
                let once = Try::new(self.try_deadline.min(left));
                let ask = |channel| ask(&candidate, once.clone(), channel);
                match self.try_once(shared, &candidate, &once, ask).await {
                    Attempt::Answered(value) => return Ok(Answer { value, is_repeated }),
                    Attempt::Refused(error) => return Err(error),
                    Attempt::Failed {
                        cause,
                        has_answered,
                        may_have_worked,
                    } => {
                        match has_answered || may_have_worked {
                            true => {
                                shared.directory.note_failed(&candidate);
                                asked.note(candidate.address, cause, has_answered);
                            }
                            // What came of an earlier try says more.
                            false => asked.note_first(candidate.address, cause),
                        }
                        is_repeated |= may_have_worked;
                    }
                }
            }
            let pause = backoff.next();
            if shared.clock.left(deadline) <= pause {
                let waited = shared.clock.now().saturating_since(started);
                return Err(CallError::Unreachable {
                    operation: self.operation,
                    waited,
                    tries,
                    cause: asked.summary(shared.directory.members().len()),
                });
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks exactly this scheduler, once.
    pub(crate) async fn ask_member<T, F>(
        self,
        shared: &Shared,
        scheduler: SchedulerId,
        ask: impl FnOnce(Channel) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Tried<T>>,
    {
        let operation = self.operation;
        let address = shared
            .directory
            .address(scheduler)
            .ok_or(CallError::NoSuchScheduler { operation, scheduler })?;
        let started = shared.clock.now();
        let candidate = Candidate {
            scheduler: Some(scheduler),
            address,
        };
        let once = Try::new(self.try_deadline);
        let ask = |channel| {
            once.leave();
            ask(channel)
        };
        match self.try_once(shared, &candidate, &once, ask).await {
            Attempt::Answered(value) => Ok(value),
            Attempt::Refused(error) => Err(error),
            Attempt::Failed { cause, .. } => {
                let waited = shared.clock.now().saturating_since(started);
                Err(CallError::Unreachable {
                    operation,
                    waited,
                    tries: 1,
                    cause,
                })
            }
        }
    }

    async fn try_once<T, F>(
        self,
        shared: &Shared,
        candidate: &Candidate,
        once: &Try,
        ask: impl FnOnce(Channel) -> F,
    ) -> Attempt<T>
    where
        F: Future<Output = Tried<T>>,
    {
        let who = match candidate.scheduler {
            Some(scheduler) => format!("scheduler {scheduler} at {}", candidate.address),
            None => candidate.address.clone(),
        };
        let channel = match shared.directory.channel(&candidate.address, self.class) {
            Ok(channel) => channel,
            Err(error) => {
                return Attempt::Failed {
                    cause: error.to_string(),
                    has_answered: false,
                    may_have_worked: false,
                };
            }
        };
        let tried = tokio::time::timeout(once.limit, ask(channel)).await;
        let has_left = !once.give_up();
        match tried {
            Err(_) => Attempt::Failed {
                cause: format!("{who} did not answer within {:?}", once.limit),
                has_answered: false,
                may_have_worked: has_left,
            },
            Ok(Ok(Ok(value))) => Attempt::Answered(value),
            // A scheduler that lost touch after it proposed says `Unavailable` as well as one that never did.
            Ok(Ok(Err(rejection))) if rejection.is_retryable() => Attempt::Failed {
                cause: format!("{who}: {rejection}"),
                has_answered: true,
                may_have_worked: matches!(rejection, Rejection::Unavailable { .. }),
            },
            Ok(Ok(Err(rejection))) => Attempt::Refused(CallError::Rejected {
                operation: self.operation,
                rejection,
            }),
            Ok(Err(status)) if is_transient(status.code()) => Attempt::Failed {
                cause: format!("{who}: {}", describe(&status)),
                has_answered: false,
                may_have_worked: has_left,
            },
            Ok(Err(status)) => Attempt::Refused(CallError::BadAnswer {
                operation: self.operation,
                reason: format!("{who}: {}", describe(&status)),
            }),
        }
    }
}

enum Attempt<T> {
    Answered(T),
    Refused(CallError),
    Failed {
        cause: String,
        /// It said itself that it cannot do it now.
        has_answered: bool,
        may_have_worked: bool,
    },
}

/// The newest failure of everybody who was asked, by address: at most as many as there are candidates.
#[derive(Debug, Default)]
struct Asked(BTreeMap<String, (String, bool)>);

impl Asked {
    fn note(&mut self, address: String, cause: String, has_answered: bool) {
        self.0.insert(address, (cause, has_answered));
    }

    fn note_first(&mut self, address: String, cause: String) {
        self.0.entry(address).or_insert((cause, false));
    }

    /// What it looks like from here, in a cluster of so many (0: not known), and what each of them said.
    fn summary(&self, members: usize) -> String {
        let answered = self.0.values().filter(|(_, has_answered)| *has_answered).count();
        let verdict = match answered {
            0 if self.0.is_empty() => return "no scheduler is known".to_owned(),
            0 => "no scheduler answered".to_owned(),
            some if some * 2 <= members => {
                format!("no quorum: only {some} of {members} schedulers answered")
            }
            _ => "no quorum or no leader yet: the schedulers answer and cannot act".to_owned(),
        };
        let causes: Vec<_> = self.0.values().map(|(cause, _)| cause.as_str()).collect();
        format!("{verdict}; asked {}", causes.join("; "))
    }
}

/// Failures of a connection or of one scheduler, which another scheduler may not have.
const fn is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Aborted
            | Code::Unknown
            | Code::Internal
            | Code::ResourceExhausted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_either_leaves_or_is_given_up() {
        let once = Try::new(Duration::ZERO);
        assert!(once.leave() && !once.give_up());
        let once = Try::new(Duration::ZERO);
        assert!(once.clone().give_up() && !once.leave());
    }

    #[test]
    fn the_summary_tells_a_minority_from_silence_and_names_everybody() {
        let mut asked = Asked::default();
        assert_eq!(asked.summary(0), "no scheduler is known");
        asked.note("b:1".to_owned(), "scheduler 2 at b:1: refused".to_owned(), false);
        assert_eq!(
            asked.summary(3),
            "no scheduler answered; asked scheduler 2 at b:1: refused"
        );
        asked.note("a:1".to_owned(), "an older failure".to_owned(), false);
        asked.note("a:1".to_owned(), "scheduler 1 at a:1: no quorum".to_owned(), true);
        assert_eq!(
            asked.summary(3),
            "no quorum: only 1 of 3 schedulers answered; asked scheduler 1 at a:1: no quorum; scheduler 2 at b:1: refused"
        );
        asked.note("b:1".to_owned(), "scheduler 2 at b:1: electing".to_owned(), true);
        assert!(asked.summary(3).starts_with("no quorum or no leader yet"));
    }
}
