//! F39: a backup is taken while work goes on, while a scheduler dies and while queues move. What is restored from it, under
//! other names and in another size, has everything that was acknowledged before; nobody of the old cluster acts in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use serde_json::{Value, json};
use whiskraft_client::{Client, ConnectError, InvokeOptions};
use whiskraft_cluster_tests::{
    Cluster, ClusterOptions, DurableLoad, Evidence, Fate, Operation, Spread, Work, damage, judge, look,
    machine, resubmit, size, tenants, until,
};
use whiskraft_proto::v1::find_activation_response::State;
use whiskraft_types::{ActivationId, QueueKey};

const INVOKERS: u64 = 4;
const QUEUES: usize = 6;
/// Ended before the backup.
const ENDED: u64 = 2000;
/// Waiting for one container during it.
const WAITING: u64 = 300;
const WAITING_RUN_MS: u64 = 200;
const BETWEEN: u64 = 100;
const BALLAST: usize = 4 << 10;
const LIMIT: Duration = Duration::from_secs(120);
const MOST_ROUNDS: u64 = 9;
/// How far the restored cluster's revisions begin behind those of the backup.
const FAR: u64 = 1 << 32;
/// Exit code of a scheduler that meets another cluster.
const WRONG: Option<i32> = Some(2);

/// A backup, and when its command began.
struct Taken {
    file: PathBuf,
    began: Duration,
    json: Value,
}

/// What a restored cluster has to have.
#[derive(Default)]
struct Expected {
    accepted: Vec<Operation>,
    /// Records of those that had ended before the backup.
    ended: BTreeMap<ActivationId, Evidence>,
}

struct Old {
    cluster: Cluster,
    client: Client,
    queues: Vec<QueueKey>,
    load: DurableLoad,
    taken: u64,
}

fn work(queues: &[QueueKey], most: u64) -> Work {
    let mut work = Work::new(queues.to_vec(), 16, most);
    work.more = |_| json!({"ballast": "x".repeat(BALLAST)});
    work
}

const fn is_over(evidence: &Evidence) -> bool {
    matches!(evidence.state, State::Done | State::Gone)
}

async fn records(cluster: &Cluster, operations: &[Operation]) -> BTreeMap<ActivationId, Evidence> {
    let all: Vec<&Operation> = operations.iter().collect();
    look(&cluster.running_endpoints()[0], &all, LIMIT, is_over).await
}

impl Old {
    /// Takes a backup of a name of its own; `meanwhile` happens as soon as its first bytes are there.
    async fn back_up<T>(
        &mut self,
        meanwhile: impl AsyncFnOnce(&mut Self, &dyn Fn() -> bool) -> T,
    ) -> (Result<Taken, String>, T) {
        self.taken += 1;
        let file = self.cluster.dir().join(format!("{}.backup", self.taken));
        let part = file.with_extension("backup.part");
        let began = self.load.elapsed();
        let order = self
            .cluster
            .order(&["cluster", "backup", &file.display().to_string()]);
        let begun = async || (part.exists() || order.is_finished()).then_some(());
        until("the backup begins", LIMIT, begun).await;
        let happened = meanwhile(self, &|| !order.is_finished()).await;
        let answer = order.await.expect("the task ends");
        println!("  backup {}: {answer}", self.taken);
        let taken = match answer.code {
            Some(0) => Ok(Taken {
                file,
                began,
                json: answer.json,
            }),
            Some(4) => {
                assert!(
                    !file.exists() && !part.exists(),
                    "nothing is kept of what broke off"
                );
                Err(answer.error)
            }
            _ => panic!("{answer}"),
        };
        (taken, happened)
    }

