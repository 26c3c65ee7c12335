//! What members have shown to be on their disks, so that one whose disk has lost it is found before it votes again.
//!
//! A member shows something when its disk has confirmed it and others rely on it: it acknowledges entries to a leader,
//! grants a vote, or leads with entries of its own. Whoever sees that remembers the most of it ([`Shown`]), in memory and,
//! a moment later, on disk. A member compares it with what it holds ([`Held`]): when the process starts, with every message of
//! a group, and every time it asks around.
//! Invariant: what a disk had not confirmed is never shown, so a power cut alone makes nobody lack anything.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::types::{Ballot, LogIdRecord, META_GROUP};

/// What a member's disk had for certain, in one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    /// Its vote.
    pub(crate) vote: Ballot,
    /// An entry that it had under that vote. The leader of the vote takes no entry back, so it still has it unless it has
    /// voted again since.
    pub(crate) last: Option<LogIdRecord>,
    /// It had every entry up to this one, and all of them are committed: these it never gives up. 0: none is known.
    pub(crate) committed: u64,
}

impl Shown {
    /// A vote, and nothing else.
    pub(crate) fn vote(vote: Ballot) -> Self {
        Self {
            vote,
            last: None,
            committed: 0,
        }
    }

    /// An entry under a vote, when all up to `committed` are known to be committed.
    pub(crate) fn entry(vote: Ballot, last: LogIdRecord, committed: u64) -> Self {
        Self {
            vote,
            last: Some(last),
            committed: committed.min(last.index),
        }
    }

    /// Takes more in.
    fn merge(&mut self, other: &Self) {
        if (self.vote, self.last) < (other.vote, other.last) {
            (self.vote, self.last) = (other.vote, other.last);
        }
        self.committed = self.committed.max(other.committed);
    }
}

/// What a member has, in one group: its vote, and the end of its log or snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Held {
    pub(crate) vote: Ballot,
    pub(crate) last: Option<LogIdRecord>,
}

impl Held {
    /// Whether something that was shown is not there any more. Exact: a later vote may take entries back that are not
    /// committed, and nothing else may.
    pub(crate) fn lacks(&self, shown: &Shown) -> bool {
        self.vote < shown.vote
            || (self.vote == shown.vote && self.last < shown.last)
            || self.last.map_or(0, |last| last.index) < shown.committed
    }
}

/// What this node's own disk has of a group; the log store keeps it.
#[derive(Debug, Default)]
pub(crate) struct OwnDisk {
    marks: Mutex<Marks>,
}

#[derive(Debug, Default)]
struct Marks {
    /// At least this is there. Never less than was shown since the process started.
    held: Held,
    /// Newest entry that the disk has confirmed to this process.
    synced: Option<LogIdRecord>,
    /// Last entry known to be committed.
    committed: u64,
}

impl OwnDisk {
    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found when the store was opened.
    pub(crate) fn opened(&self, held: Held) {
        self.marks().held = held;
    }

    /// The disk has confirmed a vote.
    pub(crate) fn voted(&self, vote: Ballot) {
        let mut marks = self.marks();
        marks.held.vote = marks.held.vote.max(vote);
    }

    /// The disk has confirmed the log up to an entry.
    pub(crate) fn synced(&self, last: LogIdRecord) {
        let mut marks = self.marks();
        marks.synced = Some(last);
        marks.held.last = marks.held.last.max(Some(last));
    }

    /// A snapshot up to an entry is about to take the log's place.
    pub(crate) fn receives(&self, last: Option<LogIdRecord>) {
        let mut marks = self.marks();
        marks.held.last = marks.held.last.max(last);
    }

    /// An entry is known to be committed.
    pub(crate) fn committed(&self, index: u64) {
        self.marks().committed = index;
    }

    /// What is there.
    pub(crate) fn held(&self) -> Held {
        self.marks().held
    }

    /// Newest entry of this ballot's own that the disk has confirmed.
    pub(crate) fn synced_in(&self, vote: Ballot) -> Option<LogIdRecord> {
        self.marks().synced.filter(|last| last.ballot() == vote)
    }

    /// What this node can say about itself. Entries of an earlier leader may have been taken back meanwhile, so only those
    /// of the leader that it votes for are named.
    pub(crate) fn claim(&self) -> Shown {
        let marks = self.marks();
        let vote = marks.held.vote;
        match marks.synced.filter(|last| last.ballot() == vote) {
            Some(last) => Shown::entry(vote, last, marks.committed),
            None => Shown::vote(vote),
        }
    }
}

/// What is known of each member, by group and number.
pub(crate) type Seen = BTreeMap<(u32, u64), Shown>;

