//! A cluster of real processes on loopback, every link through a relay.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use whiskraft_client::{Client, Status};
use whiskraft_types::{NamespaceLimits, NamespaceName, SchedulerId};

use crate::figures::Usage;
use crate::process::Process;
use crate::recorder::Recorder;
use crate::relay::{Relay, Switchboard};
use crate::wait::until;

/// Time for a cluster to form or to serve again; far above what it takes, so that only a hang fails.
const SERVE_LIMIT: Duration = Duration::from_secs(60);

/// What differs from a plain cluster of three schedulers and one invoker.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Schedulers, numbered from 1.
    pub schedulers: u64,
    /// Invokers, numbered from 1.
    pub invokers: u64,
    /// Settings of every scheduler, as `KEY=VALUE`.
    pub set: Vec<String>,
    /// Settings of every invoker.
    pub invoker_set: Vec<String>,
    /// More settings of single invokers, which win.
    pub invoker_only: BTreeMap<u64, Vec<String>>,
}

impl ClusterOptions {
    /// Three schedulers and so many invokers whose containers only pretend, each with this memory.
    #[must_use]
    pub fn simulated(invokers: u64, memory: &str) -> Self {
        Self {
            invokers,
            invoker_set: vec![
                "backend.kind=simulated".to_owned(),
                format!("invoker.pool.memory={memory}"),
            ],
            ..Self::default()
        }
    }

    /// With this setting of every scheduler.
    #[must_use]
    pub fn with(mut self, setting: &str) -> Self {
        self.set.push(setting.to_owned());
        self
    }

    /// With this setting of every invoker.
    #[must_use]
    pub fn with_invoker(mut self, setting: &str) -> Self {
        self.invoker_set.push(setting.to_owned());
        self
    }

    /// With this setting of one invoker.
    #[must_use]
    pub fn with_only(mut self, invoker: u64, setting: &str) -> Self {
        self.invoker_only
            .entry(invoker)
            .or_default()
            .push(setting.to_owned());
        self
    }

    /// With the whole log kept, so that [`Cluster::check_log`] sees every revision.
    #[must_use]
    pub fn keeping_the_log(self) -> Self {
        self.with("raft.snapshot-logs=100000000")
            .with("raft.logs-kept=100000000")
    }
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            schedulers: 3,
            invokers: 1,
            set: Vec::new(),
            invoker_set: Vec::new(),
            invoker_only: BTreeMap::new(),
        }
    }
}

/// A scheduler or invoker: how to start it, and its process while it runs.
#[derive(Debug)]
pub struct Member {
    name: String,
    args: Vec<String>,
    log: PathBuf,
    data_dir: PathBuf,
    process: Option<Process>,
}

impl Member {
    /// Its process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the member runs")
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The arguments it is started with.
    #[must_use]
    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// Its log file.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }
}

/// Schedulers, invokers and the relays between them; everything ends and vanishes when dropped.
#[derive(Debug)]
pub struct Cluster {
    /// Schedulers by number.
    pub schedulers: BTreeMap<u64, Member>,
    /// Invokers by number.
    pub invokers: BTreeMap<u64, Member>,
    /// Cuts links.
    pub switchboard: Switchboard,
    /// What really ran.
    pub recorder: Recorder,
    client_addresses: BTreeMap<u64, SocketAddr>,
    _relays: Vec<Relay>,
    dir: TempDir,
}

