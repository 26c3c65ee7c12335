//! Settings of the process backend (`[invoker.process]`).

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use whiskraft_types::ByteSize;

/// How containers are run as child processes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProcessConfig {
    /// Directory under which each invoker has a directory of its own, and in that each container one. At most
    /// 60 bytes, because a socket's path may have no more than 108. Default: `whiskraft` in the temporary directory.
    pub root: PathBuf,
    /// Program, and its first arguments, that is the action proxy. Default: this executable with `runtime`.
    pub runtime: Vec<OsString>,
    /// Where interpreters are looked for, as in `PATH`. Default: the usual system directories.
    pub search_path: String,
    /// Processes and threads one container may have; more of them end it. Default 1024.
    pub processes_max: u32,
    /// Files one process may have open. Default 1024.
    pub files_max: u64,
    /// Largest result of an action, in bytes. Default 1 MiB.
    pub response_len_max: ByteSize,
    /// How much of a larger result is kept. Default 1 MiB.
    pub response_truncation: ByteSize,
    /// How often memory and number of processes of running containers are looked at. Default 100 ms.
    #[serde(with = "humantime_serde")]
    pub check_interval: Duration,
    /// Longest start of an action proxy. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub start_timeout: Duration,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            root: std::env::temp_dir().join("whiskraft"),
            runtime: Vec::new(),
            search_path: "/usr/local/bin:/usr/bin:/bin".to_owned(),
            processes_max: 1024,
            files_max: 1024,
            response_len_max: ByteSize::mib(1),
            response_truncation: ByteSize::mib(1),
            check_interval: Duration::from_millis(100),
            start_timeout: Duration::from_secs(10),
        }
    }
}
