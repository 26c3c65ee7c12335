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

use crate::disk::{Disk, test_dir};
use crate::figures::Usage;
use crate::options::ClusterOptions;
use crate::process::{Process, binary};
use crate::recorder::Recorder;
use crate::relay::{Relay, Switchboard};
use crate::starts::Starts;
use crate::wait::until;

/// Time for a cluster to form or to serve again; far above what it takes, so that only a hang fails.
const SERVE_LIMIT: Duration = Duration::from_secs(60);

/// A scheduler or invoker: how to start it, and its process while it runs.
#[derive(Debug)]
pub struct Member {
    name: String,
    args: Vec<String>,
    log: PathBuf,
    data_dir: PathBuf,
    env: Vec<(String, String)>,
    binary: Option<PathBuf>,
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

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// Forgets its process, which is killed if it still runs.
    pub fn forget(&mut self) {
        self.process = None;
    }

    /// Sets what its next process finds in the environment.
    pub fn set_env(&mut self, env: Vec<(String, String)>) {
        self.env = env;
    }

    /// Chooses the binary of its next process; `None` is the one under test.
    pub fn set_binary(&mut self, binary: Option<PathBuf>) {
        self.binary = binary;
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
    /// Disks of the schedulers, if they have their own.
    pub disks: BTreeMap<u64, Disk>,
    /// What really ran.
    pub recorder: Recorder,
    /// What simulated invokers started, if they record it.
    pub starts: Starts,
    /// Where schedulers listen, by number.
    pub(crate) links: BTreeMap<u64, Links>,
    /// Settings of every scheduler.
    pub(crate) set: Vec<String>,
    /// Schedulers that were made to join so far.
    pub(crate) newcomers: u64,
    dir: TempDir,
}

/// The relays before the two listeners of a scheduler.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) peer: Relay,
    pub(crate) client: Relay,
}

impl Links {
    /// Relays to listeners that nobody has yet.
    pub(crate) async fn new(name: &str, board: &Switchboard) -> Self {
        let relay = async || {
            Relay::start(name, free_address(), board.clone())
                .await
                .expect("a relay")
        };
        Self {
            peer: relay().await,
            client: relay().await,
        }
    }