    /// A backup during which a scheduler was killed; whoever gave it may have been the one.
    async fn back_up_and_kill(&mut self) -> Taken {
        let (mut broken, mut whole) = (0, None);
        for round in 0..MOST_ROUNDS {
            let victim = round % 3 + 1;
            let (taken, bites) = self
                .back_up(async |old, goes_on| {
                    let bites = goes_on();
                    old.cluster.kill_scheduler(victim);
                    bites
                })
                .await;
            self.cluster.start_scheduler(victim);
            self.load.progress(BETWEEN, LIMIT).await;
            self.cluster.healed().await;
            match taken {
                Ok(taken) if bites => whole = Some(taken),
                Ok(_) => {}
                Err(_) => broken += 1,
            }
            if whole.is_some() && broken > 0 {
                break;
            }
        }
        println!("  backups that broke off with the death of a scheduler: {broken}");
        whole.expect("a backup that outlives the death of a scheduler")
    }

    /// A backup during which queues moved.
    async fn back_up_and_move(&mut self) -> Taken {
        for _ in 0..MOST_ROUNDS {
            let (taken, moves) = self
                .back_up(async |old, goes_on| {
                    let mut moves = 0;
                    for key in old.queues.clone() {
                        let from = old.cluster.leader_of(&old.client, key.action.as_str()).await;
                        let (action, namespace) = (format!("/{}", key.action), key.namespace.to_string());
                        let to = (from % 3 + 1).to_string();
                        let order = ["queue", "move", &action, "-n", &namespace, "--to", &to];
                        let answer = old.cluster.order(&order).await.expect("the task ends");
                        assert_eq!(answer.code, Some(0), "{answer}");
                        moves += u64::from(goes_on());
                    }
                    moves
                })
                .await;
            self.load.progress(BETWEEN, LIMIT).await;
            if let (Ok(taken), true) = (taken, moves > 0) {
                println!("  queues that moved meanwhile: {moves}");
                return taken;
            }
        }
        panic!("no backup overlapped a move");
    }
}

/// Copies of a file in a directory: one that was cut, one that was altered.
fn damaged(file: &Path, dir: &Path) -> io::Result<[PathBuf; 2]> {
    let len = fs::metadata(file)?.len();
    let copies = ["cut.backup", "altered.backup"].map(|name| dir.join(name));
    for copy in &copies {
        fs::copy(file, copy)?;
    }
    fs::File::options()
        .write(true)
        .open(&copies[0])?
        .set_len(len - 100)?;
    damage::flip_bit(&copies[1], len / 2)?;
    Ok(copies)
}

/// What nobody may use is refused, with its name.
async fn damaged_files_are_refused(cluster: &Cluster, taken: &Taken) {
    let damaged = damaged(&taken.file, cluster.dir()).expect("damaged copies");
    let dir = cluster.dir().join("from-damage");
    let dir_text = dir.display().to_string();
    for file in damaged {
        let name = file.display().to_string();
        let initial = "1=127.0.0.1:7400";
        let restore = [
            "cluster",
            "restore",
            &name,
            "--id",
            "1",
            "--initial-cluster",
            initial,
            "--data-dir",
            &dir_text,
        ];
        for order in [&["cluster", "verify", &name][..], &restore] {
            let answer = cluster.order(order).await.expect("the task ends");
            println!("  {answer}");
            assert_eq!(answer.code, Some(1), "{answer}");
            assert!(
                answer.error.contains(&name) && answer.error.contains("damaged at byte"),
                "{answer}"
            );
        }
        assert!(!dir.exists(), "nothing is restored from {name}");
    }
    let name = taken.file.display().to_string();
    let answer = cluster
        .order(&["cluster", "verify", &name])
        .await
        .expect("the task ends");
    assert_eq!(
        (answer.code, &answer.json["sha256"]),
        (Some(0), &taken.json["sha256"])
    );
}

