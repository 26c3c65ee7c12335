//! Redis: a stream with a consumer group for each action, on one server.
//!
//! A container blocks in `XREADGROUP` on a connection of its own. What it does after an activation goes in one round trip: it
//! acknowledges, removes the entry, publishes the result to its producer's channel, and asks for the next.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline, streams::StreamReadReply};

use crate::desk::{Desk, Served};
use crate::durable;
use crate::message::{Path, Producer, Shape};

/// The consumer group of every stream.
const GROUP: &str = "containers";
/// The one field of an entry.
const FIELD: &str = "a";

/// The message path.
pub(crate) struct Streams;

/// Submits activations.
pub(crate) struct Submitter(MultiplexedConnection);

impl Path for Streams {
    type Producer = Submitter;

    async fn prepare(shape: &Shape, desk: &Arc<Desk>) -> Result<Self> {
        let mut connection = connect(shape.server(0)).await?;
        for queue in 0..shape.queues {
            let mut create = redis::cmd("XGROUP");
            create
                .arg("CREATE")
                .arg(key(queue))
                .arg(GROUP)
                .arg("$")
                .arg("MKSTREAM");
            let created: redis::RedisResult<()> = create.query_async(&mut connection).await;
            created.with_context(|| format!("cannot create stream {queue}"))?;
        }
        for n in 0..shape.containers {
            let connection = connect(shape.server(0))
                .await
                .with_context(|| format!("container {n} cannot connect"))?;
            let container = Container {
                key: key(n % shape.queues),
                name: format!("container-{n}"),
                connection,
            };
            tokio::spawn(container.run(Arc::clone(desk)));
        }
        Ok(Self)
    }

    async fn producer(&self, shape: &Shape, number: u32, desk: &Arc<Desk>) -> Result<Submitter> {
        let mut results = Client::open(url(shape.server(0)))?.get_async_pubsub().await?;
        results.subscribe(results_of(number)).await?;
        let desk = Arc::clone(desk);
        tokio::spawn(async move {
            let mut messages = results.on_message();
            while let Some(result) = messages.next().await {
                desk.done(result.get_payload_bytes());
            }
        });
        Ok(Submitter(connect(shape.server(0)).await?))
    }
}

impl Producer for Submitter {
    async fn submit(&mut self, batch: Vec<(u64, Vec<u8>)>) -> Result<()> {
        let mut pipeline = redis::pipe();
        for (queue, message) in batch {
            pipeline
                .cmd("XADD")
                .arg(key(queue))
                .arg("*")
                .arg(FIELD)
                .arg(message)
                .ignore();
        }
        pipeline.query_async::<()>(&mut self.0).await?;
        Ok(())
    }
}

struct Container {
    key: String,
    name: String,
    connection: MultiplexedConnection,
}

impl Container {
    async fn run(mut self, desk: Arc<Desk>) {
        let mut before = redis::pipe();
        loop {
            let served = async {
                let Some((entry, message)) = self.next(&mut before).await? else {
                    return anyhow::Ok(());
                };
                let served = desk.serve(&message).await;
                self.end(&mut before, &entry, served);
                Ok(())
            };
            if let Err(error) = served.await {
                return desk.trouble(&error.context("a container failed and has ended"));
            }
        }
    }

    /// Carries out what came before, and pulls one.
    async fn next(&mut self, before: &mut Pipeline) -> Result<Option<(String, Vec<u8>)>> {
        let pull = before.cmd("XREADGROUP").arg("GROUP").arg(GROUP).arg(&self.name);
        pull.arg("COUNT")
            .arg(1)
            .arg("BLOCK")
            .arg(0)
            .arg("STREAMS")
            .arg(&self.key)
            .arg(">");
        let (pulled,): (Option<StreamReadReply>,) = before.query_async(&mut self.connection).await?;
        before.clear();
        let Some(entry) = pulled.and_then(|reply| reply.keys.into_iter().next()?.ids.into_iter().next())
        else {
            return Ok(None);
        };
        match entry.get(FIELD) {
            Some(message) => Ok(Some((entry.id, message))),
            None => bail!("an entry has no activation"),
        }
    }

    /// What is done with one that has ended, together with the next pull.
    fn end(&self, pipeline: &mut Pipeline, entry: &str, served: Option<Served>) {
        pipeline.cmd("XACK").arg(&self.key).arg(GROUP).arg(entry).ignore();
        pipeline.cmd("XDEL").arg(&self.key).arg(entry).ignore();
        if let Some(Served { producer, result }) = served {
            pipeline
                .cmd("PUBLISH")
                .arg(results_of(producer))
                .arg(result)
                .ignore();
        }
    }
}

/// Adds to streams, and waits for the answer.
pub(crate) struct Publisher {
    connection: MultiplexedConnection,
    queues: u64,
}

impl durable::Client for Publisher {
    async fn connect(shape: &durable::Shape) -> Result<Vec<Self>> {
        let mut connections = Vec::new();
        for n in 0..shape.connections as usize {
            connections.push(connect(&shape.servers[n % shape.servers.len()]).await?);
        }
        let publisher = |n: usize| Self {
            connection: connections[n % connections.len()].clone(),
            queues: shape.queues,
        };
        Ok((0..shape.clients as usize).map(publisher).collect())
    }

    async fn publish(&mut self, n: u64, message: Vec<u8>) -> Result<()> {
        let mut add = redis::cmd("XADD");
        add.arg(format!("durable.{}", n % self.queues))
            .arg("*")
            .arg(FIELD)
            .arg(message);
        add.query_async::<()>(&mut self.connection).await?;
        Ok(())
    }
}

async fn connect(server: &str) -> Result<MultiplexedConnection> {
    // A pull waits for as long as it takes.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let connected = Client::open(url(server))?
        .get_multiplexed_async_connection_with_config(&config)
        .await;
    connected.with_context(|| format!("cannot connect to {server}"))
}

fn url(server: &str) -> String {
    format!("redis://{server}/")
}

fn key(queue: u64) -> String {
    format!("action.{queue}")
}

fn results_of(producer: u32) -> String {
    format!("results.{producer}")
}