/// What this node has seen of the others, and what its own disk has. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Witness {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    seen: Mutex<Book>,
    own: Mutex<BTreeMap<u32, Arc<OwnDisk>>>,
}

#[derive(Debug, Default)]
struct Book {
    seen: Seen,
    has_changed: bool,
}

impl Witness {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.inner.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<OwnDisk>>> {
        self.inner.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node's disk, group by group, and what it has seen of the others in earlier lives.
    pub(crate) fn open(&self, own: BTreeMap<u32, Arc<OwnDisk>>, seen: Seen) {
        *self.own() = own;
        seen.into_iter()
            .for_each(|((group, member), shown)| self.note(group, member, &shown));
    }

    /// Notes what a member has shown.
    pub(crate) fn note(&self, group: u32, member: u64, shown: &Shown) {
        let mut book = self.book();
        let known = book.seen.get(&(group, member)).copied();
        let mut merged = known.unwrap_or(*shown);
        merged.merge(shown);
        if known != Some(merged) {
            book.seen.insert((group, member), merged);
            book.has_changed = true;
        }
    }

    /// What a member has shown in a group.
    pub(crate) fn seen(&self, group: u32, member: u64) -> Option<Shown> {
        self.book().seen.get(&(group, member)).copied()
    }

    /// What a member has shown in all groups.
    pub(crate) fn seen_of(&self, member: u64) -> Vec<(u32, Shown)> {
        let book = self.book();
        let of = book.seen.iter().filter(|((_, id), _)| *id == member);
        of.map(|((group, _), shown)| (*group, *shown)).collect()
    }

    /// What is to be kept for the next start, if it has changed since the last time; members that are none are forgotten.
    pub(crate) fn to_keep(&self, is_member: impl Fn(u64) -> bool) -> Option<Seen> {
        let mut book = self.book();
        let has_changed = std::mem::take(&mut book.has_changed);
        if !has_changed {
            return None;
        }
        book.seen.retain(|(_, member), _| is_member(*member));
        Some(book.seen.clone())
    }

    /// What this node says about its own disk.
    pub(crate) fn claims(&self) -> Vec<(u32, Shown)> {
        let own = self.own();
        own.iter().map(|(group, disk)| (*group, disk.claim())).collect()
    }

    /// This node is about to put a snapshot up to an entry in the place of a group's log.
    pub(crate) fn receives(&self, group: u32, last: Option<LogIdRecord>) {
        if let Some(disk) = self.own().get(&group) {
            disk.receives(last);
        }
    }

    /// What this node's disk lacks of what it has shown in a group.
    pub(crate) fn lost(&self, group: u32, shown: &Shown) -> Option<Loss> {
        let held = self.own().get(&group)?.held();
        held.lacks(shown).then_some(Loss {
            group,
            shown: *shown,
            held,
        })
    }
}

/// What a disk has shown and does not have any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loss {
    group: u32,
    shown: Shown,
    held: Held,
}

impl Loss {
    /// The refusal of the member whose disk it is; `by` is the member that remembers.
    pub(crate) fn refusal(&self, id: u64, by: u64, address: &str) -> String {
        let Self { group, shown, held } = self;
        let group = match *group {
            META_GROUP => "group 0".to_owned(),
            lane => format!("lane {lane}"),
        };
        let known = Had {
            vote: shown.vote,
            last: shown.last,
            committed: Some(shown.committed),
        };
        let found = Had {
            vote: held.vote,
            last: held.last,
            committed: None,
        };
        format!(
            "scheduler {id} has lost what its disk had: in {group}, scheduler {by} ({address}) knows of {known}, and its data \
             directory has {found}; the directory was put back to an earlier state, or the disk has lost writes that it had \
             confirmed. It cannot take part under its number any more: start a new scheduler with --join on an empty \
             directory and run `whiskraft cluster replace {id} --with NEW`, or run `whiskraft cluster remove {id}`"
        )
    }
}

/// A vote and the end of a log, in words.
struct Had {
    vote: Ballot,
    last: Option<LogIdRecord>,
    committed: Option<u64>,
}

impl fmt::Display for Had {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ballot { term, node } = self.vote;
        write!(f, "its vote in term {term} (for scheduler {node})")?;
        match self.last {
            Some(last) => write!(f, ", entries up to {} of term {}", last.index, last.term)?,
            None if self.committed.is_none() => write!(f, ", no entries")?,
            None => {}
        }
        match self.committed {
            Some(committed) if committed > 0 => write!(f, ", committed entries up to {committed}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod witness_test;
