//! The controller's stream to one server.

use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use whiskraft_proto::v1::controller_client::ControllerClient;
use whiskraft_proto::{MESSAGE_LEN_MAX, v1};

use super::frames::{Frames, PerFrame};
use super::messages;

/// Why a stream is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("the stream broke")]
    Broken(#[from] Status),
    #[error("the server ended the stream")]
    Ended,
    #[error("the server did not say welcome first")]
    NoWelcome,
}

/// Both directions of the stream.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) submissions: mpsc::Sender<v1::Submission>,
    pub(super) results: Streaming<v1::ResultFrame>,
}

impl Link {
    /// Opens the stream.
    ///
    /// # Errors
    /// If the server refuses it.
    pub(super) async fn open(channel: Channel, per_frame: PerFrame) -> Result<Self, LinkError> {
        let mut client = ControllerClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX);
        let (submissions, frames) = Frames::new(messages::submit_hello(), per_frame);
        let mut results = client.submit(frames).await?.into_inner();
        let first = results.message().await?.ok_or(LinkError::Ended)?;
        first.welcome.ok_or(LinkError::NoWelcome)?;
        Ok(Self { submissions, results })
    }

    /// Sends a record; there is room for all that may be in flight.
    ///
    /// # Errors
    /// If the stream has ended.
    pub(super) fn send(&self, submission: v1::Submission) -> Result<(), LinkError> {
        self.submissions
            .try_send(submission)
            .map_err(|_| LinkError::Ended)
    }
}
