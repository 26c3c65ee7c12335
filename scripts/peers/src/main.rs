//! The load of `scripts/bench-peers.sh`: Whiskraft's workloads on what a user would take instead.
//!
//! `message` is the message path, `durable` durable publish, `watch` etcd's watch fan-out. Each peer implements the traits of these
//! modules in `peer`; counting, pacing and reports know none of them. Servers are started by the script, never from here.

mod arguments;
mod clock;
mod desk;
mod durable;
mod message;
mod peer;
mod report;
mod ticket;
mod times;
mod usage;
mod watch;
mod window;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;

use crate::arguments::{Arguments, Command, Peer};
use crate::peer::etcd::Etcd;
use crate::peer::{nats, rabbitmq, redis};

#[tokio::main]
async fn main() -> ExitCode {
    match carry_out(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("whiskraft-peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn carry_out(command: Command) -> Result<()> {
    match command {
        Command::Wait { place } => match place.peer {
            Peer::Etcd => durable::wait::<Etcd>(&place).await,
            Peer::Nats => durable::wait::<nats::Publisher>(&place).await,
            Peer::Rabbitmq => durable::wait::<rabbitmq::Publisher>(&place).await,
            Peer::Redis => durable::wait::<redis::Publisher>(&place).await,
        },
        Command::Message { place, runs, message } => match place.peer {
            Peer::Etcd => {
                bail!("etcd is no message path: it has no queue that hands each activation to one container")
            }
            Peer::Nats => message::measure::<nats::Subjects>(&place, &runs, &message).await,
            Peer::Rabbitmq => message::measure::<rabbitmq::Queues>(&place, &runs, &message).await,
            Peer::Redis => message::measure::<redis::Streams>(&place, &runs, &message).await,
        },
        Command::Durable { place, runs, durable } => match place.peer {
            Peer::Etcd => durable::measure::<Etcd>(&place, &runs, &durable).await,
            Peer::Nats => durable::measure::<nats::Publisher>(&place, &runs, &durable).await,
            Peer::Rabbitmq => durable::measure::<rabbitmq::Publisher>(&place, &runs, &durable).await,
            Peer::Redis => durable::measure::<redis::Publisher>(&place, &runs, &durable).await,
        },
        Command::Watch { place, runs, watch } => match place.peer {
            Peer::Etcd => watch::measure(&place, &runs, &watch).await,
            Peer::Nats | Peer::Rabbitmq | Peer::Redis => bail!("only etcd is measured as a place to watch"),
        },
    }
}
