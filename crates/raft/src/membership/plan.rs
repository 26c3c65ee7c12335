//! What the leader does next for an order, from how the cluster looks: nothing here acts, so that every step can be
//! looked at again and repeated.

use std::collections::{BTreeMap, BTreeSet};

use whiskraft_types::{MemberOrder, MembershipError, SchedulerId};

/// Log entries that a scheduler may lack when it becomes a voter or the leader: few enough to be there in a moment.
const LAG_MAX: u64 = 500;

/// The membership as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct View {
    /// The leader.
    pub(super) me: u64,
    /// Those who vote; while a change is between its two entries, before or after it.
    pub(super) voters: BTreeSet<u64>,
    /// Those who follow.
    pub(super) learners: BTreeSet<u64>,
    /// Those who have a row in the members table.
    pub(super) rows: BTreeSet<u64>,
    /// Those who answer, the leader included.
    pub(super) answering: BTreeSet<u64>,
    /// Log entries that each lacks, as far as known.
    pub(super) lags: BTreeMap<u64, u64>,
    /// Whether a change stands between its two entries.
    pub(super) is_joint: bool,
    /// Those who vote in each lane, which follows group 0.
    pub(super) lanes: BTreeMap<u32, BTreeSet<u64>>,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is as it was ordered.
    Done,
    /// Complete the change that stands half-way.
    Settle,
    /// Let a learner vote.
    AddVoter(u64),
    /// Take a vote away; the scheduler stays as a learner, or goes.
    RemoveVoter {
        /// Whose.
        id: u64,
        /// Whether it stays.
        stays: bool,
    },
    /// Take a learner out.
    RemoveLearner(u64),
    /// Take the row out; its session and queues go with it.
    RemoveRow(u64),
    /// Let another lead.
    HandOver(u64),
}

/// The next step of an order; `has_begun`: an earlier step of it was made.
pub(super) fn next(view: &View, order: MemberOrder, has_begun: bool) -> Result<Step, MembershipError> {
    match order {
        MemberOrder::TransferLeader(to) => view.transfer(to.map(|id| id.0)),
        MemberOrder::Promote(_) | MemberOrder::Demote { .. } | MemberOrder::Remove { .. }
            if view.is_joint =>
        {
            Ok(Step::Settle)
        }
        MemberOrder::Promote(id) => view.promote(id.0),
        MemberOrder::Demote { id, force } => {
            if view.learners.contains(&id.0) {
                return Ok(Step::Done);
            }
            view.remove_voter(id.0, true, force)
        }
        MemberOrder::Remove {
            id: SchedulerId(id),
            force,
        } => {
            if view.voters.contains(&id) {
                view.remove_voter(id, false, force)
            } else if view.learners.contains(&id) {
                Ok(Step::RemoveLearner(id))
            } else if view.rows.contains(&id) {
                Ok(Step::RemoveRow(id))
            } else if has_begun {
                Ok(Step::Done)
            } else {
                Err(MembershipError::NotMember(SchedulerId(id)))
            }
        }
    }
}

impl View {
    fn promote(&self, id: u64) -> Result<Step, MembershipError> {
        if self.voters.contains(&id) {
            return Ok(Step::Done);
        }
        if !self.learners.contains(&id) {
            return Err(MembershipError::NotMember(SchedulerId(id)));
        }
        self.check_ready(id)?;
        let mut voters = self.voters.clone();
        voters.insert(id);
        self.check_quorum(&voters)?;
        Ok(Step::AddVoter(id))
    }

    fn remove_voter(&self, id: u64, stays: bool, force: bool) -> Result<Step, MembershipError> {
        let mut left = self.voters.clone();
        if !left.remove(&id) {
            return Err(MembershipError::NotMember(SchedulerId(id)));
        }
        if left.is_empty() {
            return Err(MembershipError::LastVoter(SchedulerId(id)));
        }
        if !force {
            self.check_quorum(&left)?;
            self.check_lanes(id)?;
        }
        if id == self.me {
            return self.successor().map(Step::HandOver).ok_or_else(no_successor);
        }
        Ok(Step::RemoveVoter { id, stays })
    }

    fn transfer(&self, to: Option<u64>) -> Result<Step, MembershipError> {
        let Some(id) = to else {
            return self.successor().map(Step::HandOver).ok_or_else(no_successor);
        };
        if id == self.me {
            return Ok(Step::Done);
        }
        if self.learners.contains(&id) {
            return Err(MembershipError::NotVoter(SchedulerId(id)));
        }
        if !self.voters.contains(&id) {
            return Err(MembershipError::NotMember(SchedulerId(id)));
        }
        self.check_ready(id)?;
        Ok(Step::HandOver(id))
    }