/// Ports for members: below those that systems give to outgoing connections, which could take one while its member is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port that nobody listens on now, and that this process has not had before.
fn free_address() -> SocketAddr {
    static TAKEN: AtomicU16 = AtomicU16::new(0);

    // Processes that run at the same time begin at different ones.
    let first = u16::try_from(std::process::id() % 1000).unwrap_or(0) * 12;
    for _ in PORTS {
        let nth = first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % (PORTS.end - PORTS.start);
        let address = SocketAddr::from(([127, 0, 0, 1], PORTS.start + nth));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free loopback port in {PORTS:?}");
}

impl Cluster {
    /// Starts everything and waits until it serves.
    pub async fn start(options: ClusterOptions) -> Self {
        let mut cluster = Self::prepare(&options).await;
        let names: Vec<u64> = cluster.schedulers.keys().copied().collect();
        names.iter().for_each(|id| cluster.start_scheduler(*id));
        cluster.serves().await;
        let names: Vec<u64> = cluster.invokers.keys().copied().collect();
        names.iter().for_each(|id| cluster.start_invoker(*id));
        cluster.invokers_are(options.invokers).await;
        cluster
    }

    async fn prepare(options: &ClusterOptions) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let switchboard = Switchboard::default();
        let (mut relays, mut peers, mut clients, mut listeners) =
            (Vec::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for id in 1..=options.schedulers {
            let (peer, client) = (free_address(), free_address());
            let name = format!("scheduler-{id}");
            let near_peer = Relay::start(&name, peer, switchboard.clone())
                .await
                .expect("a relay");
            let near_client = Relay::start(&name, client, switchboard.clone())
                .await
                .expect("a relay");
            peers.insert(id, near_peer.address());
            clients.insert(id, near_client.address());
            listeners.insert(id, (peer, client));
            relays.extend([near_peer, near_client]);
        }
        let initial = peers
            .iter()
            .map(|(id, at)| format!("{id}={at}"))
            .collect::<Vec<_>>()
            .join(",");
        let endpoints = clients
            .values()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",");
        let mut cluster = Self {
            schedulers: BTreeMap::new(),
            invokers: BTreeMap::new(),
            switchboard,
            recorder: Recorder::new(&dir.path().join("history")),
            client_addresses: clients,
            _relays: relays,
            dir,
        };
        for (id, (peer, client)) in listeners {
            let mut args = words(&[
                "scheduler",
                "--id",
                &id.to_string(),
                "--initial-cluster",
                &initial,
            ]);
            args.extend(words(&[
                "--peer-listen",
                &peer.to_string(),
                "--client-listen",
                &client.to_string(),
            ]));
            args.extend(words(&[
                "--advertise-client",
                &cluster.client_addresses[&id].to_string(),
            ]));
            let member = cluster.member(&format!("scheduler-{id}"), "--data-dir", args, &options.set);
            cluster.schedulers.insert(id, member);
        }
        for id in 1..=options.invokers {
            let args = words(&["invoker", "--id", &id.to_string(), "--schedulers", &endpoints]);
            let only = options.invoker_only.get(&id).into_iter().flatten();
            let set: Vec<String> = options.invoker_set.iter().chain(only).cloned().collect();
            let member = cluster.member(&format!("invoker-{id}"), "--work-dir", args, &set);
            cluster.invokers.insert(id, member);
        }
        cluster
    }

    fn member(&self, name: &str, dir_flag: &str, mut args: Vec<String>, set: &[String]) -> Member {
        let data_dir = self.dir.path().join(name);
        args.extend(words(&[dir_flag, &data_dir.display().to_string()]));
        args.extend(set.iter().flat_map(|setting| words(&["--set", setting])));
        let log = self.dir.path().join(format!("{name}.log"));
        Member {
            name: name.to_owned(),
            args,
            log,
            data_dir,
            process: None,
        }
    }

    /// Directory of this cluster.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts a scheduler that does not run.
    pub fn start_scheduler(&mut self, id: u64) {
        let member = self.schedulers.get_mut(&id).expect("a scheduler of this cluster");
        start(member, &self.switchboard);
    }

    /// Starts an invoker that does not run.
    pub fn start_invoker(&mut self, id: u64) {
        let member = self.invokers.get_mut(&id).expect("an invoker of this cluster");
        start(member, &self.switchboard);
    }

    /// Kills a scheduler (SIGKILL).
    pub fn kill_scheduler(&mut self, id: u64) {
        if let Some(member) = self.schedulers.get_mut(&id) {
            member.process = None;
        }
    }

    /// Kills an invoker (SIGKILL).
    pub fn kill_invoker(&mut self, id: u64) {
        if let Some(member) = self.invokers.get_mut(&id) {
            member.process = None;
        }
    }

    /// Ends a scheduler in good order (SIGTERM) and waits for it.
    pub async fn stop_scheduler(&mut self, id: u64) {
        let member = self.schedulers.get_mut(&id).expect("a scheduler of this cluster");
        if let Some(mut process) = member.process.take() {
            process.terminate();
            process.exit(SERVE_LIMIT).await;
        }
    }

    /// The scheduler that leads the Raft group.
    pub async fn raft_leader(&self) -> u64 {
        let leader = async || {
            for id in self.schedulers.keys() {
                let status = self.status_of(*id).await;
                if let Some(status) = status.filter(|status| status.raft.role == "leader") {
                    return Some(status.scheduler.0);
                }
            }
            None
        };
        until("there is a Raft leader", SERVE_LIMIT, leader).await.0
    }

    /// What each running scheduler has used so far, by number.
    #[must_use]
    pub fn scheduler_usage(&self) -> BTreeMap<u64, Usage> {
        let running = self.schedulers.iter();
        running
            .filter_map(|(id, member)| Some((*id, member.process.as_ref()?.usage())))
            .collect()
    }

    /// Cuts a scheduler off from all others, from invokers and from the test's own clients.
    pub fn cut_off(&self, id: u64) {
        let others: Vec<String> = self.names().chain(["driver".to_owned()]).collect();
        self.switchboard.isolate(&format!("scheduler-{id}"), &others);
    }

    fn names(&self) -> impl Iterator<Item = String> {
        self.schedulers
            .values()
            .chain(self.invokers.values())
            .map(|member| member.name.clone())
    }

    /// Client addresses, all of them.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.client_addresses.values().map(ToString::to_string).collect()
    }

    /// A new SDK client of this cluster.
    pub async fn client(&self) -> Client {
        Client::connect(self.endpoints())
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", self.logs()))
    }

    /// What one scheduler says; `None` if it does not answer.
    pub async fn status_of(&self, id: u64) -> Option<Status> {
        let endpoint = self.client_addresses[&id].to_string();
        let client = Client::connect([endpoint]).await.ok()?;
        client.status_of(SchedulerId(id)).await.ok()
    }

    /// Waits until some scheduler knows a Raft leader and a write goes through; gives the time it took.
    pub async fn serves(&self) -> Duration {
        let namespace: NamespaceName = "probe".parse().expect("a valid name");
        let probe = async || {
            let client = Client::connect(self.endpoints()).await.ok()?;
            client
                .put_namespace(&namespace, &NamespaceLimits::containers(1))
                .await
                .ok()
        };
        until("the cluster takes a write", SERVE_LIMIT, probe).await.1
    }

    /// Waits until so many invokers are known and healthy.
    pub async fn invokers_are(&self, count: u64) -> Duration {
        let client = self.client().await;
        let all = async || {
            let status = client.status().await.ok()?;
            let healthy = status.invokers.iter().filter(|invoker| invoker.healthy).count();
            (healthy as u64 == count).then_some(())
        };
        until("the invokers are known", SERVE_LIMIT, all).await.1
    }

    /// The scheduler that leads a queue of this action now.
    pub async fn leader_of(&self, client: &Client, action: &str) -> u64 {
        let leader = async || {
            let status = client.status().await.ok()?;
            let queue = status
                .queues
                .into_iter()
                .find(|queue| queue.queue.key.action.as_str() == action)?;
            Some(queue.queue.leader?.0)
        };
        until("the queue has a leader", SERVE_LIMIT, leader).await.0
    }

    /// All logs, for the message of a failed test.
    #[must_use]
    pub fn logs(&self) -> String {
        let tail = |member: &Member| {
            let text = std::fs::read_to_string(&member.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!(
                "---- {}\n{}",
                member.name,
                lines[lines.len().saturating_sub(30)..].join("\n")
            )
        };
        self.schedulers
            .values()
            .chain(self.invokers.values())
            .map(tail)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let test = std::thread::current().name().unwrap_or_default().to_owned();
            writeln!(std::io::stderr(), "{}", self.logs()).ok();
            writeln!(std::io::stderr(), "repeat: scripts/cluster-tests.sh {test}").ok();
        }
    }
}

fn start(member: &mut Member, board: &Switchboard) {
    assert!(member.process.is_none(), "{} runs already", member.name);
    let process = Process::start(&member.args, &member.log).expect("the binary starts");
    board.is_process(process.pid(), &member.name);
    member.process = Some(process);
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
