//! Settings of the scheduler role (`[scheduler]`). Relations between them are checked once, by
//! [`SchedulerConfig::check`], when the process starts.

mod journal;
mod moving;

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use humantime_serde::re::humantime::format_duration;
use serde::{Deserialize, Deserializer};
use whiskraft_queue::{JudgeSettings, PlacementPolicy, QueueSettings};
use whiskraft_types::ByteSize;

pub use self::moving::{BalanceConfig, HandOffConfig};
pub use journal::JournalConfig;

/// Settings of the scheduler role (`[scheduler]`).
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SchedulerConfig {
    /// Whether the process is the child of one that tells the others when it has ended. Default true.
    pub supervise: bool,
    /// Actors that share the queues of this scheduler. Default: one per core but one, at least one.
    pub shards: Option<NonZeroUsize>,
    /// The lease of schedulers and invokers.
    pub session: SessionConfig,
    /// Streams of controllers.
    pub submit: SubmitConfig,
    /// Every queue this scheduler leads.
    pub queue: QueueConfig,
    /// Creation of containers.
    pub creation: CreationConfig,
    /// What may be stored.
    pub documents: DocumentsConfig,
    /// Queues that go to another scheduler.
    pub handoff: HandOffConfig,
    /// Queues that move so that each scheduler leads its part.
    pub balance: BalanceConfig,
    /// Durable activations, and the records of all.
    pub journal: JournalConfig,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            supervise: true,
            shards: None,
            session: SessionConfig::default(),
            submit: SubmitConfig::default(),
            queue: QueueConfig::default(),
            creation: CreationConfig::default(),
            documents: DocumentsConfig::default(),
            handoff: HandOffConfig::default(),
            balance: BalanceConfig::default(),
            journal: JournalConfig::default(),
        }
    }
}

/// The lease of schedulers and invokers (`[scheduler.session]`).
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SessionConfig {
    /// Time without keepalive after which a session ends and everything that hangs on it moves. Default 1.2s.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
    /// Time between two keepalives; at least three must fit into a session's time. Default 200ms.
    #[serde(with = "humantime_serde")]
    pub keepalive: Duration,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            ttl: Duration::from_millis(1200),
            keepalive: Duration::from_millis(200),
        }
    }
}

/// Streams of controllers (`[scheduler.submit]`).
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SubmitConfig {
    /// Submissions per stream that are neither accepted nor rejected yet. Default 4096.
    pub window: NonZeroU32,
    /// Largest payload of an activation in bytes. Default 1048576 (1 MiB).
    pub payload_len_max: ByteSize,
}

impl Default for SubmitConfig {
    fn default() -> Self {
        Self {
            window: NonZeroU32::new(4096).unwrap_or(NonZeroU32::MIN),
            payload_len_max: ByteSize::mib(1),
        }
    }
}

/// Every queue this scheduler leads (`[scheduler.queue]`).
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct QueueConfig {
    /// Waiting activations at which new ones are rejected with `Throttled`. Default 10000.
    pub len_max: NonZeroU32,
    /// Part of `len-max` at or below which they are taken again. Default 0.9.
    pub throttling_fraction: f64,
    /// Longest wait from acceptance to delivery; after it an activation fails. Default 60s.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    /// The same for actions whose image must be pulled. Default 5m.
    #[serde(with = "humantime_serde")]
    pub retention_blackbox: Duration,
    /// The same for durable activations, whatever their action; from the end of their delay if they have one. Default 24h.
    #[serde(with = "humantime_serde")]
    pub retention_durable: Duration,
    /// Activations that wait for their time at which new ones that ask for a delay are rejected with `Throttled`.
    /// Default 10000.
    pub delayed_max: NonZeroU32,
    /// Age at which a waiting activation asks for more containers. Default 100ms.
    #[serde(with = "humantime_serde")]
    pub stale_threshold: Duration,
    /// Time between two scaling decisions of a queue in which activations wait. Default 100ms.
    #[serde(with = "humantime_serde")]
    pub tick: Duration,
    /// Time with nothing waiting, running or owed after which a queue is removed. Default 10m.
    #[serde(with = "humantime_serde")]
    pub idle_after: Duration,
    /// Longest time without scaling after a change of leader. Default 1s.
    #[serde(with = "humantime_serde")]
    pub takeover_wait_max: Duration,
    /// Time a result is kept for a controller that is away before the invoker may forget it. Default 10s.
    #[serde(with = "humantime_serde")]
    pub result_grace: Duration,
    /// Time such a result can be looked up by id, from its end. Default 10m.
    #[serde(with = "humantime_serde")]
    pub result_keep: Duration,
    /// Most results a queue keeps; the oldest go first. Default 10000.
    pub results_max: NonZeroUsize,
    /// Most ids of results that were received, each remembered for a minute; the oldest go first. Default 10000.
    pub dedup_max: NonZeroUsize,
    /// Ids of results that nobody received at which a queue takes nothing new. Default 120000, about 10 MB.
    pub unconfirmed_max: NonZeroUsize,
    /// Time for which activations that are submitted again may have started on an invoker that was lost around a
    /// change of leader: at least as long as controllers submit one again. Default 11m.
    #[serde(with = "humantime_serde")]
    pub lost_keep: Duration,
    /// Time after a delivery at which an invoker that has said nothing about it counts as silent. Default 1s.
    #[serde(with = "humantime_serde")]
    pub silent_after: Duration,
    /// An activation that an invoker got ends, without an answer, after twice the action's time limit and this much.
    /// Default 10s.
    #[serde(with = "humantime_serde")]
    pub answer_slack: Duration,
    /// Time in a full namespace after which a queue without containers refuses activations. Default 750ms.
    #[serde(with = "humantime_serde")]
    pub starved_wait: Duration,
}

