//! Settings of the invoker role (`[invoker]`).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use whiskraft_pool::PoolSettings;
use whiskraft_types::{ByteSize, InvokerId};

/// Settings of the invoker role (`[invoker]`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct InvokerConfig {
    /// Number of this invoker; no other live process may have it. Default 0.
    pub id: InvokerId,
    /// Client addresses (`host:port`) of one or more schedulers; the others are learned. Default `127.0.0.1:7401`.
    pub schedulers: Vec<String>,
    /// What actions may require of their host. Default none.
    pub tags: Vec<String>,
    /// Namespaces that this host works for alone; empty is any. Default none.
    pub dedicated_namespaces: Vec<String>,
    /// Where the host stands; containers of an action are spread over zones. Default empty.
    pub zone: String,
    /// Base URL of the REST API that actions see as `__OW_API_HOST`. Default empty: not set.
    pub api_host: String,
    /// Where `GET /metrics`, `/healthz` and `/ping` are served over HTTP. Default nowhere.
    pub metrics_listen: Option<String>,
    /// Memory for code that is kept to save fetching it again. Default 256 MiB.
    pub code_cache: ByteSize,
    /// Containers.
    pub pool: PoolConfig,
    /// Connections to schedulers.
    pub link: LinkConfig,
    /// Time that running activations get to finish when the invoker shuts down. Default 60s.
    #[serde(with = "humantime_serde")]
    pub shutdown_grace: Duration,
    /// Time to wait for the session of an earlier process with the same id to end, before giving up. Default 10s.
    #[serde(with = "humantime_serde")]
    pub held_grace: Duration,
    /// Time between two looks for schedulers that joined later. Default 60s.
    #[serde(with = "humantime_serde")]
    pub members_refresh: Duration,
    /// Time after which reports that no scheduler has acknowledged are sent again. Default 1s.
    #[serde(with = "humantime_serde")]
    pub report_repeat: Duration,
}

impl Default for InvokerConfig {
    fn default() -> Self {
        Self {
            id: InvokerId(0),
            schedulers: vec!["127.0.0.1:7401".to_owned()],
            tags: Vec::new(),
            dedicated_namespaces: Vec::new(),
            zone: String::new(),
            api_host: String::new(),
            metrics_listen: None,
            code_cache: ByteSize::mib(256),
            pool: PoolConfig::default(),
            link: LinkConfig::default(),
            shutdown_grace: Duration::from_secs(60),
            held_grace: Duration::from_secs(10),
            members_refresh: Duration::from_secs(60),
            report_repeat: Duration::from_secs(1),
        }
    }
}

/// Containers of an invoker (`[invoker.pool]`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PoolConfig {
    /// Memory that containers may take together, removing ones included. Default 2 GiB.
    pub memory: ByteSize,
    /// Idle time after which a container is paused and gives its slot back. Default 10s.
    #[serde(with = "humantime_serde")]
    pub pause_grace: Duration,
    /// Time a paused container is kept for reuse. Default 10m.
    #[serde(with = "humantime_serde")]
    pub keep: Duration,
    /// Bytes of unacknowledged results at which no container asks for more work. Default 32 MiB.
    pub results_bytes_max: ByteSize,
    /// Count of unacknowledged results at which no container asks for more work. Default 16384.
    pub results_len_max: usize,
    /// Shortest time between two memory reports that differ only in amounts. Default 1s.
    #[serde(with = "humantime_serde")]
    pub memory_report_interval: Duration,
    /// Time after which an unhealthy invoker is tried again; doubles while it stays unhealthy. Default 30s.
    #[serde(with = "humantime_serde")]
    pub health_retry: Duration,
    /// Wait before asking again after a leader refused a pull for a passing reason. Default 500ms.
    #[serde(with = "humantime_serde")]
    pub pull_retry: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        let settings = PoolSettings::default();
        Self {
            memory: settings.memory,
            pause_grace: settings.pause_grace,
            keep: settings.keep,
            results_bytes_max: settings.results_bytes_max,
            results_len_max: settings.results_len_max,
            memory_report_interval: settings.memory_report_interval,
            health_retry: settings.health_retry,
            pull_retry: settings.pull_retry,
        }
    }
}

impl From<&PoolConfig> for PoolSettings {
    fn from(config: &PoolConfig) -> Self {
        Self {
            memory: config.memory,
            pause_grace: config.pause_grace,
            keep: config.keep,
            results_bytes_max: config.results_bytes_max,
            results_len_max: config.results_len_max,
            memory_report_interval: config.memory_report_interval,
            health_retry: config.health_retry,
            pull_retry: config.pull_retry,
        }
    }
}

/// Connections to schedulers (`[invoker.link]`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LinkConfig {
    /// Longest wait for a connection or the answer to a call. Default 1s.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Pause between HTTP/2 pings on a connection. Default 300ms.
    #[serde(with = "humantime_serde")]
    pub ping_interval: Duration,
    /// Wait for the answer to a ping; with the pause before it a silent peer is noticed in under a second.
    /// Default 500ms.
    #[serde(with = "humantime_serde")]
    pub ping_timeout: Duration,
    /// First wait before trying a failed connection again; doubles, with jitter. Default 50ms.
    #[serde(with = "humantime_serde")]
    pub backoff_min: Duration,
    /// Longest such wait: a small part of a session's life, or one that lives could be over before the schedulers that came
    /// back are found. Default 500ms.
    #[serde(with = "humantime_serde")]
    pub backoff_max: Duration,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            ping_interval: Duration::from_millis(300),
            ping_timeout: Duration::from_millis(500),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_millis(500),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kebab_case_with_human_times_and_sizes() {
        let text = r#"{"id": 3, "schedulers": ["a:1"], "shutdown-grace": "5s", "pool": {"memory": "1GiB", "keep": "2m"}}"#;
        let config: InvokerConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.id, InvokerId(3));
        assert_eq!(config.shutdown_grace, Duration::from_secs(5));
        assert_eq!(config.pool.memory, ByteSize::mib(1024));
        assert_eq!(config.pool.keep, Duration::from_secs(120));
        assert_eq!(config.link, LinkConfig::default());
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert!(serde_json::from_str::<InvokerConfig>(r#"{"shedulers": []}"#).is_err());
        assert!(serde_json::from_str::<InvokerConfig>(r#"{"pool": {"memroy": 1}}"#).is_err());
    }
}
