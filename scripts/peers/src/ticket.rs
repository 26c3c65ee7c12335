//! What an activation carries through a peer and back: enough to time it without a table on the way.

use anyhow::{Context, Result};

/// Bytes of a ticket; a message is a ticket and padding.
pub(crate) const LEN: usize = 32;

/// One activation. The load is a single process, so both ends read the same clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Run that it belongs to: what an earlier run left behind is dropped.
    pub(crate) run: u32,
    /// Producer that waits for the result.
    pub(crate) producer: u32,
    /// Number within the run; its action follows from it.
    pub(crate) n: u64,
    /// When it was due.
    pub(crate) due: u64,
    /// When a container took it; 0 before that.
    pub(crate) began: u64,
}

impl Ticket {
    /// As a message of so many bytes, [`LEN`] at least.
    pub(crate) fn message(&self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len.max(LEN));
        bytes.extend(self.run.to_be_bytes());
        bytes.extend(self.producer.to_be_bytes());
        [self.n, self.due, self.began]
            .iter()
            .for_each(|value| bytes.extend(value.to_be_bytes()));
        bytes.resize(len.max(LEN), b'.');
        bytes
    }

    /// The result of a message: the same, but for when a container took it.
    pub(crate) fn result(message: &[u8], began: u64) -> Vec<u8> {
        let mut result = message.to_vec();
        result[LEN - size_of::<u64>()..LEN].copy_from_slice(&began.to_be_bytes());
        result
    }

    /// Reads a message.
    ///
    /// # Errors
    /// If it is none of ours.
    pub(crate) fn read(message: &[u8]) -> Result<Self> {
        let head: &[u8; LEN] = message
            .first_chunk()
            .context("a message is too short for a ticket")?;
        let word = |at: usize| head[at..at + 8].try_into().map(u64::from_be_bytes);
        let half = |at: usize| head[at..at + 4].try_into().map(u32::from_be_bytes);
        Ok(Self {
            run: half(0)?,
            producer: half(4)?,
            n: word(8)?,
            due: word(16)?,
            began: word(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let ticket = Ticket {
            run: 1,
            producer: 2,
            n: 3,
            due: 4,
            began: u64::MAX,
        };
        let message = ticket.message(200);
        assert_eq!(message.len(), 200);
        assert_eq!(Ticket::read(&message).unwrap(), ticket);
        assert!(Ticket::read(&message[..LEN - 1]).is_err());
        let result = Ticket::result(&message, 7);
        assert_eq!(
            (result.len(), Ticket::read(&result).unwrap()),
            (200, Ticket { began: 7, ..ticket })
        );
    }
}
