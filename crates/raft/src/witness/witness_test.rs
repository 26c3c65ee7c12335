//! Cases, and a member on a model of its disk: whatever a power cut leaves is not held against it, whatever it has shown and
//! lost is.

use super::*;

const fn ballot(term: u64) -> Ballot {
    Ballot { term, node: 1 }
}

const fn entry(term: u64, index: u64) -> LogIdRecord {
    LogIdRecord { term, node: 1, index }
}

const fn held(term: u64, last: LogIdRecord) -> Held {
    Held {
        vote: ballot(term),
        last: Some(last),
    }
}

#[test]
fn what_was_shown_and_is_gone_is_lacking() {
    let shown = Shown::entry(ballot(5), entry(5, 100), 90);
    let cases = [
        ("all of it", held(5, entry(5, 100)), false),
        ("more", held(5, entry(5, 101)), false),
        ("entries of the vote are gone", held(5, entry(5, 99)), true),
        ("the vote is gone", held(4, entry(4, 120)), true),
        (
            "a later leader took back what was not committed",
            held(6, entry(5, 90)),
            false,
        ),
        (
            "a later leader put its own in place",
            held(6, entry(6, 91)),
            false,
        ),
        ("a committed entry is gone", held(6, entry(5, 89)), true),
        ("everything is gone", Held::default(), true),
    ];
    for (what, held, lacks) in cases {
        assert_eq!(held.lacks(&shown), lacks, "{what}");
    }
}

#[test]
fn the_most_of_all_that_was_shown_is_remembered() {
    let witness = Witness::default();
    witness.note(0, 2, &Shown::entry(ballot(5), entry(5, 100), 70));
    witness.note(0, 2, &Shown::entry(ballot(5), entry(5, 90), 80));
    witness.note(0, 2, &Shown::vote(ballot(4)));
    let most = Shown::entry(ballot(5), entry(5, 100), 80);
    assert_eq!(witness.seen(0, 2), Some(most));
    witness.note(0, 2, &Shown::vote(ballot(6)));
    let voted = Shown {
        vote: ballot(6),
        last: None,
        committed: 80,
    };
    assert_eq!(witness.seen_of(2), [(0, voted)]);
    assert_eq!(witness.seen(1, 2), None);
}

#[test]
fn what_is_kept_is_kept_once_and_for_members() {
    let witness = Witness::default();
    for member in [2, 3] {
        witness.note(1, member, &Shown::vote(ballot(1)));
    }
    let kept = witness.to_keep(|member| member == 2).unwrap();
    assert_eq!(kept.keys().collect::<Vec<_>>(), [&(1, 2)]);
    assert_eq!(witness.to_keep(|_| true), None);
    witness.note(1, 2, &Shown::vote(ballot(1)));
    assert_eq!(witness.to_keep(|_| true), None, "nothing new");

    let next = Witness::default();
    next.open(BTreeMap::new(), kept);
    assert_eq!(next.seen(1, 2), Some(Shown::vote(ballot(1))));
}

#[test]
fn a_node_claims_only_what_the_leader_it_votes_for_cannot_take_back() {
    let disk = OwnDisk::default();
    disk.opened(held(4, entry(4, 50)));
    assert_eq!(disk.claim(), Shown::vote(ballot(4)));
    disk.synced(entry(4, 60));
    disk.committed(55);
    assert_eq!(disk.claim(), Shown::entry(ballot(4), entry(4, 60), 55));
    disk.voted(ballot(5));
    assert_eq!(disk.claim(), Shown::vote(ballot(5)));
    assert_eq!(disk.synced_in(ballot(5)), None);
    disk.synced(entry(5, 57));
    assert_eq!(disk.synced_in(ballot(5)), Some(entry(5, 57)));
    assert_eq!(disk.held(), held(5, entry(5, 57)));
}

