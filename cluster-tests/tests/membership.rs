//! F36: schedulers join, vote, lead and go while work is accepted and others die, stand still or are cut off.
//!
//! `WHISKRAFT_SEED` chooses what strikes whom.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use whiskraft_cluster_tests::{
    Ask, Chance, Cluster, ClusterOptions, Driver, DurableLoad, Evidence, Fate, Newcomer, Tally, Work, Writes,
    judge, longest_gap, machine, pass, size, tenants, until,
};
use whiskraft_types::ActivationId;

const INVOKERS: u64 = 4;
const QUEUES: usize = 6;
const CALLERS: usize = 8;
const SUBMITTERS: usize = 16;
/// Work that is acknowledged between two steps.
const BETWEEN: u64 = 100;
/// Far above what anything takes, so that only a hang fails.
const LIMIT: Duration = Duration::from_secs(60);
/// Every step takes effect or is refused within this time.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Longest time without a write, generously: the bar of a second is for a machine of its own.
const GAP_MAX: Duration = Duration::from_secs(30);
/// Latest moment of a fault after an order was given.
const STRIKE_MS: u64 = 300;
/// How long somebody is away while another one joins.
const STRUCK: Duration = Duration::from_millis(500);
/// Exit codes of a scheduler that is refused for what it was told, and for what it is.
const WRONG: Option<i32> = Some(2);
const REFUSED: Option<i32> = Some(3);

/// What was changed, and what it cost.
#[derive(Debug)]
struct Step {
    what: String,
    from: Duration,
    to: Duration,
    /// Until it was done.
    took: Duration,
    refusals: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Pause,
    CutOff,
}

/// A fault and whom it strikes.
type Strike = (Fault, u64);

struct Setup {
    cluster: Cluster,
    durable: DurableLoad,
    blocking: Driver,
    writes: Writes,
    chance: Chance,
    steps: Vec<Step>,
    early: BTreeMap<ActivationId, Evidence>,
}

impl Setup {
    async fn new(schedulers: u64) -> Self {
        let options = ClusterOptions::simulated(INVOKERS, "8GiB").recording_starts();
        let cluster = Cluster::start(options.of(schedulers)).await;
        let clients = cluster.clients(3).await;
        let queues = tenants::put_queues(&clients[0], "m", QUEUES, 10).await;
        let mut blocking = Driver::new(&clients[2]);
        let asked = queues.clone();
        blocking.callers(CALLERS, move |caller, n| {
            let place = usize::try_from(n).unwrap_or(0) + caller;
            Ask::new(caller, asked[place % asked.len()].clone(), 20)
        });
        let mut work = Work::new(queues, SUBMITTERS, u64::MAX);
        work.run_ms_max = 50;
        let durable = DurableLoad::start(clients[..2].to_vec(), work);
        let writes = Writes::start(&clients[2], durable.clock());
        durable.progress(BETWEEN, LIMIT).await;
        Self {
            cluster,
            durable,
            blocking,
            writes,
            chance: Chance::seeded(size("WHISKRAFT_SEED", 1)),
            steps: Vec::new(),
            early: BTreeMap::new(),
        }
    }

    fn members(&self) -> BTreeSet<u64> {
        self.cluster.schedulers.keys().copied().collect()
    }

    /// One of the members, but none of these.
    fn any_but(&mut self, not: &[u64]) -> u64 {
        let members: Vec<u64> = self
            .members()
            .into_iter()
            .filter(|id| !not.contains(id))
            .collect();
        let place = self.chance.below(members.len() as u64);
        members[usize::try_from(place).unwrap_or(0)]
    }

    /// Strikes one of the members, but none of these, a moment from now.
    async fn strike(&mut self, not: &[u64]) -> Strike {
        let id = self.any_but(not);
        let fault = match self.chance.below(4) {
            0 | 1 => Fault::Kill,
            2 => Fault::Pause,
            _ => Fault::CutOff,
        };
        pass(Duration::from_millis(self.chance.below(STRIKE_MS))).await;
        match fault {
            Fault::Kill => self.cluster.kill_scheduler(id),
            Fault::Pause => self.process(id).pause(),
            Fault::CutOff => self.cluster.cut_off(id),
        }
        (fault, id)
    }

    fn heal(&mut self, (fault, id): Strike) {
        match fault {
            Fault::Kill => self.cluster.start_scheduler(id),
            Fault::Pause => self.process(id).resume(),
            Fault::CutOff => self.cluster.switchboard.heal(),
        }
    }

    fn process(&mut self, id: u64) -> &mut whiskraft_cluster_tests::Process {
        let member = self.cluster.schedulers.get_mut(&id).expect("a scheduler");
        member.process()
    }

