//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use crate::message::Shape;

/// Puts Whiskraft's workloads on what a user would take instead. `scripts/bench-peers.sh` starts the servers and calls this.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Waits until every server takes a replicated write.
    Wait {
        #[command(flatten)]
        place: Place,
    },
    /// Submits activations to queues, and waits for their results.
    Message {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        runs: Runs,
        #[command(flatten)]
        message: Message,
    },
    /// Publishes and waits for the acknowledgement, nothing else.
    Durable {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        runs: Runs,
        #[command(flatten)]
        durable: Durable,
    },
    /// Changes one key of etcd, and times when each watcher learns of it.
    Watch {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        runs: Runs,
        #[command(flatten)]
        watch: Watch,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    Etcd,
    Nats,
    Rabbitmq,
    Redis,
}

/// The servers, and where the report goes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// What the servers are
    #[arg(long)]
    pub(crate) peer: Peer,
    /// Its servers: host:port,host:port,…
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) at: Vec<String>,
    /// Their processes, whose use of the machine is told
    #[arg(long = "pid", value_delimiter = ',')]
    pub(crate) pids: Vec<u32>,
    /// Report
    #[arg(long, default_value = "/dev/null")]
    pub(crate) json: PathBuf,
    /// Time for servers to answer, and for queues and connections to be made
    #[arg(long, default_value = "60s", value_parser = time)]
    pub(crate) set_up_max: Duration,
}

/// How often, for how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct Runs {
    /// Runs; the report has medians and the extremes
    #[arg(long, default_value_t = 3)]
    pub(crate) runs: u32,
    /// Measured part of a run
    #[arg(long, default_value = "6s", value_parser = time)]
    pub(crate) time: Duration,
    /// What comes before it
    #[arg(long, default_value = "2s", value_parser = time)]
    pub(crate) warm_up: Duration,
    /// After a run, time for what is under way to end
    #[arg(long, default_value = "5s", value_parser = time)]
    pub(crate) drain: Duration,
}

/// Open or closed loop.
#[derive(Debug, Clone, Copy, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Load {
    /// Open loop: so many are due per second, at fixed times
    #[arg(long, value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Closed loop: so many callers, each with one under way
    #[arg(long)]
    pub(crate) closed: Option<u32>,
}

/// The message path.
#[derive(Debug, Clone, Args)]
pub(crate) struct Message {
    #[command(flatten)]
    pub(crate) load: Load,
    /// Actions, each with a queue of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    actions: u64,
    /// Most queues; beyond that, actions share them
    #[arg(long, default_value_t = u64::MAX, value_parser = clap::value_parser!(u64).range(1..))]
    queues_max: u64,
    /// Containers together, or one for each queue if those are more
    #[arg(long, default_value_t = 480, value_parser = clap::value_parser!(u64).range(1..))]
    containers: u64,
    /// How long a container holds an activation
    #[arg(long, default_value = "20ms", value_parser = time)]
    pub(crate) hold: Duration,
    /// Size of an activation
    #[arg(long, default_value_t = 200)]
    pub(crate) bytes: usize,
    /// Most activations under way at once in the open loop
    #[arg(long, default_value_t = 4096)]
    pub(crate) under_way_max: u64,
    /// Producers, each with a connection
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..))]
    producers: u32,
    /// Connections that containers share (Redis: one for each container)
    #[arg(long, default_value_t = 6)]
    connections: usize,
}

/// Durable publish.
#[derive(Debug, Clone, Args)]
pub(crate) struct Durable {
    /// Clients, each with one under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) clients: u32,
    /// Open loop: so many are due per second, for whichever client is free; otherwise each client goes on at once
    #[arg(long, value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Connections that clients share
    #[arg(long, default_value_t = 12)]
    pub(crate) connections: u32,
    /// Queues (RabbitMQ), streams (Redis) or subjects (NATS) that messages go to in turn; etcd has 10,000 keys
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) queues: u64,
    /// Size of a message
    #[arg(long, default_value_t = 200)]
    pub(crate) bytes: usize,
}

/// Watch fan-out.
#[derive(Debug, Clone, Args)]
pub(crate) struct Watch {
    /// Watchers of the one key
    #[arg(long, default_value_t = 100)]
    pub(crate) watchers: u32,
    /// Connections that they share, in turn over the servers
    #[arg(long, default_value_t = 10)]
    pub(crate) connections: u32,
    /// Changes per second
    #[arg(long, default_value = "50", value_parser = rate)]
    pub(crate) rate: f64,
}

impl Message {
    /// What the peer is asked to carry.
    pub(crate) fn shape(&self, place: &Place) -> Shape {
        let queues = self.actions.min(self.queues_max);
        Shape {
            servers: place.at.clone(),
            actions: self.actions,
            queues,
            containers: self.containers.max(queues),
            producers: self.producers,
            connections: self.connections.max(1),
        }
    }

    /// For the report.
    pub(crate) fn plan(&self, place: &Place, runs: &Runs, shape: &Shape) -> Map<String, Value> {
        let own = json!({
            "workload": "message", "rate": self.load.rate, "closed": self.load.closed, "actions": shape.actions, "queues": shape.queues,
            "containers": shape.containers, "hold_ms": self.hold.as_secs_f64() * 1e3, "bytes": self.bytes,
            "under_way_max": self.under_way_max, "producers": self.producers, "connections": self.connections,
        });
        plan(place, runs, own)
    }
}

impl Durable {
    /// For the report.
    pub(crate) fn plan(&self, place: &Place, runs: &Runs) -> Map<String, Value> {
        let own = json!({
            "workload": "durable", "clients": self.clients, "rate": self.rate, "connections": self.connections.min(self.clients),
            "queues": self.queues, "bytes": self.bytes,
        });
        plan(place, runs, own)
    }
}

impl Watch {
    /// For the report.
    pub(crate) fn plan(&self, place: &Place, runs: &Runs) -> Map<String, Value> {
        let own = json!({ "workload": "watch", "watchers": self.watchers, "connections": self.connections, "rate": self.rate });
        plan(place, runs, own)
    }
}

fn plan(place: &Place, runs: &Runs, own: Value) -> Map<String, Value> {
    let mut all = Map::new();
    all.insert(
        "peer".to_owned(),
        format!("{:?}", place.peer).to_lowercase().into(),
    );
    all.insert("servers".to_owned(), place.at.len().into());
    all.insert("runs".to_owned(), runs.runs.into());
    all.insert("time_s".to_owned(), runs.time.as_secs_f64().into());
    all.insert("warm_up_s".to_owned(), runs.warm_up.as_secs_f64().into());
    if let Value::Object(own) = own {
        all.extend(own);
    }
    all
}

/// `10s`, `20ms` or `0`.
fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let number = number
        .parse::<f64>()
        .map_err(|_| "a time is written like 10s or 20ms".to_owned())?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("a rate is a number above 0".to_owned()),
    }
}