#[test]
fn the_refusal_says_who_lost_what_and_what_to_do() {
    let witness = Witness::default();
    let disk = Arc::new(OwnDisk::default());
    disk.opened(held(4, entry(4, 1200)));
    witness.open(BTreeMap::from([(2, disk)]), Seen::new());
    let shown = Shown::entry(ballot(5), entry(5, 1520), 1500);
    let text = witness.lost(2, &shown).unwrap().refusal(3, 1, "a:7400");
    for part in [
        "scheduler 3 has lost what its disk had: in lane 2, scheduler 1 (a:7400) knows of its vote in term 5",
        "entries up to 1520 of term 5, committed entries up to 1500",
        "its data directory has its vote in term 4 (for scheduler 1), entries up to 1200 of term 4;",
        "`whiskraft cluster replace 3 --with NEW`",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert_eq!(witness.lost(2, &Shown::vote(ballot(4))), None);
}

/// What a member writes, in this order.
#[derive(Debug, Clone, Copy)]
enum Op {
    Vote(Ballot),
    /// Entries after this index go.
    Truncate(u64),
    Append(LogIdRecord),
}

/// What a disk has on which only these writes have arrived.
fn replay(ops: &[Op]) -> (Held, Vec<LogIdRecord>) {
    let (mut vote, mut log) = (Ballot::default(), Vec::<LogIdRecord>::new());
    for op in ops {
        match op {
            Op::Vote(ballot) => vote = *ballot,
            Op::Truncate(last) => log.retain(|entry| entry.index <= *last),
            Op::Append(entry) => log.push(*entry),
        }
    }
    let last = log.last().copied();
    (Held { vote, last }, log)
}

/// Pseudo-random numbers from a seed (splitmix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A member that follows one leader after the other.
struct Model {
    ops: Vec<Op>,
    /// Writes that the disk has confirmed.
    synced: usize,
    committed: u64,
    shown: Option<Shown>,
    /// Entries that it has shown and that are committed.
    owed: Vec<LogIdRecord>,
}

impl Model {
    fn show(&mut self, shown: &Shown) {
        let known = self.shown.get_or_insert(*shown);
        known.merge(shown);
        let (_, log) = replay(&self.ops[..self.synced]);
        let owed = log.into_iter().filter(|entry| entry.index <= shown.committed);
        self.owed = owed.collect();
    }

    fn step(&mut self, draw: &mut Draw) {
        let (now, _) = replay(&self.ops);
        let last = now.last.map_or(0, |last| last.index);
        match draw.below(8) {
            // A later leader, whose log may lack what is not committed.
            0 => {
                let vote = ballot(now.vote.term + 1);
                self.ops.push(Op::Vote(vote));
                self.synced = self.ops.len();
                self.show(&Shown::vote(vote));
                let kept = self.committed + draw.below(last - self.committed + 1);
                if kept < last && draw.below(2) == 0 {
                    self.ops.push(Op::Truncate(kept));
                }
            }
            1..5 if now.vote.term > 0 => self.ops.push(Op::Append(entry(now.vote.term, last + 1))),
            5 => self.synced = self.ops.len(),
            // The leader commits what a quorum has, also without this member.
            6 => {
                let known = self
                    .shown
                    .and_then(|shown| shown.last)
                    .map_or(0, |last| last.index);
                let all = known.min(last);
                self.committed = self.committed.max(draw.below(all + 1));
            }
            _ => {
                self.synced = self.ops.len();
                // Only of the leader that it votes for: what is older may be taken back.
                if let Some(last) = now.last.filter(|last| last.ballot() == now.vote) {
                    self.show(&Shown::entry(now.vote, last, self.committed));
                }
            }
        }
    }
}

#[test]
fn a_power_cut_is_no_loss_and_an_older_directory_is() {
    let mut found = 0;
    for seed in 0..400 {
        let mut draw = Draw(seed);
        let mut model = Model {
            ops: Vec::new(),
            synced: 0,
            committed: 0,
            shown: None,
            owed: Vec::new(),
        };
        for _ in 0..60 {
            model.step(&mut draw);
            let Some(shown) = model.shown else { continue };
            for left in 0..=model.ops.len() {
                let (held, log) = replay(&model.ops[..left]);
                let lacks = held.lacks(&shown);
                if left >= model.synced {
                    assert!(
                        !lacks,
                        "seed {seed}: {held:?} after a power cut, {shown:?} was shown"
                    );
                } else {
                    let has_all = model.owed.iter().all(|entry| log.contains(entry));
                    let is_whole = held.vote >= shown.vote && has_all;
                    assert!(
                        lacks || is_whole,
                        "seed {seed}: {held:?} has lost something of {shown:?}"
                    );
                    found += u32::from(lacks);
                }
            }
        }
    }
    assert!(found > 1000, "the model loses things: {found}");
}