    /// A scheduler joins and gets its vote; `strikes`: somebody is struck meanwhile.
    async fn join(&mut self, strikes: bool) -> u64 {
        let from = self.durable.elapsed();
        let through: Vec<u64> = self.cluster.schedulers.keys().copied().collect();
        let mut newcomer = self.cluster.newcomer(&through, &[]).await;
        self.cluster.start_alone(&mut newcomer.member);
        let strike = match strikes {
            true => Some(self.strike(&[]).await),
            false => None,
        };
        if let Some(strike) = strike {
            pass(STRUCK).await;
            self.heal(strike);
        }
        let (id, _) = self.cluster.join(newcomer).await;
        let what = format!("join {}", told(strike));
        let votes = async || self.cluster.voters().await.filter(|voters| voters.contains(&id));
        until("the newcomer votes", LIMIT, votes).await;
        let took = self.durable.elapsed() - from;
        assert!(took < ANSWER_MAX, "{what}: {took:?}");
        self.settled(what, from, took, Vec::new()).await;
        id
    }

    /// Gives an order until it is carried out; with `spared`: somebody else is struck meanwhile.
    async fn order(&mut self, words: &[&str], spared: Option<&[u64]>) {
        let (from, mut refusals, mut struck) = (self.durable.elapsed(), Vec::new(), None);
        loop {
            let order = self.cluster.order(words);
            let strike = match spared.filter(|_| struck.is_none()) {
                Some(spared) => Some(self.strike(spared).await),
                None => None,
            };
            let answer = order.await.expect("the task ends");
            if let Some(strike) = strike {
                self.heal(strike);
                struck = Some(strike);
            }
            assert!(answer.took < ANSWER_MAX, "{words:?}: {answer}");
            let reason = answer.json["reason"].as_str().unwrap_or("no answer").to_owned();
            // Carried out by the order before, whose answer was lost.
            let was_done = !refusals.is_empty() && words[1] != "promote" && reason == "not-member";
            if answer.code == Some(0) || was_done {
                break;
            }
            let passes = struck.is_some() || answer.json["passing"] == true;
            assert!(
                passes && matches!(answer.code, Some(1 | 4)),
                "{words:?}: {answer}"
            );
            assert!(self.durable.elapsed() < from + LIMIT, "{words:?}: {answer}");
            refusals.push(format!("{reason} after {:.1?}", answer.took));
        }
        let took = self.durable.elapsed() - from;
        let what = format!("{} {}", words[1..].join(" "), told(struck));
        self.settled(what, from, took, refusals).await;
    }

    /// An order that must be refused.
    async fn refused(&mut self, words: &[&str], reason: &str) {
        let answer = self.cluster.order(words).await.expect("the task ends");
        println!("  {words:?} refused: {answer}");
        assert!(answer.took < ANSWER_MAX, "{words:?}: {answer}");
        assert_eq!(
            (answer.code, &answer.json["reason"]),
            (Some(1), &reason.into()),
            "{words:?}"
        );
    }

    /// Work goes on with everybody who is left.
    async fn settled(&mut self, what: String, from: Duration, took: Duration, refusals: Vec<String>) {
        self.durable.progress(BETWEEN, LIMIT).await;
        let to = self.durable.elapsed();
        self.steps.push(Step {
            what,
            from,
            to,
            took,
            refusals,
        });
        // Somebody who stays says what has ended.
        let voter = async || self.cluster.voters().await?.last().copied();
        let (voter, _) = until("somebody says who votes", LIMIT, voter).await;
        let endpoint = self.cluster.endpoint(voter);
        self.early.extend(self.durable.newest_records(&endpoint).await);
    }

    /// One that was removed or replaced: its process, if it runs, ends by itself, and nobody but the rest votes.
    async fn is_gone(&mut self, id: u64) -> Newcomer {
        let mut gone = self.cluster.let_go(id);
        if gone.member.is_running() {
            let exit = gone.member.process().exit(ANSWER_MAX).await;
            assert_eq!(exit.code, REFUSED, "{id} was removed");
        }
        gone.member.forget();
        let rest = self.members();
        let votes = async || self.cluster.voters().await.filter(|voters| *voters == rest);
        until("the rest votes", ANSWER_MAX, votes).await;
        self.cluster.healed().await;
        gone
    }

    /// One that is gone is started again: it ends, and nobody has to vote for its sake.
    async fn comes_back(&mut self, mut gone: Newcomer) {
        let before = self.term().await;
        self.cluster.start_alone(&mut gone.member);
        let exit = gone.member.process().exit(LIMIT).await;
        let last = exit.output.lines().last().unwrap_or_default();
        println!("  comes back: code {:?}, {last}", exit.code);
        assert_eq!(exit.code, REFUSED, "{last}");
        self.durable.progress(BETWEEN, LIMIT).await;
        assert_eq!(self.term().await, before, "no election for its sake");
    }

    async fn term(&self) -> Option<u64> {
        let answer = self
            .cluster
            .order(&["cluster", "status"])
            .await
            .expect("the task ends");
        answer.json["term"].as_u64()
    }