impl Default for QueueConfig {
    fn default() -> Self {
        let settings = QueueSettings::default();
        let count = |count| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
        Self {
            len_max: NonZeroU32::new(settings.len_max).unwrap_or(NonZeroU32::MIN),
            throttling_fraction: settings.throttling_fraction,
            retention: settings.retention,
            retention_blackbox: settings.retention_blackbox,
            retention_durable: settings.retention_durable,
            delayed_max: NonZeroU32::new(settings.delayed_max).unwrap_or(NonZeroU32::MIN),
            stale_threshold: settings.stale_threshold,
            tick: settings.decision_interval,
            idle_after: settings.idle_after,
            takeover_wait_max: settings.takeover_wait_max,
            result_grace: settings.result_grace,
            result_keep: settings.result_keep,
            results_max: count(settings.results_max),
            dedup_max: count(settings.dedup_max),
            unconfirmed_max: count(settings.unconfirmed_max),
            lost_keep: settings.lost_keep,
            silent_after: settings.silent_after,
            answer_slack: settings.answer_slack,
            starved_wait: settings.starved_wait,
        }
    }
}

impl QueueConfig {
    /// Times outside of which a queue cannot work: shorter ones end everything before it can run or spin, longer ones
    /// are slips of a unit.
    ///
    /// # Errors
    /// Names the setting, its value and what it may be.
    fn check(&self) -> Result<(), ConfigError> {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        let (hour, day) = (s(60 * 60), s(24 * 60 * 60));
        let times = [
            ("queue.retention", self.retention, s(1)..=day),
            ("queue.retention-blackbox", self.retention_blackbox, s(1)..=day),
            ("queue.retention-durable", self.retention_durable, s(1)..=day * 14),
            ("queue.stale-threshold", self.stale_threshold, ms(1)..=s(60)),
            ("queue.tick", self.tick, ms(10)..=s(10)),
            ("queue.idle-after", self.idle_after, s(1)..=day),
            ("queue.takeover-wait-max", self.takeover_wait_max, s(0)..=s(60)),
            ("queue.result-grace", self.result_grace, ms(100)..=hour),
            ("queue.result-keep", self.result_keep, s(1)..=day),
            ("queue.lost-keep", self.lost_keep, s(1)..=day),
            ("queue.silent-after", self.silent_after, ms(100)..=hour),
            ("queue.answer-slack", self.answer_slack, ms(100)..=hour),
            ("queue.starved-wait", self.starved_wait, ms(10)..=s(60)),
        ];
        for (setting, value, range) in times {
            if !range.contains(&value) {
                let [value, min, max] = [value, *range.start(), *range.end()].map(format_duration);
                let reason = format!("{value} is outside the allowed {min} to {max}");
                return Err(ConfigError { setting, reason });
            }
        }
        Ok(())
    }