    /// The voter that should lead instead: one that answers, and has most of the log.
    pub(super) fn successor(&self) -> Option<u64> {
        let others = self.voters.iter().filter(|voter| **voter != self.me);
        let answering = others.filter(|voter| self.answering.contains(voter));
        answering
            .copied()
            .min_by_key(|voter| self.lags.get(voter).copied().unwrap_or(u64::MAX))
    }

    fn check_ready(&self, id: u64) -> Result<(), MembershipError> {
        if !self.answering.contains(&id) {
            return Err(MembershipError::Silent(SchedulerId(id)));
        }
        match self.lags.get(&id).copied().unwrap_or(u64::MAX) {
            0..=LAG_MAX => Ok(()),
            entries => Err(MembershipError::Lags {
                id: SchedulerId(id),
                entries,
            }),
        }
    }

    /// A scheduler that goes may be stopped at once, so every lane that counts its vote must get on without it. One that
    /// still counts somebody who went before could lose more votes than it can do without.
    fn check_lanes(&self, id: u64) -> Result<(), MembershipError> {
        for (lane, voters) in self.lanes.iter().filter(|(_, voters)| voters.contains(&id)) {
            if let Some(gone) = voters.difference(&self.voters).next() {
                return Err(MembershipError::InProgress(format!(
                    "lane {lane} of the journal still counts the vote of scheduler {gone}"
                )));
            }
            let left: BTreeSet<u64> = voters.iter().copied().filter(|voter| *voter != id).collect();
            let answering = left.intersection(&self.answering).count();
            if answering * 2 <= left.len() {
                return Err(MembershipError::Refused(format!(
                    "lane {lane} of the journal would have no quorum without scheduler {id}: of its {} voters that would be \
                     left only {answering} answer; start the others, or wait until lane {lane} counts those who came last",
                    left.len()
                )));
            }
        }
        Ok(())
    }

    fn check_quorum(&self, voters: &BTreeSet<u64>) -> Result<(), MembershipError> {
        let answering = voters.intersection(&self.answering).count();
        if answering * 2 > voters.len() {
            return Ok(());
        }
        Err(MembershipError::NoQuorum {
            voters: voters.len() as u64,
            answering: answering as u64,
        })
    }
}