    async fn check(self) {
        let writes = self.writes.acknowledged();
        let history = self.durable.finish().await;
        let tally = Tally::of(&self.blocking.finish().await);
        self.cluster.invokers_are(INVOKERS).await;
        let all = self.cluster.schedulers.keys().copied().collect();
        assert_eq!(self.cluster.members().await, Some(all), "nobody is two members");
        let judgement = judge(&self.cluster, &history, &self.early).await;
        let accepted = history.iter().filter(|one| one.fate == Fate::Accepted);
        let mut accepted: Vec<Duration> = accepted.map(|one| one.began + one.took).collect();
        accepted.sort_unstable();
        println!("membership ({}), {} writes:", machine(), writes.len());
        println!(
            "  {:<52} {:>8} {:>12} {:>12}",
            "step", "done in", "no write", "no durable"
        );
        let mut worst = Duration::ZERO;
        for Step {
            what,
            from,
            to,
            took,
            refusals,
        } in &self.steps
        {
            let gaps = [&writes, &accepted].map(|moments| longest_gap(moments, *from, *to));
            worst = worst.max(gaps[0]).max(gaps[1]);
            println!(
                "  {what:<52} {took:>8.1?} {:>12.1?} {:>12.1?} {refusals:?}",
                gaps[0], gaps[1]
            );
        }
        println!(
            "  durable: {judgement}; records read on the way: {}",
            self.early.len()
        );
        println!("  blocking: {tally} latency {}", tally.latency());
        judgement.assert_kept();
        tally.assert_none_lost();
        assert_eq!((tally.failures(), tally.refusals()), (0, 0), "{tally}");
        let starts = self.cluster.starts.by_id().into_values();
        let twice: Vec<_> = starts.filter(|starts| starts.len() > 1).take(3).collect();
        assert!(twice.is_empty(), "started twice: {twice:?}");
        assert!(worst < GAP_MAX, "no write for {worst:?}");
    }
}

fn told(strike: Option<Strike>) -> String {
    strike.map_or_else(String::new, |(fault, id)| format!("({fault:?} of {id})"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_to_five_and_shrinks_to_three_under_load() {
    let mut setup = Setup::new(1).await;
    for strikes in [false, true, false, true] {
        setup.join(strikes).await;
        setup.cluster.healed().await;
    }
    assert_eq!(setup.cluster.voters().await, Some(setup.members()));
    setup.order(&["cluster", "transfer-leader"], None).await;
    let leader = setup.cluster.raft_leader().await;
    let to = setup.any_but(&[leader]);
    let order = ["cluster", "transfer-leader", &to.to_string()];
    setup.order(&order, Some(&[to])).await;
    setup.cluster.healed().await;

    let leader = setup.cluster.raft_leader().await;
    setup
        .order(&["cluster", "remove", &leader.to_string()], None)
        .await;
    let gone = setup.is_gone(leader).await;
    setup.comes_back(gone).await;
    let any = setup.any_but(&[]);
    let order = ["cluster", "remove", &any.to_string()];
    setup.order(&order, Some(&[any])).await;
    let gone = setup.is_gone(any).await;
    setup.refused(&order, "not-member").await;
    setup.comes_back(gone).await;
    assert_eq!(setup.members().len(), 3);
    setup.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scheduler_is_replaced_under_load() {
    let mut setup = Setup::new(3).await;
    wrong_name_is_refused(&mut setup).await;
    for old in 1..=3 {
        // The first is dead for good, the others do not know what comes.
        if old == 1 {
            dies_for_good(&mut setup, old).await;
        }
        let new = setup.join(old == 3).await;
        let order = ["cluster", "replace", &old.to_string(), "--with", &new.to_string()];
        let spared = [old, new];
        setup.order(&order, Some(&spared[..]).filter(|_| old == 2)).await;
        let gone = setup.is_gone(old).await;
        setup.comes_back(gone).await;
    }
    assert!(
        setup.members().iter().all(|id| *id > 3),
        "nobody of the first is left"
    );
    setup.check().await;
}

/// A scheduler of another cluster name that is told to join.
async fn wrong_name_is_refused(setup: &mut Setup) {
    let members = setup.members();
    let mut stranger = setup.cluster.newcomer(&[2], &["--cluster-name", "other"]).await;
    setup.cluster.start_alone(&mut stranger.member);
    let exit = stranger.member.process().exit(ANSWER_MAX).await;
    let last = exit.output.trim().lines().last().unwrap_or_default();
    println!("  wrong name: code {:?}, {last}", exit.code);
    assert_eq!(exit.code, WRONG);
    assert!(exit.output.contains("configured for cluster \"other\""), "{last}");
    assert_eq!(setup.cluster.voters().await, Some(members));
}

/// Kills a scheduler; no other may go while it is away.
async fn dies_for_good(setup: &mut Setup, id: u64) {
    setup.cluster.kill_scheduler(id);
    let leader = setup.cluster.raft_leader().await;
    until("the leader knows", LIMIT, async || {
        let status = setup.cluster.status_of(leader).await?;
        let mut nodes = status.nodes.iter();
        let node = nodes.find(|node| node.member.scheduler.0 == id)?;
        (!node.reachable).then_some(())
    })
    .await;
    let other = setup.any_but(&[id, leader]);
    let order = ["cluster", "remove", &other.to_string()];
    setup.refused(&order, "no-quorum").await;
}
