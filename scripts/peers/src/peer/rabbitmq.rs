//! RabbitMQ: a quorum queue in three copies for each action.
//!
//! A container is a consumer with a prefetch of one on a channel of its own; results come back by direct reply-to, which is what
//! RabbitMQ offers for requests. Activations are published without waiting for a confirm: their result is one.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};

use crate::desk::Desk;
use crate::durable;
use crate::message::{Path, Producer, Shape};

/// Delivery mode of a message that survives a restart; quorum queues keep no others.
const PERSISTENT: u8 = 2;
/// Queues of the message path, and of durable publish.
const ACTIONS: &str = "action";
const DURABLE: &str = "durable";
/// Where results come back to a producer.
const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// The message path.
pub(crate) struct Queues {
    /// Containers live on these.
    _connections: Vec<Connection>,
}

/// Submits activations.
pub(crate) struct Submitter {
    channel: Channel,
    _connection: Connection,
}

impl Path for Queues {
    type Producer = Submitter;

    async fn prepare(shape: &Shape, desk: &Arc<Desk>) -> Result<Self> {
        let mut connections = Vec::new();
        for n in 0..shape.connections as u64 {
            connections.push(connect(shape.server(n)).await?);
        }
        declare(&connections, ACTIONS, shape.queues).await?;
        for n in 0..shape.containers {
            let channel = connections[n as usize % connections.len()]
                .create_channel()
                .await?;
            channel.basic_qos(1, BasicQosOptions::default()).await?;
            let queue = name(ACTIONS, n % shape.queues);
            let consumer = channel.basic_consume(
                queue,
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            );
            let consumer = consumer
                .await
                .with_context(|| format!("container {n} cannot consume"))?;
            tokio::spawn(container(channel, consumer, Arc::clone(desk)));
        }
        Ok(Self {
            _connections: connections,
        })
    }

    async fn producer(&self, shape: &Shape, number: u32, desk: &Arc<Desk>) -> Result<Submitter> {
        let connection = connect(shape.server(number.into())).await?;
        let channel = connection.create_channel().await?;
        let no_ack = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let mut results = channel
            .basic_consume(REPLY_TO.into(), "".into(), no_ack, FieldTable::default())
            .await?;
        let desk = Arc::clone(desk);
        tokio::spawn(async move {
            while let Some(result) = results.next().await {
                match result {
                    Ok(result) => desk.done(&result.data),
                    Err(error) => {
                        desk.trouble(&anyhow::Error::new(error).context("a producer gets no results"))
                    }
                }
            }
        });
        Ok(Submitter {
            channel,
            _connection: connection,
        })
    }
}

impl Producer for Submitter {
    async fn submit(&mut self, batch: Vec<(u64, Vec<u8>)>) -> Result<()> {
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_reply_to(REPLY_TO.into());
        for (queue, message) in batch {
            publish(&self.channel, name(ACTIONS, queue), &message, properties.clone()).await?;
        }
        Ok(())
    }
}

/// One container: gets one, holds it, sends the result, acknowledges.
async fn container(channel: Channel, mut consumer: Consumer, desk: Arc<Desk>) {
    while let Some(delivery) = consumer.next().await {
        let served = async {
            let delivery = delivery?;
            if let Some(served) = desk.serve(&delivery.data).await {
                let to = delivery
                    .properties
                    .reply_to()
                    .clone()
                    .context("an activation tells no producer")?;
                publish(&channel, to, &served.result, BasicProperties::default()).await?;
            }
            delivery.acker.ack(BasicAckOptions::default()).await?;
            anyhow::Ok(())
        };
        if let Err(error) = served.await {
            desk.trouble(&error.context("a container failed"));
        }
    }
}

/// Publishes with confirms.
pub(crate) struct Publisher {
    channel: Channel,
    queues: u64,
    _connection: Arc<Connection>,
}

impl durable::Client for Publisher {
    async fn connect(shape: &durable::Shape) -> Result<Vec<Self>> {
        let mut connections = Vec::new();
        for n in 0..shape.connections as usize {
            connections.push(connect(&shape.servers[n % shape.servers.len()]).await?);
        }
        declare(&connections, DURABLE, shape.queues).await?;
        let connections: Vec<_> = connections.into_iter().map(Arc::new).collect();
        let mut publishers = Vec::new();
        for n in 0..shape.clients as usize {
            let connection = Arc::clone(&connections[n % connections.len()]);
            let channel = connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            publishers.push(Self {
                channel,
                queues: shape.queues,
                _connection: connection,
            });
        }
        Ok(publishers)
    }

    async fn publish(&mut self, n: u64, message: Vec<u8>) -> Result<()> {
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let to = name(DURABLE, n % self.queues);
        let sent = self.channel.basic_publish(
            "".into(),
            to,
            BasicPublishOptions::default(),
            &message,
            properties,
        );
        let confirmation = sent.await?.await?;
        ensure!(confirmation.is_ack(), "the queue did not confirm");
        Ok(())
    }
}

async fn connect(server: &str) -> Result<Connection> {
    let uri = format!("amqp://guest:guest@{server}/%2f");
    Connection::connect(&uri, ConnectionProperties::default())
        .await
        .with_context(|| format!("cannot connect to {server}"))
}

/// Declares queues, each by one connection in turn: its server leads the queue, and so leaders are spread.
async fn declare(connections: &[Connection], kind: &str, queues: u64) -> Result<()> {
    let all = connections.len() as u64;
    let declare = connections.iter().zip(0..).map(|(connection, first)| async move {
        let channel = connection.create_channel().await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        for queue in (first..queues).step_by(all as usize) {
            let options = QueueDeclareOptions {
                durable: true,
                ..QueueDeclareOptions::default()
            };
            let declared = channel
                .queue_declare(name(kind, queue), options, arguments.clone())
                .await;
            declared.with_context(|| format!("cannot declare queue {queue}"))?;
        }
        anyhow::Ok(())
    });
    futures::future::try_join_all(declare).await?;
    Ok(())
}

/// Publishes without a confirm.
async fn publish(
    channel: &Channel,
    to: ShortString,
    message: &[u8],
    properties: BasicProperties,
) -> Result<()> {
    let sent = channel.basic_publish("".into(), to, BasicPublishOptions::default(), message, properties);
    sent.await?;
    Ok(())
}

fn name(kind: &str, queue: u64) -> ShortString {
    format!("{kind}.{queue}").into()
}
