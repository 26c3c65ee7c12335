//! A cluster of processes of this binary on loopback, for measurements on a bare machine. It ends when it is dropped.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use whiskraft_client::{Client, Settings};
use whiskraft_types::ByteSize;

use super::member::{Members, Orders};
use super::ports::free_ports;
use super::usage::Role;
use crate::clock;
use crate::exit::{Exit, Failure};

/// Longest wait until it serves; far above what it takes, so that only a hang fails.
const SERVE_MAX: Duration = Duration::from_secs(60);
/// Time between two looks whether it does.
const LOOK: Duration = Duration::from_millis(50);
/// `f_type` of a file system that is in memory, where a sync costs nothing.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// What is started.
#[derive(Debug, Clone)]
pub(crate) struct ClusterOptions {
    /// Scheduler processes.
    pub(crate) schedulers: u32,
    /// Processes of simulated invokers.
    pub(crate) invokers: u32,
    /// Memory that each of these pretends to have.
    pub(crate) memory: ByteSize,
    /// Settings of every scheduler, as `KEY=VALUE`.
    pub(crate) scheduler_set: Vec<String>,
    /// Settings of every invoker.
    pub(crate) invoker_set: Vec<String>,
    /// Where their data goes; `None`: a temporary directory, removed at the end.
    pub(crate) dir: Option<PathBuf>,
}

/// Its processes.
#[derive(Debug)]
pub(crate) struct Cluster {
    members: Members,
    options: ClusterOptions,
    endpoints: Vec<String>,
    dir: PathBuf,
    _temporary: Option<TempDir>,
}

impl Cluster {
    /// Starts everything and waits until it serves.
    ///
    /// # Errors
    /// If a process cannot be started or ends, or the cluster does not form.
    pub(crate) async fn start(options: &ClusterOptions) -> Result<Self, Failure> {
        let refused = |what: &str, error| Failure::new(Exit::Refused, what).caused_by(error);
        let (dir, temporary) =
            directory(options.dir.clone()).map_err(|error| refused("cannot make a directory", error))?;
        let ports = free_ports(2 * options.schedulers as usize)
            .map_err(|error| refused("cannot find free ports on 127.0.0.1", error))?;
        let (peers, clients) = ports.split_at(options.schedulers as usize);
        let address = |port: &u16| format!("127.0.0.1:{port}");
        let numbered = peers
            .iter()
            .zip(1..)
            .map(|(port, id)| format!("{id}={}", address(port)));
        let initial = numbered.collect::<Vec<_>>().join(",");
        let mut cluster = Self {
            members: Members::default(),
            options: options.clone(),
            endpoints: clients.iter().map(address).collect(),
            dir,
            _temporary: temporary,
        };
        for id in 1..=options.schedulers {
            cluster.start_scheduler(id, &initial, &options.scheduler_set)?;
        }
        for id in 1..=options.invokers {
            cluster.start_invoker(id, options.memory, &options.invoker_set)?;
        }
        cluster.serves().await?;
        Ok(cluster)
    }

    fn start_scheduler(&mut self, id: u32, initial: &str, set: &[String]) -> Result<(), Failure> {
        let name = scheduler(id.into());
        let data_dir = self.dir.join(&name).display().to_string();
        let client_listen = self.endpoints[id as usize - 1].clone();
        let id = id.to_string();
        let args = [
            ["--id", &id],
            ["--initial-cluster", initial],
            ["--data-dir", &data_dir],
            ["--client-listen", &client_listen],
        ];
        self.start_member("scheduler", name, &args, set)
    }

    fn start_invoker(&mut self, id: u32, memory: ByteSize, set: &[String]) -> Result<(), Failure> {
        let name = invoker(id.into());
        let work_dir = self.dir.join(&name).display().to_string();
        let (id, endpoints) = (id.to_string(), self.endpoints.join(","));
        let memory = memory.as_bytes().to_string();
        let args = [
            ["--id", &id],
            ["--schedulers", &endpoints],
            ["--backend", "simulated"],
            ["--memory", &memory],
            ["--work-dir", &work_dir],
        ];
        self.start_member("invoker", name, &args, set)
    }

    fn start_member(
        &mut self,
        role: &'static str,
        name: String,
        args: &[[&str; 2]],
        set: &[String],
    ) -> Result<(), Failure> {
        let orders = Orders {
            role,
            name,
            command: &[role],
            args,
            set,
        };
        self.members.start(&self.dir, orders)
    }