    /// The arguments of the scheduler behind them.
    pub(crate) fn args(&self) -> Vec<String> {
        words(&[
            "--peer-listen",
            &self.peer.target().to_string(),
            "--client-listen",
            &self.client.target().to_string(),
            "--advertise-client",
            &self.client.address().to_string(),
        ])
    }
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
        if let Some(file) = &options.backup {
            cluster.restore_all(file).await;
        }
        let names: Vec<u64> = cluster.schedulers.keys().copied().collect();
        names.iter().for_each(|id| cluster.start_scheduler(*id));
        cluster.serves().await;
        let names: Vec<u64> = cluster.invokers.keys().copied().collect();
        names.iter().for_each(|id| cluster.start_invoker(*id));
        cluster.invokers_are(options.invokers).await;
        cluster
    }

    async fn prepare(options: &ClusterOptions) -> Self {
        let dir = test_dir();
        let switchboard = Switchboard::default();
        let mut links = BTreeMap::new();
        for id in 1..=options.schedulers {
            links.insert(id, Links::new(&format!("scheduler-{id}"), &switchboard).await);
        }
        let peers = links
            .iter()
            .map(|(id, link)| format!("{id}={}", link.peer.address()));
        let initial = peers.collect::<Vec<_>>().join(",");
        let mut cluster = Self {
            schedulers: BTreeMap::new(),
            invokers: BTreeMap::new(),
            switchboard,
            disks: BTreeMap::new(),
            recorder: Recorder::new(&dir.path().join("history")),
            starts: Starts::new(&dir.path().join("starts")),
            links,
            set: options.set.clone(),
            newcomers: 0,
            dir,
        };
        let endpoints = cluster.endpoints().join(",");
        for id in 1..=options.schedulers {
            let number = id.to_string();
            let mut args = words(&["scheduler", "--id", &number, "--initial-cluster", &initial]);
            args.extend(cluster.links[&id].args());
            if let Some(name) = &options.name {
                args.extend(words(&["--cluster-name", name]));
            }
            let name = format!("scheduler-{id}");
            let home = cluster.dir.path().join(&name);
            let data_dir = match options.disk_mib {
                Some(mib) => {
                    let disk = Disk::make(&home, mib).expect("a disk");
                    cluster.disks.insert(id, disk);
                    home.join("data")
                }
                None => home,
            };
            let mut member = cluster.member(&name, ("--data-dir", data_dir), args, &options.set);
            member.env.clone_from(&options.scheduler_env);
            member.binary.clone_from(&options.binary);
            cluster.schedulers.insert(id, member);
        }
        for id in 1..=options.invokers {
            let args = words(&["invoker", "--id", &id.to_string(), "--schedulers", &endpoints]);
            let only = options.invoker_only.get(&id).into_iter().flatten();
            let mut set: Vec<String> = options.invoker_set.iter().chain(only).cloned().collect();
            if options.record_starts {
                set.push(format!(
                    "backend.simulated.record={}",
                    cluster.starts.path().display()
                ));
            }
            let name = format!("invoker-{id}");
            let home = cluster.dir.path().join(&name);
            let mut member = cluster.member(&name, ("--work-dir", home), args, &set);
            member.binary.clone_from(&options.binary);
            cluster.invokers.insert(id, member);
        }
        cluster
    }

    pub(crate) fn member(
        &self,
        name: &str,
        (dir_flag, data_dir): (&str, PathBuf),
        mut args: Vec<String>,
        set: &[String],
    ) -> Member {
        args.extend(words(&[dir_flag, &data_dir.display().to_string()]));
        args.extend(set.iter().flat_map(|setting| words(&["--set", setting])));
        let log = self.dir.path().join(format!("{name}.log"));
        Member {
            name: name.to_owned(),
            args,
            log,
            data_dir,
            env: Vec::new(),
            binary: None,
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

    /// Starts a process that is in no list of this cluster (any more).
    pub fn start_alone(&self, member: &mut Member) {
        start(member, &self.switchboard);
    }

    /// Starts an invoker that does not run.
    pub fn start_invoker(&mut self, id: u64) {
        let member = self.invokers.get_mut(&id).expect("an invoker of this cluster");
        start(member, &self.switchboard);
    }

    /// Kills the process of a scheduler (SIGKILL); its supervisor tells the others.
    pub fn kill_scheduler(&mut self, id: u64) {
        let member = self.schedulers.get_mut(&id);
        if let Some(process) = member.and_then(|member| member.process.take()) {
            process.kill_worker();
        }
    }

    /// Kills the process of a scheduler and its supervisor in one instant, as when their host is lost.
    pub fn lose_scheduler(&mut self, id: u64) {
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
        self.switchboard.isolate(&self.schedulers[&id].name, &others);
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
        self.links
            .values()
            .map(|link| link.client.address().to_string())
            .collect()
    }

    /// Client address of one scheduler.
    #[must_use]
    pub fn endpoint(&self, id: u64) -> String {
        self.links[&id].client.address().to_string()
    }

    /// Client addresses of the schedulers that were started and not killed.
    #[must_use]
    pub fn running_endpoints(&self) -> Vec<String> {
        let running = self
            .schedulers
            .iter()
            .filter(|(_, member)| member.process.is_some());
        running.map(|(id, _)| self.endpoint(*id)).collect()
    }

    /// A new SDK client of this cluster.
    pub async fn client(&self) -> Client {
        Client::connect(self.endpoints())
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", self.logs()))
    }

    /// What one scheduler says; `None` if it does not answer.
    pub async fn status_of(&self, id: u64) -> Option<Status> {
        let client = Client::connect([self.endpoint(id)]).await.ok()?;
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
    let program = member.binary.clone().unwrap_or_else(binary);
    let process = Process::start_with(&program, &member.args, &member.env, &member.log);
    let process = process.expect("the binary starts");
    board.is_process(process.pid(), &member.name);
    member.process = Some(process);
}

pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
