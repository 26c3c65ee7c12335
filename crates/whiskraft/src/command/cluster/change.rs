//! Orders about the membership, and what came of them, for people and as JSON.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use whiskraft_client::{MemberChangeError, Operator};
use whiskraft_types::{MemberOrder, MembershipError, SchedulerId};

use super::super::{call_failure, connect};
use crate::clock;
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::output;

/// Time between two tries while a scheduler catches up.
const TRY_INTERVAL: Duration = Duration::from_millis(250);

/// Gives orders.
pub(super) struct Change {
    operator: Operator,
    json: bool,
}

impl Change {
    /// Connects.
    pub(super) async fn new(config: &Config, json: bool) -> Result<Self, Failure> {
        let operator = connect(config).await?.operator();
        Ok(Self { operator, json })
    }

    /// Gives one order and says what came of it.
    pub(super) async fn order(&self, order: MemberOrder) -> Result<(), Failure> {
        let about = self.operator.change_members(order).await;
        let about = about.map_err(|error| self.failure(order, error))?;
        self.say(order, about);
        Ok(())
    }

    /// Lets a learner vote, and waits while it catches up.
    pub(super) async fn promote(&self, id: SchedulerId, wait: Duration) -> Result<(), Failure> {
        let order = MemberOrder::Promote(id);
        let until = clock::now() + wait;
        let bar = ProgressBar::no_length().with_style(style());
        let mut most = 0;
        let outcome = loop {
            match self.operator.change_members(order).await {
                Ok(_) => break Ok(()),
                Err(MemberChangeError::Refused(error)) if error.is_passing() && is_before(until) => {
                    if let MembershipError::Lags { entries, .. } = error {
                        most = most.max(entries);
                        bar.set_length(most);
                        bar.set_position(most - entries);
                        bar.set_message(format!("scheduler {id} catches up"));
                    }
                    tokio::time::sleep(TRY_INTERVAL).await;
                }
                Err(error) => break Err(self.failure(order, error)),
            }
        };
        bar.finish_and_clear();
        outcome
    }

    /// First the new one votes, then the dead one goes; repeated, it goes on where it ended.
    pub(super) async fn replace(
        &self,
        dead: SchedulerId,
        new: SchedulerId,
        wait: Duration,
    ) -> Result<(), Failure> {
        if dead == new {
            let text = format!("scheduler {dead} cannot take its own place");
            return Err(Failure::new(Exit::Usage, text)
                .advise("--with names one that has joined; see `whiskraft cluster status`"));
        }
        self.promote(new, wait).await?;
        let order = MemberOrder::Remove {
            id: dead,
            force: false,
        };
        match self.operator.change_members(order).await {
            // Removed by an earlier try of the same replacement.
            Ok(_) | Err(MemberChangeError::Refused(MembershipError::NotMember(_))) => {}
            Err(error) => {
                let so_far = format!("scheduler {new} votes, and scheduler {dead} is not removed: ");
                return Err(self.failure_after(&so_far, order, error));
            }
        }
        if self.json {
            output::json(&json!({ "order": "replace", "scheduler": dead.0, "with": new.0, "done": true }));
        } else {
            output::line(format_args!(
                "scheduler {new} votes in place of scheduler {dead}, which is removed for good"
            ));
        }
        Ok(())
    }

    /// Says that a scheduler votes.
    pub(super) fn say_voter(&self, id: SchedulerId) {
        self.say(MemberOrder::Promote(id), id);
    }

    fn say(&self, order: MemberOrder, about: SchedulerId) {
        if self.json {
            output::json(&json!({ "order": name(order), "scheduler": about.0, "done": true }));
            return;
        }
        output::line(match order {
            MemberOrder::Promote(_) => format!("scheduler {about} votes"),
            MemberOrder::Demote { .. } => format!(
                "scheduler {about} votes no more and goes on following; let it vote again with `whiskraft cluster promote {about}`"
            ),
            MemberOrder::Remove { .. } => format!(
                "scheduler {about} is removed for good; its process ends by itself. To come back it must join with an empty data directory"
            ),
            MemberOrder::TransferLeader(_) => format!("scheduler {about} leads the log"),
        });
    }

    fn failure(&self, order: MemberOrder, error: MemberChangeError) -> Failure {
        self.failure_after("", order, error)
    }

    /// The failure of an order that followed others; `so_far` says what those came to.
    fn failure_after(&self, so_far: &str, order: MemberOrder, error: MemberChangeError) -> Failure {
        let error = match error {
            MemberChangeError::Call(error) => return call_failure(error),
            MemberChangeError::Refused(error) => error,
        };
        if self.json {
            output::json(&refusal(order, &error));
        }
        let exit = match error {
            MembershipError::Unavailable(_) => Exit::Unreachable,
            _ => Exit::Failed,
        };
        let failure = Failure::new(exit, format!("{so_far}{} not done: {error}", name(order)));
        match advice(&error) {
            Some(advice) => failure.advise(advice),
            None => failure,
        }
    }
}

fn is_before(until: Instant) -> bool {
    clock::now() < until
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} entries").expect("the template is valid")
}

const fn name(order: MemberOrder) -> &'static str {
    match order {
        MemberOrder::Promote(_) => "promote",
        MemberOrder::Demote { .. } => "demote",
        MemberOrder::Remove { .. } => "remove",
        MemberOrder::TransferLeader(_) => "transfer-leader",
    }
}

/// The closed list of reasons.
const fn reason(error: &MembershipError) -> &'static str {
    match error {
        MembershipError::NotMember(_) => "not-member",
        MembershipError::LastVoter(_) => "last-voter",
        MembershipError::NoQuorum { .. } => "no-quorum",
        MembershipError::Lags { .. } => "lags",
        MembershipError::NotVoter(_) => "not-voter",
        MembershipError::Silent(_) => "silent",
        MembershipError::InProgress(_) => "in-progress",
        MembershipError::Refused(_) => "refused",
        MembershipError::Unavailable(_) => "unavailable",
    }
}

fn refusal(order: MemberOrder, error: &MembershipError) -> Value {
    json!({
        "order": name(order),
        "done": false,
        "reason": reason(error),
        "passing": error.is_passing(),
        "text": error.to_string(),
    })
}

const fn advice(error: &MembershipError) -> Option<&'static str> {
    match error {
        MembershipError::NotMember(_) => {
            Some("`whiskraft cluster status` shows who is; a scheduler adds itself with --join")
        }
        MembershipError::LastVoter(_) => Some("let another one vote first: whiskraft cluster promote ID"),
        MembershipError::NoQuorum { .. } => Some("--force makes the change all the same"),
        MembershipError::Lags { .. } => Some("run it again to go on waiting, or with a longer --wait"),
        MembershipError::InProgress(_) | MembershipError::Unavailable(_) => Some(
            "it may still be done: look with `whiskraft cluster status`, and run it again; that changes nothing twice",
        ),
        MembershipError::NotVoter(_) | MembershipError::Silent(_) | MembershipError::Refused(_) => None,
    }
}