    /// Waits until all schedulers have a session and all invokers are healthy.
    ///
    /// # Errors
    /// If a process ends, or it does not come to that.
    pub(crate) async fn serves(&mut self) -> Result<(), Failure> {
        let deadline = clock::now() + SERVE_MAX;
        let settings = Settings {
            connect_deadline: SERVE_MAX,
            ..Settings::default()
        };
        let client = Client::builder()
            .endpoints(self.endpoints.clone())
            .settings(settings)
            .connect_lazy();
        let client =
            client.map_err(|error| Failure::new(Exit::Refused, "cannot make a client").caused_by(error))?;
        while !is_ready(&client, &self.options).await {
            self.check()?;
            if clock::now() > deadline {
                let logs = self.members.last_words();
                return Err(Failure::new(
                    Exit::Refused,
                    format!("the cluster does not serve after {SERVE_MAX:?}\n{logs}"),
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
        client.close().await;
        Ok(())
    }

    /// Kills processes without a warning, all at once.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) async fn kill(&mut self, names: &[String]) -> Result<(), Failure> {
        self.members.kill(names).await
    }

    /// Loses a process: kills it without a warning, or stops it in its tracks.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) async fn lose(&mut self, name: &str, freeze: bool) -> Result<(), Failure> {
        match freeze {
            true => self.members.freeze(name, true),
            false => self.members.kill(&[name.to_owned()]).await,
        }
    }

    /// Brings back what was [lost](Cluster::lose): starts it again, or lets it go on. To be called from the main thread.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn find(&mut self, name: &str, freeze: bool) -> Result<(), Failure> {
        match freeze {
            true => self.members.freeze(name, false),
            false => self.members.restart(name),
        }
    }

    /// Starts a process again that was killed. To be called from the main thread.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn restart(&mut self, name: &str) -> Result<(), Failure> {
        self.members.restart(name)
    }

    /// What was started.
    pub(crate) fn options(&self) -> &ClusterOptions {
        &self.options
    }

    /// Client addresses of the schedulers.
    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// The processes by role, to be watched.
    pub(crate) fn roles(&self) -> Vec<Role> {
        self.members.roles()
    }

    /// Each process as a role of its own, called as it is.
    pub(super) fn each(&self) -> Vec<Role> {
        self.members.each()
    }

    /// Where its data is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether its data is on a file system in memory, where a sync costs nothing. False if the system does not tell.
    pub(crate) fn is_in_memory(&self) -> bool {
        rustix::fs::statfs(&self.dir).is_ok_and(|found| u64::try_from(found.f_type) == Ok(TMPFS_MAGIC))
    }

    /// Looks whether all processes run.
    ///
    /// # Errors
    /// If one has ended by itself.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        self.members.check()
    }

    /// Ends all processes at once, invokers first, and waits until they are gone.
    pub(crate) async fn end(self) {
        self.members.end().await;
    }
}

/// What the process of a scheduler is called.
pub(super) fn scheduler(id: u64) -> String {
    format!("scheduler-{id}")
}

/// Whether a process is called as schedulers are.
pub(super) fn is_scheduler(name: &str) -> bool {
    name.starts_with("scheduler-")
}

/// What the process of an invoker is called.
pub(super) fn invoker(id: u64) -> String {
    format!("invoker-{id}")
}

fn directory(wanted: Option<PathBuf>) -> io::Result<(PathBuf, Option<TempDir>)> {
    let Some(dir) = wanted else {
        let temporary = tempfile::Builder::new().prefix("whiskraft-bench-").tempdir()?;
        return Ok((temporary.path().to_owned(), Some(temporary)));
    };
    std::fs::create_dir_all(&dir)?;
    Ok((dir, None))
}

async fn is_ready(client: &Client, options: &ClusterOptions) -> bool {
    let answers = client.status_all().await;
    let all_answer = answers.len() == options.schedulers as usize;
    all_answer
        && answers.iter().all(|(_, answer)| {
            answer.as_ref().is_ok_and(|status| {
                let healthy = status.invokers.iter().filter(|invoker| invoker.healthy).count();
                let nodes_known = status.nodes.iter().filter(|node| node.session.is_some()).count();
                !status.fenced
                    && healthy == options.invokers as usize
                    && nodes_known == options.schedulers as usize
            })
        })
}