/// A new cluster from a backup, with everything that was acknowledged before.
async fn restored(schedulers: u64, taken: &Taken, expected: &Expected) -> Cluster {
    let options = ClusterOptions::simulated(2, "8GiB").recording_starts();
    let cluster = Cluster::start(options.of(schedulers).restored("second", &taken.file)).await;
    let found = records(&cluster, &expected.accepted).await;
    let starts = cluster.starts.by_id();
    let (mut ran, mut wrong) = (0, Vec::new());
    for one in &expected.accepted {
        let started = starts.get(&one.id.to_string()).map_or(0, Vec::len);
        let evidence = &found[&one.id];
        let is_same = expected.ended.get(&one.id).is_none_or(|old| {
            started == 0
                && (old.digest, old.runs, old.status) == (evidence.digest, evidence.runs, evidence.status)
        });
        if !evidence.is_right(one.n) || started > 1 || !is_same {
            wrong.push(format!("{one:?}: {evidence:?}, started {started} times"));
        }
        ran += started;
    }
    println!(
        "  restored to {schedulers}: {} acknowledged before the backup, {} of them ended before it; ran again {ran}; wrong {}",
        expected.accepted.len(),
        expected.ended.len(),
        wrong.len()
    );
    assert!(
        wrong.is_empty(),
        "{} wrong, as {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(3)]
    );
    assert!(
        ran > 0 && taken.json["activations_open"].as_u64() > Some(0),
        "nothing waited: {}",
        taken.json
    );
    for endpoint in cluster.endpoints() {
        let all: Vec<&Operation> = expected.accepted.iter().collect();
        assert_eq!(
            look(&endpoint, &all, LIMIT, is_over).await,
            found,
            "all say the same"
        );
    }
    let revision = cluster.status_of(1).await.expect("a status").raft.applied;
    let far = taken.json["revision"].as_u64().map(|revision| revision + FAR);
    assert!(Some(revision) > far && far.is_some(), "{revision} {far:?}");
    cluster
}

/// What the cluster says of itself that nobody else may change.
async fn shape(cluster: &Cluster) -> (Option<BTreeSet<u64>>, u64, usize) {
    let status = cluster.status_of(1).await.expect("a status");
    (cluster.members().await, status.raft.term, status.invokers.len())
}

/// Waits until a process of the old cluster has said so.
async fn says(log: &Path, what: &str) {
    let said = async || {
        fs::read_to_string(log)
            .is_ok_and(|text| text.contains(what))
            .then_some(())
    };
    until(what, LIMIT, said).await;
}