fn no_successor() -> MembershipError {
    MembershipError::Refused("no other voter answers that could lead instead; start one first".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(id: u64) -> SchedulerId {
        SchedulerId(id)
    }

    const fn remove(number: u64) -> MemberOrder {
        MemberOrder::Remove {
            id: id(number),
            force: false,
        }
    }

    const fn demote(number: u64) -> MemberOrder {
        MemberOrder::Demote {
            id: id(number),
            force: false,
        }
    }

    /// Scheduler 1 leads 2 and 3; 4 follows without a vote; all answer and lack nothing.
    fn view() -> View {
        let all: BTreeSet<u64> = [1, 2, 3, 4].into();
        View {
            me: 1,
            voters: [1, 2, 3].into(),
            learners: [4].into(),
            rows: all.clone(),
            lags: all.iter().map(|id| (*id, 0)).collect(),
            answering: all,
            is_joint: false,
            lanes: [1, 2].map(|lane| (lane, [1, 2, 3].into())).into(),
        }
    }

    fn silent(mut view: View, ids: &[u64]) -> View {
        view.answering.retain(|id| !ids.contains(id));
        view
    }

    #[test]
    fn each_order_has_its_step_and_ends_where_it_is_fulfilled() {
        let view = view();
        let step = |order| next(&view, order, false).unwrap();
        assert_eq!(step(MemberOrder::Promote(id(4))), Step::AddVoter(4));
        assert_eq!(step(MemberOrder::Promote(id(2))), Step::Done);
        assert_eq!(step(demote(2)), Step::RemoveVoter { id: 2, stays: true });
        assert_eq!(step(demote(4)), Step::Done);
        assert_eq!(step(remove(3)), Step::RemoveVoter { id: 3, stays: false });
        assert_eq!(step(remove(4)), Step::RemoveLearner(4));
        assert_eq!(step(MemberOrder::TransferLeader(Some(id(3)))), Step::HandOver(3));
        assert_eq!(step(MemberOrder::TransferLeader(Some(id(1)))), Step::Done);
    }

    #[test]
    fn a_removal_goes_on_until_the_row_is_gone_and_a_stranger_is_none() {
        let mut view = view();
        view.learners.clear();
        assert_eq!(next(&view, remove(4), true), Ok(Step::RemoveRow(4)));
        view.rows.remove(&4);
        assert_eq!(next(&view, remove(4), true), Ok(Step::Done));
        let stranger = Err(MembershipError::NotMember(id(4)));
        for order in [
            remove(4),
            demote(4),
            MemberOrder::Promote(id(4)),
            MemberOrder::TransferLeader(Some(id(4))),
        ] {
            assert_eq!(next(&view, order, false), stranger, "{order:?}");
        }
    }

    #[test]
    fn what_leaves_no_quorum_is_refused_unless_it_is_forced() {
        let two_of_three = silent(view(), &[3]);
        let refused = Err(MembershipError::NoQuorum {
            voters: 2,
            answering: 1,
        });
        assert_eq!(next(&two_of_three, remove(2), false), refused);
        assert_eq!(next(&two_of_three, demote(2), false), refused);
        let forced = MemberOrder::Remove {
            id: id(2),
            force: true,
        };
        assert_eq!(
            next(&two_of_three, forced, false),
            Ok(Step::RemoveVoter { id: 2, stays: false })
        );
        // The dead one may go, and a live one may come.
        assert!(next(&two_of_three, remove(3), false).is_ok());
        assert!(next(&two_of_three, MemberOrder::Promote(id(4)), false).is_ok());
    }

    #[test]
    fn a_lane_that_could_not_follow_is_named() {
        // It still counts 7, which group 0 has let go.
        let mut behind = view();
        behind.lanes.insert(2, [1, 2, 3, 7].into());
        for order in [remove(3), demote(3)] {
            let error = next(&behind, order, false).unwrap_err();
            assert!(
                matches!(&error, MembershipError::InProgress(text)
                if text == "lane 2 of the journal still counts the vote of scheduler 7"),
                "{error}"
            );
        }
        // It does not count 5 yet, and 3 is silent: without 2 it would be alone.
        let mut early = silent(view(), &[3]);
        early.voters.insert(5);
        early.answering.insert(5);
        early.lanes.insert(2, [1, 2, 3].into());
        early.lanes.insert(1, early.voters.clone());
        let error = next(&early, remove(2), false).unwrap_err();
        assert!(
            matches!(&error, MembershipError::Refused(text)
            if text.starts_with("lane 2 of the journal would have no quorum without scheduler 2")),
            "{error}"
        );
        let forced = MemberOrder::Remove {
            id: id(2),
            force: true,
        };
        assert!(next(&early, forced, false).is_ok());
        // Whom no lane counts may go, whatever the lanes still have to do.
        behind.voters.insert(5);
        assert!(next(&behind, remove(5), false).is_ok());
    }

    #[test]
    fn the_last_voter_stays_forced_or_not() {
        let alone = View {
            voters: [1].into(),
            ..view()
        };
        for force in [false, true] {
            let orders = [
                MemberOrder::Remove { id: id(1), force },
                MemberOrder::Demote { id: id(1), force },
            ];
            for order in orders {
                assert_eq!(next(&alone, order, false), Err(MembershipError::LastVoter(id(1))));
            }
        }
    }

    #[test]
    fn the_leader_hands_over_to_whoever_has_most_of_the_log_before_it_goes() {
        let mut view = view();
        view.lags.extend([(2, 40), (3, 5)]);
        for order in [remove(1), demote(1), MemberOrder::TransferLeader(None)] {
            assert_eq!(next(&view, order, false), Ok(Step::HandOver(3)), "{order:?}");
        }
        let view = silent(view, &[3]);
        assert_eq!(
            next(&view, MemberOrder::TransferLeader(None), false),
            Ok(Step::HandOver(2))
        );
        let view = silent(view, &[2]);
        assert!(matches!(
            next(&view, MemberOrder::TransferLeader(None), false),
            Err(MembershipError::Refused(_))
        ));
    }

    #[test]
    fn nobody_votes_or_leads_that_is_silent_or_behind() {
        let mut view = view();
        view.lags.extend([(3, 501), (4, 501)]);
        let behind = |number| {
            Err(MembershipError::Lags {
                id: id(number),
                entries: 501,
            })
        };
        assert_eq!(next(&view, MemberOrder::Promote(id(4)), false), behind(4));
        assert_eq!(
            next(&view, MemberOrder::TransferLeader(Some(id(3))), false),
            behind(3)
        );
        let view = silent(view, &[3, 4]);
        assert_eq!(
            next(&view, MemberOrder::Promote(id(4)), false),
            Err(MembershipError::Silent(id(4)))
        );
        assert_eq!(
            next(&view, MemberOrder::TransferLeader(Some(id(3))), false),
            Err(MembershipError::Silent(id(3)))
        );
        let learner = MemberOrder::TransferLeader(Some(id(4)));
        assert_eq!(next(&view, learner, false), Err(MembershipError::NotVoter(id(4))));
    }

    #[test]
    fn a_change_left_half_way_is_completed_first() {
        let view = View {
            is_joint: true,
            ..view()
        };
        for order in [remove(3), demote(3), MemberOrder::Promote(id(4))] {
            assert_eq!(next(&view, order, false), Ok(Step::Settle), "{order:?}");
        }
    }
}
