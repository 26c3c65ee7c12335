//! What a caller wants acceptance to promise, and whether the options of an invocation go together.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use whiskraft_types::{ActivationId, QueueKey};

use crate::idempotency::{IDEMPOTENCY_KEY_LEN_MAX, idempotent_id};
use crate::{Client, InvokeOptions};

/// What it means that a scheduler has accepted an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// [`Quorum`](Self::Quorum) for [`Client::submit`] and whatever has an idempotency key, else
    /// [`Memory`](Self::Memory).
    #[default]
    Default,
    /// It is in the memory of the scheduler that leads the queue. While this client lives it is sent again when that
    /// scheduler dies; if both die it is gone.
    Memory,
    /// It is on the disks of a majority of the schedulers. It runs whatever becomes of this client, and its record can
    /// be read from any scheduler until it expires.
    Quorum,
}

/// Why the options of an invocation do not go together. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// An idempotency key names an id of its own.
    #[error("an idempotency key and an id are given; the key decides the id, so leave the id out")]
    KeyAndId,
    /// The key is empty or too long.
    #[error("the idempotency key has {len} bytes; it must have 1 to {IDEMPOTENCY_KEY_LEN_MAX}")]
    KeyLen {
        /// Its length, in bytes.
        len: usize,
    },
    /// Memory forgets keys.
    #[error("an idempotency key needs durability Quorum: in memory it would be forgotten with a scheduler")]
    KeyInMemory,
    /// A start later than now, and somebody who waits for the result now.
    #[error(
        "only a submission can have a time before which it must not begin; use `submit`, and `result` later"
    )]
    DelayedInvoke,
    /// Memory does not outlast a delay.
    #[error("a time before which it must not begin needs durability Quorum: memory does not outlast a delay")]
    DelayedInMemory,
}

/// What the options of an invocation come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) id: ActivationId,
    pub(crate) durable: bool,
    /// Unix time before which it must not begin, in milliseconds; 0: at once.
    pub(crate) not_before_ms: u64,
    /// How long that is from now.
    pub(crate) delay: Duration,
}

impl InvokeOptions {
    /// `now` is the wall clock, on which a start is given.
    pub(crate) fn terms(
        &self,
        key: &QueueKey,
        blocking: bool,
        now: SystemTime,
    ) -> Result<Terms, OptionsError> {
        let durable = match self.durability {
            Durability::Quorum => true,
            Durability::Memory => false,
            Durability::Default => !blocking || self.idempotency_key.is_some(),
        };
        if self.not_before.is_some() && blocking {
            return Err(OptionsError::DelayedInvoke);
        }
        if self.not_before.is_some() && !durable {
            return Err(OptionsError::DelayedInMemory);
        }
        // A moment that has passed delays nothing.
        let not_before = self.not_before.filter(|at| *at > now).unwrap_or(UNIX_EPOCH);
        Ok(Terms {
            id: self.named_id(key, durable)?.unwrap_or_else(Client::draw_id),
            durable,
            not_before_ms: unix_ms(not_before),
            delay: not_before.duration_since(now).unwrap_or_default(),
        })
    }

    fn named_id(&self, queue: &QueueKey, durable: bool) -> Result<Option<ActivationId>, OptionsError> {
        let Some(key) = &self.idempotency_key else {
            return Ok(self.id);
        };
        let len = key.len();
        match () {
            () if !(1..=IDEMPOTENCY_KEY_LEN_MAX).contains(&len) => Err(OptionsError::KeyLen { len }),
            () if self.id.is_some() => Err(OptionsError::KeyAndId),
            () if !durable => Err(OptionsError::KeyInMemory),
            () => Ok(Some(idempotent_id(&queue.namespace, &queue.action, key))),
        }
    }
}

/// Rounded up: a millisecond too early would be too early.
pub(crate) fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> QueueKey {
        QueueKey {
            namespace: "guest".parse().unwrap(),
            action: "guest/hello".parse().unwrap(),
        }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1000)
    }

    fn keyed(text: &str) -> InvokeOptions {
        InvokeOptions {
            idempotency_key: Some(text.to_owned()),
            ..InvokeOptions::default()
        }
    }

    fn delayed(by: Duration) -> InvokeOptions {
        InvokeOptions {
            not_before: Some(now() + by),
            ..InvokeOptions::default()
        }
    }

    fn with(durability: Durability, options: InvokeOptions) -> InvokeOptions {
        InvokeOptions {
            durability,
            ..options
        }
    }

    fn submit(options: InvokeOptions) -> Result<Terms, OptionsError> {
        options.terms(&key(), false, now())
    }

    fn invoke(options: InvokeOptions) -> Result<Terms, OptionsError> {
        options.terms(&key(), true, now())
    }

    #[test]
    fn who_waits_is_not_durable_by_default_and_who_submits_is() {
        let durable = |terms: Result<Terms, OptionsError>| terms.unwrap().durable;
        assert!(durable(submit(InvokeOptions::default())));
        assert!(!durable(invoke(InvokeOptions::default())));
        assert!(durable(invoke(keyed("a"))));
        assert!(durable(invoke(with(
            Durability::Quorum,
            InvokeOptions::default()
        ))));
        assert!(!durable(submit(with(
            Durability::Memory,
            InvokeOptions::default()
        ))));
    }

    #[test]
    fn a_key_decides_the_id() {
        let expected = idempotent_id(&key().namespace, &key().action, "order-7");
        assert_eq!(submit(keyed("order-7")).unwrap().id, expected);
        assert_eq!(invoke(keyed("order-7")).unwrap().id, expected);
        assert!(submit(keyed(&"k".repeat(256))).is_ok());
    }

    #[test]
    fn a_key_that_cannot_hold_is_refused() {
        assert_eq!(submit(keyed("")), Err(OptionsError::KeyLen { len: 0 }));
        assert_eq!(
            submit(keyed(&"k".repeat(257))),
            Err(OptionsError::KeyLen { len: 257 })
        );
        let options = with(Durability::Memory, keyed("a"));
        assert_eq!(submit(options), Err(OptionsError::KeyInMemory));
        let options = InvokeOptions {
            id: Some(ActivationId::from_bytes([1; 16])),
            ..keyed("a")
        };
        assert_eq!(submit(options), Err(OptionsError::KeyAndId));
    }

    #[test]
    fn a_start_in_the_future_is_for_durable_submissions() {
        let terms = submit(delayed(Duration::from_nanos(2_000_000_001))).unwrap();
        assert_eq!(
            (terms.not_before_ms, terms.delay),
            (1_002_001, Duration::from_nanos(2_000_000_001))
        );
        let past = submit(InvokeOptions {
            not_before: Some(now() - Duration::from_secs(1)),
            ..InvokeOptions::default()
        });
        assert_eq!(
            past.map(|terms| (terms.not_before_ms, terms.delay)),
            Ok((0, Duration::ZERO))
        );
        let later = Duration::from_secs(5);
        assert_eq!(invoke(delayed(later)), Err(OptionsError::DelayedInvoke));
        let options = with(Durability::Memory, delayed(later));
        assert_eq!(submit(options), Err(OptionsError::DelayedInMemory));
    }
}
