//! What the journal keeps as bytes that it does not look into: payloads and records.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use whiskraft_proto::{InvalidMessage, Message, v1};
use whiskraft_state::journal::Digest;
use whiskraft_types::ActivationRecord;

use crate::message::{Content, Record};

/// Why bytes of the journal are not what they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContentError {
    /// Not a message at all.
    #[error("not readable as protobuf: {0}")]
    Message(#[from] whiskraft_proto::DecodeError),
    /// A message with a field that no release wrote.
    #[error(transparent)]
    Field(#[from] InvalidMessage),
}

impl Content {
    /// As the journal keeps it.
    pub(crate) fn encode(&self) -> Bytes {
        v1::JournaledActivation {
            arguments: self.arguments.clone(),
            transaction: self.transaction.clone(),
            subject: self.subject.clone(),
            api_key: self.api_key.clone(),
            cause: self.cause.clone(),
        }
        .encode_to_vec()
        .into()
    }

    /// From what the journal kept.
    ///
    /// # Errors
    /// If these bytes are no payload.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, ContentError> {
        let v1::JournaledActivation {
            arguments,
            transaction,
            subject,
            api_key,
            cause,
        } = v1::JournaledActivation::decode(bytes)?;
        Ok(Self {
            arguments,
            transaction,
            subject,
            api_key,
            cause,
        })
    }

    /// Tells another payload under the same id: over what makes two submissions the same, each part with its length.
    pub(crate) fn digest(&self) -> Digest {
        let parts: [&[u8]; 3] = [&self.arguments, self.subject.as_bytes(), self.cause.as_bytes()];
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hasher.finalize()[..16]);
        Digest(digest)
    }

    /// Bytes that it takes in a lane's log, about.
    pub(crate) const fn len(&self) -> usize {
        self.arguments.len()
            + self.transaction.len()
            + self.subject.len()
            + self.api_key.len()
            + self.cause.len()
    }
}

/// Longest record that the journal keeps with its logs: well below what a lane takes in one piece.
const RECORD_LEN_MAX: usize = 16 << 20;
/// What stands in the place of logs that were too long to keep.
const LOGS_LEFT_OUT: &str = "The logs of this activation were too long to be kept with its record.";

/// A record as the journal keeps it; without its logs if they are too long, so that an end can always be written.
pub(crate) fn encode_record(record: &Record) -> Bytes {
    let mut message = v1::ActivationRecord::from(ActivationRecord::clone(record));
    if message.encoded_len() > RECORD_LEN_MAX {
        message.logs = vec![LOGS_LEFT_OUT.to_owned()];
    }
    message.encode_to_vec().into()
}

/// From what the journal kept.
///
/// # Errors
/// If these bytes are no record.
pub(crate) fn decode_record(bytes: Bytes) -> Result<Record, ContentError> {
    let record = v1::ActivationRecord::decode(bytes)?;
    Ok(Arc::new(ActivationRecord::try_from(record)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(arguments: &str, subject: &str, cause: &str) -> Content {
        Content {
            arguments: Bytes::copy_from_slice(arguments.as_bytes()),
            transaction: "t1".to_owned(),
            subject: subject.to_owned(),
            api_key: "k".to_owned(),
            cause: cause.to_owned(),
        }
    }

    #[test]
    fn a_payload_comes_back_as_it_was() {
        let before = content("{\"n\":1}", "guest", "");
        let after = Content::decode(before.encode()).unwrap();
        assert_eq!(after, before);
        assert_eq!((after.transaction.as_str(), after.api_key.as_str()), ("t1", "k"));
        assert!(Content::decode(Bytes::from_static(b"\xff\xff")).is_err());
    }

    #[test]
    fn two_digests_are_the_same_only_if_both_would_run_the_same() {
        let one = content("{\"n\":1}", "guest", "").digest();
        let mut other_call = content("{\"n\":1}", "guest", "");
        other_call.transaction = "t2".to_owned();
        assert_eq!(one, other_call.digest());
        assert_ne!(one, content("{\"n\":2}", "guest", "").digest());
        // The same bytes, cut elsewhere.
        assert_ne!(content("{}a", "b", "").digest(), content("{}", "ab", "").digest());
        // Kept on disk: it must never change.
        let golden = content("{}", "guest", "").digest();
        assert_eq!(hex(golden), "57f50acb5f27593172c4537d6afe2106");
    }

    fn hex(digest: Digest) -> String {
        digest.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
