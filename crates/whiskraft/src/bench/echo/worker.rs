//! Where an invoker would be: answers every delivery at once with its payload.

use std::net::SocketAddr;
use std::time::UNIX_EPOCH;

use tonic::transport::Endpoint;
use whiskraft_invoker::LinkConfig;
use whiskraft_proto::MESSAGE_LEN_MAX;
use whiskraft_proto::transport::{self, Patience, invoker_endpoint};
use whiskraft_proto::v1::invoker_client::InvokerClient;

use super::frames::{Frames, PerFrame};
use super::messages;
use crate::clock;
use crate::exit::{Exit, Failure};

/// Why the work ended early.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error("it cannot be connected to")]
    Connect(#[from] tonic::transport::Error),
    #[error("the stream broke")]
    Broken(#[from] tonic::Status),
}

/// Works for this server until it ends.
///
/// # Errors
/// If the server cannot be reached, or its stream breaks.
pub(crate) async fn work(server: SocketAddr, per_frame: PerFrame) -> Result<(), Failure> {
    answer_all(server, per_frame)
        .await
        .map_err(|error| Failure::new(Exit::Refused, format!("no work from {server}")).caused_by(error))
}

async fn answer_all(server: SocketAddr, per_frame: PerFrame) -> Result<(), WorkerError> {
    let link = LinkConfig::default();
    let patience = Patience {
        connect: link.connect_timeout,
        ping_interval: link.ping_interval,
        ping_wait: link.ping_timeout,
    };
    let address = Endpoint::from_shared(format!("http://{server}"))?;
    let channel = transport::connect(&invoker_endpoint(address, patience)).await?;
    let mut client = InvokerClient::new(channel)
        .max_decoding_message_size(MESSAGE_LEN_MAX)
        .max_encoding_message_size(MESSAGE_LEN_MAX);
    let (results, frames) = Frames::new(messages::pull_hello(), per_frame);
    let mut deliveries = client.pull(frames).await?.into_inner();
    while let Some(frame) = deliveries.message().await? {
        let now_us = now_us();
        for deliver in frame.deliver {
            if results.send(messages::completed(deliver, now_us)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn now_us() -> u64 {
    let wall = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(wall.as_micros()).unwrap_or(u64::MAX)
}
