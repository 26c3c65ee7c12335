//! NATS JetStream: one stream in three copies, a subject for each action, a durable pull consumer for each queue.
//!
//! Containers pull one message at a time through consumers; results come back as plain messages to a subject of the producer.
//! Activations are published without waiting for JetStream's acknowledgement: their result is one.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::{self, Context, stream};
use async_nats::{Client, ConnectOptions};
use futures::{StreamExt, TryStreamExt, stream as futures_stream};

use crate::desk::Desk;
use crate::durable;
use crate::message::{Path, Producer, Shape};

/// The stream of either workload.
const STREAM: &str = "activations";
/// Copies of the stream, and so of its consumers.
const COPIES: usize = 3;
/// Consumers created at the same time.
const AT_ONCE: usize = 32;

/// The message path.
pub(crate) struct Subjects {
    /// Containers live on these.
    _clients: Vec<Client>,
}

/// Submits activations.
pub(crate) struct Submitter(Client);

impl Path for Subjects {
    type Producer = Submitter;

    async fn prepare(shape: &Shape, desk: &Arc<Desk>) -> Result<Self> {
        let mut clients = Vec::new();
        for n in 0..shape.connections as u64 {
            clients.push(connect(shape.server(n)).await?);
        }
        let context = |n: u64| jetstream::new(clients[n as usize % clients.len()].clone());
        create_stream(&context(0), stream::RetentionPolicy::WorkQueue).await?;
        let create = |queue: u64| create_consumer(context(queue), queue);
        let consumers: Vec<PullConsumer> = futures_stream::iter(0..shape.queues)
            .map(create)
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        for n in 0..shape.containers {
            let queue = n % shape.queues;
            // The consumer of the queue, through this container's connection.
            let consumer: PullConsumer = match clients.len() as u64 {
                all if n % all == queue % all => consumers[queue as usize].clone(),
                _ => PullConsumer::new(
                    pull_config(queue),
                    consumers[queue as usize].cached_info().clone(),
                    context(n),
                ),
            };
            let client = clients[n as usize % clients.len()].clone();
            tokio::spawn(container(consumer, client, Arc::clone(desk)));
        }
        Ok(Self { _clients: clients })
    }

    async fn producer(&self, shape: &Shape, number: u32, desk: &Arc<Desk>) -> Result<Submitter> {
        let client = connect(shape.server(number.into())).await?;
        let mut results = client.subscribe(results(number)).await?;
        let desk = Arc::clone(desk);
        tokio::spawn(async move {
            while let Some(result) = results.next().await {
                desk.done(&result.payload);
            }
        });
        Ok(Submitter(client))
    }
}

impl Producer for Submitter {
    async fn submit(&mut self, batch: Vec<(u64, Vec<u8>)>) -> Result<()> {
        for (queue, message) in batch {
            self.0.publish(subject(queue), message.into()).await?;
        }
        Ok(())
    }
}

/// One container: pulls, holds, sends the result, acknowledges.
async fn container(consumer: PullConsumer, client: Client, desk: Arc<Desk>) {
    let pulls = consumer.stream().max_messages_per_batch(1).messages();
    let mut messages = match pulls.await {
        Ok(messages) => messages,
        Err(error) => return desk.trouble(&anyhow::Error::new(error).context("a container cannot pull")),
    };
    while let Some(message) = messages.next().await {
        let served = async {
            let message = message?;
            if let Some(served) = desk.serve(&message.payload).await {
                client
                    .publish(results(served.producer), served.result.into())
                    .await?;
            }
            message.ack().await.map_err(|error| anyhow::anyhow!(error))
        };
        if let Err(error) = served.await {
            desk.trouble(&error.context("a container failed"));
        }
    }
}

/// Publishes to a stream and waits for its acknowledgement.
pub(crate) struct Publisher {
    context: Context,
    subjects: u64,
}

impl durable::Client for Publisher {
    async fn connect(shape: &durable::Shape) -> Result<Vec<Self>> {
        let mut contexts = Vec::new();
        for n in 0..shape.connections as usize {
            contexts.push(jetstream::new(
                connect(&shape.servers[n % shape.servers.len()]).await?,
            ));
        }
        create_stream(&contexts[0], stream::RetentionPolicy::Limits).await?;
        let publisher = |n: usize| Self {
            context: contexts[n % contexts.len()].clone(),
            subjects: shape.queues,
        };
        Ok((0..shape.clients as usize).map(publisher).collect())
    }

    async fn publish(&mut self, n: u64, message: Vec<u8>) -> Result<()> {
        let sent = self
            .context
            .publish(subject(n % self.subjects), message.into())
            .await?;
        sent.await.context("the stream did not acknowledge")?;
        Ok(())
    }
}

async fn connect(server: &str) -> Result<Client> {
    // Containers and clients are many on one connection: room for a message of each.
    let options = ConnectOptions::new()
        .client_capacity(8192)
        .ignore_discovered_servers();
    options
        .connect(server)
        .await
        .with_context(|| format!("cannot connect to {server}"))
}

/// The stream, empty. What another retention may have left is removed.
async fn create_stream(context: &Context, retention: stream::RetentionPolicy) -> Result<()> {
    let _ = context.delete_stream(STREAM).await;
    let config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["action.*".to_owned()],
        retention,
        storage: stream::StorageType::File,
        num_replicas: COPIES,
        ..stream::Config::default()
    };
    context
        .create_stream(config)
        .await
        .context("cannot create the stream")?;
    Ok(())
}

async fn create_consumer(context: Context, queue: u64) -> Result<PullConsumer> {
    let created = context
        .create_consumer_on_stream(pull_config(queue), STREAM)
        .await;
    created.with_context(|| format!("cannot create the consumer of queue {queue}"))
}

fn pull_config(queue: u64) -> pull::Config {
    pull::Config {
        durable_name: Some(format!("queue-{queue}")),
        filter_subject: subject(queue),
        ack_policy: AckPolicy::Explicit,
        ..pull::Config::default()
    }
}

fn subject(queue: u64) -> String {
    format!("action.{queue}")
}

fn results(producer: u32) -> String {
    format!("results.{producer}")
}
