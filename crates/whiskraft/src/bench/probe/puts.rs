//! Small documents stored through the log of group 0: what a user would count as puts.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use whiskraft_client::{ActionSpec, Client, Expect};
use whiskraft_types::{NameError, NamespaceLimits, NamespaceName};

use super::{Finding, connect};
use crate::bench::closed::Callers;
use crate::bench::cluster::Cluster;
use crate::bench::kind::Kind;
use crate::bench::plan::seconds;
use crate::bench::run_clock::RunClock;
use crate::bench::schedule::Window;
use crate::bench::tally::{Ended, Tallies};
use crate::bench::usage::Roles;
use crate::bench::work::{UnderWay, Work};
use crate::exit::Failure;

/// Namespace of the actions.
const NAMESPACE: &str = "bench-puts";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Puts {
    /// Clients, each of which waits for its answer before it goes on.
    pub(crate) clients: u32,
    /// SDK clients that they share.
    pub(crate) connections: u32,
    /// What is stored.
    pub(crate) what: What,
    /// Different names, written in turn.
    pub(crate) keys: u32,
    /// Bytes of an action's default arguments.
    pub(crate) bytes: usize,
    /// What comes before the measured part.
    #[serde(serialize_with = "seconds")]
    pub(crate) warm_up: Duration,
    /// Length of the measured part.
    #[serde(serialize_with = "seconds")]
    pub(crate) time: Duration,
}

/// What is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// Documents of actions without code
    Action,
    /// Limits of namespaces
    Namespace,
}

/// One of many puts, by number.
struct Put {
    clients: Vec<Client>,
    what: What,
    keys: u64,
    text: String,
    clock: RunClock,
    under_way: UnderWay,
    tallies: Tallies,
}

impl Puts {
    pub(super) async fn run(&self, cluster: &mut Cluster) -> Result<Finding, Failure> {
        let mut clients = Vec::new();
        for n in 0..self.connections.min(self.clients) as usize {
            clients.push(connect(cluster, n).await?);
        }
        let window = Window::after(self.warm_up, self.time);
        let put = Arc::new(Put {
            clients,
            what: self.what,
            keys: self.keys.into(),
            text: "x".repeat(self.bytes),
            clock: RunClock::start(),
            under_way: UnderWay::default(),
            tallies: Tallies::new(window),
        });
        let roles = Roles::new(cluster.roles());
        let callers = Callers::start(Arc::clone(&put), self.clients, window);
        let watched = roles.watch(put.clock, window, || {}).await;
        callers.finish().await;
        let mut tally = put.tallies.take(window);
        let per_s = tally.done_in_window as f64 / self.time.as_secs_f64();
        let times = tally.times.remove(&Kind::EndToEnd).unwrap_or_default();
        Ok(
            Finding::new(tally.done, tally.reasons, watched.used(tally.done_in_window))
                .with([("puts_per_s", per_s)])
                .timed(Kind::Put, times),
        )
    }

    pub(super) fn header(&self) -> String {
        let what = match self.what {
            What::Action => format!("documents of actions with {} bytes of arguments", self.bytes),
            What::Namespace => "limits of namespaces".to_owned(),
        };
        format!(
            "{what} stored under {} names by {} clients for {:?} after {:?}",
            self.keys, self.clients, self.time, self.warm_up
        )
    }
}

impl Put {
    async fn put(&self, n: u64) -> Result<(), String> {
        let client = &self.clients[(n % self.clients.len() as u64) as usize];
        let key = n % self.keys;
        let wrong = |error: NameError| error.to_string();
        match self.what {
            What::Action => {
                let name = format!("{NAMESPACE}/a{key}").parse().map_err(wrong)?;
                let mut spec = ActionSpec::new(name, "python:3", "");
                let text = Value::String(format!("{n:020}{}", self.text));
                spec.parameters.insert("text".to_owned(), text);
                let stored = client.put_action(&spec, Expect::Anything).await;
                stored.map_err(|error| error.to_string())?;
            }
            What::Namespace => {
                let name: NamespaceName = format!("{NAMESPACE}-{key}").parse().map_err(wrong)?;
                // Other limits than before, or nothing would change.
                let limits =
                    NamespaceLimits::containers(u32::try_from(n / self.keys % 1000).unwrap_or(0) + 1);
                let stored = client.put_namespace(&name, &limits).await;
                stored.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}

impl Work for Put {
    fn clock(&self) -> RunClock {
        self.clock
    }

    fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    async fn carry_out(&self, n: u64, due: Duration) -> bool {
        let stored = self.put(n).await;
        let is_good = stored.is_ok();
        let ended = Ended::plain(due, self.clock.elapsed(), stored.err());
        self.tallies.add(n, ended);
        is_good
    }
}
