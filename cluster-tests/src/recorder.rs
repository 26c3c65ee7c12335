//! What really ran: the test action appends one line per run to a file outside the cluster's directories.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use whiskraft_client::{ActionSpec, Client, Expect};
use whiskraft_types::{ActionLimits, ByteSize};

use crate::cluster::Cluster;

/// One run of the test action, as the action itself recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Activation id, from `__OW_ACTIVATION_ID`.
    pub id: String,
    /// The argument `n` of the call.
    pub n: u64,
    /// Pid of the function's process.
    pub pid: u32,
}

/// Reads the history file.
#[derive(Debug, Clone)]
pub struct Recorder {
    path: PathBuf,
}

impl Recorder {
    /// A history in this file.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Where the action writes.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Python source of the action that records: it appends one line in one write, sleeps `sleep_ms`, waits for the file
    /// `gate` if one is named, and answers with a value that only a run with this argument can know.
    #[must_use]
    pub fn action(&self) -> String {
        format!(
            "import os, time\n\
             def main(args):\n    \
                 line = '%s %d %d\\n' % (os.environ['__OW_ACTIVATION_ID'], args['n'], os.getpid())\n    \
                 out = os.open({path:?}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)\n    \
                 os.write(out, line.encode())\n    \
                 os.close(out)\n    \
                 time.sleep(args.get('sleep_ms', 0) / 1000)\n    \
                 while 'gate' in args and not os.path.exists(args['gate']):\n        \
                     time.sleep(0.01)\n    \
                 return {{'n': args['n'], 'square': args['n'] ** 2, 'id': os.environ['__OW_ACTIVATION_ID']}}\n",
            path = self.path.display().to_string(),
        )
    }

    /// Everything recorded so far, in order.
    #[must_use]
    pub fn runs(&self) -> Vec<Run> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        text.lines().filter_map(parse).collect()
    }

    /// Runs per activation id.
    #[must_use]
    pub fn runs_per_id(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for run in self.runs() {
            *count.entry(run.id).or_insert(0) += 1;
        }
        count
    }
}

impl Cluster {
    /// Stores the recording action as `guest/record`, with one container that runs one activation at a time.
    pub async fn put_recorder_alone(&self, client: &Client) {
        self.put_recorder_with(client, Some(1)).await;
    }

    /// Stores the recording action as `guest/record`.
    pub async fn put_recorder(&self, client: &Client) {
        self.put_recorder_with(client, None).await;
    }

    async fn put_recorder_with(&self, client: &Client, instances: Option<u32>) {
        let mut spec = ActionSpec::new(
            "guest/record".parse().expect("a valid name"),
            "python:3",
            self.recorder.action(),
        );
        spec.limits = ActionLimits {
            memory: ByteSize::mib(128),
            // A run may wait for a gate behind which much is prepared.
            timeout: Duration::from_secs(300),
            instances,
            ..ActionLimits::default()
        };
        client
            .put_action(&spec, Expect::Anything)
            .await
            .expect("the action is stored");
    }
}

fn parse(line: &str) -> Option<Run> {
    let mut words = line.split_whitespace();
    Some(Run {
        id: words.next()?.to_owned(),
        n: words.next()?.parse().ok()?,
        pid: words.next()?.parse().ok()?,
    })
}