    /// The same as the queues take it.
    pub(crate) fn settings(&self, journal: &JournalConfig) -> QueueSettings {
        QueueSettings {
            retention_durable: self.retention_durable,
            delayed_max: self.delayed_max.get(),
            archive: journal.archive,
            len_max: self.len_max.get(),
            throttling_fraction: self.throttling_fraction,
            retention: self.retention,
            retention_blackbox: self.retention_blackbox,
            stale_threshold: self.stale_threshold,
            decision_interval: self.tick,
            idle_after: self.idle_after,
            takeover_wait_max: self.takeover_wait_max,
            result_grace: self.result_grace,
            result_keep: self.result_keep,
            results_max: self.results_max.get(),
            dedup_max: self.dedup_max.get(),
            unconfirmed_max: self.unconfirmed_max.get(),
            lost_keep: self.lost_keep,
            silent_after: self.silent_after,
            answer_slack: self.answer_slack,
            starved_wait: self.starved_wait,
            ..QueueSettings::default()
        }
    }
}

/// Creation of containers (`[scheduler.creation]`).
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CreationConfig {
    /// Time an invoker has until the container pulls; then the slot is given back. Default 20s.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// Times that a creation which failed by no fault of the action is tried again, elsewhere if possible. Default 5.
    pub retries_max: u32,
    /// Pause before the first of them; it doubles. Default 100ms.
    #[serde(with = "humantime_serde")]
    pub retry_pause: Duration,
    /// Multiplies the time of `deadline` for images that must be pulled. Default 15.
    pub blackbox_multiple: u32,
    /// How an invoker is chosen among those that may run a container and have the memory: `built-in` spreads over zones,
    /// then by chance; `least-loaded` takes the one with the largest part of its memory left. Default built-in.
    #[serde(deserialize_with = "policy")]
    pub placement: PlacementPolicy,
    /// Share of the untagged invokers that run managed kinds. Default 0.9.
    pub managed_fraction: f64,
    /// Share of the untagged invokers that run images of users. Default 0.1.
    pub blackbox_fraction: f64,
    /// Smallest container there is: an invoker with less memory left gets no more. Default 67108864 (64 MiB).
    pub memory_min: ByteSize,
    /// When invokers are passed over. Not in the file: its numbers depend on one another.
    #[serde(skip)]
    pub judge: JudgeSettings,
}

fn policy<'de, D: Deserializer<'de>>(from: D) -> Result<PlacementPolicy, D::Error> {
    String::deserialize(from)?
        .parse()
        .map_err(serde::de::Error::custom)
}

impl Default for CreationConfig {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(20),
            retries_max: 5,
            retry_pause: Duration::from_millis(100),
            blackbox_multiple: 15,
            placement: PlacementPolicy::BuiltIn,
            managed_fraction: 0.9,
            blackbox_fraction: 0.1,
            memory_min: ByteSize::mib(64),
            judge: JudgeSettings::default(),
        }
    }
}

/// What may be stored (`[scheduler.documents]`).
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DocumentsConfig {
    /// Largest code of an action in bytes. Default 50331648 (48 MiB).
    pub blob_len_max: ByteSize,
    /// Bytes of code per second that an upload may put into the log, so that it never delays keepalives.
    /// Default 33554432 (32 MiB).
    pub blob_rate: ByteSize,
    /// Smallest memory of an action in bytes. Default 67108864 (64 MiB).
    pub memory_min: ByteSize,
    /// Largest memory of an action in bytes. Default 2147483648 (2 GiB).
    pub memory_max: ByteSize,
    /// Shortest time limit of an action. Default 100ms.
    #[serde(with = "humantime_serde")]
    pub timeout_min: Duration,
    /// Longest time limit of an action. Default 10m.
    #[serde(with = "humantime_serde")]
    pub timeout_max: Duration,
    /// Most log bytes kept per activation. Default 10485760 (10 MiB).
    pub logs_max: ByteSize,
    /// Most activations that one container runs at once. Default 500.
    pub concurrency_max: NonZeroU32,
}

impl Default for DocumentsConfig {
    fn default() -> Self {
        Self {
            blob_len_max: ByteSize::mib(48),
            blob_rate: ByteSize::mib(32),
            memory_min: ByteSize::mib(64),
            memory_max: ByteSize::mib(2048),
            timeout_min: Duration::from_millis(100),
            timeout_max: Duration::from_secs(600),
            logs_max: ByteSize::mib(10),
            concurrency_max: NonZeroU32::new(500).unwrap_or(NonZeroU32::MIN),
        }
    }
}