/// The new cluster has the address of an old scheduler: whoever knew the old one is refused, and changes nothing.
async fn nobody_of_the_old_acts_in_the_new(mut old: Old, new: &Cluster) {
    let client = &old.client;
    let id = client.cluster_id().expect("it is connected");
    // One activation that is still running in the end, on the only invoker that is left.
    let key = tenants::put_queues(client, "long", 1, 1).await.remove(0);
    let sleep = json!({"sleep_ms": 200_000});
    let long = client
        .submit(&key.namespace, &key.action, sleep, InvokeOptions::default())
        .await;
    let long = long.expect("accepted").id();
    let started = async || Some(old.cluster.starts.by_id().get(&long.to_string())?[0].invoker);
    let (busy, _) = until("the long one runs", LIMIT, started).await;
    let others: Vec<u64> = old
        .cluster
        .invokers
        .keys()
        .copied()
        .filter(|id| *id != busy)
        .collect();
    others.iter().for_each(|id| old.cluster.kill_invoker(*id));
    let before = shape(new).await;

    old.cluster.kill_scheduler(1);
    old.cluster.divert(1, new, 1);
    says(
        old.cluster.schedulers[&2].log(),
        "another scheduler answers at the address of a member",
    )
    .await;
    says(
        old.cluster.invokers[&busy].log(),
        "another cluster answers at the address of a scheduler",
    )
    .await;
    // The rest of the old one goes on.
    old.load.progress(BETWEEN, LIMIT).await;
    let builder = Client::builder()
        .endpoint(old.cluster.endpoint(1))
        .cluster_id(&id);
    match builder.connect().await {
        Err(ConnectError::WrongCluster { expected, found }) => assert!(expected == id && found != id),
        other => panic!("{other:?}"),
    }
    old.cluster.kill_scheduler(2);
    old.cluster.start_scheduler(2);
    let restarted = old.cluster.schedulers.get_mut(&2).expect("a scheduler");
    let exit = restarted.process().exit(LIMIT).await;
    let last = exit.output.trim().lines().last().unwrap_or_default();
    println!(
        "  an old scheduler meets the new cluster: code {:?}, {last}",
        exit.code
    );
    assert_eq!(exit.code, WRONG, "{last}");
    assert!(last.contains(&id), "{last}");
    old.cluster.kill_scheduler(3);
    says(
        old.cluster.invokers[&busy].log(),
        "still has activations or results of its own",
    )
    .await;
    assert_eq!(
        shape(new).await,
        before,
        "members, term and number of invokers of the new cluster"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_backup_is_in_what_is_restored_from_it() {
    let options = ClusterOptions::simulated(INVOKERS, "8GiB").recording_starts();
    let cluster = Cluster::start(options.with("scheduler.balance.enabled=false")).await;
    let clients = cluster.clients(2).await;
    let queues = tenants::put_queues(&clients[0], "b", QUEUES, 10).await;
    let slow = tenants::put_queues(&clients[0], "slow", 1, 1).await;
    let ended_work = work(&queues, size("WHISKRAFT_DURABLE", ENDED));
    let load = DurableLoad::start(clients.clone(), ended_work.clone());
    load.progress(ended_work.most, LIMIT).await;
    let ended = load.finish().await;
    let records_of_ended = records(&cluster, &ended).await;
    let mut waits = work(&slow, WAITING);
    waits.run_ms_max = WAITING_RUN_MS;
    let load = DurableLoad::start(clients.clone(), waits);
    load.progress(WAITING, LIMIT).await;
    let waiting = load.finish().await;

    let mut old = Old {
        load: DurableLoad::start(clients.clone(), work(&queues, u64::MAX)),
        client: clients[0].clone(),
        cluster,
        queues: queues.clone(),
        taken: 0,
    };
    println!("backup under load ({}):", machine());
    old.load.progress(BETWEEN, LIMIT).await;
    let during_a_death = old.back_up_and_kill().await;
    let during_moves = old.back_up_and_move().await;
    damaged_files_are_refused(&old.cluster, &during_moves).await;

    // The load goes on in the old cluster; what it was told is judged at the end of this part.
    let next = DurableLoad::start(clients, work(&queues, u64::MAX));
    let load = std::mem::replace(&mut old.load, next);
    let going_on = load.finish().await;
    let history = [ended, waiting, going_on.clone()].concat();
    let judgement = judge(&old.cluster, &history, &records_of_ended).await;
    println!("  the old cluster: {judgement}");
    println!(
        "  acknowledgement: {}",
        Spread::of(going_on.iter().map(|one| one.took))
    );
    judgement.assert_kept();
    let earlier = history.len() - going_on.len();
    let expected = |taken: &Taken| {
        let is_before = |one: &&Operation| one.fate == Fate::Accepted && one.began + one.took < taken.began;
        let accepted = history[..earlier].iter().chain(going_on.iter().filter(is_before));
        Expected {
            accepted: accepted
                .filter(|one| one.fate == Fate::Accepted)
                .cloned()
                .collect(),
            ended: records_of_ended.clone(),
        }
    };
    drop(restored(1, &during_a_death, &expected(&during_a_death)).await);
    let new = restored(3, &during_moves, &expected(&during_moves)).await;
    let client = new.client().await;
    let starts = new.starts.all().len();
    for one in history[..records_of_ended.len()].iter().step_by(50) {
        assert_eq!(
            resubmit(&client, &ended_work, one, false).await,
            Fate::Accepted,
            "{} is known",
            one.id
        );
    }
    assert_eq!(new.starts.all().len(), starts, "what is known does not run again");
    nobody_of_the_old_acts_in_the_new(old, &new).await;
}