/// Two settings contradict each other, or one is outside its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("scheduler.{setting}: {reason}")]
pub struct ConfigError {
    setting: &'static str,
    reason: String,
}

impl SchedulerConfig {
    /// Shards to run unless set: one per core but one, which is left to consensus and to whoever else is there.
    pub(crate) fn shards_len(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.shards
            .map_or_else(|| cores().saturating_sub(1).max(1), NonZeroUsize::get)
    }

    /// Checks what one setting alone cannot show.
    ///
    /// # Errors
    /// Names the setting and what it must be.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fail = |setting, reason| Err(ConfigError { setting, reason });
        let SessionConfig { ttl, keepalive } = self.session;
        if keepalive.is_zero() || keepalive * 3 > ttl {
            return fail(
                "session.keepalive",
                format!("{keepalive:?} must be above 0 and at most a third of ttl {ttl:?}"),
            );
        }
        self.queue.check()?;
        self.journal.check()?;
        if self.creation.deadline <= ttl {
            return fail(
                "creation.deadline",
                format!("must be longer than session.ttl {ttl:?}"),
            );
        }
        if self.creation.blackbox_multiple == 0 {
            return fail(
                "creation.blackbox-multiple",
                "must be at least 1; it multiplies the deadline for images that must be pulled".to_owned(),
            );
        }
        for (setting, value) in [
            ("queue.throttling-fraction", self.queue.throttling_fraction),
            ("creation.managed-fraction", self.creation.managed_fraction),
            ("creation.blackbox-fraction", self.creation.blackbox_fraction),
            ("balance.difference", self.balance.difference),
            ("balance.rate", self.balance.rate),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return fail(setting, format!("{value} must be between 0 and 1"));
            }
        }
        self.handoff.check()?;
        if self.documents.memory_min > self.documents.memory_max {
            return fail(
                "documents.memory-min",
                format!("must not be above memory-max {}", self.documents.memory_max),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_agree_with_each_other() {
        assert_eq!(SchedulerConfig::default().check(), Ok(()));
    }

    #[test]
    fn a_time_with_which_a_queue_cannot_work_is_refused_with_its_range() {
        let refused = |change: fn(&mut QueueConfig)| {
            let mut config = SchedulerConfig::default();
            change(&mut config.queue);
            config.check().unwrap_err().to_string()
        };
        assert_eq!(
            refused(|queue| queue.retention = Duration::from_millis(1)),
            "scheduler.queue.retention: 1ms is outside the allowed 1s to 1day"
        );
        assert_eq!(
            refused(|queue| queue.retention_blackbox = Duration::from_secs(86_401)),
            "scheduler.queue.retention-blackbox: 1day 1s is outside the allowed 1s to 1day"
        );
        type Time = fn(&mut QueueConfig) -> &mut Duration;
        let times: [(Time, &str); 9] = [
            (
                |queue| &mut queue.tick,
                "tick: 0s is outside the allowed 10ms to 10s",
            ),
            (|queue| &mut queue.stale_threshold, "stale-threshold: 0s is"),
            (|queue| &mut queue.idle_after, "idle-after: 0s is"),
            (|queue| &mut queue.result_grace, "result-grace: 0s is"),
            (|queue| &mut queue.result_keep, "result-keep: 0s is"),
            (|queue| &mut queue.lost_keep, "lost-keep: 0s is"),
            (|queue| &mut queue.silent_after, "silent-after: 0s is"),
            (|queue| &mut queue.answer_slack, "answer-slack: 0s is"),
            (|queue| &mut queue.starved_wait, "starved-wait: 0s is"),
        ];
        for (time, expected) in times {
            let mut config = SchedulerConfig::default();
            *time(&mut config.queue) = Duration::ZERO;
            let error = config.check().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("scheduler.queue.{expected}")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_keepalive_that_cannot_hold_the_session_is_refused() {
        let mut config = SchedulerConfig::default();
        config.session.keepalive = Duration::from_secs(1);
        let error = config.check().expect_err("one keepalive per ttl").to_string();
        assert!(
            error.starts_with("scheduler.session.keepalive: 1s must be"),
            "{error}"
        );
    }
}
